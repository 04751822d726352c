"""Ask one integration's partner: once for each link however many wait, and remember what it says."""

from __future__ import annotations

import asyncio
import time
from functools import cached_property, partial
from typing import TYPE_CHECKING, Final

import attrs
import msgspec

from partnerenrich import http, memory
from partnerenrich.errors import BadResponse, NotCalled, NotSupported, PartnerError, UnknownPartnerId
from partnerenrich.governor import Governor
from partnerenrich.memory import Answer, Verdict
from partnerenrich.models import Link, Outcome

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
    from typing import Any

    import httpx

    from partnerenrich.configuration import Integration
    from partnerenrich.governor import DailyBudget
    from partnerenrich.models import Resolution, Visitor
    from partnerenrich.store import Store

MAX_ATTRIBUTES_BYTES: Final = 16_384
"""Longest JSON of one visitor's attributes."""
POLL_SECONDS: Final = 0.02
"""First pause while another process has the lease; doubles up to ten times that."""


@attrs.frozen
class Question:
    """
    One link to be looked up.

    Attributes:
        key: Of the link record.
        link: What the partner is asked.
        known: What is remembered of it.
    """

    key: str
    link: Link
    known: Answer | None = attrs.field(repr=False)


@attrs.frozen
class Reply:
    """
    What came of a lookup.

    Attributes:
        outcome: What the events that wait for it are told.
        answer: What there is to attach, fresh or stale; for a refusal, its record.
        latency: Seconds that the partner took; None when it was not asked.
        step: Where the partner failed: ``resolve`` or ``attributes``; else empty.
    """

    outcome: Outcome
    answer: Answer | None = attrs.field(default=None, repr=False)
    latency: float | None = None
    step: str = ""


