"""
What both of Amperity's APIs share: host, tenant, credential and the meaning of a refusal.

Wire facts: https://docs.amperity.com/api/requests.html and https://docs.amperity.com/api/responses.html
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import quote

import attrs

from partnerenrich import AuthError, BadResponse
from partnerenrich.http import json_object, raise_for_status
from partnerenrich_amperity import _oauth

if TYPE_CHECKING:
    import httpx

    from partnerenrich import Link
    from partnerenrich_amperity.config import Config

log = logging.getLogger(__name__)

DOT_SEGMENTS = frozenset({".", ".."})
"""Text that a URL cannot carry as a segment of its path, quoted or not."""


@attrs.frozen(repr=False)
class Profile:
    """
    One profile, without the vendor's ``links``: those are raw personal data.

    Attributes:
        id: Amperity's id of the profile.
        attributes: Attribute name to JSON value, as it came.
    """

    id: str
    attributes: Mapping[str, Any]


class ProfileApi(Protocol):
    """What each of the two modules `_realtime` and `_indexes` offers."""

    async def lookup(self, config: Config, http: httpx.AsyncClient, link: Link) -> Profile | None:
        """The profile that a link belongs to, or None."""

    async def read(self, config: Config, http: httpx.AsyncClient, profile_id: str) -> Profile:
        """The profile of this id. Raises `UnknownPartnerId`."""

    async def check(self, config: Config, http: httpx.AsyncClient) -> None:
        """Raise what is wrong with the settings."""


async def send(
    config: Config, http: httpx.AsyncClient, method: str, path: str, *, permissions: str, **request: Any
) -> httpx.Response:
    """
    Make one request as the configured tenant; with OAuth, once more when the token is refused.

    Args:
        config: The settings of the integration.
        http: The core's client.
        method: HTTP method.
        path: Below `Config.root`, with its parts already quoted.
        permissions: What the credential needs for this, for the message of a 403.
        request: Passed on to `httpx.AsyncClient.request`.

    Raises:
        AuthError: 401 or 403.
    """
    url = config.root + path
    headers = {"Amperity-Tenant": config.tenant_id, "Accept": "application/json", **request.pop("headers", {})}

    async def attempt(token: str) -> httpx.Response:
        return await http.request(method, url, headers={**headers, "Authorization": f"Bearer {token}"}, **request)

    if config.client_id is None:
        response = await attempt(config.profile_api_key.reveal())
    else:
        token = await _oauth.access_token(config, http)
        response = await attempt(token)
        if response.status_code == 401:
            _oauth.drop(config, token)
            response = await attempt(await _oauth.access_token(config, http))
    if response.status_code == 401:
        credential = "profile_api_key" if config.client_id is None else "the token of client_id"
        raise AuthError(f"Amperity refuses {credential} (401): it is wrong, expired or revoked")
    if response.status_code == 403:
        raise AuthError(
            f"Amperity denies access (403): the credential needs {permissions}, and tenant_id must be its own"
        )
    if "Deprecation" in response.headers or "Sunset" in response.headers:
        warn_once(
            f"Amperity announces the end of its {config.api} API as used here: look for a newer version of this plugin"
        )
    return response


def profile(response: httpx.Response, *, id_field: str) -> Profile:
    """
    Read a profile.

    Args:
        response: Of a lookup or of the profile itself.
        id_field: Where the API puts the profile's id.

    Raises:
        BadResponse: It holds no profile.
        partnerenrich.PartnerError: Its status is no success.
    """
    raise_for_status(response)
    body = json_object(response)
    profile_id, attributes = body.get(id_field), body.get("attributes")
    if not isinstance(profile_id, str) or not profile_id or profile_id in DOT_SEGMENTS:
        raise BadResponse(f"Amperity answered a profile without {id_field}")
    if not isinstance(attributes, dict | None):
        raise BadResponse("Amperity answered attributes that are no object")
    return Profile(profile_id, attributes or {})


def segment(text: str) -> str:
    """Any text as one segment of a path."""
    return quote(text, safe="")


@functools.cache
def warn_once(message: str) -> None:
    """Tell the log what concerns all calls alike, once in this process."""
    log.warning(message)
