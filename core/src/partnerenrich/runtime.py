"""Organisations and their integrations at work: what stays the same from batch to batch."""

from __future__ import annotations

from collections.abc import Sequence

import attrs

from partnerenrich.attachment import Attacher
from partnerenrich.configuration import Integration
from partnerenrich.erasure import Eraser
from partnerenrich.identity import DEVICE_SOURCES, Reader
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
        keys: Of its records.
        attacher: Writes into its events.
        remember_seconds: How long it is remembered whom a device belongs to.
        has_browser_copy: Whether any integration lets a browser see anything.
        link_sources: Of all linking keys.
        links_devices: Whether any integration asks its partner about ids of devices.
        no_links: For each integration, the links of an event that offers none.
        no_visitors: For each integration, the visitor record of an event without a device.
    """

    slug: str
    reader: Reader
    running: Sequence[RunningIntegration]
    suppressed: SuppressionList
    eraser: Eraser
    trusts_events: bool
    keys: Keys = attrs.field(init=False)
    attacher: Attacher = attrs.field(init=False)
    remember_seconds: int = attrs.field(init=False)
    has_browser_copy: bool = attrs.field(init=False)
    link_sources: frozenset[str] = attrs.field(init=False)
    links_devices: bool = attrs.field(init=False)
    no_links: tuple[list[tuple[LinkingKey, str]], ...] = attrs.field(init=False)
    no_visitors: tuple[None, ...] = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        integrations = [running.integration for running in self.running]
        providers = [integration.provider for integration in integrations]
        sources = {key.source for integration in integrations for key in integration.linking_keys}
        derived = {
            "keys": Keys(self.slug, providers),
            "attacher": Attacher(providers),
            "remember_seconds": int(max((i.ttl.remember_visitor for i in integrations), default=1)),
            "has_browser_copy": any(integration.allowlist for integration in integrations),
            "link_sources": frozenset(sources),
            "links_devices": not sources.isdisjoint(DEVICE_SOURCES),
            "no_links": tuple([] for _ in integrations),
            "no_visitors": (None,) * len(integrations),
        }
        for name, value in derived.items():
            object.__setattr__(self, name, value)
