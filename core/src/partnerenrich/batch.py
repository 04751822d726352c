"""One batch of events: plan what each needs, in order; settle what became of it, in the same order."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Collection, Coroutine, Sequence
from typing import TYPE_CHECKING, Any

import attrs
import msgspec
from msgspec import structs

from partnerenrich import browser, memory, suppression
from partnerenrich.identity import DEVICE_SOURCES, Reader, consents, identifier
from partnerenrich.lookup import Question, Reply, reply_from_memory
from partnerenrich.memory import Answer, Verdict, Who
from partnerenrich.models import KnownIDs, LinkingKey, Outcome
from partnerenrich.store import is_claim

if TYPE_CHECKING:
    from partnerenrich.events import Event
    from partnerenrich.runtime import RunningIntegration, RunningOrg
    from partnerenrich.store import Command, Store

Records = Sequence[bytes | None]
LinkKeys = list[tuple[LinkingKey, str]]
"""The linking keys that an event can use, each with the key of its link record."""


class Reading(msgspec.Struct, gc=False):
    """
    An event, who is in it, and where its records stand. A struct, since one is made for every event.

    Attributes:
        event: The event.
        org: Whose it is.
        known: The identifiers in it.
        persons: Source to fingerprint of its person ids.
        vouched: Sources of those that are signed.
        canonical_id: Of the device, safe in a key.
        device: Key of the device's who record, which names it among those of all organisations.
        links: For each integration, the links that the event offers.
        keys: Of all records of a batch. Ours are the device's, then each integration's links.
        first: Position of the first of ours.
    """

    event: Event
    org: RunningOrg
    known: KnownIDs
    persons: dict[str, str]
    vouched: frozenset[str]
    canonical_id: str | None
    device: str | None
    links: Sequence[LinkKeys]
    keys: list[str]
    first: int

    def __repr__(self) -> str:
        return "Reading(***)"

    @classmethod
    def of(cls, event: Event, org: RunningOrg, keys: list[str]) -> Reading:
        """
        Identify: the first step.

        Args:
            event: Any.
            org: Whose it is.
            keys: Those that the event needs are added.
        """
        reader, first = org.reader, len(keys)
        known = reader.known_ids(event)
        persons = reader.persons(known)
        canonical_id = reader.safe_canonical_id(known)
        device = None
        if canonical_id is not None:
            for start in org.keys.device_starts(canonical_id):
                keys.append(start + canonical_id)  # noqa: PERF401 - of two or three, a comprehension takes longer
            device = keys[first]
        links: Sequence[LinkKeys] = org.no_links
        if not org.link_sources.isdisjoint(persons) or org.links_devices:
            links = [_links(reader, known, persons, running, org.keys, keys) for running in org.running]
        vouched = _NOT_VOUCHED if reader.identity_secret is None else reader.vouched(event, known)
        return cls(event, org, known, persons, vouched, canonical_id, device, links, keys, first)

    def visitor_key(self, index: int) -> str:
        """Of the device's record for one integration."""
        return self.keys[self.first + 1 + index]


def _links(
    reader: Reader,
    known: KnownIDs,
    persons: dict[str, str],
    running: RunningIntegration,
    org_keys: memory.Keys,
    keys: list[str],
) -> LinkKeys:
    usable: LinkKeys = []
    provider = running.integration.provider
    for linking_key, suffix in running.links:
        source = linking_key.source
        fingerprint = persons.get(source)
        if fingerprint is None:
            value = identifier(known, source) if source in DEVICE_SOURCES else None
            if value is None:
                continue
            fingerprint = reader.fingerprint(source, value)
        key = org_keys.link(provider, fingerprint + suffix)
        usable.append((linking_key, key))
        keys.append(key)
    return usable


