"""Records of events on their way to the stages of all destinations: gathered, and made durable in the storage."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
import time
from threading import Lock
from typing import TYPE_CHECKING, Any, Final

import msgspec

from partnerenrich.store import StoreFailed
from partnerenrich_server.delivery import incoming
from partnerenrich_server.delivery.records import Records
from partnerenrich_server.delivery.storage import Storage, StorageError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence

    from partnerenrich.configuration import Integration
    from partnerenrich.events import Event

log = logging.getLogger(__name__)

BYTES: Final = 8 << 20
"""About so much waits in memory for each destination before it is written."""
SECONDS: Final = 30.0
"""For so long it waits."""
MOST_BYTES: Final = 8 * BYTES
"""More than this never waits: while the storage fails, what comes then is lost, and counted."""


class Collector:
    """
    Gathers the records of events for all destinations. May be used from several threads.

    Args:
        integrations: Those that deliver.
        is_suppressed: Whether the person of an event is not to be delivered any more. Raises `StoreFailed`
            when that cannot be told.

    Attributes:
        lost: Records that found no place while the storage failed.
    """

    def __init__(
        self, integrations: Iterable[Integration], is_suppressed: Callable[[Event], bool] = lambda _: False
    ) -> None:
        self.lost = 0
        self._is_suppressed = is_suppressed
        self._boxes: dict[str, list[_Box]] = {}
        for integration in integrations:
            self._boxes.setdefault(integration.org, []).append(_Box(integration))
        self._lock = Lock()
        self._origin = f"process {secrets.token_hex(8)}"
        self._next_line = 0

    @property
    def collected(self) -> dict[str, int]:
        """``org/integration`` to records that are durable."""
        return {box.folder: box.written for boxes in self._boxes.values() for box in boxes}

    def add(self, events: Sequence[Event], origin: str | None = None, lines: Sequence[int] = ()) -> None:
        """
        Gather the records of events; when there are many, write them. Blocks.

        Args:
            events: Enriched.
            origin: The input that they come from; left out when they cannot come again.
            lines: Their lines in it.

        Raises:
            StorageError: The storage failed; what was gathered waits on, as long as there is room.
            StoreFailed: Nobody can tell who is suppressed; nothing was gathered.
        """
        with self._lock:
            if origin is None:
                lines = range(self._next_line, self._next_line + len(events))
                self._next_line += len(events)
            now = time.time()
            suppressed = [bool(self._boxes.get(event.org)) and self._is_suppressed(event) for event in events]
            for event, line, is_suppressed in zip(events, lines, suppressed, strict=True):
                private = {"_origin": origin or self._origin, "_line": line, "_seen": now}
                self._add(event, private, now, suppressed=is_suppressed)
            self._flush(box for boxes in self._boxes.values() for box in boxes if box.size >= BYTES)

    def flush(self, *, older_than: float = 0.0) -> None:
        """
        Write what was gathered. Blocks.

        Args:
            older_than: Seconds; leave alone what has not waited for so long.

        Raises:
            StorageError: The storage failed.
        """
        with self._lock:
            latest = time.time() - older_than
            self._flush(box for boxes in self._boxes.values() for box in boxes if box.size and box.oldest <= latest)

    async def collect(self, events: Sequence[Event]) -> None:
        """
        As `add`, for those who cannot wait and cannot help it: a failure is logged.

        While the storage fails, what fits waits on; while nobody can tell who is suppressed, nothing is gathered.
        """
        try:
            await asyncio.to_thread(self.add, events)
        except StorageError as error:
            log.warning("records wait for the staging storage (%d were lost so far): %s", self.lost, error)
        except StoreFailed as error:
            log.warning("nothing of %d events is delivered: %s", len(events), error)

    @contextlib.asynccontextmanager
    async def open(self) -> AsyncIterator[Collector]:
        """
        Write what has waited long enough from time to time; at the end, all.

        Raises:
            StorageError: At the end, if the storage fails: some records are not durable.
        """
        writing = asyncio.create_task(self._write())
        try:
            yield self
        finally:
            writing.cancel()
            await asyncio.gather(writing, return_exceptions=True)
            await asyncio.to_thread(self.flush)

    async def _write(self) -> None:
        while True:
            await asyncio.sleep(SECONDS / 10)
            try:
                await asyncio.to_thread(self.flush, older_than=SECONDS)
            except StorageError as error:
                log.warning("records wait for the staging storage: %s", error)

    def _add(self, event: Event, private: Mapping[str, Any], now: float, *, suppressed: bool) -> None:
        boxes = self._boxes.get(event.org)
        if not boxes:
            return
        decoded = event.plain()
        for box in boxes:
            row = box.records.of_event(event, decoded, now, suppressed=suppressed)
            if row is None:
                continue
            if box.size >= MOST_BYTES:
                self.lost += 1
            else:
                box.put(msgspec.json.encode({**row, **private}), now)

    def _flush(self, boxes: Iterable[_Box]) -> None:
        failure: StorageError | None = None
        for box in boxes:
            try:
                box.flush()
            except StorageError as error:
                failure = error
        if failure:
            raise failure


class _Box:
    """What waits for one destination."""

    def __init__(self, integration: Integration) -> None:
        assert integration.delivery is not None
        settings = integration.delivery.settings
        self.records = Records.of(integration)
        self.folder = f"{integration.org}/{integration.name}"
        self.size = 0
        self.oldest = 0.0
        self.written = 0
        self._storage = Storage.open(settings.staging, settings.options)
        self._lines: list[bytes] = []

    def put(self, line: bytes, now: float) -> None:
        if not self._lines:
            self.oldest = now
        self._lines.append(line)
        self.size += len(line)

    def flush(self) -> None:
        incoming.write(self._storage, self.folder, self._lines, time.time())
        self.written += len(self._lines)
        self._lines.clear()
        self.size = 0
