"""What every asker of one integration's partner has: a governor, a client, and each question under way but once."""

from __future__ import annotations

import asyncio
from functools import cached_property
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from partnerenrich import http
from partnerenrich.governor import Governor

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Coroutine

    import httpx

    from partnerenrich.configuration import Integration
    from partnerenrich.governor import DailyBudget

R = TypeVar("R")


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