class Pending(msgspec.Struct, eq=False, gc=False):
    """
    A reply that is not there yet. A struct, since one is made for every miss.

    Attributes:
        task: The lookup.
        asked: The links that it asks about.
        stale: What may serve while the lookup is late.
        fallback: What the same person was told before, for when the lookup finds nothing.
    """

    task: asyncio.Future[Reply]
    asked: LinkKeys = []
    stale: Answer | None = None
    fallback: Reply | Pending | None = None

    def settle(self, now: float) -> Reply:
        """What a waiting event is told."""
        reply = _LATE
        if self.task.done():
            reply = _still_true(self.task.result(), now)
            if reply.outcome is _OPTED_OUT or _found(reply):
                return reply
        elif self.stale is not None and now < self.stale.usable_until:
            return Reply(Outcome.STALE, self.stale)
        earlier = self.fallback.settle(now) if isinstance(self.fallback, Pending) else self.fallback
        if earlier is None:
            return reply
        sources = {linking_key.source for linking_key, _ in self.asked}
        return earlier if _holds(earlier, reply, sources, now) else reply

    def without(self, task: asyncio.Future[Reply]) -> Reply | Pending | None:
        """What was told before, less what waits for the same lookup: a chain grows by new lookups only."""
        rest = self.fallback.without(task) if isinstance(self.fallback, Pending) else self.fallback
        return rest if self.task is task else structs.replace(self, fallback=rest)


@attrs.define(eq=False)
class Device:
    """
    What is under way for one device, seen by all batches that overlap.

    Attributes:
        who: Whom it belongs to after the events planned so far.
        told: For each integration, the latest news for this person.
        unsaved: Changes of `who` that may not be in the store yet.
        users: How often it is held.
    """

    who: Who
    told: list[Reply | Pending | None]
    unsaved: int = 0
    users: int = 0


class Waiting(msgspec.Struct, frozen=True, eq=False, gc=False):
    """
    An event that waits for a lookup, or for several.

    Attributes:
        reading: The event.
        replies: For each integration, what is told, or awaited until it is settled.
        who: Whom its device belongs to.
        visitors: For each integration, what the device's visitor record says of this person.
    """

    reading: Reading
    replies: list[Reply | Pending]
    who: Who
    visitors: Sequence[Answer | None]


