"""What every asker of one integration's partner has: a governor, a client, and each question under way but once."""

from __future__ import annotations

import asyncio
from functools import cached_property
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from partnerenrich import http
from partnerenrich.governor import Governor

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Coroutine, Iterable

    import httpx

    from partnerenrich.configuration import Integration
    from partnerenrich.governor import DailyBudget

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


class PartnerCalls(Generic[R]):
    """
    The calls of one integration.

    Args:
        integration: Whom to ask, and how much.
        daily_budget: Counts the calls of a day; None for no limit.
    """

    def __init__(self, integration: Integration, daily_budget: DailyBudget | None) -> None:
        self.integration = integration
        self.governor = Governor(integration, budget=daily_budget)
        self._flights: dict[str, asyncio.Future[R]] = {}

    @cached_property
    def _http(self) -> httpx.AsyncClient:
        return http.open_client(self.integration.limits, allowed_hosts=http.hosts_of(self.integration.config))

    @property
    def under_way(self) -> Collection[asyncio.Future[R]]:
        """The questions that nobody has answered yet."""
        return self._flights.values()

    async def close(self) -> None:
        """End what is under way and disconnect."""
        flights = list(self._flights.values())
        for flight in flights:
            flight.cancel()
        await asyncio.gather(*flights, return_exceptions=True)
        if "_http" in self.__dict__:
            await self._http.aclose()

    def _fly(self, key: str, work: Callable[[], Coroutine[Any, Any, R]]) -> asyncio.Future[R]:
        """Start this work, or join it when it is under way."""
        flight = self._flights.get(key)
        if flight is None:
            flight = asyncio.get_running_loop().create_task(work())
            self._flights[key] = flight
            flight.add_done_callback(lambda _: self._flights.pop(key, None))
        return flight
