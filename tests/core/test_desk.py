import asyncio
import itertools

import pytest

from partnerenrich.desk import FEW, PORTION, Desk

MANY = 3 * FEW + 1


async def test_a_few_are_done_in_one_go():
    done = []
    await Desk().work(range(FEW), done.append)
    assert done == [range(FEW)]


async def test_many_are_done_in_portions_in_their_order():
    done = []
    await Desk().work(range(MANY), done.append)
    assert [item for portion in done for item in portion] == list(range(MANY))
    assert max(map(len, done)) == PORTION


async def test_others_have_a_turn_between_portions():
    turns = []

    async def other():
        while True:
            turns.append("other")
            await asyncio.sleep(0)

    task = asyncio.create_task(other())
    await Desk().work(range(MANY), lambda _: turns.append("portion"))
    task.cancel()
    assert all(pair != ("portion", "portion") for pair in itertools.pairwise(turns))


async def test_large_batches_are_done_one_after_the_other_and_small_ones_meanwhile():
    desk, done = Desk(), []
    batches = [("first", MANY), ("second", MANY), ("small", 1)]
    await asyncio.gather(*(desk.work([name] * size, lambda some: done.extend(set(some))) for name, size in batches))
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

    broken = asyncio.create_task(desk.work(range(MANY), fail if first == "fails" else list))
    behind = asyncio.create_task(desk.work(range(MANY), done.extend))
    await asyncio.sleep(0)
    broken.cancel()
    await behind
    assert done == list(range(MANY))
    assert isinstance((await asyncio.gather(broken, return_exceptions=True))[0], (ValueError, asyncio.CancelledError))