class Batch:
    """
    Plans and settles the events of one batch.

    Args:
        store: Takes the writes.
        orgs: Whose events these are.
        devices: What is under way; shared by all batches.
        deadline: Moment of `time.monotonic` at which the events leave.
        spawn: Runs a coroutine that outlives the batch.

    Attributes:
        waiting: The events that wait for lookups.
        tasks: The lookups that events wait for.
        waits_with_devices: Whether any event that waits has a device, which others may have news of.
        has_queued: Whether the store was given anything to write.
    """

    def __init__(
        self,
        store: Store,
        orgs: Sequence[RunningOrg],
        devices: dict[str, Device],
        deadline: float,
        spawn: Callable[[Coroutine[Any, Any, None]], None],
    ) -> None:
        self._store = store
        self._orgs = orgs
        self._devices = devices
        self._deadline = deadline
        self._spawn = spawn
        self.waiting: list[Waiting] = []
        self.tasks: set[asyncio.Future[Reply]] = set()
        self.waits_with_devices = False
        self.has_queued = False
        self._now = time.time()
        self._asks = False
        self._blind = False
        self._heeds = False
        self._held: list[str] = []
        self._changed: list[Device] = []
        self._copies: list[tuple[Reading, int, Who, list[Command]]] = []
        self._remembered: set[str] = set()
        self._followed: set[tuple[asyncio.Future[Reply], str]] = set()

    def plan(self, records: Records, readings: Sequence[Reading]) -> None:
        """
        Decide what every event needs; attach at once when memory holds it all.

        Args:
            records: One for each key of the batch.
            readings: The events, or the next of them, those of one device in their order.
        """
        self._now = time.time()
        self._blind = self._blind or self._store.down
        self._heeds = self._anybody_is_suppressed()
        hit = []
        for reading in readings:
            answers = self._hits(reading, records)
            if answers is None:
                self._plan(reading, records)
            else:
                org = reading.org
                org.attacher.attach_hits(reading.event, answers, self._now)
                hit.append(org)
        for org, events in Counter(hit).items():
            for running in org.running:
                running.numbers.outcomes[Outcome.HIT] += events

    def _plan(self, reading: Reading, records: Records) -> None:
        if self._heeds and reading.org.suppressed.holds_device(reading.known.canonical_id):
            who = memory.NOBODY if reading.device is None else memory.read_who(records[reading.first])
            self._refuse(reading, records, who)
            return
        who = self._see(reading, records)
        if self._heeds and _is_suppressed(reading, who):
            self._refuse(reading, records, who)
            return
        device = None if reading.device is None else self._devices.get(reading.device)
        # Without the store nobody knows whether another process has seen somebody else on the device meanwhile.
        blind = self._blind and not reading.persons and (device is None or not device.unsaved)
        if blind:
            who = memory.NOBODY
        visitors = self._visitors(reading, records, who)
        replies: list[Reply | Pending] = []
        next_link = reading.first + (0 if reading.device is None else 1 + len(reading.org.running))
        waits = False
        for index, (links, visitor) in enumerate(zip(reading.links, visitors)):
            told = None if device is None or blind else device.told[index]
            link_records = records[next_link : next_link + len(links)]
            next_link += len(links)
            reply = self._plan_one(reading, index, who, told, visitor, link_records)
            if reading.device is not None and (
                _is_news(reply, visitor) or (device is not None and reply is _WITHDRAWN)
            ):
                device = self._hold(reading.device, who, len(reading.org.running))
                device.told[index] = reply
            replies.append(reply)
            waits = waits or isinstance(reply, Pending)
        if waits:
            self._wait(Waiting(reading, replies, who, visitors))
        else:
            self._finish(reading, replies, who, visitors)  # type: ignore[arg-type] # none is pending

    def _wait(self, waiting: Waiting) -> None:
        self.waiting.append(waiting)
        self.waits_with_devices = self.waits_with_devices or waiting.reading.device is not None
        for reply in waiting.replies:
            while isinstance(reply, Pending):
                self.tasks.add(reply.task)
                reply = reply.fallback  # type: ignore[assignment] # noqa: PLW2901 - walks down

    def settle(self, waiting: Sequence[Waiting]) -> None:
        """Decide what becomes of the lookups of these events, remember it, and see to those that are late."""
        self._now = time.time()
        self._heeds = self._anybody_is_suppressed()
        for each in waiting:
            reading, who = each.reading, each.who
            replies = [reply.settle(self._now) if isinstance(reply, Pending) else reply for reply in each.replies]
            if self._heeds and _is_suppressed(reading, who):
                replies = [_SUPPRESSED] * len(replies)
            elif reading.device is not None:
                for index, reply in enumerate(each.replies):
                    if isinstance(reply, Pending) and not reply.task.done():
                        self._follow(reading, index, reply.task, who)
            self._remember(reading, replies, who, each.visitors)
            each.replies[:] = replies
        self._publish()

    def attach(self, waiting: Sequence[Waiting]) -> None:
        """Attach what `settle` decided, except for who was forgotten meanwhile."""
        self._heeds = self._anybody_is_suppressed()
        for each in waiting:
            replies: list[Reply] = each.replies  # type: ignore[assignment] # none is pending
            forgotten = self._heeds and _is_suppressed(each.reading, each.who)
            self._attach(each.reading, [_SUPPRESSED] * len(replies) if forgotten else replies)

    @property
    def has_written(self) -> bool:
        """Whether anything is remembered that was not, or will be when a lookup ends."""
        return bool(self._held or self._remembered or self._asks or self.waiting)

    @property
    def has_seen_somebody(self) -> bool:
        """Whether a person was seen on a device and nobody else knows it yet."""
        return bool(self._changed or self._copies)

    @property
    def has_news(self) -> bool:
        """Whether other batches see in the devices what the store may not tell yet."""
        return bool(self._held)

    def saved(self) -> None:
        """Note that the store knows to whom the devices belong. Who read it before must have planned."""
        for device in self._changed:
            device.unsaved -= 1
        self._changed.clear()

    def release(self) -> None:
        """Let go of the devices: what is known of them is written. Who read the store before must have planned."""
        self.saved()
        for name in self._held:
            self._let_go(name)
        self._held.clear()

    def _anybody_is_suppressed(self) -> bool:
        return any(org.suppressed for org in self._orgs)

    def _hits(self, reading: Reading, records: Records) -> list[Answer] | None:  # noqa: PLR0911 - as many reasons
        """The current answer of every partner where memory holds them all and nothing is to be written; else None."""
        if reading.device is None or reading.device in self._devices or reading.vouched or self._blind:
            return None
        who = memory.read_who(records[reading.first])
        persons = reading.persons
        if (persons and not persons.items() <= who.persons.items()) or (self._heeds and _is_suppressed(reading, who)):
            return None
        now = self._now
        hits: list[Answer] = []
        position = reading.first + 1
        next_link = position + len(reading.links)
        for running, links in zip(reading.org.running, reading.links):
            integration = running.integration
            if integration.consent and not _all_granted(reading.event, integration.consent):
                return None
            visitor = memory.read_answer(records[position], integration.version)
            if visitor is None or visitor.stamp != who.stamp:
                return None
            answer = visitor
            if links and persons:
                about = _about(links[0][0], records[next_link], integration.version, who)
                if about is None or _is_newer(about, visitor):
                    return None
                answer = about
            if answer.state != "found" or answer.step or now >= answer.refresh_at or now >= answer.fresh_until:
                return None
            hits.append(answer)
            position += 1
            next_link += len(links)
        return hits

    def _refuse(self, reading: Reading, records: Records, who: Who) -> None:
        """Attach nothing, ask nobody, and keep nothing of what was known."""
        device = None if reading.device is None else self._devices.get(reading.device)
        if device is not None:
            device.told = [None] * len(device.told)
        visitors = self._visitors(reading, records, who)
        self._finish(reading, [_SUPPRESSED] * len(visitors), who, visitors)

    def _see(self, reading: Reading, records: Records) -> Who:
        """Whom the device belongs to, after this event. A change is told at once."""
        name, canonical_id, org = reading.device, reading.canonical_id, reading.org
        if name is None or canonical_id is None:
            return memory.NOBODY
        device = self._devices.get(name)
        if device is None:
            before = memory.read_who(records[reading.first])
        else:
            if not device.unsaved:
                _hear_of_others(device, memory.read_who(records[reading.first]))
            before = device.who
        if not reading.persons:
            return before
        who = memory.seen(before, reading.persons, reading.vouched)
        if who is before:
            return who
        device = self._hold(name, who, len(org.running))
        device.who = who
        device.unsaved += 1
        self._changed.append(device)
        if not _is_suppressed(reading, who):
            self._queue(org.eraser.seen(who.persons.values(), canonical_id, org.remember_seconds))
        if who.stamp == before.stamp:
            self._queue([memory.save(name, who, org.remember_seconds)])
            return who
        device.told = [None] * len(org.running)
        # The person before is taken out first, which even a full store does.
        self._queue([("DEL", name), memory.save(name, who, org.remember_seconds)])
        if org.has_browser_copy and browser.is_device_cookie(canonical_id):
            self._queue(browser.belongs(org.keys.browser(canonical_id), who.stamp, org.remember_seconds))
        return who

    def _hold(self, name: str, who: Who, integrations: int) -> Device:
        """The device, kept in sight of all batches until this one has written what it knows."""
        self._held.append(name)
        return self._take(name, who, integrations)

    def _take(self, name: str, who: Who, integrations: int) -> Device:
        device = self._devices.get(name)
        if device is None:
            device = self._devices[name] = Device(who, [None] * integrations)
        device.users += 1
        return device

    def _let_go(self, name: str) -> None:
        device = self._devices[name]
        device.users -= 1
        if not device.users:
            del self._devices[name]

    def _plan_one(
        self,
        reading: Reading,
        index: int,
        who: Who,
        told: Reply | Pending | None,
        visitor: Answer | None,
        link_records: Records,
    ) -> Reply | Pending:
        purposes = reading.org.running[index].integration.consent
        if purposes:
            granted = consents(reading.event)
            if any(granted.get(purpose) is False for purpose in purposes):
                if visitor is not None or (told is not None and told is not _WITHDRAWN):
                    self._forget_visitor(reading, index)
                return _WITHDRAWN
            if not all(purpose in granted for purpose in purposes):
                return _DENIED
        if told is _WITHDRAWN:
            told = None
        if not reading.persons:
            if told is None:
                told = self._from_visitor(reading, index, who, visitor)
            if told is not None and not (_is_stale(told) and link_records):
                return told
        return self._from_links(reading, index, who, link_records, told, visitor)

    def _from_visitor(self, reading: Reading, index: int, who: Who, visitor: Answer | None) -> Reply | Pending | None:
        """What this person was last told on this device, renewed when it is due and no identifier is at hand."""
        verdict = memory.judge(visitor, self._now)
        if visitor is None or verdict is Verdict.MISS:
            return None
        running = reading.org.running[index]
        if verdict in _DUE and not reading.persons and running.integration.partner.supports("fetch_attributes"):
            self._asks = True
            task = running.lookup.refetch(reading.visitor_key(index), visitor, self._deadline)
            if verdict is not Verdict.REFRESH:
                return Pending(task, stale=visitor)
            self._follow(reading, index, task, who)
        return None if verdict is Verdict.LAPSED else reply_from_memory(visitor, verdict)

    def _from_links(
        self,
        reading: Reading,
        index: int,
        who: Who,
        records: Records,
        told: Reply | Pending | None,
        visitor: Answer | None,
    ) -> Reply | Pending:
        """The answer about the first link that the partner knows, else what the person was told before."""
        links = reading.links[index]
        if told is None and visitor is None and not any(records):
            task = self._ask(reading, index, who, links, [None] * len(links), records)
            return _SKIPPED if task is None else Pending(task, links)
        version = reading.org.running[index].integration.version
        answers = [_about(linking_key, record, version, who) for (linking_key, _), record in zip(links, records)]
        if answers and memory.judge(answers[0], self._now) is Verdict.HIT:
            assert answers[0] is not None
            return reply_from_memory(answers[0], Verdict.HIT)
        if told is None and reading.persons:
            told = self._from_visitor(reading, index, who, visitor)
        refusal = _SKIPPED
        for position, answer in enumerate(answers):
            verdict = memory.judge(answer, self._now)
            if verdict is Verdict.ABSENT:
                refusal = Reply(Outcome.ABSENT, answer)
                if isinstance(told, Reply) and not _holds(told, refusal, {links[position][0].source}, self._now):
                    told = None
                continue
            if verdict in _DUE or verdict is Verdict.MISS:
                task = self._ask(reading, index, who, links[position:], answers[position:], records[position:])
                if task is None:
                    break
                if verdict is not Verdict.REFRESH:
                    fallback = told.without(task) if isinstance(told, Pending) else told
                    return Pending(task, links[position:], answer if verdict is Verdict.EXPIRED else None, fallback)
                self._follow(reading, index, task, who)
            assert answer is not None
            return reply_from_memory(answer, verdict)
        holds = isinstance(told, Pending) or (told is not None and _holds(told, refusal, (), self._now))
        return told if told is not None and holds else refusal

    def _visitors(self, reading: Reading, records: Records, who: Who) -> Sequence[Answer | None]:
        """For each integration, what the device's visitor record says of this very person."""
        if reading.device is None:
            return reading.org.no_visitors
        first = reading.first + 1
        return [self._visitor(reading, index, records[first + index], who) for index in range(len(reading.links))]

    @staticmethod
    def _visitor(reading: Reading, index: int, record: bytes | None, who: Who) -> Answer | None:
        """What the device's visitor record says of this very person."""
        answer = memory.read_answer(record, reading.org.running[index].integration.version)
        return answer if answer is not None and answer.stamp == who.stamp else None

    def _ask(
        self,
        reading: Reading,
        index: int,
        who: Who,
        links: LinkKeys,
        answers: Sequence[Answer | None],
        records: Records,
    ) -> asyncio.Future[Reply] | None:
        """Start the lookup of these links; None when none of them can be sent."""
        running, reader = reading.org.running[index], reading.org.reader
        if not running.integration.partner.resolves:
            return None
        questions, known, persons = [], reading.known, reading.persons
        for (linking_key, key), answer, record in zip(links, answers, records):
            link = reader.link(linking_key, known)
            if link is not None:
                source, is_new = link.source, record is None or is_claim(record)
                stamp = who.stamp if source in DEVICE_SOURCES else ""
                questions.append(Question(key, link, answer, is_new, stamp, persons.get(source, "")))
        if not questions:
            return None
        self._asks = True
        visitor = None
        if running.lookup.wants_visitor:
            visitor = reader.visitor(reading.event, tuple(question.link for question in questions))
        return running.lookup.resolve(questions, visitor, self._deadline, reading.event)

    def _finish(self, reading: Reading, replies: Sequence[Reply], who: Who, visitors: Sequence[Answer | None]) -> None:
        """Remember and attach at once."""
        self._remember(reading, replies, who, visitors)
        self._attach(reading, replies)

    def _attach(self, reading: Reading, replies: Sequence[Reply]) -> None:
        for running, reply in zip(reading.org.running, replies):
            running.numbers.outcomes[reply.outcome] += 1
        reading.org.attacher.attach(reading.event, replies, self._now)

    def _remember(
        self, reading: Reading, replies: Sequence[Reply], who: Who, visitors: Sequence[Answer | None]
    ) -> None:
        """Remember for the device what it is told."""
        if reading.canonical_id is None:
            return
        for index, (reply, visitor) in enumerate(zip(replies, visitors)):
            if _found(reply):
                if _is_news(reply, visitor) or reading.vouched:
                    self._remember_visitor(reading, index, reply, who)
            elif reply.outcome in _REFUSALS and (visitor is not None or reading.visitor_key(index) in self._remembered):
                self._forget_visitor(reading, index)

    def _is_over(self, reading: Reading, index: int, who: Who) -> bool:
        """Whether the device changed hands, or consent was withdrawn."""
        device = None if reading.device is None else self._devices.get(reading.device)
        return device is not None and (device.who.stamp != who.stamp or _is_refusal(device.told[index]))

    def _remember_visitor(self, reading: Reading, index: int, reply: Reply, who: Who) -> None:
        """Remember what the person is told, unless that is over meanwhile."""
        org, name, canonical_id = reading.org, reading.device, reading.canonical_id
        assert name is not None
        assert canonical_id is not None
        assert reply.answer is not None
        if self._is_over(reading, index, who):
            return
        integration, key = org.running[index].integration, reading.visitor_key(index)
        answer = structs.replace(reply.answer, stamp=who.stamp)
        commands = [memory.save(key, answer, integration.ttl.remember_visitor)]
        if who.stamp:
            commands.append(("EXPIRE", name, org.remember_seconds))
            commands += org.eraser.seen(who.persons.values(), canonical_id, org.remember_seconds)
        self._remembered.add(key)
        self._queue(commands)
        trusted = org.trusts_events or who.is_vouched
        if integration.allowlist and trusted and browser.is_device_cookie(canonical_id):
            copy, granted = org.keys.browser(canonical_id), consents(reading.event)
            commands = browser.publish(
                copy, integration.provider, answer, integration.allowlist, granted, org.remember_seconds
            )
            device = self._devices.get(name)
            if device is not None and device.unsaved:  # who forgets the person may not find this device yet
                self._copies.append((reading, index, who, commands))
            else:
                self._queue(commands)

    def _queue(self, commands: Sequence[Command]) -> None:
        self.has_queued = True
        self._store.queue(commands)

    def _publish(self) -> None:
        """Write the browser copies that were held back, now that it is known who was forgotten meanwhile."""
        copies, self._copies = self._copies, []
        for reading, index, who, commands in copies:
            if not _is_suppressed(reading, who) and not self._is_over(reading, index, who):
                self._queue(commands)

    def _forget_visitor(self, reading: Reading, index: int) -> None:
        assert reading.canonical_id is not None
        integration = reading.org.running[index].integration
        commands: list[Command] = [("DEL", reading.visitor_key(index))]
        if integration.allowlist:
            commands += browser.withdraw(reading.org.keys.browser(reading.canonical_id), integration.provider)
        self._queue(commands)

    def _follow(self, reading: Reading, index: int, task: asyncio.Future[Reply], who: Who) -> None:
        """See to a lookup after its events have left. The device stays in sight until then."""
        name = reading.device
        if name is None or (task, name) in self._followed:
            return
        self._followed.add((task, name))
        self._take(name, who, len(reading.org.running))
        self._spawn(self._remember_late(reading, index, task, who, name))

    async def _remember_late(
        self, reading: Reading, index: int, task: asyncio.Future[Reply], who: Who, name: str
    ) -> None:
        """Remember what comes after the event has left, if the device still belongs to the same person."""
        try:
            reply = await asyncio.shield(task)
            await self._store.flush()  # where the person was seen is known before it is asked who was forgotten
            suppressed = reading.org.suppressed
            before, record, version = await self._store.read([name, reading.visitor_key(index), suppressed.version_key])
            await suppression.heed(self._store, [suppressed], [version])
            if _is_suppressed(reading, who):
                return
            if not memory.read_who(before).stamp == self._devices[name].who.stamp == who.stamp:
                return
            visitor = self._visitor(reading, index, record, who)
            if _found(reply):
                if _is_news(reply, visitor):
                    self._remember_visitor(reading, index, reply, who)
                    self._publish()
            elif reply.outcome is Outcome.OPTED_OUT or (reply.outcome is Outcome.ABSENT and reply.answer is None):
                self._forget_visitor(reading, index)
            await self._store.flush()
        finally:
            self._let_go(name)


