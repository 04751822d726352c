"""One round trip at a time, for all that gathered during the one before."""

import asyncio

import pytest

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
