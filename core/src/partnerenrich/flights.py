"""Wait for what is under way."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

R = TypeVar("R")


async def off() -> None:
    """Let the event loop send what was started just now, before the next long computation takes its time."""
    for _ in range(4):
        await asyncio.sleep(0)


async def landed(flights: Collection[asyncio.Future[R]], seconds: float | None = None) -> None:
    """Wait until all have come to their end, no longer than so many seconds if any are given."""
    landing = _Landing(flights)
    landing.wait_for_next()
    await asyncio.wait({landing.over}, timeout=seconds)


class _Landing:
    """
    Waits for one flight at a time: thousands that end together wake nobody but once. `asyncio.wait` asks each to.

    A function inside of another could do it, but would hold itself, which only the garbage collector mends.
    """

    def __init__(self, flights: Iterable[asyncio.Future[Any]]) -> None:
        self._rest = iter(flights)
        self.over: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def wait_for_next(self, _: asyncio.Future[Any] | None = None) -> None:
        for flight in self._rest:
            if not flight.done():
                flight.add_done_callback(self.wait_for_next)
                return
        if not self.over.done():
            self.over.set_result(None)
