"""A partner behind HTTP: one POST for each link. `benchmarks._remote` serves it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

from partnerenrich import Limits, Link, LinkingKey, Partner, Resolution, hookimpl
from partnerenrich.http import json_object, raise_for_status

if TYPE_CHECKING:
    import httpx


@attrs.frozen
class Config:
    """
    Where it is.

    Attributes:
        base_url: Without a path.
    """

    base_url: str


@hookimpl
def partner() -> Partner:
    """It takes any number of calls, and only as many at once as the integration says."""
    return Partner(
        title="Remote", config=Config, linking_keys=(LinkingKey("email", "email"),), limits=Limits(timeout=10.0)
    )


@hookimpl
async def resolve_id(config: Config, http: httpx.AsyncClient, link: Link) -> Resolution:
    """Ask about one e-mail address."""
    response = await http.post(f"{config.base_url}/lookup", json={link.key: link.value})
    raise_for_status(response)
    profile = json_object(response)
    return Resolution(profile["id"], attributes=profile["attributes"])
