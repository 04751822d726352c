"""A partner in one file: a loyalty programme that speaks JSON over HTTP."""

import attrs
import httpx

from partnerenrich import Link, LinkingKey, Partner, Resolution, Secret, UnknownPartnerId, hookimpl
from partnerenrich.http import json_object, raise_for_status


@attrs.frozen(kw_only=True)
class Config:
    base_url: str
    api_key: Secret


@hookimpl
def partner() -> Partner:
    return Partner(title="Loyalty programme", config=Config, linking_keys=(LinkingKey("email", "email"),))


@hookimpl
async def resolve_id(config: Config, http: httpx.AsyncClient, link: Link) -> Resolution:
    member = await _get(config, http, "members", {link.key: link.value})
    return Resolution.absent() if member is None else Resolution(str(member["id"]))


@hookimpl
async def fetch_attributes(config: Config, http: httpx.AsyncClient, partner_id: str) -> dict[str, object]:
    profile = await _get(config, http, "profiles", {"id": partner_id})
    if profile is None:
        raise UnknownPartnerId("the programme no longer has this member")
    return profile


async def _get(config: Config, http: httpx.AsyncClient, path: str, query: dict[str, str]) -> dict[str, object] | None:
    response = await http.get(f"{config.base_url}/{path}", params=query, headers={"X-Api-Key": config.api_key.reveal()})
    if response.status_code == 404:
        return None
    raise_for_status(response)
    return json_object(response)
