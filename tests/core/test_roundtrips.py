"""Round trips that are shared by all that gathers."""

import asyncio
import itertools

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

    round_trips = RoundTrips(exchange)
    first = round_trips.send(1)
    await begun.wait()
    rest = [round_trips.send(item) for item in (2, 3)]
    gate.set()
    assert await asyncio.gather(first, *rest) == [2, 4, 6]
    assert trips == [[1], [2, 3]]


async def test_who_has_gone_takes_no_reply_from_others():
    async def exchange(items):
        return items

    round_trips = RoundTrips(exchange)
    gone, there = round_trips.send(1), round_trips.send(2)
    gone.cancel()
    assert await there == 2
    await round_trips.over()


async def test_what_a_round_trip_raises_is_raised_to_all_of_it_and_to_no_other():
    begun, gate = asyncio.Event(), asyncio.Event()

    async def exchange(items):
        begun.set()
        await gate.wait()
        if 1 in items:
            raise LookupError
        return items

    round_trips = RoundTrips(exchange)
    lost = [round_trips.send(item) for item in (1, 2)]
    await begun.wait()
    later = round_trips.send(3)
    gate.set()
    assert [type(reply) for reply in await asyncio.gather(*lost, return_exceptions=True)] == [LookupError] * 2
    assert await later == 3
    await round_trips.over()


async def test_who_waits_for_what_is_on_its_way_waits_for_nothing_else():
    gates = [asyncio.Event(), asyncio.Event()]
    begun = [asyncio.Event(), asyncio.Event()]

    async def exchange(items):
        [number] = items
        begun[number].set()
        await gates[number].wait()
        return items

    round_trips = RoundTrips(exchange)
    await round_trips.landed()
    first = round_trips.send(0)
    await begun[0].wait()
    landed = asyncio.create_task(round_trips.landed())
    await asyncio.sleep(0)
    second = round_trips.send(1)
    gates[0].set()
    await begun[1].wait()
    await asyncio.wait_for(landed, 1)
    assert first.done()
    assert not second.done()
    gates[1].set()
    await round_trips.over()
    assert second.done()


async def test_as_many_are_on_their_way_as_may_be_and_the_rest_goes_together():
    trips, begun, gate = [], asyncio.Semaphore(0), asyncio.Event()

    async def exchange(items):
        trips.append(items)
        begun.release()
        await gate.wait()
        return items

    round_trips = RoundTrips(exchange, at_once=2)
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


@given(
    st.lists(st.integers(0, 3), max_size=40),
    st.integers(1, 3),
    st.sets(st.integers(0, 10)),
    st.sets(st.integers(0, 10)),
)
async def test_nobody_waits_for_ever_whatever_fails_or_is_cancelled(pauses, at_once, failing, cancelled):
    trips = itertools.count()

    async def exchange(items):
        number = next(trips)
        for _ in range(number % 4):
            await asyncio.sleep(0)
        assert items
        if number in failing:
            raise LookupError
        return items

    round_trips = RoundTrips(exchange, at_once=at_once)
    sent = []
    for number, pause in enumerate(pauses):
        sent.append(round_trips.send(number))
        if number in cancelled:
            for sender in round_trips._senders:
                sender.cancel()
        for _ in range(pause):
            await asyncio.sleep(0)
    replies = await asyncio.wait_for(asyncio.gather(*sent, return_exceptions=True), 5)
    await asyncio.wait_for(round_trips.over(), 5)
    assert all(
        reply == number or isinstance(reply, LookupError | asyncio.CancelledError)
        for number, reply in enumerate(replies)
    )
    assert failing or cancelled or replies == list(range(len(pauses)))
