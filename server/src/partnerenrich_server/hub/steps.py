"""What becomes of accepted events: they are enriched, written into the stream, and gathered for destinations."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING

from partnerenrich.events import Event
from partnerenrich.turns import Turns

if TYPE_CHECKING:
    from partnerenrich_server.hub.inbox import Process, Tell
    from partnerenrich_server.hub.metrics import Metrics
    from partnerenrich_server.stream.writer import Writer

Step = Callable[[Sequence[Event]], Awaitable[None]]
"""Does something with a batch of events."""


def steps(
    enrich: Step, *, writer: Writer | None, collect: Step | None, output: Step | None, metrics: Metrics
) -> Process:
    """
    The steps of one batch.

    Batches overlap, and a later one may be enriched first; they are written in the order in which they came. What the
    stream did not acknowledge is not accepted: it goes no further, and is to come again. Whoever waits is told when the
    stream has answered, and does not wait for `collect` and `output`.

    Args:
        enrich: Changes the events in place.
        writer: Into the stream.
        collect: Gathers records for destinations of batches.
        output: Takes the events as a reader of the stream would.
        metrics: Counts what was written.
    """

    async def after_enrichment(events: Sequence[Event]) -> None:
        if collect is not None:
            await collect(events)
        if output is not None:
            await output([_unsigned(event) for event in events])

    async def process(events: Sequence[Event], tell: Tell) -> None:
        await enrich(events)
        await after_enrichment(events)
        tell(())

    if writer is None:
        return process
    turns = Turns()

    async def process_durably(events: Sequence[Event], tell: Tell) -> None:
        turn = turns.take()
        try:
            await enrich(events)
            await turn.comes()
            writing = writer.write([_unsigned(event) for event in events])
        finally:
            turn.end()
        acknowledged = await writing
        written = [event for event, is_written in zip(events, acknowledged) if is_written]
        left = [event for event, is_written in zip(events, acknowledged) if not is_written]
        metrics.streamed("written", len(written))
        metrics.streamed("failed", len(left))
        tell(left)
        await after_enrichment(written)

    return process_durably


def _unsigned(event: Event) -> Event:
    """The event without its signature: whoever has that may pose as the person."""
    if "signature" not in event.fields:
        return event
    return Event.of({name: value for name, value in event.fields.items() if name != "signature"}, event.org)
