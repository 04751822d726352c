"""What was written goes on, in the order in which it came; what was not comes again."""

import asyncio

import pytest

from partnerenrich.events import Event
from partnerenrich_server.hub.metrics import Metrics
from partnerenrich_server.hub.steps import steps


def event(name):
    return Event.parse(b'{"messageId":"%b"}' % name.encode(), "acme")


def names(events):
    return [event.encode().decode().split('"')[3] for event in events]


class Course:
    """Enrichment that takes as long as it is told, and a writer that acknowledges when it is told."""

    def __init__(self):
        self.slow = {}
        self.refused = set()
        self.taken, self.collected, self.shown = [], [], []
        self.acknowledge = asyncio.Event()
        self.acknowledge.set()
        self.store = asyncio.Event()
        self.store.set()
        self.told = []
        self.acknowledged = []

    def tell(self, left):
        self.told.append(names(left))

    async def enrich(self, events):
        await asyncio.sleep(self.slow.get(names(events)[0], 0))

    def write(self, events):
        self.taken.append(names(events))
        return asyncio.ensure_future(self._acknowledged(names(events)))

    async def _acknowledged(self, written):
        await self.acknowledge.wait()
        self.acknowledged = [name not in self.refused for name in written]
        return self.acknowledged

    async def answers(self):
        return True

    async def collect(self, events):
        await self.store.wait()
        self.collected += names(events)

    async def show(self, events):
        self.shown += names(events)


@pytest.fixture(name="course")
def _course():
    return Course()


@pytest.fixture(name="metrics")
def _metrics():
    return Metrics()


@pytest.fixture(name="process")
def _process(course, metrics):
    return steps(course.enrich, writer=course, collect=course.collect, output=course.show, metrics=metrics)


async def test_a_batch_that_is_enriched_sooner_is_written_later(course, process):
    course.slow = {"a": 0.05}

    await asyncio.gather(process([event("a")], course.tell), process([event("b"), event("c")], course.tell))

    assert course.taken == [["a"], ["b", "c"]]


async def test_no_batch_waits_for_the_acknowledgement_of_another(course, process, until):
    course.acknowledge.clear()
    both = [asyncio.ensure_future(process([event(name)], course.tell)) for name in ("a", "b")]
    await until(lambda: len(course.taken) == 2)
    taken = list(course.taken)
    course.acknowledge.set()
    await asyncio.gather(*both)

    assert taken == [["a"], ["b"]]


async def test_a_batch_that_fails_holds_nobody_back(course):
    async def fails(events):
        if names(events) == ["a"]:
            raise RuntimeError

    process = steps(fails, writer=course, collect=None, output=None, metrics=Metrics())
    both = [process([event(name)], course.tell) for name in ("a", "b")]
    failed, _ = await asyncio.gather(*both, return_exceptions=True)

    assert (type(failed), course.told, course.taken) == (RuntimeError, [[]], [["b"]])


async def test_only_what_was_written_goes_on(course, process, metrics):
    course.refused = {"b"}
    events = [event(name) for name in ("a", "b", "c")]

    await process(events, course.tell)

    assert course.told == [["b"]]
    assert (course.collected, course.shown) == (["a", "c"], ["a", "c"])
    assert b'partnerenrich_stream_events_total{result="written"} 2.0' in metrics.exposition()
    assert b'partnerenrich_stream_events_total{result="failed"} 1.0' in metrics.exposition()


async def test_who_waits_is_told_before_the_storage_has_taken_what_was_written(course, process, until):
    course.refused = {"b"}
    course.store.clear()
    processing = asyncio.ensure_future(process([event("a"), event("b")], course.tell))
    await until(lambda: course.told)
    told, collected = list(course.told), list(course.collected)
    course.store.set()
    await processing

    assert (told, collected, course.collected) == ([["b"]], [], ["a"])


async def test_a_report_that_comes_while_records_are_gathered_changes_nothing(course, process, until):
    """Each event is either written or left, and not something between."""
    course.refused = {"a"}
    course.store.clear()
    processing = asyncio.ensure_future(process([event("a"), event("b")], course.tell))
    await until(lambda: course.told)
    course.acknowledged[0] = True
    course.store.set()
    await processing

    assert (course.told, course.collected) == ([["a"]], ["b"])


async def test_without_a_stream_who_waits_is_told_when_all_is_done(course, metrics):
    process = steps(course.enrich, writer=None, collect=course.collect, output=course.show, metrics=metrics)
    course.store.clear()
    processing = asyncio.ensure_future(process([event("a")], course.tell))
    await asyncio.sleep(0.01)
    told = list(course.told)
    course.store.set()
    await processing

    assert (told, course.told, course.shown) == ([], [[]], ["a"])
