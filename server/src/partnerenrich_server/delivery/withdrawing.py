"""
Take who is forgotten out of what is staged: for every destination a withdrawal collects, and counts until it ends.

It goes the way of a withdrawn consent. So it is heeded wherever that is: when a batch is sealed, and right before one
is submitted, by whichever worker, and without the store.
"""

from __future__ import annotations

import secrets
import time
from typing import TYPE_CHECKING

import attrs
import msgspec

from partnerenrich import PartnerEnrichError
from partnerenrich.configuration import Names, bind
from partnerenrich_server.delivery import incoming
from partnerenrich_server.delivery.records import Records
from partnerenrich_server.delivery.storage import Storage

if TYPE_CHECKING:
    from partnerenrich.configuration import Configuration, Integration, IntegrationSettings


@attrs.frozen
class Withdrawn:
    """
    What is to become of a person's records at one destination.

    Attributes:
        found_by: Columns by which they are found; none when its records have no such identifier.
        problem: What kept it from being written down; None when it was.
    """

    found_by: tuple[str, ...] = ()
    problem: str | None = None


def withdraw(configuration: Configuration, org: str, source: str, value: str, until: float) -> dict[str, Withdrawn]:
    """
    Have all records of a person or a device taken out, at all destinations of an organisation.

    Those that are switched off are among them, for what they hold may be shipped later.

    Args:
        configuration: See `partnerenrich.configuration.load_file`.
        org: Slug of the organisation.
        source: As the suppression list names it, such as ``email``.
        value: The identifier as it is written in an event.
        until: Unix time in seconds up to which nothing of it is delivered. What was written last counts.

    Returns:
        Name of each integration that delivers to what is to become of it. To do it again does no harm.
    """
    delivering = [each for each in configuration.organisations()[org].integrations if each.deliver]
    return {each.name: _withdraw(configuration, org, each, (source, value, until)) for each in delivering}


def _withdraw(
    configuration: Configuration, org: str, written: IntegrationSettings, what: tuple[str, str, float]
) -> Withdrawn:
    try:
        integration = _bound(configuration, org, written)
        row = Records.of(integration).forgotten(*what)
        if row is None:
            return Withdrawn()
        _write(integration, row)
    except PartnerEnrichError as error:
        return Withdrawn(problem=str(error))
    return Withdrawn(tuple(column for column in row if not column.startswith("_")))


def _bound(configuration: Configuration, org: str, written: IntegrationSettings) -> Integration:
    """One integration, whatever is the matter with the others."""
    region = configuration.organisations()[org].default_region
    alone = attrs.evolve(
        configuration,
        org=org,
        orgs={},
        integrations=(attrs.evolve(written, enabled=True),),
        default_region=region,
        extensions=Names(),
    )
    integrations, plugins = bind(alone)
    plugins.partner(written.provider)  # says why it does not load
    return integrations[org][0]


def _write(integration: Integration, row: dict[str, object]) -> None:
    assert integration.delivery is not None
    settings, now = integration.delivery.settings, time.time()
    private = {"_origin": f"forget {secrets.token_hex(8)}", "_line": 0, "_seen": now}
    storage = Storage.open(settings.staging, settings.options)
    incoming.write(storage, f"{integration.org}/{integration.name}", [msgspec.json.encode({**row, **private})], now)
