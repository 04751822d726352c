"""
Forget a person: find what is remembered under fingerprints and canonical ids, and delete it.

An **index** leads from the fingerprint of a person id to the devices on which it
was seen. It is written when a device's *who* record is, so the warm path never
writes it. A device of the person gets a new stamp: what is written late, under
the old one, counts no more than that of any person before.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

import attrs
import msgspec
from msgspec import structs

from partnerenrich import browser, memory, suppression
from partnerenrich.browser import Extract
from partnerenrich.flights import landed
from partnerenrich.identity import DEVICE_SOURCES
from partnerenrich.memory import Answer, Keys, Who
from partnerenrich.store import StoreFailed, bucket

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Sequence

    from partnerenrich.configuration import OrgSettings
    from partnerenrich.identity import Fingerprints
    from partnerenrich.store import Command, Store
    from partnerenrich.suppression import SuppressionList

DEVICES: Final = 100
"""Most devices that the index knows of one fingerprint: the newest."""
TWINS: Final = 8
"""Linking keys of one source, such as an e-mail under several recipes, whose records are looked for at least."""
TOMBSTONE_SECONDS: Final = 86_400
"""For how long a browser copy that was deleted takes nothing that comes late."""
PAUSE_SECONDS: Final = 1.0
"""How long after a write it is made sure that nobody was forgotten meanwhile."""

SLACK_SECONDS: Final = 3600
"""How much longer the index is kept than what it leads to."""

AT_ONCE: Final = 4
"""Opt-outs that are seen to at the same time, each on a connection of its own."""

_read_extract = msgspec.json.Decoder(Extract).decode


@attrs.define
class Erased:
    """
    How much was deleted.

    Attributes:
        devices: On which something was known of the person.
        link_records: Answers about one identifier.
        visitor_records: What devices were told.
        browser_copies: What pages could read.
        also_known_by: Sources of the other ids that were seen with the person. Not counted.
    """

    devices: int = 0
    link_records: int = 0
    visitor_records: int = 0
    browser_copies: int = 0
    also_known_by: set[str] = attrs.field(factory=set)


@attrs.frozen
class _Device:
    canonical_id: str
    who: Who
    told: Mapping[str, bytes | None]
    copy: Mapping[bytes, bytes]

    def names(self, fingerprints: Collection[str]) -> bool:
        """Whether it belongs to one of these at the moment."""
        return any(each in fingerprints for each in self.who.persons.values())

    @property
    def is_told_anything(self) -> bool:
        """Whether any of the partners said something of whoever uses it."""
        return any(self.told.values()) or self.has_shown_anything

    @property
    def has_shown_anything(self) -> bool:
        """Whether a page can read what any of the partners said."""
        return any(_part(provider) in self.copy for provider in self.told)


class _Deletions:
    """Commands, and what each of them deletes."""

    def __init__(self) -> None:
        self.commands: list[Command] = []
        self._kinds: list[str | None] = []

    def add(self, commands: Iterable[Command], kind: str | None = None) -> None:
        for command in commands:
            self.commands.append(command)
            self._kinds.append(kind)

    def count(self, replies: Sequence[Any], erased: Erased) -> None:
        for kind, reply in zip(self._kinds, replies):
            if kind is not None and isinstance(reply, int):
                setattr(erased, kind, getattr(erased, kind) + min(reply, 1))


class Eraser:
    """
    The index of one organisation, and the deletion of what it leads to.

    Args:
        org: Slug of the organisation.
        providers: Keys of all its partners, also of those that are switched off.
        fingerprint: Of this organisation.
        store: What is to forget.
        twins: Most linking keys of one source in any of its integrations.
        has_browser_copy: Whether any integration lets a browser see anything.
    """

    def __init__(
        self,
        org: str,
        providers: Iterable[str],
        fingerprint: Fingerprints,
        store: Store,
        *,
        twins: int = TWINS,
        has_browser_copy: bool = True,
    ) -> None:
        self._org = org
        self._providers = tuple(dict.fromkeys(providers))
        self._fingerprint = fingerprint
        self._store = store
        self._suffixes = ("", *(f".{twin}" for twin in range(1, twins)))
        self._has_browser_copy = has_browser_copy
        self._turns = asyncio.Semaphore(AT_ONCE)

    @classmethod
    def of(cls, org: str, settings: OrgSettings, fingerprint: Fingerprints, store: Store) -> Eraser:
        """The eraser of an organisation as it is configured. No plugin is loaded for it."""
        written = settings.integrations
        return cls(
            org,
            (integration.provider for integration in written),
            fingerprint,
            store,
            twins=max([TWINS, *(len(integration.linking_keys) for integration in written)]),
            has_browser_copy=any(integration.browser_attribute_allowlist for integration in written),
        )

    def seen(self, fingerprints: Iterable[str], canonical_id: str, seconds: int) -> list[Command]:
        """
        Note on which device person ids were seen.

        Args:
            fingerprints: Of the ids.
            canonical_id: Of the device, safe in a key.
            seconds: How long the device is remembered.
        """
        now, kept = int(time.time()), seconds + SLACK_SECONDS
        return [("NOTE", self._index(each), now, canonical_id, DEVICES, kept) for each in fingerprints]

    async def forget(self, fingerprints: Collection[str] = (), canonical_ids: Collection[str] = ()) -> Erased:
        """
        Delete all that any partner ever said of a person or a device. The index stays, to be able to do it again.

        Args:
            fingerprints: Of the person's ids.
            canonical_ids: Of devices, safe in a key.

        Raises:
            StoreFailed: Something may be left.
        """
        return await self._erase(fingerprints, canonical_ids, self._providers, (), is_everything=True)

    async def opted_out(self, provider: str, fingerprint: str, record: str) -> Erased:
        """
        Delete what one partner said of a person who does not want to be known to it.

        Args:
            provider: Key of the partner.
            fingerprint: Of the person's id.
            record: Key of the link record that says so, which stays.

        Raises:
            StoreFailed: Something may be left.
        """
        async with self._turns:
            return await self._erase((fingerprint,), (), (provider,), (record,), is_everything=False)

    async def _erase(
        self,
        fingerprints: Collection[str],
        canonical_ids: Collection[str],
        providers: Sequence[str],
        spared: Collection[str],
        *,
        is_everything: bool,
    ) -> Erased:
        keys = Keys(self._org, providers)
        erased, deletions = Erased(), _Deletions()
        linked = set(fingerprints)
        for device in await self._read(keys, providers, await self._find(fingerprints, canonical_ids)):
            is_meant = device.canonical_id in canonical_ids
            if not is_meant and not device.names(fingerprints):
                self._clean(deletions, keys, device)
            elif is_everything or device.is_told_anything:
                erased.devices += bool(device.who.stamp or device.is_told_anything)
                erased.also_known_by |= {s for s, each in device.who.persons.items() if each not in fingerprints}
                linked.update(device.who.persons.values(), self._of_device(device.canonical_id))
                self._end(deletions, keys, device, structs.replace(device.who, stamp=secrets.token_hex(8)))
        if not is_everything and not erased.devices:
            linked.clear()  # nothing was known of the person: so it is whenever an opt-out is only confirmed
        links = (
            keys.link(provider, each + suffix) for provider in providers for each in linked for suffix in self._suffixes
        )
        deletions.add((("DEL", key) for key in links if key not in spared), "link_records")
        deletions.count(await self._store.ask(deletions.commands), erased)
        return erased

    async def _find(self, fingerprints: Collection[str], canonical_ids: Collection[str]) -> list[str]:
        indexed = await self._store.ask([("ZRANGE", self._index(each), 0, -1) for each in fingerprints])
        return list(dict.fromkeys([*canonical_ids, *(device.decode() for found in indexed for device in found)]))

    async def _read(self, keys: Keys, providers: Sequence[str], canonical_ids: Sequence[str]) -> list[_Device]:
        commands: list[Command] = []
        for each in canonical_ids:
            commands += [("GET", key) for key in keys.device(each)]
            commands.append(("HGETALL", keys.browser(each)))
        replies = await self._store.ask(commands)
        size = 2 + len(providers)
        devices = []
        for each, first in zip(canonical_ids, range(0, len(replies), size)):
            who, *told, copy = replies[first : first + size]
            devices.append(_Device(each, memory.read_who(who), dict(zip(providers, told)), copy))
        return devices

    def _index(self, fingerprint: str) -> str:
        return f"{bucket(fingerprint)}:~seen:{self._org}:{fingerprint}"

    def _of_device(self, canonical_id: str) -> list[str]:
        """Fingerprints under which links of the device itself are remembered."""
        return [canonical_id, *(self._fingerprint(source, canonical_id) for source in DEVICE_SOURCES)]

    def _end(self, deletions: _Deletions, keys: Keys, device: _Device, who: Who) -> None:
        """Delete what the device was told, and let it go on under another stamp."""
        who_key, *visitor_keys = keys.device(device.canonical_id)
        deletions.add([("SET", who_key, memory.pack(who), "XX", "KEEPTTL")])
        deletions.add((("DEL", key) for key in visitor_keys), "visitor_records")
        copy = keys.browser(device.canonical_id)
        deletions.add([("DEL", copy)], "browser_copies" if device.has_shown_anything else None)
        if self._has_browser_copy and browser.is_device_cookie(device.canonical_id):
            deletions.add(browser.belongs(copy, who.stamp, TOMBSTONE_SECONDS))

    @staticmethod
    def _clean(deletions: _Deletions, keys: Keys, device: _Device) -> None:
        """Delete what is left of others than the person to whom the device belongs now."""
        copy, stamp = keys.browser(device.canonical_id), device.who.stamp
        for key, (provider, record) in zip(keys.device(device.canonical_id)[1:], device.told.items()):
            if record is not None and _stamp(memory.unpack_answer, record) != stamp:
                deletions.add([("DEL", key)], "visitor_records")
            part = device.copy.get(_part(provider))
            if part is not None and _stamp(_read_extract, part) != stamp:
                deletions.add(browser.withdraw(copy, provider), "browser_copies")


class Watch:
    """
    Sees to it that what this process was about to write does not bring back who was forgotten meanwhile.

    A lookup that was under way, or a write that had been decided, may land after
    the deletion. Within a second after any write the lists are read again, and
    whoever is new on them is erased once more.

    Args:
        store: What is to forget.
        under_way: The lookups at this moment.
    """

    def __init__(self, store: Store, under_way: Callable[[], Collection[asyncio.Future[Any]]]) -> None:
        self._store = store
        self._under_way = under_way
        self._organisations: list[tuple[SuppressionList, Eraser]] = []
        self._has_written = False
        self._task: asyncio.Task[None] | None = None

    def add(self, suppressed: SuppressionList, eraser: Eraser) -> None:
        """Watch over one more organisation."""
        self._organisations.append((suppressed, eraser))

    def note(self) -> None:
        """Something was written, or will be when a lookup ends."""
        self._has_written = True
        if self._task is None or self._task.done():
            self._task = asyncio.get_running_loop().create_task(self._look_after())

    async def close(self) -> None:
        """Look once more after what was written last. No lookup may be under way."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        if self._has_written:
            await self._erase_again()

    async def _look_after(self) -> None:
        while self._has_written:
            await asyncio.sleep(PAUSE_SECONDS)
            await self._erase_again()

    async def _erase_again(self) -> None:
        self._has_written = False
        try:
            await self._landed()
            await suppression.hear(self._store, [suppressed for suppressed, _ in self._organisations])
            for suppressed, eraser in self._organisations:
                if news := frozenset(suppressed.news):
                    await self._landed()  # what began before the list was read
                    await eraser.forget(news)
                    suppressed.news -= news
        except StoreFailed:
            self._has_written = True
        except asyncio.CancelledError:
            self._has_written = True
            raise

    async def _landed(self) -> None:
        """Until all that is under way has been written."""
        if flights := self._under_way():
            await landed(flights)
        await self._store.flush()


def _part(provider: str) -> bytes:
    return f"p:{provider}".encode()


def _stamp(read: Callable[[bytes], Answer | Extract], record: bytes) -> str | None:
    try:
        return read(record).stamp
    except msgspec.DecodeError:
        return None
