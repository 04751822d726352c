"""One round trip at a time: what gathers meanwhile goes with the next, so that the order is kept."""

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
    """

    def __init__(self, exchange: Callable[[list[T]], Awaitable[Sequence[R]]], lost: Callable[[T], R]) -> None:
        self._exchange = exchange
        self._lost = lost
        self._gathered: list[tuple[T, asyncio.Future[R]]] = []
        self._sender: asyncio.Task[None] | None = None

    def send(self, item: T) -> asyncio.Future[R]:
        """Send an item soon. Who waits for the reply may go before it comes."""
        loop = asyncio.get_running_loop()
        answered: asyncio.Future[R] = loop.create_future()
        self._gathered.append((item, answered))
        if self._sender is None:
            self._sender = loop.create_task(self._send())
        return answered

    @property
    def under_way(self) -> bool:
        """Whether anything that was taken has no reply yet."""
        return self._sender is not None

    async def over(self) -> None:
        """Wait until all that was taken has its reply."""
        if self._sender is not None:
            await self._sender

    async def _send(self) -> None:
        try:
            while self._gathered:
                await asyncio.sleep(0)  # what is wanted at the same moment comes along
                gathered, self._gathered = self._gathered, []
                await self._settle(gathered)
        finally:
            self._sender = None

    async def _settle(self, gathered: Sequence[tuple[T, asyncio.Future[R]]]) -> None:
        items = [item for item, _ in gathered]
        replies: Sequence[R] | None = None
        try:
            replies = await self._exchange(items)
        finally:  # also when it is cancelled
            for (_, answered), reply in zip(gathered, map(self._lost, items) if replies is None else replies):
                if not answered.done():
                    answered.set_result(reply)
