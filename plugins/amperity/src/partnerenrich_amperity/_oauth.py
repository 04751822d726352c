"""
Access tokens of an OAuth client, kept in memory only.

Wire facts: https://docs.amperity.com/reference/api.html
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

import attrs

from partnerenrich import AuthError, BadResponse
from partnerenrich.http import json_object, raise_for_status

if TYPE_CHECKING:
    import httpx

    from partnerenrich_amperity.config import Config

_EARLY = 60.0
"""Seconds before its end at which a token is replaced; half its lifetime where that is less."""


@attrs.frozen
class _Token:
    text: str = attrs.field(repr=False)
    replace_at: float


_flights: WeakKeyDictionary[Config, asyncio.Task[_Token]] = WeakKeyDictionary()
"""The last request for a token, per integration: all callers await the same one."""


async def access_token(config: Config, http: httpx.AsyncClient) -> str:
    """
    A token that is good now; one request serves all callers.

    Raises:
        AuthError: The client is refused.
        partnerenrich.PartnerError: The token endpoint failed otherwise.
    """
    flight = _flights.get(config)
    if flight is None or _is_spent(flight):
        flight = _flights[config] = asyncio.create_task(_request(config, http))
        flight.add_done_callback(_mark_retrieved)
    return (await asyncio.shield(flight)).text


def drop(config: Config, token: str) -> None:
    """Forget a token that was refused, unless it has been replaced meanwhile."""
    flight = _flights.get(config)
    if flight and flight.done() and not _is_spent(flight) and flight.result().text == token:
        del _flights[config]


def _is_spent(flight: asyncio.Task[_Token]) -> bool:
    if not flight.done():
        return False
    return flight.cancelled() or flight.exception() is not None or time.monotonic() >= flight.result().replace_at


def _mark_retrieved(flight: asyncio.Task[_Token]) -> None:
    """Keep asyncio from logging a failure that nobody waits for any more."""
    if not flight.cancelled():
        flight.exception()


async def _request(config: Config, http: httpx.AsyncClient) -> _Token:
    assert config.client_id is not None
    assert config.client_secret is not None
    asked_at = time.monotonic()
    response = await http.post(
        f"{config.root}/api/v0/oauth2/token",
        headers={"X-Amperity-Tenant": config.tenant_id},
        data={
            "grant_type": "client_credentials",
            "client_id": config.client_id,
            "client_secret": config.client_secret.reveal(),
        },
    )
    if response.status_code in {400, 401, 403}:
        raise AuthError(
            f"Amperity refuses the OAuth client ({response.status_code}): check client_id, client_secret and tenant_id"
        )
    raise_for_status(response)
    body = json_object(response)
    text, lifetime = body.get("access_token"), body.get("expires_in", 3600)
    if not isinstance(text, str) or not text or not isinstance(lifetime, (int, float)):
        raise BadResponse("Amperity's token endpoint answered without a token")
    return _Token(text, asked_at + max(lifetime - _EARLY, lifetime / 2))
