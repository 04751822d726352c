"""Round trips that are shared: what gathers while they are on their way goes with the next."""

from __future__ import annotations

import asyncio
import itertools
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

T = TypeVar("T")
R = TypeVar("R")


class RoundTrips(Generic[T, R]):
    """
    Takes items at any time and sends together what is there at one moment.

    Args:
        exchange: One round trip. Gives a reply to each item, in their order. What it raises is raised to all who wait.
        at_once: Most that are on their way. With one, the order of all items is kept.
    """

    def __init__(self, exchange: Callable[[list[T]], Awaitable[Sequence[R]]], *, at_once: int = 1) -> None:
        self._exchange = exchange
        self._at_once = at_once
        self._gathered: list[tuple[T, asyncio.Future[R]]] = []
        self._senders: set[asyncio.Task[None]] = set()
        self._out: set[asyncio.Future[None]] = set()

    @property
    def is_out(self) -> bool:
        """Whether any round trip is on its way."""
        return bool(self._out)

    def send(self, item: T) -> asyncio.Future[R]:
        """Send an item soon. Who waits for the reply may go before it comes."""
        answered: asyncio.Future[R] = asyncio.get_running_loop().create_future()
        self._gathered.append((item, answered))
        if len(self._gathered) == 1:
            self._start()
        return answered

    async def landed(self) -> None:
        """Wait for the end of the round trips that are on their way now."""
        if self._out:
            await asyncio.wait(list(self._out))

    async def over(self) -> None:
        """Wait until all that was taken has its reply."""
        while self._senders:
            await asyncio.wait(list(self._senders))

    def _start(self) -> None:
        if len(self._senders) < self._at_once:
            sender = asyncio.get_running_loop().create_task(self._send())
            self._senders.add(sender)
            sender.add_done_callback(self._ended)

    def _ended(self, sender: asyncio.Task[None]) -> None:
        self._senders.discard(sender)
        if self._gathered:  # it was cancelled, or they came a moment ago
            self._start()

    async def _send(self) -> None:
        while self._gathered:
            await asyncio.sleep(0)  # what is wanted at the same moment comes along
            gathered, self._gathered = self._gathered, []
            if gathered:
                await self._settle(gathered)

    async def _settle(self, gathered: Sequence[tuple[T, asyncio.Future[R]]]) -> None:
        landing = asyncio.get_running_loop().create_future()
        self._out.add(landing)
        try:
            replies = await self._exchange([item for item, _ in gathered])
            for (_, answered), reply in zip(gathered, replies):
                if not answered.done():
                    answered.set_result(reply)
        except Exception as error:  # noqa: BLE001 - told to all who wait
            for _, answered in gathered:
                if not answered.done():
                    answered.set_exception(error)
        finally:
            for _, answered in gathered:
                answered.cancel()  # nobody waits for what will never come
            self._out.discard(landing)
            landing.set_result(None)


async def joined(exchange: Callable[[list[T]], Awaitable[Sequence[R]]], lists: Sequence[Sequence[T]]) -> list[list[R]]:
    """One exchange for what many lists hold. To each the replies to its own; none to the last when there are fewer."""
    replies = iter(await exchange([item for each in lists for item in each]))
    return [list(itertools.islice(replies, len(each))) for each in lists]
