"""Forget by hand: the suppression list and the erasure of one organisation, without partners or an `Enricher`."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final

import attrs

from partnerenrich import recipes
from partnerenrich.erasure import Erased, Eraser
from partnerenrich.errors import ConfigError, Problem
from partnerenrich.identity import Fingerprints, Reader
from partnerenrich.models import KnownIDs
from partnerenrich.store import Store
from partnerenrich.suppression import SuppressionList, eviction_problem

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from partnerenrich.configuration import Configuration

COMMAND_SECONDS: Final = 5.0
"""How long one round trip may take: nobody waits for an event."""


@attrs.frozen
class Forgotten:
    """
    What came of it.

    Attributes:
        was_suppressed: Whether it was on the list before.
        until: Unix time in seconds until when it is on the list now; None when it is not.
        erased: What was deleted.
    """

    was_suppressed: bool
    until: float | None
    erased: Erased = attrs.field(factory=Erased)


class Forgetting:
    """
    Forgets persons and devices of one organisation. Open it with `Forgetting.open`.

    Attributes:
        suppressed: The organisation's list, up to date when this was opened.
    """

    def __init__(self, suppressed: SuppressionList, eraser: Eraser, reader: Reader, store: Store) -> None:
        self.suppressed = suppressed
        self._eraser = eraser
        self._reader = reader
        self._store = store

    @classmethod
    @asynccontextmanager
    async def open(cls, configuration: Configuration, org: str, *, store: str, key: bytes) -> AsyncIterator[Forgetting]:
        """
        Connect to a store and read the list.

        Args:
            configuration: No partner of it is loaded.
            org: Slug of the organisation.
            store: URL, as in `partnerenrich.store.Store`.
            key: The 32 bytes of all processes that share the store.

        Raises:
            ConfigError: The URL is none.
            StoreFailed: The store does not answer.
        """
        settings = configuration.organisations()[org]
        fingerprint = Fingerprints.of(key, org)
        try:
            memory = Store(store, command_seconds=COMMAND_SECONDS)
        except ValueError:
            raise ConfigError([Problem("store", "is no URL of a Redis, such as redis://127.0.0.1:6379")]) from None
        try:
            suppressed = SuppressionList(org, fingerprint, memory, settings.default_region)
            await suppressed.refresh()
            reader = Reader.of(fingerprint, settings.default_region, ())
            yield cls(suppressed, Eraser.of(org, settings, fingerprint, memory), reader, memory)
        finally:
            await memory.close()

    async def forget(self, source: str, value: str, until: float) -> Forgotten | None:
        """
        Put an identifier on the list, then delete what is remembered of it.

        Args:
            source: ``canonical_id`` for a device, else that of a person id, such as ``email``.
            value: As it is written in an event.
            until: Unix time in seconds, or `partnerenrich.suppression.EVER`.

        Returns:
            None when the value is no identifier of this kind.

        Raises:
            StoreFailed: Not all of it was done. To do it again does no harm.
        """
        fingerprint = self.suppressed.fingerprint(source, value)
        if fingerprint is None:
            return None
        was_suppressed = self.suppressed.until(fingerprint) is not None
        await self.suppressed.add(fingerprint, until)
        if source == "canonical_id":
            erased = await self._eraser.forget(canonical_ids=[self._safe(value)])
        else:
            erased = await self._eraser.forget([fingerprint])
        return Forgotten(was_suppressed, until, erased)

    async def lift(self, source: str, value: str) -> Forgotten | None:
        """Take an identifier off the list. Arguments and errors are those of `forget`."""
        fingerprint = self.suppressed.fingerprint(source, value)
        if fingerprint is None:
            return None
        was_suppressed = self.suppressed.until(fingerprint) is not None
        if was_suppressed:
            await self.suppressed.lift(fingerprint)
        return Forgotten(was_suppressed, None)

    async def eviction_problem(self) -> str | None:
        """See `partnerenrich.suppression.eviction_problem`."""
        return await eviction_problem(self._store)

    def _safe(self, canonical_id: str) -> str:
        safe = self._reader.safe_canonical_id(KnownIDs(canonical_id=recipes.normalise_id(canonical_id)))
        assert safe is not None
        return safe
