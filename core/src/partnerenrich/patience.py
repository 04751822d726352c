"""Wait for a server for a while, in which time that this process was busy itself does not count."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final, TypeVar

if TYPE_CHECKING:
    from collections.abc import Awaitable

T = TypeVar("T")

SLICES: Final = 4
"""In how many parts the time is taken; up to four times as many pass where this process is busy."""


async def in_time(answer: Awaitable[T], seconds: float) -> T:
    """
    The answer of a server.

    The time is taken in slices, and one in which this process was busy itself is not held against the server: the
    answer may lie there unread. A timeout of the connection would throw it away, and take a server for dead that is
    not.

    Args:
        answer: Cancelled when it does not come in time.
        seconds: How long it may take.

    Raises:
        TimeoutError: It did not come.
    """
    async with asyncio.timeout(None) as limit:
        patience = _Patience(limit, seconds)
        try:
            return await answer
        finally:
            patience.end()


class _Patience:
    """Lets a limit expire when its slices have passed."""

    def __init__(self, limit: asyncio.Timeout, seconds: float) -> None:
        self._limit = limit
        self._length = seconds / SLICES
        self._slices = 0
        self._held_against = 0
        self._loop = asyncio.get_running_loop()
        self._begin_slice()

    def end(self) -> None:
        """Stop: the answer has come, or nobody waits for it."""
        self._timer.cancel()

    def _begin_slice(self) -> None:
        self._began = self._loop.time()
        self._timer = self._loop.call_later(self._length, self._end_slice)

    def _end_slice(self) -> None:
        now = self._loop.time()
        self._slices += 1
        self._held_against += now - self._began < 1.5 * self._length
        if self._held_against == SLICES or self._slices == 4 * SLICES:
            self._limit.reschedule(now)
        else:
            self._begin_slice()
