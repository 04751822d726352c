"""Claims of this process, prolonged while it works."""

import asyncio
import time

import pytest

from partnerenrich.leases import Leases
from partnerenrich.store import CLAIM, Store

LIFE = 400


@pytest.fixture(name="store")
async def _store(server):
    store = Store("redis://unused", command_seconds=1)
    yield store
    await store.close()


@pytest.fixture(name="leases")
async def _leases(store):
    leases = Leases(store, LIFE)
    yield leases
    leases.close()


async def claim(store, leases, key, seconds=10.0):
    granted, _ = await store.lease((key, LIFE, key))
    if granted:
        leases.hold(key, time.monotonic() + seconds)
    return granted


async def test_a_lease_lasts_as_long_as_it_is_held(store, leases, redis):
    assert await claim(store, leases, "a")
    await asyncio.sleep(3 * LIFE / 1000)
    assert await redis.exists("a")
    leases.drop("a")
    await asyncio.sleep(2 * LIFE / 1000)
    assert not await redis.exists("a")


async def test_a_lease_that_is_released_ends_at_once(store, leases, redis):
    assert await claim(store, leases, "a")
    leases.release("a")
    await store.flush()
    assert not await redis.exists("a")


async def test_a_lease_is_prolonged_for_as_long_as_its_work_may_wait_to_begin(store, leases, redis):
    assert await claim(store, leases, "a", seconds=0.01)
    await asyncio.sleep(2 * LIFE / 1000)
    assert not await redis.exists("a")


async def test_what_another_process_put_in_the_place_of_a_lease_stays_as_it_is(store, leases, redis):
    for value in ("answer", CLAIM + b"another"):
        await redis.delete("a")
        assert await claim(store, leases, "a")
        await redis.set("a", value, px=60_000)
        await asyncio.sleep(LIFE / 1000)
        assert await redis.pttl("a") > 50_000
        leases.release("a")
        await store.flush()
        assert await redis.exists("a")


async def test_what_is_still_held_at_the_end_is_released(store, leases, redis):
    assert await claim(store, leases, "a")
    leases.close()
    await store.flush()
    assert not await redis.exists("a")


async def test_what_was_never_held_is_not_released(store, leases, redis):
    await redis.set("a", "answer")
    leases.release("a")
    await store.flush()
    assert await redis.exists("a")
