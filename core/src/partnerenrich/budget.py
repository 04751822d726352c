"""The daily budget of an integration, counted in the store for all processes together."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

import attrs

from partnerenrich.governor import LocalDailyBudget
from partnerenrich.store import Store, bucket

if TYPE_CHECKING:
    from partnerenrich.configuration import Integration
    from partnerenrich.governor import DailyBudget

TWO_DAYS = 2 * 86_400


@attrs.frozen(eq=False)
class SharedDailyBudget:
    """A daily budget of all processes; of this one alone while the store is down."""

    name: str
    limit: int
    _store: Store
    _local: LocalDailyBudget

    async def take(self) -> bool:
        """See `partnerenrich.governor.DailyBudget.take`."""
        here = await self._local.take()
        key = f"{bucket(self.name)}:~calls:{self.name}:{datetime.now(UTC):%Y%m%d}"
        everywhere = await self._store.count(key, TWO_DAYS)
        return here if everywhere is None else everywhere <= self.limit


def daily_budget(integration: Integration, store: Store) -> DailyBudget | None:
    """The budget that an integration's limits ask for; None for no limit."""
    limit = integration.limits.calls_per_day
    if limit is None:
        return None
    return SharedDailyBudget(f"{integration.org}:{integration.name}", limit, store, LocalDailyBudget(limit))
