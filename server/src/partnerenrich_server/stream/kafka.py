"""
Events in a Kafka topic.

Key: organisation and canonical id, so that the events of a visitor keep their order in one partition. Value: the JSON.
Header ``org``. The producer is idempotent: its own retries neither double an event nor change the order.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import threading
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import unquote

from partnerenrich.errors import ConfigError, Problem
from partnerenrich_server.stream.writer import ACKNOWLEDGE_SECONDS, PROBE_SECONDS, StreamComplaints

try:
    from confluent_kafka import KafkaError, KafkaException, Producer
except ImportError:
    raise ConfigError([Problem("stream.kind", "kafka needs more: pip install 'partnerenrich-server[kafka]'")]) from None

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from partnerenrich.configuration import StreamSettings
    from partnerenrich.events import Event
    from partnerenrich_server.stream.writer import VisitorOf

log = logging.getLogger(__name__)

POLL_SECONDS: Final = 0.1
"""How soon the end is noticed."""
LONGEST_SECONDS: Final = ACKNOWLEDGE_SECONDS + 1
"""librdkafka looks once a second for what was not delivered in time."""

_PROMISED: Final[Mapping[str, Any]] = {
    "enable.idempotence": True,
    "acks": "all",
    "delivery.timeout.ms": int(ACKNOWLEDGE_SECONDS * 1000),
}
_OURS: Final = {*_PROMISED, "bootstrap.servers", "metadata.broker.list", "request.required.acks", "message.timeout.ms"}
_DEFAULTS: Final[Mapping[str, Any]] = {
    "client.id": "partnerenrich",
    "log_level": 0,  # less than what ends a producer is told by `error_cb`
    "partitioner": "murmur2_random",  # as the clients in Java have it
    "queue.buffering.max.kbytes": 128 * 1024,
    "reconnect.backoff.max.ms": 1000,
}

OnError = Callable[[KafkaError], None]
"""Told of what goes wrong beside the events."""
Connect = Callable[[OnError], Producer]
"""Makes a producer."""


@contextlib.asynccontextmanager
async def open_kafka(settings: StreamSettings, visitor_of: VisitorOf) -> AsyncIterator[KafkaWriter]:
    """
    Write into a Kafka topic.

    Raises:
        ConfigError: librdkafka does not accept the options.
    """
    if ours := sorted(_OURS & settings.options.keys()):
        raise ConfigError([Problem("stream.options", f"{ours[0]} is set by the hub; remove it")])
    options = {name: value.reveal() for name, value in settings.options.items()}
    properties = {**_DEFAULTS, **_address(settings.url.reveal()), **options, **_PROMISED}
    refused = ""
    try:
        writer = KafkaWriter(functools.partial(_producer, properties), settings.output, visitor_of)
    except KafkaException as error:
        refused = error.args[0].str().strip()
    if refused:  # outside `except`, for the error may hold a value
        for value in options.values():
            refused = refused.replace(f'"{value}"', '"***"')
        raise ConfigError([Problem("stream.options", f"librdkafka says: {refused}")])
    try:
        yield writer
    finally:
        await asyncio.to_thread(writer.end)


class KafkaWriter:
    """
    See `partnerenrich_server.stream.writer.Writer`.

    Args:
        connect: Makes its producer, and a new one when that has failed for good.
        output: The topic.
        visitor_of: Tells whose events must keep their order.
    """

    def __init__(self, connect: Connect, output: str, visitor_of: VisitorOf) -> None:
        self._connect = connect
        self._output = output
        self._visitor_of = visitor_of
        self._complaints = StreamComplaints()
        self._producer = connect(self._on_error)
        self._ending = threading.Event()
        self._polling = threading.Thread(target=self._poll, name="kafka", daemon=True)
        self._polling.start()

    def write(self, events: Sequence[Event]) -> asyncio.Future[list[bool]]:
        """Write events; see the protocol."""
        reports = _Reports(len(events), self._complaints)
        for index, event in enumerate(events):
            visitor = self._visitor_of(event)
            try:
                self._producer.produce(
                    self._output,
                    event.encode(),
                    None if visitor is None else f"{event.org}:{visitor}",
                    headers=[("org", event.org)],
                    on_delivery=functools.partial(reports.tell, index),
                )
            except KafkaException as error:
                reports.tell(index, error.args[0])
            except BufferError:
                reports.tell(index, KafkaError(KafkaError._QUEUE_FULL))  # noqa: SLF001 - codes of the client begin so
        return reports.complete

    async def answers(self) -> bool:
        """Whether a broker is there and has the topic."""
        return await asyncio.to_thread(self._has_topic)

    def end(self) -> None:
        """Wait until all that was taken is written, or failed. Blocks."""
        self._flush(LONGEST_SECONDS)
        self._ending.set()
        self._polling.join()

    def _has_topic(self) -> bool:
        try:
            found = self._producer.list_topics(self._output, PROBE_SECONDS)
        except KafkaException:
            return False
        return found.topics[self._output].error is None

    def _poll(self) -> None:
        while not self._ending.is_set():
            try:
                self._poll_once()
            except Exception as error:  # noqa: BLE001 - of a callback, or no new producer; without polling all would fail
                name = type(error).__name__
                self._complaints.tell(f"polling: {name}", "Kafka: reports are not read (%s); it is tried again", name)
                self._ending.wait(POLL_SECONDS)

    def _poll_once(self) -> None:
        try:
            self._producer.poll(POLL_SECONDS)
        except KafkaException:  # it has failed for good, as when the broker has lost count of it
            self._renew()

    def _on_error(self, error: KafkaError) -> None:
        self._complaints.tell(error.name(), "Kafka: %s", error.str())

    def _renew(self) -> None:
        """Go on with a new producer; the old one takes nothing more, and reports what it had as failed."""
        self._producer.purge()
        self._flush(POLL_SECONDS)
        self._producer = self._connect(self._on_error)

    def _flush(self, seconds: float) -> None:
        with contextlib.suppress(KafkaException):  # that of a producer that has failed for good
            self._producer.flush(seconds)


def _producer(properties: Mapping[str, Any], on_error: OnError) -> Producer:
    return Producer({**properties, "error_cb": on_error}, logger=log)


def _address(url: str) -> Mapping[str, str]:
    """The brokers of a URL, and how to get in."""
    scheme, _, rest = url.partition("://")
    credentials, _, brokers = rest.rstrip("/").rpartition("@")
    user, _, password = map(unquote, credentials.partition(":"))
    security = ("SASL_" if user else "") + ("SSL" if scheme == "kafka+ssl" else "PLAINTEXT")
    known = {"bootstrap.servers": brokers, "security.protocol": security}
    if user:
        known |= {"sasl.mechanism": "SCRAM-SHA-512", "sasl.username": user, "sasl.password": password}
    return known


class _Reports:
    """
    What becomes of events that were taken together.

    Args:
        count: How many there are.
        complaints: Told of those that failed.

    Attributes:
        complete: Done when there is a report of each, at the latest after a while: whether it was acknowledged.
    """

    def __init__(self, count: int, complaints: StreamComplaints) -> None:
        self._loop = asyncio.get_running_loop()
        self._complaints = complaints
        self._acknowledged = [False] * count
        self._missing = count
        self._lock = threading.Lock()
        self.complete: asyncio.Future[list[bool]] = self._loop.create_future()
        self._loop.call_later(LONGEST_SECONDS if count else 0, self._finish)

    def tell(self, index: int, error: KafkaError | None, _: object = None) -> None:
        """Take the report of one event, in any thread."""
        if error is not None:
            self._complaints.refused(error.name())
        with self._lock:
            self._acknowledged[index] = error is None
            self._missing -= 1
            last = not self._missing
        if last:
            self._loop.call_soon_threadsafe(self._finish)

    def _finish(self) -> None:
        if not self.complete.done():
            with self._lock:
                self.complete.set_result(self._acknowledged.copy())  # later reports change nothing
