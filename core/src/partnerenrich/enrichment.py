"""Flows A and B over a batch of events: identify, recall, look up, remember, attach."""

from __future__ import annotations

import asyncio
import secrets
import time
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar, cast

import attrs
import msgspec

from partnerenrich import browser, memory, suppression
from partnerenrich import configuration as configurations
from partnerenrich.attachment import WRITTEN
from partnerenrich.batch import Batch, Device, Reading
from partnerenrich.budget import daily_budget
from partnerenrich.bulk import new_lookup, together
from partnerenrich.desk import FEW, Desk
from partnerenrich.erasure import Eraser, Watch
from partnerenrich.errors import ConfigError, PartnerError, Problem
from partnerenrich.events import Event, EventError, at_path, value_of
from partnerenrich.flights import landed, off
from partnerenrich.identity import Fingerprints, Reader, consents, identifier
from partnerenrich.runtime import RunningIntegration, RunningOrg
from partnerenrich.statistics import PartnerStatistics, Statistics
from partnerenrich.store import Store, StoreFailed
from partnerenrich.suppression import SuppressionList
from partnerenrich.turns import Turns

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Coroutine, Mapping, Sequence

    from partnerenrich.configuration import Configuration, Integration
    from partnerenrich.lookup import Lookup
    from partnerenrich.plugins import Plugins
    from partnerenrich.store import Command

BUDGET_MS = 250.0
"""For how long an event may be held back, unless the configuration says otherwise."""
LONGEST_COMMAND = 2.0
"""Seconds for one round trip to the store, however large the budget."""

AnyEvent = TypeVar("AnyEvent", bytes, dict[str, Any])


@attrs.frozen
class CheckResult:
    """
    What a partner said of one integration's settings.

    Attributes:
        org: Slug of the organisation.
        integration: Its name.
        ok: Whether they work.
        message: What is wrong and the way out.
    """

    org: str
    integration: str
    ok: bool
    message: str


