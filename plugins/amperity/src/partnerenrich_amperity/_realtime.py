"""
The real-time API, ``/prof``: profile collections, found by any key of their keychain.

Wire facts: https://docs.amperity.com/api/endpoints_realtime.html
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import attrs

from partnerenrich import BadResponse, RequestRefused, UnknownPartnerId
from partnerenrich.http import json_object, raise_for_status
from partnerenrich_amperity import _api
from partnerenrich_amperity._api import Profile, segment

if TYPE_CHECKING:
    import httpx

    from partnerenrich import Link
    from partnerenrich_amperity.config import Config

READ_PROFILES = "profile-collections:read and pii:read"
READ_SEGMENTS = "real-time-segments:read and pii:read"
READ_STATS = "profile-collections:read"
MOST_PAGES = 10
"""Pages of segments that are read of one profile."""


async def lookup(config: Config, http: httpx.AsyncClient, link: Link) -> Profile | None:
    """The profile that a link belongs to, or None."""
    response = await _send_lookup(config, http, link)
    if response.status_code == 404:
        return None
    if response.status_code == 400:
        raise RequestRefused(
            f"Amperity refuses the lookup by {link.key!r} (400): "
            f"the key of {link.source} in linking_keys must be one of the collection's keychain"
        )
    return await _with_segments(config, http, _api.profile(response, id_field="profile_id"))


async def read(config: Config, http: httpx.AsyncClient, profile_id: str) -> Profile:
    """The profile of this id."""
    response = await _api.send(
        config,
        http,
        "GET",
        _profile_path(config, profile_id),
        permissions=READ_PROFILES,
        params={"enrich": "true"} if config.enrich else None,
    )
    if response.status_code == 404:
        raise UnknownPartnerId("Amperity no longer has this profile (404)")
    return await _with_segments(config, http, _api.profile(response, id_field="profile_id"))


async def check(config: Config, http: httpx.AsyncClient) -> None:
    """Ask for the collection's statistics, which touch no person."""
    path = f"/prof/collections/{segment(config.profile_collection_id)}/stats"
    response = await _api.send(config, http, "GET", path, permissions=READ_STATS)
    if response.status_code == 404:
        raise RequestRefused(
            "Amperity does not know the collection (404): check profile_collection_id, tenant_id and tenant_subdomain"
        )
    raise_for_status(response)
    json_object(response)


async def _send_lookup(config: Config, http: httpx.AsyncClient, link: Link) -> httpx.Response:
    """One key per call; in the body unless the older style is asked for."""
    collection = segment(config.profile_collection_id)
    if config.lookup_style == "keychain":
        return await _api.send(
            config,
            http,
            "POST",
            f"/prof/lookup/{collection}/keychain",
            permissions=READ_PROFILES,
            json={"keys": {link.key: link.value}, "enrich": config.enrich},
        )
    params = {link.key: link.value} | ({"enrich": "true"} if config.enrich else {})
    return await _api.send(
        config, http, "GET", f"/prof/profiles/{collection}/lookup", permissions=READ_PROFILES, params=params
    )


async def _with_segments(config: Config, http: httpx.AsyncClient, profile: Profile) -> Profile:
    if config.segments is None:
        return profile
    names = await _segment_names(config, http, profile.id)
    return attrs.evolve(profile, attributes={**profile.attributes, config.segments: names})


async def _segment_names(config: Config, http: httpx.AsyncClient, profile_id: str) -> list[str]:
    """Names of the segments, the id where one has no name. A missing or empty ``next_token`` ends them."""
    names: list[str] = []
    params = {"limit": "100"}
    for _ in range(MOST_PAGES):
        response = await _api.send(
            config,
            http,
            "GET",
            f"{_profile_path(config, profile_id)}/segments",
            permissions=READ_SEGMENTS,
            params=params,
        )
        if response.status_code == 404:
            raise UnknownPartnerId("Amperity no longer has this profile (404)")
        raise_for_status(response)
        page = json_object(response)
        names += _names_on(page)
        token = page.get("next_token")
        if not token:
            break
        params["next_token"] = str(token)
    return names


def _names_on(page: dict[str, Any]) -> list[str]:
    try:
        return [str(entry.get("segment_name") or entry["segment_id"]) for entry in page["data"]]
    except (KeyError, TypeError, AttributeError):
        raise BadResponse("Amperity answered segments that cannot be understood") from None


def _profile_path(config: Config, profile_id: str) -> str:
    return f"/prof/profiles/{segment(config.profile_collection_id)}/{segment(profile_id)}"
