"""A partner that is asked about many links at once and keeps the contract. Those that break it import it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import attrs
from starlette.applications import Starlette
from starlette.responses import JSONResponse
from starlette.routing import Route

from partnerenrich import Limits, LinkingKey, Partner, Resolution, Sandbox, Secret, hookimpl
from partnerenrich.http import json_object, raise_for_status

if TYPE_CHECKING:
    from collections.abc import Sequence

    import httpx
    from starlette.requests import Request

    from partnerenrich import Link, PartnerError

API_KEY = "club-key-4711-for-tests"
MEMBERS = {f"{name}@example.test": f"member-{name}-000042" for name in ("pat", "kim", "lee")}
MOST = 50


@attrs.frozen(kw_only=True)
class Config:
    base_url: str
    api_key: Secret


class BulkClub:
    limits: ClassVar[Limits] = Limits(bulk=MOST)

    @hookimpl
    def partner(self) -> Partner:
        return Partner(
            title="Bulk Club", config=Config, linking_keys=(LinkingKey("email", "mail"),), limits=self.limits
        )

    @hookimpl
    async def resolve_ids(
        self, config: Any, http: httpx.AsyncClient, links: Sequence[Link]
    ) -> Sequence[Resolution | PartnerError]:
        possible = [link.value for link in links if self.is_possible(link)]
        members = await self.members(config, http, list(dict.fromkeys(possible)))
        return [self.answer(link, members.get(link.value)) for link in links]

    @hookimpl
    def sandbox(self) -> Sandbox:
        return new_sandbox()

    def is_possible(self, link: Link) -> bool:
        return "@" in link.value

    def answer(self, link: Link, member: str | None) -> Resolution | PartnerError:
        if not self.is_possible(link):
            return Resolution.invalid()
        return Resolution(member) if member else Resolution.absent()

    async def members(self, config: Any, http: httpx.AsyncClient, mails: Sequence[str]) -> dict[str, str]:
        response = await http.post(
            f"{config.base_url}/members",
            json=mails,
            headers={"Authorization": f"Bearer {config.api_key.reveal()}"},
        )
        raise_for_status(response)
        return json_object(response)["members"]


def new_sandbox() -> Sandbox:
    sample = {
        "known": [{"email": mail} for mail in MEMBERS],
        "unknown": [{"email": "nobody@example.test"}],
    }
    app = Starlette(routes=[Route("/members", _members, methods=["POST"])])
    return Sandbox(app=app, settings={"api_key": API_KEY}, sample=sample)


async def _members(request: Request) -> JSONResponse:
    if request.headers.get("Authorization") != f"Bearer {API_KEY}":
        return JSONResponse({"error": "who are you?"}, 401)
    mails = await request.json()
    if len(mails) > MOST or not all("@" in mail for mail in mails):
        return JSONResponse({"error": "no", "mails": mails}, 400)
    return JSONResponse({"members": {mail: MEMBERS[mail] for mail in mails if mail in MEMBERS}})


plugin = BulkClub()