class Enricher:
    """
    Enriches events. Open it with `Enricher.open`.

    Attributes:
        plugins: What was loaded, and what failed.
        integrations: Slug of each organisation to its integrations.
        statistics: What was done so far.
    """

    def __init__(self, configuration: Configuration, store_url: str, key: bytes) -> None:
        self.integrations: Mapping[str, tuple[Integration, ...]]
        self.plugins: Plugins
        self.integrations, self.plugins = configurations.bind(configuration)
        self.statistics = Statistics()
        self._budget = (BUDGET_MS if configuration.budget_ms is None else configuration.budget_ms) / 1000
        try:
            self._store = Store(store_url, command_seconds=min(self._budget / 4, LONGEST_COMMAND))
        except ValueError:
            raise ConfigError([Problem("store", "is no URL of a Redis, such as redis://127.0.0.1:6379")]) from None
        self._watch = Watch(self._store, self._under_way)
        self._org_from = tuple(configuration.org_from.split(".")) if configuration.org_from else ()
        self._others: list[tuple[Integration, Lookup]] = []  # they only take batches
        self._orgs = {
            slug: self._org(slug, integrations, configuration, key) for slug, integrations in self.integrations.items()
        }
        self._only_org = next(iter(self._orgs)) if len(self._orgs) == 1 else ""
        self._turns = Turns()
        self._desk = Desk()
        self._devices: dict[str, Device] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    @classmethod
    @asynccontextmanager
    async def open(
        cls, configuration: Configuration, *, store: str | None = None, key: bytes | None = None
    ) -> AsyncIterator[Enricher]:
        """
        Load the partners, connect the store, and tidy up at the end.

        Args:
            configuration: See `partnerenrich.configuration.load_file`.
            store: URL that replaces the configuration's ``store``.
            key: 32 bytes that replace the configuration's ``key``.

        Raises:
            ConfigError: Something is missing or wrong in the configuration.
            PluginError: An extension does not load.
        """
        url = store or configuration.store
        if url is None or url.startswith("embedded:"):
            raise ConfigError(
                [Problem("store", "must be the URL of a Redis; embedded: comes with partnerenrich-server")]
            )
        if key is None:
            if configuration.key is None:
                raise ConfigError([Problem("key", "is required; partnerenrich secrets generate-key makes one")])
            key = configurations.decode_key(configuration.key)
        elif len(key) != 32:
            raise ConfigError([Problem("key", "must be 32 bytes")])
        enricher = cls(configuration, url, key)
        try:
            await suppression.hear(enricher._store, [org.suppressed for org in enricher._orgs.values()])
            yield enricher
        finally:
            await enricher._close()

    @property
    def store_failures(self) -> int:
        """How often the store did not answer as it should."""
        return self._store.failures

    @property
    def is_behind(self) -> bool:
        """Whether the store has missed deletions: until they are made up for, others may read too much there."""
        return self._store.owes_deletions

    def parse(self, line: bytes, *, org: str | None = None) -> Event:
        """
        Read one event.

        Args:
            line: A JSON object.
            org: Whose event it is; by default the only organisation, or what ``org_from`` finds in it.

        Raises:
            EventError: It is no event, or belongs to no configured organisation.
        """
        event = Event.parse(line, org or self._only_org)
        if org is None and self._org_from:
            slug = at_path(event.fields, self._org_from)
            event.org = slug if isinstance(slug, str) else ""
        if event.org not in self._orgs:
            raise EventError("belongs to no configured organisation")
        return event

    async def process(self, events: Sequence[Event]) -> None:
        """
        Enrich one batch in place.

        Calls may overlap. Events of one visitor count in the order in which the
        calls were made.
        """
        deadline = time.monotonic() + self._budget
        keys: list[str] = []
        readings: list[Reading] = []
        orgs = [self._orgs[slug] for slug in {event.org for event in events}]
        suppressed = [org.suppressed for org in orgs]
        batch = Batch(self._store, orgs, self._devices, deadline, self._spawn)
        turn, place = self._turns.take(), self._desk.place()
        try:
            try:
                await place.work(events, partial(self._read, readings, keys))
                keys += (each.version_key for each in suppressed)
                records = await self._store.read(keys)
                await suppression.heed(self._store, suppressed, records[-len(suppressed) :])
                await turn.comes()
                with together(running.lookup for org in orgs for running in org.running):
                    await place.work(readings, partial(batch.plan, records))
                if len(batch.tasks) > FEW:
                    await off()
            finally:
                turn.end()
            if batch.has_seen_somebody:  # this is known, before it is asked who was forgotten and an answer counts
                await suppression.hear(self._store, suppressed)
            elif batch.waits_with_devices:
                await self._store.flush()
            if batch.tasks or batch.has_seen_somebody:
                await self._turns.all_over()
                batch.saved()
                await landed(batch.tasks, max(0.0, deadline - time.monotonic()))
            await place.work(batch.waiting, batch.settle)
            if batch.tasks:  # somebody may have been forgotten meanwhile
                await suppression.hear(self._store, suppressed)
            elif batch.has_queued:
                await self._store.flush()
            await place.work(batch.waiting, batch.attach)
        except BaseException:
            await self._store.flush()
            raise
        finally:
            if batch.has_written:
                self._watch.note()
            if batch.has_news:
                self._turns.when_all_over(batch.release)
        self.statistics.events += len(events)

    def _read(self, readings: list[Reading], keys: list[str], events: Sequence[Event]) -> None:
        orgs = self._orgs
        readings += [Reading.of(event, orgs[event.org], keys) for event in events]

    async def enrich(self, events: Sequence[AnyEvent], *, org: str | None = None) -> list[AnyEvent]:
        """
        Enrich one batch of events, given as JSON or as dictionaries.

        Args:
            events: Left as they are.
            org: See `parse`.

        Returns:
            The enriched events, in the same order and form.

        Raises:
            EventError: One of them is no event; names its position. None was enriched.
        """
        given: Sequence[bytes | dict[str, Any]] = events
        parsed: list[Event] = []
        try:
            for event in given:
                line = event if isinstance(event, bytes) else msgspec.json.encode(event)
                parsed.append(self.parse(line, org=org))
        except (EventError, TypeError, ValueError, RecursionError) as error:
            reason = str(error) if isinstance(error, EventError) else "holds a value that JSON does not have"
            raise EventError(f"events[{len(parsed)}] {reason}") from None
        await self.process(parsed)
        enriched = [
            event.encode() if isinstance(before, bytes) else _with_context_of(event, before)
            for before, event in zip(given, parsed)
        ]
        return cast("list[AnyEvent]", enriched)

    def is_suppressed(self, event: Event) -> bool:
        """
        Whether the person or the device of an event is on the suppression list, as it was last read.

        Raises:
            StoreFailed: It could not be read since the start, so nobody can tell.
        """
        org = self._orgs[event.org]
        if not org.suppressed.is_known:
            raise StoreFailed(f"the suppression list of {org.slug} could not be read since the start")
        known = org.reader.known_ids(event)
        persons = org.reader.persons(known)
        return org.suppressed.holds(persons.values()) or org.suppressed.holds_device(known.canonical_id)

    def visitor_of(self, event: Event) -> str | None:
        """The canonical id of an event, in a form that is safe in a key; None when it has none."""
        reader = self._orgs[event.org].reader
        return reader.safe_canonical_id(reader.known_ids(event))

    def retire(self, org: str, canonical_id: str) -> None:
        """
        Take a device out of use: nobody is known on it any more, and its browser reads nothing.

        What the store misses is made up for when it answers again; see `is_behind`.

        Args:
            org: Slug.
            canonical_id: One that a hub has issued.
        """
        running = self._orgs[org]
        copy = running.keys.browser(canonical_id)
        # A late answer, which would bring the copy back, is not for a device on which nobody is known.
        deletions: list[Command] = [("DEL", key) for key in (*running.keys.device(canonical_id), copy)]
        self._store.queue([*deletions, *browser.belongs(copy, secrets.token_hex(8), running.remember_seconds)])

    async def check(self) -> list[CheckResult]:
        """Ask every partner whether the settings of its integration work."""
        running = ((each.integration, each.lookup) for org in self._orgs.values() for each in org.running)
        return await asyncio.gather(*(self._check(*each) for each in (*running, *self._others)))

    async def explain(self, event: Event) -> dict[str, Any]:
        """
        Enrich one event and tell every decision on the way, without a value of the visitor.

        Args:
            event: Enriched in place.

        Returns:
            What was found in the event, what memory held, and each partner's outcome.
        """
        reading = Reading.of(event, self._orgs[event.org], [])
        records = await self._store.read(reading.keys)
        told = self._explain_memory(reading, records)
        await self.process([event])
        outcomes = value_of((event.context or {}).get("enrichment")) or {}
        for entry in told["partners"]:
            result = outcomes.get(entry["provider"])
            if result is None:
                result = "the context of the event is no object: nothing attached"
            else:
                result.pop("previous_id", None)
            entry["result"] = result
        return told

    def _explain_memory(self, reading: Reading, records: Sequence[bytes | None]) -> dict[str, Any]:
        org, now = reading.org, time.time()
        by_key = dict(zip(reading.keys, records))
        who = memory.read_who(records[0] if reading.canonical_id else None)
        after = memory.seen(who, reading.persons, reading.vouched) if reading.persons else who
        granted = consents(reading.event)
        partners = []
        for index, (running, links) in enumerate(zip(org.running, reading.links)):
            integration = running.integration
            keys = {id(linking_key): key for linking_key, key in links}
            visitor = None
            if reading.canonical_id:
                visitor = memory.read_answer(by_key[reading.visitor_key(index)], integration.version)
            partners.append(
                {
                    "integration": integration.name,
                    "provider": integration.provider,
                    "consent": {purpose: granted.get(purpose, "not given") for purpose in integration.consent},
                    "links": [
                        {
                            "source": linking_key.source,
                            "key": linking_key.key,
                            "hash": linking_key.hash,
                            "usable": id(linking_key) in keys,
                            "remembered": memory.judge(
                                memory.read_answer(by_key.get(keys.get(id(linking_key), "")), integration.version), now
                            ).value,
                        }
                        for linking_key in integration.linking_keys
                    ],
                    "visitor_record": memory.judge(visitor, now).value,
                    "visitor_record_is_of_this_person": visitor is not None and visitor.stamp == after.stamp,
                }
            )
        sources = ("canonical_id", "anonymous_id", "user_id", "email", "phone", *org.reader.paths)
        return {
            "org": org.slug,
            "found_in_event": [source for source in sources if identifier(reading.known, source)],
            "person": _person_change(who, after),
            "partners": partners,
        }

    def _org(
        self, slug: str, integrations: Sequence[Integration], configuration: Configuration, key: bytes
    ) -> RunningOrg:
        linking_keys = [linking_key for integration in integrations for linking_key in integration.linking_keys]
        settings = configuration.organisations()[slug]
        fingerprint = Fingerprints.of(key, slug)
        suppressed = SuppressionList(slug, fingerprint, self._store, settings.default_region)
        eraser = Eraser.of(slug, settings, fingerprint, self._store)
        self._watch.add(suppressed, eraser)
        several_orgs = len(self.integrations) > 1
        running = []
        for integration in integrations:
            lookup = new_lookup(integration, self._store, daily_budget(integration, self._store), eraser)
            if integration.partner.enriches:
                running.append(self._run(integration, lookup, several_orgs=several_orgs))
            else:
                self._others.append((integration, lookup))
        return RunningOrg(
            slug,
            Reader.of(fingerprint, settings.default_region, linking_keys, settings.hub.identity_secret),
            running,
            suppressed,
            eraser,
            trusts_events=settings.hub.browser_identity == "trusted",
        )

    def _run(self, integration: Integration, lookup: Lookup, *, several_orgs: bool) -> RunningIntegration:
        numbers = PartnerStatistics(lookup.governor.statistics)
        label = f"{integration.org}/{integration.name}" if several_orgs else integration.name
        self.statistics.partners[label] = numbers
        return RunningIntegration(integration, lookup, numbers)

    async def _check(self, integration: Integration, lookup: Lookup) -> CheckResult:
        try:
            await lookup.check()
        except PartnerError as error:
            return CheckResult(integration.org, integration.name, ok=False, message=str(error))
        return CheckResult(integration.org, integration.name, ok=True, message="works")

    def _under_way(self) -> set[asyncio.Future[Any]]:
        """The lookups, and what follows those that are late."""
        lookups = (running.lookup for org in self._orgs.values() for running in org.running)
        return self._tasks.union(*(lookup.under_way for lookup in lookups))

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        running = (running.lookup for org in self._orgs.values() for running in org.running)
        await asyncio.gather(*(lookup.close() for lookup in (*running, *(lookup for _, lookup in self._others))))
        await self._watch.close()
        await self._store.close()


def _with_context_of(event: Event, given: dict[str, Any]) -> dict[str, Any]:
    if event.context is None:
        return dict(given)
    added = {name: value_of(event.context[name]) for name in WRITTEN if name in event.context}
    return {**given, "context": {**given.get("context", {}), **added}}


def _person_change(before: memory.Who, after: memory.Who) -> str:
    if not after.stamp:
        return "nobody is known on this device"
    if not before.stamp:
        return "the first person seen on this device"
    if before.stamp != after.stamp:
        return "another person than before: nothing of the person before is used"
    return "the same person as before"