_NOT_VOUCHED: frozenset[str] = frozenset()
_LATE = Reply(Outcome.LATE)
_STALE, _OPTED_OUT = Outcome.STALE, Outcome.OPTED_OUT  # a member of an enumeration takes its time to be found
_SKIPPED = Reply(Outcome.SKIPPED)
_DENIED = Reply(Outcome.DENIED)
"""Nothing is said of consent."""
_SUPPRESSED = Reply(Outcome.OPTED_OUT)
"""The person was forgotten, and is to stay so."""
_WITHDRAWN = Reply(Outcome.DENIED)
"""Consent is refused: what is remembered of the visitor goes."""
_DUE = frozenset({Verdict.REFRESH, Verdict.EXPIRED, Verdict.LAPSED})
_REFUSALS = frozenset({Outcome.OPTED_OUT, Outcome.ABSENT})


def _about(linking_key: LinkingKey, record: bytes | None, version: str, who: Who) -> Answer | None:
    """What is remembered of a link. What a partner said of a device id was said of one person on that device."""
    answer = memory.read_answer(record, version)
    if answer is not None and linking_key.source in DEVICE_SOURCES and answer.stamp != who.stamp:
        return None
    return answer


def _is_suppressed(reading: Reading, who: Who) -> bool:
    """Whether the event is of somebody, or from a device, that is not to be enriched."""
    persons = reading.persons if reading.device is None else who.persons
    suppressed = reading.org.suppressed
    return suppressed.holds(persons.values()) or suppressed.holds_device(reading.known.canonical_id)


