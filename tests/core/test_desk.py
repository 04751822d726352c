import asyncio
import itertools

import pytest

from partnerenrich.desk import FEW, PORTION, Desk

MANY = 3 * FEW + 1


async def test_a_few_are_done_in_one_go():
    done = []
    await Desk().place().work(range(FEW), done.append)
    assert done == [range(FEW)]


async def test_many_are_done_in_portions_in_their_order():
    done = []
    await Desk().place().work(range(MANY), done.append)
    assert [item for portion in done for item in portion] == list(range(MANY))
    assert max(map(len, done)) == PORTION


async def test_others_have_a_turn_between_portions():
    turns = []

    async def other():
        while True:
            turns.append("other")
            await asyncio.sleep(0)

    task = asyncio.create_task(other())
    await Desk().place().work(range(MANY), lambda _: turns.append("portion"))
    task.cancel()
    assert all(pair != ("portion", "portion") for pair in itertools.pairwise(turns))


async def test_large_batches_are_done_one_after_the_other_and_small_ones_meanwhile():
    desk, done = Desk(), []
    batches = [("first", MANY), ("second", MANY), ("small", 1)]
    await asyncio.gather(
        *(desk.place().work([name] * size, lambda some: done.extend(set(some))) for name, size in batches)
    )
    assert [name for name, next_one in zip(done, [*done[1:], None]) if name != next_one] == [
        "first",
        "small",
        "first",
        "second",
    ]


@pytest.mark.parametrize("first", ["is given up", "fails"])
async def test_one_that_does_not_come_to_its_end_makes_room(first):
    desk, done = Desk(), []

    def fail(_):
        raise ValueError

    broken = asyncio.create_task(desk.place().work(range(MANY), fail if first == "fails" else list))
    behind = asyncio.create_task(desk.place().work(range(MANY), done.extend))
    await asyncio.sleep(0)
    broken.cancel()
    await behind
    assert done == list(range(MANY))
    assert isinstance((await asyncio.gather(broken, return_exceptions=True))[0], (ValueError, asyncio.CancelledError))


async def test_of_those_who_wait_the_one_that_came_first_goes_first():
    desk, done = Desk(), []
    first, second, third = (desk.place() for _ in range(3))

    async def work(place, name):
        await place.work(range(MANY), lambda _: done.append(name))

    async def steps(place, name):
        await work(place, f"{name}, one")
        await work(place, f"{name}, two")

    await asyncio.gather(steps(third, "third"), steps(second, "second"), steps(first, "first"))
    assert list(dict.fromkeys(done)) == [
        "third, one",
        "first, one",
        "second, one",
        "first, two",
        "second, two",
        "third, two",
    ]


async def test_one_that_is_given_up_when_its_turn_comes_makes_room():
    desk, done = Desk(), []
    first, second, third = (desk.place() for _ in range(3))

    def end_of_first(portion):
        if portion[-1] == MANY - 1:
            asyncio.get_running_loop().call_soon(asyncio.get_running_loop().call_soon, giving_up.cancel)

    at_work = asyncio.create_task(first.work(range(MANY), end_of_first))
    giving_up = asyncio.create_task(second.work(range(MANY), done.extend))
    behind = asyncio.create_task(third.work(range(MANY), done.extend))
    await asyncio.wait_for(asyncio.gather(at_work, giving_up, behind, return_exceptions=True), 5)
    assert giving_up.cancelled()
    assert done == list(range(MANY))
