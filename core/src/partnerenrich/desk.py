"""Long computations: one at a time, in portions between which the event loop sees to what has come in."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

T = TypeVar("T")

FEW: Final = 500
"""So many items are worked on in one go: a few milliseconds."""
PORTION: Final = 100
"""So many of more: about a millisecond."""


class Desk:
    """
    Where the large batches of a process are worked on.

    A partner's answer, or the rest of a request that did not go out at once, waits for a portion of a batch at most.
    And large batches do not share the time, so that what the first of them asks is out while the next is at work.
    """

    def __init__(self) -> None:
        self._lock = asyncio.Lock()

    async def work(self, items: Sequence[T], do: Callable[[Sequence[T]], object]) -> None:
        """
        Work on all items, in their order.

        Args:
            items: A few are done at once, before anybody else has a turn.
            do: Takes some of them.
        """
        if len(items) <= FEW:
            do(items)
            return
        async with self._lock:
            for start in range(0, len(items), PORTION):
                do(items[start : start + PORTION])
                await asyncio.sleep(0)
