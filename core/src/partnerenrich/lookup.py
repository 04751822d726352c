"""Ask one integration's partner: once for each link however many wait, and remember what it says."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, ClassVar, Final

import msgspec

from partnerenrich import memory
from partnerenrich.calls import PartnerCalls
from partnerenrich.errors import BadResponse, NotCalled, NotSupported, PartnerError, UnknownPartnerId
from partnerenrich.identity import event_id
from partnerenrich.leases import Leases
from partnerenrich.memory import Answer, Verdict
from partnerenrich.models import Link, Outcome, Visitor
from partnerenrich.store import StoreFailed, is_claim

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence
    from typing import Any

    from partnerenrich.configuration import Integration
    from partnerenrich.erasure import Eraser
    from partnerenrich.events import Event
    from partnerenrich.governor import DailyBudget
    from partnerenrich.models import Resolution
    from partnerenrich.store import Claimed, Store

log = logging.getLogger(__name__)

MAX_ATTRIBUTES_BYTES: Final = 16_384
"""Longest JSON of one visitor's attributes."""
POLL_SECONDS: Final = 0.02
"""First pause while another process has the lease; doubles up to ten times that."""


class Question(msgspec.Struct, frozen=True, gc=False):
    """
    One link to be looked up. A struct, since one is made for every miss.

    Attributes:
        key: Of the link record.
        link: What the partner is asked.
        known: What is remembered of it.
        is_new: Whether there is no record at all, or no more than a claim.
        stamp: For a device id, of the person that the device belongs to: what the
            partner says of it is said of this person only.
        person: The fingerprint of a person id; empty for a device id.
    """

    key: str
    link: Link
    known: Answer | None
    is_new: bool = False
    stamp: str = ""
    person: str = ""

    @property
    def flight(self) -> str:
        """Names the work: the same for all who ask the same."""
        return f"{self.key}:{self.stamp}" if self.stamp else self.key

    @property
    def lease(self) -> str:
        """Where one process claims the work: in the place of the record as long as there is none."""
        return self.key if self.is_new and not self.stamp else memory.lease_key(self.flight)


class Reply(msgspec.Struct, gc=False):
    """
    What came of a lookup.

    Attributes:
        outcome: What the events that wait for it are told.
        answer: What there is to attach, fresh or stale; for a refusal, its record.
        latency: Seconds that the partner took; None when it was not asked.
        step: Where the partner failed: ``resolve`` or ``attributes``; else empty.
    """

    outcome: Outcome
    answer: Answer | None = None
    latency: float | None = None
    step: str = ""


