"""A partner that knows everybody and answers at once, without a network."""

from __future__ import annotations

import attrs

from partnerenrich import Link, LinkingKey, Partner, Resolution, hookimpl

ATTRIBUTES = {
    "Persona": "Value Hunter",
    "LifetimeTier": "Gold",
    "FavouriteBrand": "Northwind",
    "PredictedValue": 412.5,
    "DaysSinceOrder": 3,
}


@attrs.frozen
class Config:
    """It needs no settings."""


@hookimpl
def partner() -> Partner:
    """Five attributes for every e-mail address."""
    return Partner(title="Instant", config=Config, linking_keys=(LinkingKey("email", "email"),))


@hookimpl
async def resolve_id(link: Link) -> Resolution:
    """The id tells which link it came from, so that a mix-up shows."""
    return Resolution(f"id-of-{link.value}", attributes=ATTRIBUTES)
