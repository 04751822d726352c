"""The way of lines through the pipeline: order, bounds, failures."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import os

import pytest

from partnerenrich.configuration import Batching
from partnerenrich.events import Event
from partnerenrich_server.pipeline import pump
from partnerenrich_server.source import InputError, Source


class Slow:
    """Processes batches in changing order and remembers how many were under way."""

    def __init__(self) -> None:
        self.under_way = 0
        self.most = 0
        self.started: list[bytes] = []
        self.company = asyncio.Event()
        self.company.set()

    def parse(self, line: bytes, *, org: str | None = None) -> Event:
        return Event.parse(line, org or "acme")

    async def process(self, events: list[Event]) -> None:
        self.under_way += 1
        self.most = max(self.most, self.under_way)
        self.started += [event.encode() for event in events]
        if self.under_way > 1:
            self.company.set()
        await self.company.wait()
        await asyncio.sleep(0.005 * (len(self.started) % 4))
        self.under_way -= 1


@pytest.fixture
def source_of(tmp_path):
    with contextlib.ExitStack() as stack:

        def make(data: bytes) -> Source:
            path = tmp_path / "input"
            path.write_bytes(data)
            file = stack.enter_context(path.open("rb", buffering=0))
            return stack.enter_context(contextlib.closing(Source(file.fileno())))

        yield make


def lines(count: int) -> list[bytes]:
    return [b'{"n":%d}' % number for number in range(count)]


async def test_order_is_kept_while_batches_overlap(source_of):
    written: list[bytes] = []
    processor = Slow()
    processor.company.clear()  # the first batch waits for the second one
    await pump(
        source_of(b"\n".join(lines(100))),
        processor,
        lambda batch: written.extend(event.encode() for event in batch.events),
        batching=Batching(size=3, in_flight=4),
    )
    assert written == lines(100)
    assert processor.started == lines(100)
    assert 1 < processor.most <= 4


async def test_a_slow_reader_of_the_output_holds_the_input_back(source_of):
    """However large the input, only `in_flight` batches are in memory."""
    processor = Slow()
    ahead = []

    def write(batch) -> None:
        ahead.append(len(processor.started) - 10 * len(ahead))

    await pump(source_of(b"\n".join(lines(2000))), processor, write, batching=Batching(size=10, in_flight=2))
    assert len(ahead) == 200
    assert max(ahead) <= 20


async def test_lines_that_are_no_events_are_rejected_with_number_and_reason(source_of):
    rejects = []
    await pump(
        source_of(b'{}\nsecret@example.test\n[1]\n\n"' + b"x" * (2 << 20) + b'"\n{}\n'),
        Slow(),
        lambda batch: rejects.extend(batch.rejects),
        batching=Batching(),
    )
    assert [reject.line for reject in rejects] == [2, 3, 5]
    assert [reject.reason for reject in rejects] == [
        "is not JSON",
        "is JSON but no object",
        "is longer than 1048576 bytes",
    ]


async def test_what_came_before_damage_is_written_before_it_is_told(source_of):
    written = []
    with pytest.raises(InputError):
        await pump(
            source_of(gzip.compress(b"\n".join(lines(50_000)))[:-9]),
            Slow(),
            lambda batch: written.extend(batch.events),
            batching=Batching(size=100),
        )
    assert len(written) > 1000


async def test_a_failing_writer_ends_the_run(source_of):
    def write(_) -> None:
        raise OSError("the disk is full")

    with pytest.raises(OSError, match="full"):
        await pump(source_of(b"\n".join(lines(1000))), Slow(), write, batching=Batching(size=10))


async def test_a_failing_writer_does_not_wait_for_input_that_never_comes():
    readable, writable = os.pipe()
    os.write(writable, b"{}\n")

    def write(_) -> None:
        raise BrokenPipeError

    with contextlib.closing(Source(readable)) as source, pytest.raises(BrokenPipeError):
        await asyncio.wait_for(pump(source, Slow(), write, batching=Batching()), 20)
    os.close(readable)
    os.close(writable)


async def test_a_failing_processor_ends_the_run(source_of):
    class Broken(Slow):
        async def process(self, events: list[Event]) -> None:
            raise RuntimeError("a bug")

    with pytest.raises(RuntimeError, match="a bug"):
        await pump(source_of(b"\n".join(lines(1000))), Broken(), lambda _: None, batching=Batching(size=10))


async def test_nothing_stays_open(source_of):
    """Tasks and threads are gone when the pump is done."""
    before = asyncio.all_tasks()
    await pump(source_of(b"{}\n"), Slow(), lambda _: None, batching=Batching())
    assert asyncio.all_tasks() == before