def _hear_of_others(device: Device, stored: Who) -> None:
    """The store tells to whom a device belongs; another process may have seen somebody else there."""
    if stored.stamp != device.who.stamp:
        device.told = [None] * len(device.told)
    device.who = stored


def _still_true(reply: Reply, now: float) -> Reply:
    """The reply, or why there is none any more: a stale answer may have lapsed while its event waited for others."""
    if reply.outcome is not _STALE or reply.answer is None or now < reply.answer.usable_until:
        return reply
    return Reply(Outcome.ERROR if reply.step else Outcome.LIMITED, step=reply.step)


def _found(reply: Reply) -> bool:
    return reply.answer is not None and reply.answer.state == "found"


def _is_stale(told: Reply | Pending) -> bool:
    return isinstance(told, Reply) and told.outcome is Outcome.STALE


def _is_refusal(told: Reply | Pending | None) -> bool:
    return isinstance(told, Reply) and told.outcome in {Outcome.DENIED, Outcome.OPTED_OUT}


def _is_news(reply: Reply | Pending, visitor: Answer | None) -> bool:
    """Whether the device's visitor record does not say this yet."""
    if isinstance(reply, Pending) or reply.outcome is Outcome.OPTED_OUT:
        return True
    answer = reply.answer
    if answer is visitor or answer is None or answer.state != "found":
        return False
    return visitor is None or _is_newer(answer, visitor)


def _is_newer(answer: Answer, visitor: Answer) -> bool:
    return visitor.at < answer.at or visitor.damped_until < answer.damped_until


def _all_granted(event: Event, purposes: Collection[str]) -> bool:
    granted = consents(event)
    return all(granted.get(purpose) is True for purpose in purposes)


def _holds(told: Reply, reply: Reply, asked: Collection[str], now: float) -> bool:
    """Whether what a person was told before still holds beside a reply about these sources that found nothing."""
    answer = told.answer
    if answer is None or answer.state != "found" or now >= answer.usable_until:
        return False
    if reply.outcome is not Outcome.ABSENT or answer.source not in asked:
        return True
    return reply.answer is not None and reply.answer.at < answer.at
