"""Batches that overlap: they wait for the store together, and are planned in the order in which they came."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


class Turn:
    """
    The turn of one batch. Every turn must end, taken or not.

    Args:
        before: Ends when the turns of all earlier batches are over; None when they are.
    """

    def __init__(self, before: asyncio.Future[None] | None) -> None:
        self._before = before
        self.over: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def comes(self) -> None:
        """Wait for the end of all earlier turns."""
        if self._before is not None and not self._before.done():
            await asyncio.wait((self._before,))

    def end(self) -> None:
        """Let the next one come."""
        before, self._before = self._before, None
        if before is None or before.done():
            self.over.set_result(None)
        else:  # given up before it came
            before.add_done_callback(lambda _: self.over.set_result(None))


class Turns:
    """Gives turns to batches."""

    def __init__(self) -> None:
        self._last: asyncio.Future[None] | None = None

    def take(self) -> Turn:
        """The next turn."""
        turn = Turn(self._awaited())
        self._last = turn.over
        return turn

    def when_all_over(self, do: Callable[[], object]) -> None:
        """Do something at the end of all turns that were taken until now, which nobody waits for."""
        last = self._awaited()
        if last is None:
            do()
        else:
            last.add_done_callback(lambda _: do())

    async def all_over(self) -> None:
        """Wait for the end of all turns that were taken until now."""
        if (last := self._awaited()) is not None:
            await asyncio.wait((last,))

    def _awaited(self) -> asyncio.Future[None] | None:
        """The end of the last turn that was taken; None when it is over, and so all are."""
        return None if self._last is None or self._last.done() else self._last
