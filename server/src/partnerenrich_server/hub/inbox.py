"""
Accepted events on their way to being enriched: a bounded queue, taken in batches.

All events go through it, those that a page waits for as well, so that the events of one visitor count in the order in
which they came.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Sequence
from typing import TYPE_CHECKING, Final

import attrs

from partnerenrich.events import Event
from partnerenrich_server.failures import explained

if TYPE_CHECKING:
    from partnerenrich.configuration import Batching

log = logging.getLogger(__name__)

Tell = Callable[[Collection[Event]], None]
"""Tells whoever waits for a batch which of its events could not be handed on, if any."""
Process = Callable[[Sequence[Event], Tell], Awaitable[None]]
"""What becomes of a batch of events, which are its to change. Tells as soon as nobody need wait for the rest."""

BYTES: Final = 64 * 1024 * 1024
"""Most bytes of JSON that wait."""


class InboxFull(Exception):
    """No more events can wait."""


@attrs.frozen(eq=False)
class _Arrival:
    events: Sequence[Event]
    size: int
    done: asyncio.Future[bool]


class Inbox:
    """
    Events that wait.

    Args:
        process: What becomes of them.
        batching: How they are grouped, and how many groups are under way at once.
        capacity: Most events that wait or are under way.

    Attributes:
        events: How many wait or are under way.
        failed: With how many `process` failed, which it never should.
    """

    def __init__(self, process: Process, batching: Batching, capacity: int) -> None:
        self.events = 0
        self.failed = 0
        self._process = process
        self._batching = batching
        self._capacity = capacity
        self._bytes = 0
        self._waiting: deque[_Arrival] = deque()
        self._arrived = asyncio.Event()
        self._empty = asyncio.Event()
        self._empty.set()
        self._free = asyncio.Semaphore(batching.in_flight)
        self._batches: set[asyncio.Task[None]] = set()

    @contextlib.asynccontextmanager
    async def open(self, *, drain_seconds: float) -> AsyncIterator[Inbox]:
        """Work on what arrives; at the end, on what is left, for so long."""
        working = asyncio.create_task(self._work())
        try:
            yield self
            await self._drain(drain_seconds)
        finally:
            for task in (working, *self._batches):
                task.cancel()
            await asyncio.gather(working, *self._batches, return_exceptions=True)

    def put(self, events: Sequence[Event], size: int) -> asyncio.Future[bool]:
        """
        Take all of these events, or none.

        Args:
            events: Of one request.
            size: Their bytes.

        Returns:
            Done when `process` has told: whether all of them were handed on. Who cancels it before their turn gives
            them up.

        Raises:
            InboxFull: Come again later.
        """
        if self.events + len(events) > self._capacity or self._bytes + size > BYTES:
            raise InboxFull
        arrival = _Arrival(events, size, asyncio.get_running_loop().create_future())
        self.events += len(events)
        self._bytes += size
        self._waiting.append(arrival)
        self._arrived.set()
        self._empty.clear()
        return arrival.done

    async def _work(self) -> None:
        while True:
            await self._free.acquire()
            batch = await self._next_batch()
            task = asyncio.create_task(self._enrich(batch))
            self._batches.add(task)
            task.add_done_callback(self._batches.discard)

    async def _next_batch(self) -> list[_Arrival]:
        await self._arrived.wait()
        if sum(len(arrival.events) for arrival in self._waiting) < self._batching.size:
            await asyncio.sleep(self._batching.linger_ms / 1000)
        batch = [self._waiting.popleft()]
        count = len(batch[0].events)
        while self._waiting and count < self._batching.size:
            batch.append(self._waiting.popleft())
            count += len(batch[-1].events)
        if not self._waiting:
            self._arrived.clear()
        return batch

    async def _enrich(self, batch: list[_Arrival]) -> None:
        events = [event for arrival in batch if not arrival.done.cancelled() for event in arrival.events]
        try:
            await self._process(events, functools.partial(_tell, batch))
        except Exception as error:  # noqa: BLE001  a bug; whoever waits is not to wait for ever
            self.failed += len(events)
            log.error("%d events did not get to the end: %s", len(events), explained(error).message)  # noqa: TRY400  the traceback may hold values
        finally:
            _tell(batch, events)  # who has not been told
            self._free.release()
            self._leave(batch)

    def _leave(self, batch: list[_Arrival]) -> None:
        for arrival in batch:
            self.events -= len(arrival.events)
            self._bytes -= arrival.size
        if not self.events:
            self._empty.set()

    async def _drain(self, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._empty.wait(), seconds)
        if self.events:
            log.warning("%d events were not finished within %g s of the end", self.events, seconds)


def _tell(batch: Sequence[_Arrival], left: Collection[Event]) -> None:
    not_handed_on = frozenset(left)
    for arrival in batch:
        if not arrival.done.done():
            arrival.done.set_result(not_handed_on.isdisjoint(arrival.events))
