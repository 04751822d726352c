"""Long computations: one at a time, in portions between which the event loop sees to what has come in."""

from __future__ import annotations

import asyncio
import heapq
from itertools import count
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
    And large batches do not share the time: the one that came first goes first at every step, so that what it asks is
    out, and its events leave, while the next is at work.
    """

    def __init__(self) -> None:
        self._numbers = count()
        self._is_taken = False
        self._waiting: list[tuple[int, asyncio.Future[None]]] = []

    def place(self) -> Place:
        """A batch's place in the order."""
        return Place(self, next(self._numbers))

    async def take(self, number: int) -> None:
        """Wait for the desk; of those who wait, the lowest number gets it. Who has it must `leave` it."""
        if not self._is_taken:
            self._is_taken = True
            return
        free = asyncio.get_running_loop().create_future()
        heapq.heappush(self._waiting, (number, free))
        try:
            await free
        except asyncio.CancelledError:
            if not free.cancelled():  # it was ours at the same moment
                self.leave()
            raise

    def leave(self) -> None:
        """Let the next one have it."""
        while self._waiting:
            _, free = heapq.heappop(self._waiting)
            if not free.done():
                free.set_result(None)
                return
        self._is_taken = False


class Place:
    """
    The place of one batch, which does one thing after the other.

    Args:
        desk: Where it is.
        number: Lower ones go first.
    """

    def __init__(self, desk: Desk, number: int) -> None:
        self._desk = desk
        self._number = number

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
        await self._desk.take(self._number)
        try:
            await in_portions(items, do)
        finally:
            self._desk.leave()


async def in_portions(items: Sequence[T], do: Callable[[Sequence[T]], object]) -> None:
    """Work on all items, in their order, and let others have a turn after every portion."""
    for start in range(0, len(items), PORTION):
        do(items[start : start + PORTION])
        await asyncio.sleep(0)
