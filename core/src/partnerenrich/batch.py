"""One batch of events: plan what each needs, in order; settle what became of it, in the same order."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine, Sequence
from typing import TYPE_CHECKING, Any

import attrs
from msgspec import structs

from partnerenrich import browser, memory
from partnerenrich.events import Event
from partnerenrich.identity import DEVICE_SOURCES, consents, event_id, identifier
from partnerenrich.lookup import Question, Reply, reply_from_memory
from partnerenrich.memory import Answer, Verdict, Who
from partnerenrich.models import KnownIDs, LinkingKey, Outcome
from partnerenrich.runtime import RunningIntegration, RunningOrg

if TYPE_CHECKING:
    from partnerenrich.store import Command, Store

Records = Sequence[bytes | None]
LinkKeys = list[tuple[LinkingKey, str]]
"""The linking keys that an event can use, each with the key of its link record."""


@attrs.define(eq=False)
class Reading:
    """
    An event, who is in it, and where its records stand.

    Attributes:
        event: The event.
        org: Whose it is.
        known: The identifiers in it.
        persons: Source to fingerprint of its person ids.
        canonical_id: Of the device, safe in a key.
        keys: Of all its records: the device's, then each integration's links.
        links: For each integration, the links that the event offers.
        first: Position of `keys` in the batch's list.
    """

    event: Event
    org: RunningOrg
    known: KnownIDs
    persons: dict[str, str]
    canonical_id: str | None
    keys: list[str]
    links: list[LinkKeys]
    first: int = 0

    @classmethod
    def of(cls, event: Event, org: RunningOrg) -> Reading:
        """Identify: the first step."""
        reader = org.reader
        known = reader.known_ids(event)
        persons = reader.persons(known)
        canonical_id = reader.safe_canonical_id(known)
        keys = [] if canonical_id is None else org.keys.device(canonical_id)
        links = []
        for running in org.running:
            usable: LinkKeys = []
            for linking_key, suffix in running.links:
                source = linking_key.source
                fingerprint = persons.get(source)
                if fingerprint is None and source in DEVICE_SOURCES:
                    value = identifier(known, source)
                    fingerprint = None if value is None else reader.fingerprint(source, value)
                if fingerprint is not None:
                    key = org.keys.link(running.integration.provider, fingerprint + suffix)
                    usable.append((linking_key, key))
                    keys.append(key)
            links.append(usable)
        return cls(event, org, known, persons, canonical_id, keys, links)

    @property
    def device(self) -> tuple[str, str] | None:
        """What names the device among those of all organisations."""
        return None if self.canonical_id is None else (self.org.slug, self.canonical_id)


@attrs.define(eq=False)
class Pending:
    """
    A reply that is not there yet.

    Attributes:
        task: The lookup.
        stale: What may serve while the lookup is late.
        fallback: What the same person was told before, for when the lookup finds nothing.
    """

    task: asyncio.Task[Reply]
    stale: Answer | None = None
    fallback: Reply | Pending | None = None
    _settled: Reply | None = None

    def settle(self) -> Reply:
        """What the waiting events are told. The first call decides."""
        if self._settled is None:
            self._settled = self._decide()
        return self._settled

    def _decide(self) -> Reply:
        reply = Reply(Outcome.LATE)
        if self.task.done():
            reply = self.task.result()
            if reply.outcome is Outcome.OPTED_OUT or _found(reply):
                return reply
        elif self.stale is not None:
            return Reply(Outcome.STALE, self.stale)
        earlier = self.fallback.settle() if isinstance(self.fallback, Pending) else self.fallback
        return earlier if earlier is not None and _found(earlier) else reply


@attrs.define(eq=False)
class Device:
    """
    What is under way for one device, seen by all batches that overlap.

    Attributes:
        who: Whom it belongs to after the events planned so far.
        told: For each integration, the latest news for this person.
        users: How often it is held.
    """

    who: Who
    told: list[Reply | Pending | None]
    users: int = 0


@attrs.frozen(eq=False)
class _Waiting:
    reading: Reading
    replies: list[Reply | Pending]
    who: Who
    visitors: list[Answer | None]


class Batch:
    """
    Plans and settles the events of one batch.

    Args:
        store: Takes the writes.
        devices: What is under way; shared by all batches.
        deadline: Moment of `time.monotonic` at which the events leave.
        spawn: Runs a coroutine that outlives the batch.
    """

    def __init__(
        self,
        store: Store,
        devices: dict[tuple[str, str], Device],
        deadline: float,
        spawn: Callable[[Coroutine[Any, Any, None]], None],
    ) -> None:
        self._store = store
        self._devices = devices
        self._deadline = deadline
        self._spawn = spawn
        self._now = time.time()
        self._held: list[tuple[str, str]] = []
        self._waiting: list[_Waiting] = []

    def plan(self, reading: Reading, records: Records) -> None:
        """
        Decide what one event needs; attach at once when memory holds it all.

        Args:
            reading: The event. Events of one device must come in their order.
            records: One for each of the reading's keys.
        """
        who = self._see(reading, records)
        device = None if reading.device is None else self._devices.get(reading.device)
        replies: list[Reply | Pending] = []
        visitors: list[Answer | None] = []
        next_link = 0 if reading.canonical_id is None else 1 + len(reading.org.running)
        waits = False
        for index, (running, links) in enumerate(zip(reading.org.running, reading.links)):
            visitor = None
            if reading.canonical_id is not None:
                visitor = memory.read_answer(records[1 + index], running.integration.version)
                if visitor is not None and visitor.stamp != who.stamp:
                    visitor = None
            told = None if device is None else device.told[index]
            link_records = records[next_link : next_link + len(links)]
            next_link += len(links)
            reply = self._plan_one(reading, index, told, visitor, link_records)
            if reading.device is not None and _is_news(reply, visitor):
                device = self._hold(reading.device, who, len(reading.org.running))
                device.told[index] = reply
            replies.append(reply)
            visitors.append(visitor)
            waits = waits or isinstance(reply, Pending)
        if waits:
            self._waiting.append(_Waiting(reading, replies, who, visitors))
        else:
            self._finish(reading, replies, who, visitors)  # type: ignore[arg-type] # none is pending

    @property
    def tasks(self) -> set[asyncio.Task[Reply]]:
        """The lookups that events wait for."""
        tasks = set()
        for waiting in self._waiting:
            for reply in waiting.replies:
                while isinstance(reply, Pending):
                    tasks.add(reply.task)
                    reply = reply.fallback  # type: ignore[assignment] # noqa: PLW2901 - walks down
        return tasks

    def settle(self) -> None:
        """Attach what became of the lookups, and see to those that are late."""
        self._now = time.time()
        for waiting in self._waiting:
            settled = [reply.settle() if isinstance(reply, Pending) else reply for reply in waiting.replies]
            self._finish(waiting.reading, settled, waiting.who, waiting.visitors)
            for index, reply in enumerate(waiting.replies):
                if isinstance(reply, Pending) and not reply.task.done():
                    self._spawn(self._remember_late(waiting.reading, index, reply.task, waiting.who.stamp))

    def release(self) -> None:
        """Let go of the devices: what this batch knows of them is written."""
        for name in self._held:
            device = self._devices[name]
            device.users -= 1
            if not device.users:
                del self._devices[name]

    def _see(self, reading: Reading, records: Records) -> Who:
        """Whom the device belongs to, after this event. A change is told at once."""
        name, org = reading.device, reading.org
        if name is None:
            return memory.NOBODY
        device = self._devices.get(name)
        before = memory.read_who(records[0]) if device is None else device.who
        if not reading.persons:
            return before
        who = memory.seen(before, reading.persons)
        if who is before:
            return who
        device = self._hold(name, who, len(org.running))
        device.who = who
        self._store.queue([memory.save(reading.keys[0], who, org.remember_seconds)])
        if who.stamp != before.stamp:
            device.told = [None] * len(org.running)
            if org.has_browser_copy and browser.is_device_cookie(name[1]):
                self._store.queue(browser.belongs(org.keys.browser(name[1]), who.stamp, org.remember_seconds))
        return who

    def _hold(self, name: tuple[str, str], who: Who, integrations: int) -> Device:
        """The device, kept in sight of all batches until this one has written what it knows."""
        device = self._devices.get(name)
        if device is None:
            device = self._devices[name] = Device(who, [None] * integrations)
        device.users += 1
        self._held.append(name)
        return device

    def _plan_one(
        self,
        reading: Reading,
        index: int,
        told: Reply | Pending | None,
        visitor: Answer | None,
        link_records: Records,
    ) -> Reply | Pending:
        running = reading.org.running[index]
        if running.integration.consent:
            granted = consents(reading.event)
            if not all(granted.get(purpose) for purpose in running.integration.consent):
                self._forget_visitor(reading, index, visitor)
                return Reply(Outcome.DENIED)
        if told is None:
            told = self._from_visitor(reading, index, visitor)
        if told is not None and not reading.persons:
            return told
        return self._from_links(reading, running, reading.links[index], link_records, told)

    def _from_visitor(self, reading: Reading, index: int, visitor: Answer | None) -> Reply | Pending | None:
        """What this person was last told on this device, renewed when it is due and no identifier is at hand."""
        verdict = memory.judge(visitor, self._now)
        if visitor is None or verdict is Verdict.MISS:
            return None
        running = reading.org.running[index]
        due = verdict in {Verdict.REFRESH, Verdict.EXPIRED}
        if due and not reading.persons and running.integration.partner.supports("fetch_attributes"):
            task = running.lookup.refetch(reading.keys[1 + index], visitor, self._deadline)
            if verdict is Verdict.EXPIRED:
                return Pending(task, stale=visitor)
            self._spawn(self._remember_late(reading, index, task, visitor.stamp))
        return reply_from_memory(visitor, self._now)

    def _from_links(
        self,
        reading: Reading,
        running: RunningIntegration,
        links: LinkKeys,
        records: Records,
        told: Reply | Pending | None,
    ) -> Reply | Pending:
        """The answer about the first link that the partner knows, else what the person was told before."""
        refusal = Reply(Outcome.SKIPPED)
        for position, record in enumerate(records):
            answer = memory.read_answer(record, running.integration.version)
            verdict = memory.judge(answer, self._now)
            if verdict is Verdict.ABSENT:
                refusal = Reply(Outcome.ABSENT, answer)
                continue
            if verdict in {Verdict.MISS, Verdict.EXPIRED, Verdict.REFRESH}:
                task = self._ask(reading, running, links[position:], records[position:])
                if task is None:
                    break
                if verdict is not Verdict.REFRESH:
                    return Pending(task, stale=answer if verdict is Verdict.EXPIRED else None, fallback=told)
            assert answer is not None
            return reply_from_memory(answer, self._now)
        return told if isinstance(told, Pending) or (told is not None and _found(told)) else refusal

    def _ask(
        self, reading: Reading, running: RunningIntegration, links: LinkKeys, records: Records
    ) -> asyncio.Task[Reply] | None:
        """Start the lookup of these links; None when none of them can be sent."""
        if not running.integration.partner.supports("resolve_id"):
            return None
        reader, version = reading.org.reader, running.integration.version
        questions = []
        for (linking_key, key), record in zip(links, records):
            link = reader.link(linking_key, reading.known)
            if link is not None:
                questions.append(Question(key, link, memory.read_answer(record, version)))
        if not questions:
            return None
        visitor = reader.visitor(reading.event, tuple(question.link for question in questions))
        return running.lookup.resolve(questions, visitor, self._deadline, event_id(reading.event))

    def _finish(self, reading: Reading, replies: Sequence[Reply], who: Who, visitors: Sequence[Answer | None]) -> None:
        """Count, remember for the device what it is told, attach."""
        for index, (running, reply, visitor) in enumerate(zip(reading.org.running, replies, visitors)):
            running.numbers.outcomes[reply.outcome] += 1
            if reading.canonical_id is None:
                continue
            if _found(reply):
                if _is_news(reply, visitor):
                    self._remember_visitor(reading, index, reply, who.stamp)
            elif reply.outcome is Outcome.OPTED_OUT or (reply.outcome is Outcome.ABSENT and reply.answer is None):
                self._forget_visitor(reading, index, visitor)
        reading.org.attacher.attach(reading.event, replies, self._now)

    def _remember_visitor(self, reading: Reading, index: int, reply: Reply, stamp: str) -> None:
        org = reading.org
        integration = org.running[index].integration
        assert reading.canonical_id is not None
        assert reply.answer is not None
        answer = structs.replace(reply.answer, stamp=stamp)
        commands = [memory.save(reading.keys[1 + index], answer, integration.ttl.remember_visitor)]
        if stamp:
            commands.append(("EXPIRE", reading.keys[0], org.remember_seconds))
        trusted = org.trusts_events or not stamp
        if integration.allowlist and trusted and browser.is_device_cookie(reading.canonical_id):
            key = org.keys.browser(reading.canonical_id)
            commands += browser.publish(
                key, integration.provider, answer, integration.allowlist, consents(reading.event), org.remember_seconds
            )
        self._store.queue(commands)

    def _forget_visitor(self, reading: Reading, index: int, visitor: Answer | None) -> None:
        if visitor is None or reading.canonical_id is None:
            return
        integration = reading.org.running[index].integration
        commands: list[Command] = [("DEL", reading.keys[1 + index])]
        if integration.allowlist:
            commands += browser.withdraw(reading.org.keys.browser(reading.canonical_id), integration.provider)
        self._store.queue(commands)

    async def _remember_late(self, reading: Reading, index: int, task: asyncio.Task[Reply], stamp: str) -> None:
        """Remember what comes after the event has left, if the device still belongs to the same person."""
        reply = await asyncio.shield(task)
        if reading.canonical_id is None or not _found(reply) or reply.outcome is Outcome.STALE:
            return
        (record,) = await self._store.read(reading.keys[:1])
        if memory.read_who(record).stamp == stamp:
            self._remember_visitor(reading, index, reply, stamp)


def _found(reply: Reply) -> bool:
    return reply.answer is not None and reply.answer.state == "found"


def _is_news(reply: Reply | Pending, visitor: Answer | None) -> bool:
    """Whether the device's visitor record does not say this yet."""
    if isinstance(reply, Pending) or reply.outcome is Outcome.OPTED_OUT:
        return True
    answer = reply.answer
    return answer is not None and answer.state == "found" and (visitor is None or visitor.at < answer.at)