class Lookup:
    """
    Everything that is asked of one integration's partner.

    Args:
        integration: Whom to ask, and how much.
        store: Where answers are remembered and work is claimed.
        daily_budget: Counts the calls of a day; None for no limit.
    """

    def __init__(self, integration: Integration, store: Store, daily_budget: DailyBudget | None) -> None:
        self.integration = integration
        self.governor = Governor(integration, budget=daily_budget)
        self._store = store
        self._flights: dict[str, asyncio.Task[Reply]] = {}
        attempts = integration.limits.attempts
        self._lease_ms = int((integration.limits.timeout * attempts + 1) * 1000)

    @cached_property
    def _http(self) -> httpx.AsyncClient:
        return http.open_client(self.integration.limits, allowed_hosts=http.hosts_of(self.integration.config))

    async def close(self) -> None:
        """End what is under way and disconnect."""
        flights = list(self._flights.values())
        for flight in flights:
            flight.cancel()
        await asyncio.gather(*flights, return_exceptions=True)
        if "_http" in self.__dict__:
            await self._http.aclose()

    async def check(self) -> None:
        """
        Ask the partner whether the settings work.

        Raises:
            PartnerError: They do not, or the partner has no such question (`NotSupported`).
        """
        partner, config = self.integration.partner, self.integration.config
        await self.governor.call(
            lambda call: partner.check(config, self._http, call),
            wait_until=time.monotonic() + self.integration.limits.timeout,
            hook="check",
        )

    def resolve(
        self, questions: Sequence[Question], visitor: Visitor, wait_until: float, event_id: str | None
    ) -> asyncio.Task[Reply]:
        """
        Look up the links in order, until the partner knows one.

        Args:
            questions: At least one.
            visitor: What else the partner may know.
            wait_until: Moment of `time.monotonic` until when a place in the queue is worth waiting for.
            event_id: The event that asks.

        Returns:
            A task that goes on when nobody waits any longer. It never raises.
        """
        if len(questions) == 1:
            return self._fly(questions[0].key, partial(self._resolve_one, questions[0], visitor, wait_until, event_id))
        return self._fly(
            "\0".join(question.key for question in questions),
            partial(self._resolve_in_order, questions, visitor, wait_until, event_id),
        )

    def refetch(self, key: str, answer: Answer, wait_until: float) -> asyncio.Task[Reply]:
        """
        Fetch the attributes of a known id anew, for a visitor whose identifiers are not at hand.

        Args:
            key: Of the visitor record. The caller remembers the answer.
            answer: What is remembered.
            wait_until: As in `resolve`.
        """
        return self._fly(key, partial(self._refetch, key, answer, wait_until))

    def _fly(self, key: str, work: Callable[[], Coroutine[Any, Any, Reply]]) -> asyncio.Task[Reply]:
        """Start this work, or join it when it is under way."""
        flight = self._flights.get(key)
        if flight is None:
            flight = asyncio.get_running_loop().create_task(work())
            self._flights[key] = flight
            flight.add_done_callback(lambda _: self._flights.pop(key, None))
        return flight

    async def _resolve_in_order(
        self, questions: Sequence[Question], visitor: Visitor, wait_until: float, event_id: str | None
    ) -> Reply:
        reply = Reply(Outcome.SKIPPED)
        for question in questions:
            verdict = memory.judge(question.known, time.time())
            if verdict is Verdict.ABSENT:
                reply = Reply(Outcome.ABSENT, question.known)
                continue
            one = partial(self._resolve_one, question, visitor, wait_until, event_id)
            reply = await asyncio.shield(self._fly(question.key, one))
            if reply.outcome is not Outcome.ABSENT:
                return reply
        return reply

    async def _resolve_one(
        self, question: Question, visitor: Visitor, wait_until: float, event_id: str | None
    ) -> Reply:
        if not await self._store.lease(memory.lease_key(question.key), self._lease_ms):
            theirs = await self._await_other(question.key, question.known)
            if theirs is not None:
                return theirs
        started = time.perf_counter()
        known = question.known
        try:
            answer = await self._ask(question, visitor, wait_until, event_id)
        except NotCalled:
            return self._fallback(known, Outcome.LIMITED, "")
        except NotSupported:
            return Reply(Outcome.SKIPPED)
        except PartnerError as error:
            return self._failed(question, error)
        self._remember(question.key, answer)
        latency = time.perf_counter() - started
        if answer.state == "found":
            return Reply(Outcome.ERROR if answer.step else Outcome.FRESH, answer, latency, answer.step)
        outcome = Outcome.OPTED_OUT if answer.state == "opted_out" else Outcome.ABSENT
        return Reply(outcome, answer, latency)

    async def _ask(self, question: Question, visitor: Visitor, wait_until: float, event_id: str | None) -> Answer:
        integration, known = self.integration, question.known
        if known is not None and known.state == "found" and time.time() < known.resolved_until and self._can_fetch:
            try:
                return await self._with_attributes(known, known, wait_until, event_id)
            except UnknownPartnerId:
                pass  # merged into another profile: resolve anew
        resolution: Resolution = await self._call(
            "resolve_id",
            lambda call: integration.partner.resolve_id(integration.config, self._http, question.link, visitor, call),
            wait_until,
            event_id,
        )
        now = time.time()
        if resolution.partner_id is None:
            state = resolution.reason if resolution.reason != "found" else "absent"
            return memory.nothing(integration.version, question.link.source, state, integration.ttl, now)
        attributes = memory.NULL if resolution.attributes is None else self._kept(resolution.attributes)
        answer = memory.found(integration.version, question.link.source, resolution, attributes, integration.ttl, now)
        if resolution.attributes is not None or not self._can_fetch:
            return answer
        return await self._with_attributes(answer, known, wait_until, event_id)

    async def _with_attributes(
        self, answer: Answer, known: Answer | None, wait_until: float, event_id: str | None
    ) -> Answer:
        """The answer with attributes fetched now; with those remembered, or none, when that fails."""
        ttl = self.integration.ttl
        try:
            fetched = await self._fetch(answer, wait_until, event_id)
        except UnknownPartnerId:
            raise
        except PartnerError:
            now = time.time()
            if known is not None and known.partner_id == answer.partner_id and known.attributes != memory.NULL:
                return memory.damped(known, "attributes", ttl, now)
            return memory.without_attributes(answer, ttl, now)
        return memory.refreshed(answer, fetched, ttl, time.time())

    async def _refetch(self, key: str, answer: Answer, wait_until: float) -> Reply:
        if not await self._store.lease(memory.lease_key(key), self._lease_ms):
            theirs = await self._await_other(key, answer)
            if theirs is not None:
                return theirs
        started = time.perf_counter()
        ttl = self.integration.ttl
        try:
            attributes = await self._fetch(answer, wait_until, None)
        except UnknownPartnerId:
            return Reply(Outcome.ABSENT)
        except NotCalled:
            return self._fallback(answer, Outcome.LIMITED, "")
        except PartnerError:
            return self._fallback(memory.damped(answer, "attributes", ttl, time.time()), Outcome.ERROR, "attributes")
        renewed = memory.refreshed(answer, attributes, ttl, time.time())
        return Reply(Outcome.FRESH, renewed, time.perf_counter() - started)

    async def _fetch(self, answer: Answer, wait_until: float, event_id: str | None) -> msgspec.Raw:
        integration = self.integration
        partner_id: str = msgspec.json.decode(answer.partner_id)
        attributes: Mapping[str, Any] = await self._call(
            "fetch_attributes",
            lambda call: integration.partner.fetch_attributes(integration.config, self._http, partner_id, call),
            wait_until,
            event_id,
        )
        return self._kept(attributes)

    async def _call(
        self, hook: str, attempt: Callable[..., Awaitable[Any]], wait_until: float, event_id: str | None
    ) -> Any:
        if self._store.down and len(self._flights) > max(1, self.integration.limits.concurrency // 4):
            raise NotCalled("the store is down: direct calls are limited")
        return await self.governor.call(attempt, wait_until=wait_until, event_id=event_id, hook=hook)

    def _kept(self, attributes: Mapping[str, Any]) -> msgspec.Raw:
        wanted = self.integration.attributes
        if wanted is not None:
            attributes = {name: value for name, value in attributes.items() if name in wanted}
        try:
            encoded = memory.encode(attributes)
        except (TypeError, ValueError, RecursionError):
            encoded = b""
        if not encoded:
            raise BadResponse("the attributes are no JSON")
        if len(encoded) > MAX_ATTRIBUTES_BYTES:
            raise BadResponse(
                f"the attributes are over {MAX_ATTRIBUTES_BYTES} bytes; name those that you need under attributes:"
            )
        return msgspec.Raw(encoded)

    def _failed(self, question: Question, error: PartnerError) -> Reply:
        ttl, known = self.integration.ttl, question.known
        now = time.time()
        if memory.judge(known, now) in _SERVES_AS_STALE:
            assert known is not None
            known = memory.damped(known, "resolve", ttl, now)
            self._remember(question.key, known)
            return Reply(Outcome.STALE, known, step="resolve")
        failed = memory.nothing(self.integration.version, question.link.source, "failed", ttl, now, "resolve")
        if error.remembered:
            self._remember(question.key, failed)
        return Reply(Outcome.ERROR, failed, step="resolve")

    def _fallback(self, known: Answer | None, outcome: Outcome, step: str) -> Reply:
        if memory.judge(known, time.time()) in _SERVES_AS_STALE:
            return Reply(Outcome.STALE, known, step=step)
        return Reply(outcome, step=step)

    async def _await_other(self, key: str, known: Answer | None) -> Reply | None:
        """What the process that has the lease finds out; None when it seems dead, and the lease is ours to take."""
        give_up = time.monotonic() + self._lease_ms / 1000
        pause = POLL_SECONDS
        while time.monotonic() < give_up:
            (record,) = await self._store.read([key])
            answer = memory.read_answer(record, self.integration.version)
            if answer is not None and (
                known is None or answer.at > known.at or answer.damped_until > known.damped_until
            ):
                return reply_from_memory(answer, time.time())
            await asyncio.sleep(pause)
            pause = min(2 * pause, 10 * POLL_SECONDS)
        return None

    def _remember(self, key: str, answer: Answer) -> None:
        until = answer.usable_until if answer.state == "found" else answer.fresh_until
        self._store.queue([memory.save(key, answer, until - time.time())])

    @property
    def _can_fetch(self) -> bool:
        return self.integration.partner.supports("fetch_attributes")


_SERVES_AS_STALE = frozenset({Verdict.HIT, Verdict.REFRESH, Verdict.EXPIRED, Verdict.DAMPED})


def reply_from_memory(answer: Answer, now: float) -> Reply:
    """What a remembered answer says to an event."""
    verdict = memory.judge(answer, now)
    if verdict in {Verdict.HIT, Verdict.REFRESH}:
        return Reply(
            Outcome.ERROR if answer.step == "attributes" and answer.attributes == memory.NULL else Outcome.HIT,
            answer,
            step=answer.step,
        )
    return Reply(_FROM_MEMORY[verdict], answer, step=answer.step)


_FROM_MEMORY = {
    Verdict.EXPIRED: Outcome.STALE,
    Verdict.DAMPED: Outcome.STALE,
    Verdict.ABSENT: Outcome.ABSENT,
    Verdict.OPTED_OUT: Outcome.OPTED_OUT,
    Verdict.FAILED: Outcome.ERROR,
    Verdict.MISS: Outcome.SKIPPED,
}
