"""
Events in a Redis Stream: an entry for each, with the fields ``org`` and ``event``, its JSON.

What is ready at one moment goes in one round trip; what gathers meanwhile goes with the next, so that the order is
kept.
"""

from __future__ import annotations

import asyncio
import contextlib
from functools import partial
from typing import TYPE_CHECKING, Any

from partnerenrich.errors import ConfigError, Problem
from partnerenrich.roundtrips import RoundTrips, joined
from partnerenrich.store import FAILURES, client_of, error_name
from partnerenrich_server.stream.writer import ACKNOWLEDGE_SECONDS, PROBE_SECONDS, StreamComplaints

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from redis.asyncio import Redis

    from partnerenrich.configuration import StreamSettings
    from partnerenrich.events import Event


@contextlib.asynccontextmanager
async def open_redis(settings: StreamSettings) -> AsyncIterator[RedisWriter]:
    """
    Write into a Redis Stream.

    Raises:
        ConfigError: The URL is none of a Redis.
    """
    client: Redis | None = None
    with contextlib.suppress(ValueError):  # which may hold the password
        client = client_of(settings.url.reveal())
    if client is None:
        raise ConfigError([Problem("stream.url", "is no URL of a Redis, such as redis://127.0.0.1:6379")])
    writer = RedisWriter(client, settings.output, settings.max_length)
    try:
        yield writer
    finally:
        await writer.arrived()
        await client.aclose()


class RedisWriter:
    """
    See `partnerenrich_server.stream.writer.Writer`.

    Args:
        client: Of a Redis that is no cluster.
        output: Key of the stream.
        max_length: About how many entries the stream keeps; None for all.
    """

    def __init__(self, client: Redis, output: str, max_length: int | None) -> None:
        self._client: Any = client
        self._output = output
        self._max_length = max_length
        self._round_trips = RoundTrips(partial(joined, self._add))
        self._complaints = StreamComplaints()

    def write(self, events: Sequence[Event]) -> asyncio.Future[list[bool]]:
        """Write events; see the protocol."""
        return self._round_trips.send(events)

    async def answers(self) -> bool:
        """Whether Redis is there."""
        try:
            async with asyncio.timeout(PROBE_SECONDS):
                await self._client.ping()
        except FAILURES:
            return False
        return True

    async def arrived(self) -> None:
        """Wait until all that was taken is written, or failed."""
        await self._round_trips.over()

    async def _add(self, events: Sequence[Event]) -> list[bool]:
        """An entry for each event, in one round trip; whether each was acknowledged."""
        replies: list[object]
        try:
            pipeline = self._client.pipeline(transaction=False)
            for event in events:
                entry = {"org": event.org, "event": event.encode()}
                pipeline.xadd(self._output, entry, maxlen=self._max_length)
            async with asyncio.timeout(ACKNOWLEDGE_SECONDS):
                replies = await pipeline.execute(raise_on_error=False)
        except Exception as error:  # noqa: BLE001 - also a mistake in the client; who waits is told, now and the next time
            replies = [error] * len(events)
        for failure in replies:
            if isinstance(failure, Exception):
                self._complaints.refused(error_name(failure))
        return [not isinstance(reply, Exception) for reply in replies]
