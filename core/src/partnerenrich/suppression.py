"""
The suppression list of an organisation: who is not to be enriched.

It is durable: two keys without a time to live, which a store that evicts what
is volatile does not touch. The **log** is a stream whose entries say of one
fingerprint until when it is suppressed; of several about one fingerprint the
last counts. The **version** is a counter that each change raises. Every process
holds the list in memory. A batch reads the version along with its records, and
only when that has changed the entries after the last one known.
"""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING, Final

from partnerenrich import recipes
from partnerenrich.store import StoreFailed, bucket

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from partnerenrich.identity import Fingerprints
    from partnerenrich.store import Command, Store

log = logging.getLogger(__name__)

EVER: Final = float("inf")
"""An end that never comes."""
KEPT_SECONDS: Final = 86_400.0
"""For how long an entry that has ended stays in the log, so that every process hears that somebody was taken off."""
PAGE: Final = 1000
"""Most entries of one round trip, so that each is quick."""
EVICTING: Final = "allkeys"
"""How the policies begin under which a full store also drops what has no time to live."""


class SuppressionList:
    """
    Who is suppressed in one organisation: persons and devices, by fingerprint.

    Args:
        org: Slug of the organisation.
        fingerprint: Of this organisation.
        store: Where the list is.
        default_region: Country of phone numbers without a country code.

    Attributes:
        version_key: Of the counter that tells whether the list has changed.
        news: Fingerprints that were put on the list while this process held it.
    """

    def __init__(self, org: str, fingerprint: Fingerprints, store: Store, default_region: str | None = None) -> None:
        self.version_key: Final = f"{bucket(org)}:~suppressed:{org}:version"
        self._log: Final = f"{bucket(org)}:~suppressed:{org}"
        self._org = org
        self._fingerprint = fingerprint
        self._store = store
        self._default_region = default_region
        self._version: int | None = None
        self._last = b""
        self._entries: dict[str, tuple[bytes, float]] = {}
        self.news: set[str] = set()

    def __bool__(self) -> bool:
        """Whether anybody may be on the list."""
        return bool(self._entries)

    @property
    def is_known(self) -> bool:
        """Whether the list was ever read; until then nobody seems to be on it."""
        return self._version is not None

    def fingerprint(self, source: str, value: str) -> str | None:
        """
        What stands for an identifier in the list.

        Args:
            source: As in `partnerenrich.LinkingKey`.
            value: As it is written in an event.

        Returns:
            None for what is no identifier of this kind.
        """
        normal = _normalised(source, value, self._default_region)
        return None if normal is None else self._fingerprint(source, normal)

    def contains(self, source: str, value: str) -> bool:
        """Whether an identifier, as it is written in an event or a file, is suppressed. See `fingerprint`."""
        fingerprint = self.fingerprint(source, value)
        return fingerprint in self._entries and self.holds((fingerprint,))

    def holds(self, fingerprints: Iterable[str]) -> bool:
        """Whether any of these is suppressed now."""
        entries = self._entries
        now = time.time()
        return any(entries[each][1] > now for each in fingerprints if each in entries)

    def holds_device(self, canonical_id: str | None) -> bool:
        """Whether a device is suppressed as such, whoever uses it."""
        return canonical_id is not None and self.holds((self._fingerprint("canonical_id", canonical_id),))

    def until(self, fingerprint: str) -> float | None:
        """Unix time in seconds until when a fingerprint is suppressed, `EVER`, or None."""
        return self._entries[fingerprint][1] if self.holds((fingerprint,)) else None

    async def refresh(self) -> None:
        """
        Read what has changed, whether the version says so or not.

        Raises:
            StoreFailed: The store does not tell; what was known still counts.
        """
        (version,) = await self._store.ask([("GET", self.version_key)])
        await self._read(int(version or 0))

    async def heed(self, version: bytes | None) -> None:
        """
        Read what has changed if this version, just read from the store, says so.

        While the store does not answer, what was known still counts.
        """
        number = int(version or 0)
        if number == self._version:
            return
        if self._version is None and not number:
            self._version = 0
            return
        try:
            await self._read(number)
        except StoreFailed:
            log.warning("the suppression list of %s cannot be read; the one that was known counts", self._org)

    async def add(self, fingerprint: str, until: float) -> None:
        """
        Suppress a fingerprint, and tell all processes.

        Args:
            fingerprint: See `fingerprint`.
            until: Unix time in seconds, or `EVER`.

        Raises:
            StoreFailed: The store has not taken it.
        """
        await self.refresh()
        ended = time.time() - KEPT_SECONDS
        obsolete = [entry for each, (entry, end) in self._entries.items() if each == fingerprint or end < ended]
        commands: list[Command] = [
            ("XADD", self._log, "*", "fingerprint", fingerprint, "until", repr(until)),
            ("INCR", self.version_key),
        ]
        if obsolete:
            commands.append(("XDEL", self._log, *obsolete))
        await self._store.ask(commands)
        await self.refresh()

    async def lift(self, fingerprint: str) -> None:
        """Take a fingerprint off the list. Raises as `add`."""
        await self.add(fingerprint, time.time())

    async def _read(self, version: int) -> None:
        first = self._version is None
        if self._version is None or version < self._version:
            self._last = b""  # the store has lost entries, and may number new ones as it did those
        since = b"(" + self._last if self._last else b"-"
        while True:
            (entries,) = await self._store.ask([("XRANGE", self._log, since, "+", "COUNT", PAGE)])
            for entry, fields in entries:
                fingerprint, until = fields[b"fingerprint"].decode(), float(fields[b"until"])
                known = self._entries.get(fingerprint)
                if known is None or known[0] != entry:
                    self._entries[fingerprint] = (entry, until)
                    if not first and until > time.time():
                        self.news.add(fingerprint)
                self._last = entry
                since = b"(" + entry
            if len(entries) < PAGE:
                break
        if first and self._entries and (problem := await eviction_problem(self._store)):
            log.warning("%s", problem)
        self._version = version


async def heed(store: Store, lists: Sequence[SuppressionList], versions: Sequence[bytes | None]) -> None:
    """Bring lists up to their versions, which were read a moment ago. Without the store they stay as they are."""
    if not store.down:
        for each, version in zip(lists, versions):
            await each.heed(version)


async def hear(store: Store, lists: Sequence[SuppressionList]) -> None:
    """Bring lists up to date, after all queued writes: in one round trip where nothing has changed."""
    await heed(store, lists, await store.flush([each.version_key for each in lists]))


async def eviction_problem(store: Store) -> str | None:
    """Why a full store may drop the list; None when it may not, or does not tell."""
    policy = await store.eviction_policy()
    if policy is None or not policy.startswith(EVICTING):
        return None
    return (
        f"the store's maxmemory-policy is {policy}: when it is full, it may drop the suppression list; use volatile-lru"
    )


def _normalised(source: str, value: str, default_region: str | None) -> str | None:
    if source == "email":
        return recipes.normalise_email(value)
    if source == "phone":
        return recipes.normalise_phone(value, default_region)
    return recipes.normalise_id(value)
