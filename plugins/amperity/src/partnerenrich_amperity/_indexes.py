"""
The Profile API, ``/api/indexes``: the output of a saved query, found by the index's own lookup key.

The id of a profile *is* the lookup key, so a link's value is asked for directly. It is attached to events and
remembered in the clear, as any partner's id, and stands in the URL: an address or a number is refused unless hashed.

Wire facts: https://docs.amperity.com/operator/api_profile.html
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from partnerenrich import RequestRefused, UnknownPartnerId, recipes
from partnerenrich.http import json_object, raise_for_status
from partnerenrich_amperity import _api
from partnerenrich_amperity._api import Profile, segment

if TYPE_CHECKING:
    import httpx

    from partnerenrich import Link
    from partnerenrich_amperity.config import Config

API_VERSION = "2025-07-31"
READ_INDEXES = "read access to the index"


async def lookup(config: Config, http: httpx.AsyncClient, link: Link) -> Profile | None:
    """The profile that a link belongs to, or None."""
    if _is_contact(link):
        problem = (
            f"Amperity: with api: indexes, {link.source} would be the partner's id in the clear: "
            "give it a recipe in linking_keys, such as hash: sha256, and key the index by the same digest"
        )
        _api.warn_once(problem)
        raise RequestRefused(problem)
    if link.value in _api.DOT_SEGMENTS:
        return None
    return await _profile(config, http, link.value)


async def read(config: Config, http: httpx.AsyncClient, profile_id: str) -> Profile:
    """The profile of this id."""
    found = await _profile(config, http, profile_id)
    if found is None:
        raise UnknownPartnerId("Amperity no longer has this profile (404)")
    return found


async def check(config: Config, http: httpx.AsyncClient) -> None:
    """Ask for the description of the index, which touches no person."""
    response = await _get(config, http, "")
    if response.status_code == 404:
        raise RequestRefused(
            "Amperity does not know the index (404): check profile_collection_id, tenant_id and tenant_subdomain"
        )
    raise_for_status(response)
    json_object(response)


def _is_contact(link: Link) -> bool:
    """Whether it is an e-mail or a phone in the clear; a user id may be an address, too."""
    if link.hash != "none":
        return False
    return recipes.kind_of(link.source) != "other" or recipes.normalise_email(link.value) is not None


async def _profile(config: Config, http: httpx.AsyncClient, profile_id: str) -> Profile | None:
    response = await _get(config, http, f"/profiles/{segment(profile_id)}")
    if response.status_code == 404:
        return None
    return _api.profile(response, id_field="id")


async def _get(config: Config, http: httpx.AsyncClient, path: str) -> httpx.Response:
    response = await _api.send(
        config,
        http,
        "GET",
        f"/api/indexes/{segment(config.profile_collection_id)}{path}",
        permissions=READ_INDEXES,
        headers={"api-version": API_VERSION},
    )
    if response.status_code == 400:
        raise RequestRefused(
            f"Amperity refuses the request (400): check profile_collection_id; the api-version sent is {API_VERSION}"
        )
    return response
