"""What it is to write into a stream, whatever its kind."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final, Protocol

from partnerenrich.complaints import Complaints
from partnerenrich.events import Event

if TYPE_CHECKING:
    import asyncio
    from contextlib import AbstractAsyncContextManager

    from partnerenrich.configuration import StreamSettings

log = logging.getLogger(__name__)

ACKNOWLEDGE_SECONDS: Final = 2.0
"""For how long a broker is waited for."""
PROBE_SECONDS: Final = 1.0
"""How long a broker may take to say that it is there."""

VisitorOf = Callable[[Event], str | None]
"""Tells the canonical id of an event."""


class Writer(Protocol):
    """Writes events into a stream, for as long as its context is open; at its end, what is on its way arrives."""

    def write(self, events: Sequence[Event]) -> asyncio.Future[list[bool]]:
        """
        Write events, in this order and after those of earlier calls. They are taken at the call, not at the await.

        Returns:
            For each event, whether the broker has acknowledged it. Done in bounded time, and never an exception. An
            event that was not acknowledged may still have been written.
        """

    async def answers(self) -> bool:
        """Whether the broker is there."""


class StreamComplaints(Complaints):
    """The log of failures, each one line in a while. In any thread."""

    def __init__(self) -> None:
        super().__init__(log)

    def refused(self, reason: str) -> None:
        """Log that events were not acknowledged. `reason` is a name, of the broker's or its client's."""
        what = "the stream does not take events (%s); who sent them is told to send them again"
        self.tell(f"refused: {reason}", what, reason)


def open_writer(settings: StreamSettings, visitor_of: VisitorOf) -> AbstractAsyncContextManager[Writer]:
    """
    A writer into the stream that a configuration names. The broker need not be there yet.

    Raises:
        ConfigError: The settings are wrong, or what the kind needs is not installed.
    """
    if settings.kind == "kafka":
        from partnerenrich_server.stream.kafka import open_kafka  # noqa: PLC0415 - its client is an extra

        return open_kafka(settings, visitor_of)
    from partnerenrich_server.stream.redis_stream import open_redis  # noqa: PLC0415 - one kind is in use, at most

    return open_redis(settings)
