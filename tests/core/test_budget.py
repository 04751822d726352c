"""The daily budget: one for all processes, and this process's own share of caution while the store is away."""

import pytest

from partnerenrich.budget import SharedDailyBudget
from partnerenrich.governor import LocalDailyBudget
from partnerenrich.store import Store


@pytest.fixture(name="budget")
def _budget(redis):
    return lambda limit: SharedDailyBudget(
        "acme:toy", limit, Store("redis://here", command_seconds=1), LocalDailyBudget(limit)
    )


async def test_two_processes_share_one_budget(budget):
    here, there = budget(5), budget(5)
    taken = [await one.take() for one in (here, there) * 4]
    assert taken == [True] * 5 + [False] * 3


async def test_the_counter_is_of_one_day_and_goes_away_by_itself(budget, redis):
    await budget(5).take()
    (key,) = await redis.keys("*")
    assert 86_400 < await redis.ttl(key) <= 2 * 86_400


async def test_each_process_has_its_own_budget_while_the_store_is_down(budget, monkeypatch):
    monkeypatch.setattr(Store, "down", property(lambda _: True))
    here = budget(2)
    assert [await here.take() for _ in range(3)] == [True, True, False]