class Lookup(PartnerCalls[Reply]):
    """
    Everything that is asked of one integration's partner, link by link.

    Args:
        integration: Whom to ask, and how much.
        store: Where answers are remembered and work is claimed.
        daily_budget: Counts the calls of a day; None for no limit.
        eraser: Deletes what is remembered of who opted out; None to keep it.

    Attributes:
        wants_visitor: Whether the partner is told more of a visitor than the link.
    """

    wants_visitor: ClassVar[bool] = True

    def __init__(
        self, integration: Integration, store: Store, daily_budget: DailyBudget | None, eraser: Eraser | None = None
    ) -> None:
        super().__init__(integration, daily_budget)
        self._eraser = eraser
        self._store = store
        self._direct = 0
        attempts = integration.limits.attempts
        self._lease_ms = int((integration.limits.timeout * attempts + 1) * 1000)
        self._leases = Leases(store, self._lease_ms)
        self._can_fetch = integration.partner.supports("fetch_attributes")

    async def close(self) -> None:
        """End what is under way and disconnect."""
        await super().close()
        self._leases.close()

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
        self, questions: Sequence[Question], visitor: Visitor | None, wait_until: float, event: Event | None
    ) -> asyncio.Future[Reply]:
        """
        Look up the links in order, until the partner knows one.

        Args:
            questions: At least one.
            visitor: What else the partner may know, if `wants_visitor`.
            wait_until: Moment of `time.monotonic` until when a place in the queue is worth waiting for.
            event: The one that asks.

        Returns:
            What goes on when nobody waits any longer. It never raises.
        """
        if len(questions) == 1:
            return self._look_up(questions[0], visitor, wait_until, event)
        return self._fly(
            "\0".join(question.flight for question in questions),
            partial(self._resolve_in_order, questions, visitor, wait_until, event),
        )

    def refetch(self, key: str, answer: Answer, wait_until: float) -> asyncio.Future[Reply]:
        """
        Fetch the attributes of a known id anew, for a visitor whose identifiers are not at hand.

        Args:
            key: Of the visitor record. The caller remembers the answer.
            answer: What is remembered of the person that the device belongs to.
            wait_until: As in `resolve`.
        """
        return self._fly(f"{key}:{answer.stamp}", partial(self._refetch, key, answer, wait_until))

    def _look_up(
        self, question: Question, visitor: Visitor | None, wait_until: float, event: Event | None
    ) -> asyncio.Future[Reply]:
        """Ask about one link, or join those who do."""
        return self._fly(question.flight, partial(self._resolve_one, question, visitor, wait_until, event))

    async def _resolve_in_order(
        self, questions: Sequence[Question], visitor: Visitor | None, wait_until: float, event: Event | None
    ) -> Reply:
        reply = Reply(Outcome.SKIPPED)
        for question in questions:
            verdict = memory.judge(question.known, time.time())
            if verdict is Verdict.ABSENT:
                reply = Reply(Outcome.ABSENT, question.known)
                continue
            reply = await asyncio.shield(self._look_up(question, visitor, wait_until, event))
            if reply.outcome is not Outcome.ABSENT:
                return reply
        return reply

    async def _resolve_one(
        self, question: Question, visitor: Visitor | None, wait_until: float, event: Event | None
    ) -> Reply:
        lease, theirs = await self._claim(question, wait_until)
        if theirs is not None:
            return theirs
        started = time.perf_counter()
        said: Reply | PartnerError
        try:
            said = await self._ask(question, visitor or Visitor(), wait_until, event)
        except PartnerError as error:
            said = error
        except BaseException:
            self._leases.release(lease)
            raise
        reply = self._concluded(question, lease, said, started)
        if reply.outcome is Outcome.OPTED_OUT:
            await self._erase(question)
        return reply

    async def _ask(self, question: Question, visitor: Visitor, wait_until: float, event: Event | None) -> Reply:
        integration = self.integration
        reply = await self._renewed(question, wait_until, event)
        if reply is not None:
            return reply
        resolution: Resolution = await self._call(
            "resolve_id",
            lambda call: integration.partner.resolve_id(integration.config, self._http, question.link, visitor, call),
            wait_until,
            event,
        )
        return await self._completed(question, resolution, wait_until, event)

    async def _renewed(self, question: Question, wait_until: float, event: Event | None) -> Reply | None:
        """The attributes of an id that is good without a new resolution; None when it has to be resolved."""
        known = question.known
        if known is None or not self._id_is_good(known):
            return None
        try:
            return await self._with_attributes(known, known, wait_until, event)
        except UnknownPartnerId:
            return None  # merged into another profile: resolve anew

    async def _completed(
        self, question: Question, resolution: Resolution, wait_until: float, event: Event | None
    ) -> Reply:
        """The reply to a resolution, and the attributes that belong to it."""
        reply = self._understood(question, resolution)
        if not self._lacks_attributes(resolution):
            return reply
        assert reply.answer is not None
        try:
            return await self._with_attributes(reply.answer, question.known, wait_until, event)
        except UnknownPartnerId:
            return self._without_attributes(reply.answer, question.known, Outcome.ERROR)

    def _lacks_attributes(self, resolution: Resolution) -> bool:
        return resolution.partner_id is not None and resolution.attributes is None and self._can_fetch

    def _understood(self, question: Question, resolution: Resolution) -> Reply:
        """What a resolution says by itself."""
        integration, source, now = self.integration, question.link.source, time.time()
        if resolution.partner_id is None:
            state = resolution.reason
            if state not in _NOTHING:
                raise BadResponse("the resolution has a reason that is none")
            answer = memory.nothing(integration.version, source, state, integration.ttl, now)
            return Reply(Outcome.OPTED_OUT if state == "opted_out" else Outcome.ABSENT, answer)
        attributes: bytes | None = b""
        if resolution.attributes is not None:
            try:
                attributes = self._kept(resolution.attributes)
            except BadResponse:
                attributes = None
        answer = _record_of(integration, source, resolution, attributes or b"", now)
        if attributes is None:
            return self._without_attributes(answer, question.known, Outcome.ERROR)
        return Reply(_FRESH, answer)

    def _concluded(self, question: Question, lease: str, said: Reply | PartnerError, started: float) -> Reply:
        """What the events are told. It is remembered where it is of use to others, and the lease ends."""
        if isinstance(said, Reply):
            assert said.answer is not None
            said.answer.stamp = question.stamp
            said.latency = time.perf_counter() - started
            record: Answer | None = said.answer
            reply = said
        elif isinstance(said, NotCalled):
            record, reply = None, self._stale_or(Reply(Outcome.LIMITED), question.known)
        elif isinstance(said, NotSupported):
            record, reply = None, Reply(Outcome.SKIPPED)
        else:
            reply = self._failed(question)
            record = reply.answer if reply.outcome is Outcome.STALE or said.remembered else None
        if record is not None:
            self._remember(question.key, record)
        if record is not None and lease == question.key:
            self._leases.drop(lease)
        else:
            self._leases.release(lease)
        return reply

    async def _erase(self, question: Question) -> None:
        """Delete what was remembered of a person who opted out, wherever the person was seen."""
        if self._eraser is None or not question.person:
            return
        try:
            await self._eraser.opted_out(self.integration.provider, question.person, question.key)
        except StoreFailed:
            log.warning("what was remembered of a person who opted out may not be deleted: the store does not answer")

    def _id_is_good(self, known: Answer) -> bool:
        """Whether a remembered id serves without a new resolution, until its attributes are due again."""
        due = (1 - memory.REFRESH_SHARE) * self.integration.ttl.resolved
        return known.state == "found" and time.time() < known.resolved_until - due and self._can_fetch

    async def _with_attributes(
        self, answer: Answer, known: Answer | None, wait_until: float, event: Event | None
    ) -> Reply:
        """The answer with attributes fetched now; with those remembered, or none, when that fails."""
        try:
            fetched = await self._fetch(answer, wait_until, event)
        except UnknownPartnerId:
            raise
        except NotSupported:
            return Reply(Outcome.FRESH, answer)
        except NotCalled:
            if answer is known:
                raise  # nothing new is known
            return self._without_attributes(answer, known, Outcome.LIMITED)
        except PartnerError:
            return self._without_attributes(answer, known, Outcome.ERROR)
        ttl = self.integration.ttl
        return Reply(Outcome.FRESH, memory.refreshed(answer, fetched, ttl, time.time(), answer.resolved_until))

    def _without_attributes(self, answer: Answer, known: Answer | None, outcome: Outcome) -> Reply:
        ttl, now = self.integration.ttl, time.time()
        if known is not None and known.partner_id == answer.partner_id and known.attributes:
            reply = self._stale_or(Reply(outcome), memory.damped(known, "attributes", ttl, now))
            if reply.answer is not None:
                return msgspec.structs.replace(reply, step="attributes")
        return Reply(outcome, memory.without_attributes(answer, ttl, now), step="attributes")

    async def _refetch(self, key: str, answer: Answer, wait_until: float) -> Reply:
        question = Question(key, _NO_LINK, answer, stamp=answer.stamp)
        lease, theirs = await self._claim(question, wait_until)
        if theirs is not None:
            return theirs
        started = time.perf_counter()
        ttl = self.integration.ttl
        try:
            attributes = await self._fetch(answer, wait_until, None)
        except UnknownPartnerId:
            self._leases.release(lease)
            return Reply(Outcome.ABSENT)
        except NotCalled:
            self._leases.release(lease)
            return self._stale_or(Reply(Outcome.LIMITED), answer)
        except PartnerError:
            self._leases.release(lease)
            spared = memory.damped(answer, "attributes", ttl, time.time())
            return self._stale_or(Reply(Outcome.ERROR, spared, step="attributes"), spared)
        except BaseException:
            self._leases.release(lease)
            raise
        self._leases.drop(lease)
        renewed = memory.refreshed(answer, attributes, ttl, time.time())
        return Reply(Outcome.FRESH, renewed, time.perf_counter() - started)

    async def _fetch(self, answer: Answer, wait_until: float, event: Event | None) -> bytes:
        integration = self.integration
        partner_id: str = msgspec.json.decode(answer.partner_id)
        attributes: Mapping[str, Any] = await self._call(
            "fetch_attributes",
            lambda call: integration.partner.fetch_attributes(integration.config, self._http, partner_id, call),
            wait_until,
            event,
        )
        return self._kept(attributes)

    async def _call(
        self, hook: str, attempt: Callable[..., Awaitable[Any]], wait_until: float, event: Event | None
    ) -> Any:
        if self._store.down and self._direct >= max(1, self.integration.limits.concurrency // 4):
            raise NotCalled("the store is down: direct calls are limited")
        self._direct += 1
        try:
            return await self.governor.call(attempt, wait_until=wait_until, event_id=event_id(event), hook=hook)
        finally:
            self._direct -= 1

    def _kept(self, attributes: Mapping[str, Any]) -> bytes:
        if not isinstance(attributes, Mapping):
            raise BadResponse("the attributes are no mapping")
        wanted = self.integration.attributes
        if wanted is not None:
            attributes = {name: value for name, value in attributes.items() if name in wanted}
        try:
            encoded = memory.encode_attributes(attributes)
        except (TypeError, ValueError, RecursionError):
            encoded = b""
        if not encoded:
            raise BadResponse("the attributes are no JSON")
        if len(encoded) > MAX_ATTRIBUTES_BYTES:
            raise BadResponse(
                f"the attributes are over {MAX_ATTRIBUTES_BYTES} bytes; name those that you need under attributes:"
            )
        return encoded

    def _failed(self, question: Question) -> Reply:
        ttl, known = self.integration.ttl, question.known
        now = time.time()
        if memory.judge(known, now) in _SERVES_AS_STALE:
            assert known is not None
            return Reply(Outcome.STALE, memory.damped(known, "resolve", ttl, now), step="resolve")
        failed = memory.nothing(self.integration.version, question.link.source, "failed", ttl, now, "resolve")
        failed.stamp = question.stamp
        return Reply(Outcome.ERROR, failed, step="resolve")

    def _stale_or(self, reply: Reply, known: Answer | None) -> Reply:
        """What is remembered, where it may serve as stale; else the reply."""
        if memory.judge(known, time.time()) in _SERVES_AS_STALE:
            return msgspec.structs.replace(reply, outcome=Outcome.STALE, answer=known)
        return reply

    async def _claim(self, question: Question, wait_until: float) -> tuple[str, Reply | None]:
        """The lease when the work is ours to do; else what another process has found out. A dead one is succeeded."""
        lease, pause = question.lease, POLL_SECONDS
        while True:
            claimed = await self._store.lease((lease, self._lease_ms, question.key))
            is_ours, theirs = self._granted(question, lease, claimed, wait_until)
            if is_ours or theirs is not None:
                return lease, theirs
            lease = lease_after(question, lease, claimed)
            await asyncio.sleep(pause)
            pause = min(2 * pause, 10 * POLL_SECONDS)

    def _granted(
        self, question: Question, lease: str, claimed: Claimed, wait_until: float
    ) -> tuple[bool, Reply | None]:
        """Whether the work is ours, and what another process has found out meanwhile, which is newer than we knew."""
        granted, record = claimed
        if granted and record is None:
            self._leases.hold(lease, wait_until)
            return True, None
        answer = memory.read_answer(record, self.integration.version)
        if answer is not None and answer.stamp == question.stamp and _is_newer(answer, question.known):
            if granted:
                self._store.release(lease)
            return False, reply_from_memory(answer, memory.judge(answer, time.time()))
        if granted:
            self._leases.hold(lease, wait_until)
        return granted, None

    def _remember(self, key: str, answer: Answer) -> None:
        until = answer.usable_until if answer.state == "found" else answer.fresh_until
        self._store.queue([memory.save(key, answer, until - time.time())])


def _record_of(integration: Integration, source: str, resolution: Resolution, attributes: bytes, now: float) -> Answer:
    """The record of what the partner found."""
    try:
        answer = memory.found(integration.version, source, resolution, attributes, integration.ttl, now)
    except (TypeError, ValueError):
        answer = None
    if answer is None or not isinstance(resolution.partner_id, str):
        raise BadResponse("the resolution holds a value of a wrong type")
    if answer.expires_at is not None and answer.expires_at <= now:
        raise BadResponse("the answer had expired when it came")
    return answer


def lease_after(question: Question, lease: str, claimed: Claimed) -> str:
    """Where to claim next: beside the record, once something stands there that is neither a claim nor of use."""
    _, record = claimed
    return lease if record is None or is_claim(record) else memory.lease_key(question.flight)


def _is_newer(answer: Answer, known: Answer | None) -> bool:
    return known is None or answer.at > known.at or answer.damped_until > known.damped_until


_FRESH = Outcome.FRESH  # a member of an enumeration takes its time to be found
_NO_LINK = Link("", "", "")
_NOTHING = ("absent", "invalid", "opted_out")
_SERVES_AS_STALE = frozenset({Verdict.HIT, Verdict.REFRESH, Verdict.EXPIRED, Verdict.DAMPED})


def reply_from_memory(answer: Answer, verdict: Verdict) -> Reply:
    """What a remembered answer of this verdict says to an event."""
    if verdict is Verdict.HIT or verdict is Verdict.REFRESH:
        return Reply(
            Outcome.ERROR if answer.step == "attributes" and not answer.attributes else Outcome.HIT,
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
    Verdict.LAPSED: Outcome.SKIPPED,
    Verdict.MISS: Outcome.SKIPPED,
}
