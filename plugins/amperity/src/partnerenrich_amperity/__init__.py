"""Amperity for partnerenrich: resolve visitors and fetch their profile."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from partnerenrich import Limits, LinkingKey, Partner, Resolution, hookimpl
from partnerenrich_amperity import _indexes, _realtime
from partnerenrich_amperity.config import Config

if TYPE_CHECKING:
    from collections.abc import Mapping

    import httpx

    from partnerenrich import Link, Sandbox
    from partnerenrich_amperity._api import ProfileApi


@hookimpl
def partner() -> Partner:
    """A customer data platform; the tenant as a whole may make 500 real-time calls a second."""
    return Partner(
        title="Amperity",
        category="cdp",
        config=Config,
        linking_keys=(LinkingKey(source="email", key="email"),),
        limits=Limits(timeout=0.5, attempts=2, calls_per_second=400),
        docs="https://docs.amperity.com/api/endpoints_realtime.html",
    )


@hookimpl
async def resolve_id(config: Config, http: httpx.AsyncClient, link: Link) -> Resolution:
    """Look the link up; the answer is the whole profile, so no second call is needed for its attributes."""
    profile = await _api_of(config).lookup(config, http, link)
    if profile is None:
        return Resolution.absent()
    return Resolution(profile.id, attributes=profile.attributes)


@hookimpl
async def fetch_attributes(config: Config, http: httpx.AsyncClient, partner_id: str) -> Mapping[str, Any]:
    """Read one profile by its id."""
    profile = await _api_of(config).read(config, http, partner_id)
    return profile.attributes


@hookimpl
async def check(config: Config, http: httpx.AsyncClient) -> None:
    """Ask for the collection or the index itself; whether ``pii:read`` is granted shows at the first lookup."""
    await _api_of(config).check(config, http)


@hookimpl
def sandbox() -> Sandbox:
    """An imitation of Amperity with two tenants on one host."""
    from partnerenrich_amperity._sandbox import new_sandbox  # noqa: PLC0415  Starlette is needed here alone

    return new_sandbox()


def _api_of(config: Config) -> ProfileApi:
    return _realtime if config.api == "realtime" else _indexes
