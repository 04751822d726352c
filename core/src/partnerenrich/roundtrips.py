"""Round trips that are shared: what gathers while they are on their way goes with the next."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

T = TypeVar("T")
R = TypeVar("R")


class RoundTrips(Generic[T, R]):
    """
    Takes items at any time and sends together what is there at one moment.

    Args:
        exchange: One round trip. Gives a reply to each item, in their order.
        lost: The reply to an item whose round trip came to nothing.
        at_once: Most that are on their way. With one, the order of all items is kept.
    """

    def __init__(
        self, exchange: Callable[[list[T]], Awaitable[Sequence[R]]], lost: Callable[[T], R], *, at_once: int = 1
    ) -> None:
        self._exchange = exchange
        self._lost = lost
        self._at_once = at_once
        self._gathered: list[tuple[T, asyncio.Future[R]]] = []
        self._senders: set[asyncio.Task[None]] = set()
        self._out = 0

    @property
    def is_out(self) -> bool:
        """Whether any round trip is on its way."""
        return self._out > 0

    def send(self, item: T) -> asyncio.Future[R]:
        """Send an item soon. Who waits for the reply may go before it comes."""
        loop = asyncio.get_running_loop()
        answered: asyncio.Future[R] = loop.create_future()
        self._gathered.append((item, answered))
        if len(self._gathered) == 1 and len(self._senders) < self._at_once:
            self._senders.add(loop.create_task(self._send()))
        return answered

    async def over(self) -> None:
        """Wait until all that was taken has its reply."""
        await asyncio.gather(*self._senders)

    async def _send(self) -> None:
        try:
            while self._gathered:
                await asyncio.sleep(0)  # what is wanted at the same moment comes along
                gathered, self._gathered = self._gathered, []
                if gathered:
                    await self._settle(gathered)
        finally:
            self._senders.discard(asyncio.current_task())
            if not self._senders:  # any that are left came during a round trip that failed
                left, self._gathered = self._gathered, []
                _answer(left, [self._lost(item) for item, _ in left])

    async def _settle(self, gathered: Sequence[tuple[T, asyncio.Future[R]]]) -> None:
        items = [item for item, _ in gathered]
        replies: Sequence[R] | None = None
        self._out += 1
        try:
            replies = await self._exchange(items)
        finally:  # also when it is cancelled
            self._out -= 1
            _answer(gathered, [self._lost(item) for item in items] if replies is None else replies)


def _answer(gathered: Sequence[tuple[T, asyncio.Future[R]]], replies: Sequence[R]) -> None:
    for (_, answered), reply in zip(gathered, replies):
        if not answered.done():
            answered.set_result(reply)
