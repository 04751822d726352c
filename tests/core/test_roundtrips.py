"""Round trips that are shared by all that gathers."""

import asyncio
import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from partnerenrich.roundtrips import RoundTrips


async def test_what_gathers_during_a_round_trip_goes_with_the_next_in_its_order():
    trips, begun, gate = [], asyncio.Event(), asyncio.Event()

    async def exchange(items):
        trips.append(items)
        begun.set()
        await gate.wait()
        return [2 * item for item in items]

    round_trips = RoundTrips(exchange, lambda _: None)
    first = round_trips.send(1)
    await begun.wait()
    rest = [round_trips.send(item) for item in (2, 3)]
    gate.set()
    assert await asyncio.gather(first, *rest) == [2, 4, 6]
    assert trips == [[1], [2, 3]]


async def test_who_has_gone_takes_no_reply_from_others():
    async def exchange(items):
        return items

    round_trips = RoundTrips(exchange, lambda _: None)
    gone, there = round_trips.send(1), round_trips.send(2)
    gone.cancel()
    assert await there == 2
    await round_trips.over()


async def test_items_of_a_round_trip_that_came_to_nothing_are_told_so():
    async def exchange(items):
        raise LookupError

    round_trips = RoundTrips(exchange, lambda item: f"lost {item}")
    lost = [round_trips.send(item) for item in (1, 2)]
    with pytest.raises(LookupError):
        await round_trips.over()
    assert [await each for each in lost] == ["lost 1", "lost 2"]


async def test_who_came_during_a_round_trip_that_failed_is_told_so():
    begun, gate = asyncio.Event(), asyncio.Event()

    async def exchange(items):
        begun.set()
        await gate.wait()
        raise LookupError

    round_trips = RoundTrips(exchange, lambda item: f"lost {item}")
    first = round_trips.send(1)
    await begun.wait()
    later = round_trips.send(2)
    gate.set()
    assert await asyncio.wait_for(asyncio.gather(first, later), 1) == ["lost 1", "lost 2"]


async def test_as_many_are_on_their_way_as_may_be_and_the_rest_goes_together():
    trips, begun, gate = [], asyncio.Semaphore(0), asyncio.Event()

    async def exchange(items):
        trips.append(items)
        begun.release()
        await gate.wait()
        return items

    round_trips = RoundTrips(exchange, lambda _: None, at_once=2)
    sent = []
    for number in range(6):
        sent.append(round_trips.send(number))
        if number < 2:
            await begun.acquire()
    assert round_trips.is_out
    gate.set()
    assert await asyncio.gather(*sent) == list(range(6))
    assert trips == [[0], [1], [2, 3, 4, 5]]
    await round_trips.over()
    assert not round_trips.is_out


@given(st.lists(st.integers(0, 3), max_size=40), st.integers(1, 3), st.sets(st.integers(0, 10)))
async def test_everybody_has_a_reply_whatever_fails(pauses, at_once, failing):
    trips = itertools.count()

    async def exchange(items):
        number = next(trips)
        for _ in range(number % 4):
            await asyncio.sleep(0)
        assert items
        if number in failing:
            raise LookupError
        return items

    round_trips = RoundTrips(exchange, lambda _: None, at_once=at_once)
    asyncio.get_running_loop().set_exception_handler(lambda *_: None)
    sent = []
    for number, pause in enumerate(pauses):
        sent.append(round_trips.send(number))
        for _ in range(pause):
            await asyncio.sleep(0)
    replies = await asyncio.wait_for(asyncio.gather(*sent), 5)
    assert all(reply in {number, None} for number, reply in enumerate(replies))
    assert failing or replies == list(range(len(pauses)))
