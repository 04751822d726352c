"""Lines in, enriched events out, in the same order: several batches at once, and never more of them in memory."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, NamedTuple, Protocol

import attrs

from partnerenrich.events import MAX_BYTES, Event, EventError
from partnerenrich_server.source import batches

if TYPE_CHECKING:
    from collections.abc import Callable

    from partnerenrich.configuration import Batching
    from partnerenrich_server.source import Line, Source


class Processor(Protocol):
    """The part of `partnerenrich.enrichment.Enricher` that is needed here."""

    def parse(self, line: bytes, *, org: str | None = None) -> Event:
        """Read one event."""
        ...

    async def process(self, events: list[Event]) -> None:
        """Enrich a batch in place."""
        ...


class Reject(NamedTuple):
    """
    A line that is no event.

    Attributes:
        line: Its number, from 1.
        reason: Why; never its content.
    """

    line: int
    reason: str


@attrs.frozen
class Batch:
    """
    What became of one batch of lines.

    Attributes:
        events: In the order of the lines.
        lines: Their numbers, from 1.
        rejects: Lines that are no events.
    """

    events: list[Event]
    lines: list[int]
    rejects: list[Reject]


async def pump(
    source: Source,
    processor: Processor,
    write: Callable[[Batch], None],
    *,
    batching: Batching,
    org: str | None = None,
) -> None:
    """
    Enrich all lines of a source.

    The source and `write` are used in threads of their own. When the source
    fails, what it gave before is written first.

    Args:
        source: The input.
        processor: Enriches it.
        write: Takes each batch when it is done, in order.
        batching: How lines are grouped, and how many groups are under way at once.
        org: Organisation of all events; None when the events say it.

    Raises:
        Exception: Whatever `source`, `processor` or `write` raises.
    """
    loop = asyncio.get_running_loop()
    cut = batches(source, size=batching.size, linger=batching.linger_ms / 1000)
    free = asyncio.Semaphore(batching.in_flight)
    in_order: asyncio.Queue[tuple[Batch, asyncio.Task[None]] | None] = asyncio.Queue()
    tasks: set[asyncio.Task[None]] = set()

    async def read() -> None:
        try:
            while True:
                await free.acquire()
                if (lines := await loop.run_in_executor(reader, next, cut, None)) is None:
                    break
                batch = _parsed(lines, processor, org)
                task = asyncio.create_task(processor.process(batch.events))
                tasks.add(task)
                in_order.put_nowait((batch, task))
        finally:
            in_order.put_nowait(None)

    with ThreadPoolExecutor(1, "read") as reader, ThreadPoolExecutor(1, "write") as writer:
        reading = asyncio.create_task(read())
        try:
            while entry := await in_order.get():
                batch, task = entry
                await task
                tasks.remove(task)
                await loop.run_in_executor(writer, write, batch)
                free.release()
            await reading
        finally:
            source.stop()
            for task in (reading, *tasks):
                task.cancel()
            await asyncio.gather(reading, *tasks, return_exceptions=True)


def _parsed(lines: list[Line], processor: Processor, org: str | None) -> Batch:
    batch = Batch([], [], [])
    for number, content in lines:
        if content is None:
            batch.rejects.append(Reject(number, f"is longer than {MAX_BYTES} bytes"))
            continue
        try:
            batch.events.append(processor.parse(content, org=org))
        except EventError as error:
            batch.rejects.append(Reject(number, str(error)))
        else:
            batch.lines.append(number)
    return batch
