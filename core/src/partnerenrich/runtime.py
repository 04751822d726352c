"""Organisations and their integrations at work: what stays the same from batch to batch."""

from __future__ import annotations

from collections.abc import Sequence

import attrs

from partnerenrich.attachment import Attacher
from partnerenrich.configuration import Integration
from partnerenrich.erasure import Eraser
from partnerenrich.identity import Reader
from partnerenrich.lookup import Lookup
from partnerenrich.memory import Keys
from partnerenrich.models import LinkingKey
from partnerenrich.statistics import PartnerStatistics
from partnerenrich.suppression import SuppressionList


@attrs.frozen(eq=False)
class RunningIntegration:
    """
    One integration at work.

    Attributes:
        integration: What it is.
        lookup: Asks its partner.
        numbers: What was done.
        links: Its linking keys, each with what tells its records from those of
            an earlier linking key of the same source.
    """

    integration: Integration
    lookup: Lookup
    numbers: PartnerStatistics
    links: tuple[tuple[LinkingKey, str], ...] = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        keys = self.integration.linking_keys
        twins = [sum(other.source == key.source for other in keys[:index]) for index, key in enumerate(keys)]
        links = tuple((key, f".{twin}" if twin else "") for key, twin in zip(keys, twins))
        object.__setattr__(self, "links", links)


@attrs.frozen(eq=False)
class RunningOrg:
    """
    One organisation at work.

    Attributes:
        slug: Its name in keys.
        reader: Reads who is in its events.
        running: Its integrations.
        suppressed: Who in it is not to be enriched.
        eraser: Knows where its persons were seen.
        trusts_events: Whether a person id in an event may feed the browser copy.
    """

    slug: str
    reader: Reader
    running: Sequence[RunningIntegration]
    suppressed: SuppressionList
    eraser: Eraser
    trusts_events: bool
    keys: Keys = attrs.field(init=False)
    attacher: Attacher = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        providers = [running.integration.provider for running in self.running]
        object.__setattr__(self, "keys", Keys(self.slug, providers))
        object.__setattr__(self, "attacher", Attacher(providers))

    @property
    def remember_seconds(self) -> int:
        """How long it is remembered whom a device belongs to."""
        return int(max((r.integration.ttl.remember_visitor for r in self.running), default=1))

    @property
    def has_browser_copy(self) -> bool:
        """Whether any integration lets a browser see anything."""
        return any(running.integration.allowlist for running in self.running)
