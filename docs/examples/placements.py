"""
A partner with a contextual call: what to put into a placement of a page, for this member.

Put this file into the folder of `plugins_dir`.
"""

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
    return Partner(title="Placements", config=Config, linking_keys=(LinkingKey("email", "email"),))


@hookimpl
async def resolve_id(config: Config, http: httpx.AsyncClient, link: Link) -> Resolution:
    response = await _post(config, http, "members", {link.key: link.value})
    if response.status_code == 404:
        return Resolution.absent()
    raise_for_status(response)
    return Resolution(str(json_object(response)["id"]))


@hookimpl
async def personalize(
    config: Config, http: httpx.AsyncClient, partner_id: str, context: dict[str, object]
) -> dict[str, object]:
    # The context comes from a page, so only what is expected of it is passed on.
    asked = {"member": partner_id, "placement": str(context.get("placement", ""))[:64]}
    response = await _post(config, http, "placements", asked)
    if response.status_code == 404:
        raise UnknownPartnerId("the service no longer has this member")
    raise_for_status(response)
    return json_object(response)


async def _post(config: Config, http: httpx.AsyncClient, path: str, body: dict[str, str]) -> httpx.Response:
    headers = {"Authorization": f"Bearer {config.api_key.reveal()}"}
    return await http.post(f"{config.base_url}/{path}", json=body, headers=headers)
