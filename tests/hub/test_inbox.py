"""Accepted events: bounded, in order, in batches, and finished at the end."""

import asyncio

import pytest

from partnerenrich.configuration import Batching
from partnerenrich_server.hub.inbox import BYTES, Inbox, InboxFull


class Recorder:
    """Takes batches, and holds them until `go` is set."""

    def __init__(self):
        self.batches = []
        self.go = asyncio.Event()
        self.failure = None
        self.left = ()
        self.tells_at_once = False

    async def __call__(self, events, tell):
        self.batches.append(list(events))
        if self.tells_at_once:
            tell(self.left)
        await self.go.wait()
        if self.failure:
            raise self.failure
        tell(self.left)


@pytest.fixture(name="recorder")
def _recorder():
    return Recorder()


def inbox(recorder, capacity=100, **batching):
    return Inbox(recorder, Batching(**{"linger_ms": 0, **batching}), capacity)


async def test_events_are_taken_in_their_order_in_batches(recorder):
    recorder.go.set()
    async with inbox(recorder, size=3, in_flight=1).open(drain_seconds=20) as box:
        for number in range(7):
            box.put([number], 1)

    assert recorder.batches == [[0, 1, 2], [3, 4, 5], [6]]


async def test_a_batch_waits_for_company(recorder):
    recorder.go.set()
    async with inbox(recorder, linger_ms=50).open(drain_seconds=20) as box:
        first = box.put(["a"], 1)
        await asyncio.sleep(0.01)
        await asyncio.gather(first, box.put(["b"], 1))

    assert recorder.batches == [["a", "b"]]


async def test_only_so_many_batches_are_under_way(recorder, until):
    async with inbox(recorder, size=1, in_flight=2).open(drain_seconds=20) as box:
        for number in range(5):
            box.put([number], 1)
        await until(lambda: len(recorder.batches) == 2)
        await asyncio.sleep(0.05)
        held = len(recorder.batches)
        recorder.go.set()

    assert (held, len(recorder.batches)) == (2, 5)


@pytest.mark.parametrize(("events", "size"), [(5, 1), (1, BYTES)])
async def test_what_is_too_much_is_refused_until_there_is_room(recorder, events, size):
    async with inbox(recorder, capacity=5).open(drain_seconds=20) as box:
        done = box.put(["x"], 1)
        with pytest.raises(InboxFull):
            box.put(["y"] * events, size)
        recorder.go.set()
        await done

        box.put(["y"] * events, size)

    assert box.events == 0


async def test_who_waits_is_told_whether_all_of_its_events_were_handed_on(recorder):
    recorder.go.set()
    recorder.left = ["b"]
    async with inbox(recorder, linger_ms=5).open(drain_seconds=20) as box:
        told = await asyncio.gather(*(box.put(events, 1) for events in (["a"], ["a", "b"], ["c"])))
        recorder.failure = RuntimeError()
        told.append(await box.put(["d"], 1))

    assert recorder.batches == [["a", "a", "b", "c"], ["d"]]
    assert told == [True, False, True, False]


async def test_who_waits_is_told_before_the_rest_is_done_which_keeps_its_place(recorder, until):
    recorder.tells_at_once = True
    recorder.left = ["b"]
    async with inbox(recorder, capacity=3, size=2, in_flight=1, linger_ms=5).open(drain_seconds=20) as box:
        told = await asyncio.wait_for(asyncio.gather(box.put(["a"], 1), box.put(["b"], 1)), 20)
        under_way = box.events
        later = box.put(["c"], 1)
        with pytest.raises(InboxFull):
            box.put(["d"], 1)
        await asyncio.sleep(0.02)
        begun = len(recorder.batches)
        asyncio.get_running_loop().call_later(0.1, recorder.go.set)

    assert (told, under_way, begun, later.result()) == ([True, False], 2, 1, True)


async def test_the_end_waits_for_what_is_done_after_the_answer(recorder):
    recorder.tells_at_once = True
    async with inbox(recorder).open(drain_seconds=20) as box:
        await asyncio.wait_for(box.put(["a"], 1), 20)
        asyncio.get_running_loop().call_later(0.1, recorder.go.set)

    assert recorder.go.is_set()
    assert box.events == 0


async def test_a_failure_after_the_answer_is_counted_and_changes_no_answer(recorder, log_lines):
    recorder.tells_at_once = True
    recorder.failure = RuntimeError("a value of the visitor")
    recorder.go.set()
    async with inbox(recorder).open(drain_seconds=20) as box:
        assert await box.put(["a", "b"], 1)

    assert (box.failed, box.events) == (2, 0)
    assert "RuntimeError at test_inbox.py" in log_lines[0]
    assert "value of the visitor" not in "".join(log_lines)


async def test_what_was_given_up_before_its_turn_is_left_out(recorder, until):
    async with inbox(recorder, size=1, in_flight=1).open(drain_seconds=20) as box:
        begun, given_up, last = [box.put([name], 1) for name in ("a", "b", "c")]
        await until(lambda: recorder.batches)
        begun.cancel()
        given_up.cancel()
        recorder.go.set()
        await last

    assert [event for batch in recorder.batches for event in batch] == ["a", "c"]
    assert box.events == 0


async def test_a_failure_keeps_nobody_waiting(recorder, log_lines):
    recorder.go.set()
    recorder.failure = RuntimeError("a value of the visitor")
    async with inbox(recorder).open(drain_seconds=20) as box:
        await asyncio.wait_for(box.put(["a"], 1), 20)
        recorder.failure = None
        await asyncio.wait_for(box.put(["b"], 1), 20)

    assert box.failed == 1
    assert "RuntimeError at test_inbox.py" in log_lines[0]
    assert "value of the visitor" not in "".join(log_lines)


async def test_the_end_finishes_what_was_accepted(recorder):
    async with inbox(recorder, size=1).open(drain_seconds=20) as box:
        for number in range(20):
            box.put([number], 1)
        asyncio.get_running_loop().call_later(0.1, recorder.go.set)

    assert len(recorder.batches) == 20


async def test_the_end_does_not_wait_for_ever(recorder, log_lines):
    async with asyncio.timeout(20):
        async with inbox(recorder).open(drain_seconds=0.1) as box:
            box.put(["a", "b"], 1)

    assert "2 events were not finished within 0.1 s of the end" in log_lines[-1]
