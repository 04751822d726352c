"""Waiting for lookups: for all of them, woken once."""

import asyncio
import gc

import pytest

from partnerenrich.flights import landed


@pytest.fixture(name="new_flights")
def _new_flights():
    def new_flights(count):
        return [asyncio.get_running_loop().create_future() for _ in range(count)]

    return new_flights


@pytest.fixture(name="unreachable")
def _unreachable():
    """What of a module only the garbage collector finds, which rests until it is asked."""

    def unreachable(module):
        gc.set_debug(gc.DEBUG_SAVEALL)
        gc.collect()
        return [each for each in gc.garbage if getattr(each, "__module__", None) == module]

    gc.disable()
    yield unreachable
    gc.set_debug(0)
    gc.garbage.clear()
    gc.enable()


async def test_it_waits_until_the_last_has_landed_in_whatever_order(new_flights):
    flights = new_flights(3)
    waiting = asyncio.create_task(landed(flights))
    for flight in (flights[1], flights[0]):
        flight.set_result(None)
        await asyncio.sleep(0.001)
        assert not waiting.done()
    flights[2].cancel()
    await waiting


async def test_it_waits_no_longer_than_it_may_and_gives_none_up(new_flights):
    flights = new_flights(2)
    await landed(flights, 0.001)
    assert not any(flight.done() for flight in flights)
    for flight in flights:
        flight.set_result(None)
    await asyncio.sleep(0)


async def test_what_has_landed_is_not_waited_for(new_flights):
    flights = new_flights(2)
    for flight in flights:
        flight.set_result(None)
    await landed(flights)
    await landed([])


async def test_it_leaves_nothing_to_the_garbage_collector(new_flights, unreachable):
    flights = new_flights(2)
    waiting = asyncio.create_task(landed(flights))
    await asyncio.sleep(0)
    for flight in flights:
        flight.set_result(None)
    await waiting
    assert unreachable("partnerenrich.flights") == []
