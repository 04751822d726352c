"""A partner that keeps the contract. Its neighbours break it, each in one way."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar
from urllib.parse import quote

import attrs
from starlette.applications import Starlette
from starlette.responses import JSONResponse
from starlette.routing import Route

from partnerenrich import LinkingKey, Partner, Resolution, Sandbox, Secret, UnknownPartnerId, hookimpl
from partnerenrich.http import json_object, raise_for_status

if TYPE_CHECKING:
    import httpx
    from starlette.requests import Request

    from partnerenrich import Link

API_KEY = "club-key-4711-for-tests"
MEMBERS = {"pat@example.test": "member-000042"}
PROFILES = {"member-000042": {"Tier": "Gold for life", "Points": 1_234_567, "Tags": ["sailing boats", None]}}


@attrs.frozen(kw_only=True)
class Config:
    base_url: str
    api_key: Secret


class Club:
    config: ClassVar[type[Any]] = Config

    @hookimpl
    def partner(self) -> Partner:
        return Partner(title="Club", config=self.config, linking_keys=(LinkingKey("email", "mail"),))

    @hookimpl
    async def check(self, config: Any, http: httpx.AsyncClient) -> None:
        json_object(self.read(await self.get(config, http, "/status")))

    @hookimpl
    async def resolve_id(self, config: Any, http: httpx.AsyncClient, link: Link) -> Resolution:
        response = await self.get(config, http, f"/members?{link.key}={quote(link.value)}")
        if response.status_code == 404:
            return Resolution.absent()
        return Resolution(json_object(self.read(response)).get("id"))

    @hookimpl
    async def fetch_attributes(self, config: Any, http: httpx.AsyncClient, partner_id: str) -> Any:
        response = await self.get(config, http, f"/members/{quote(partner_id, safe='')}")
        if response.status_code == 404:
            raise UnknownPartnerId("the club dropped a member")
        return json_object(self.read(response))

    @hookimpl
    def sandbox(self) -> Sandbox:
        return new_sandbox(API_KEY)

    async def get(self, config: Any, http: httpx.AsyncClient, path: str) -> httpx.Response:
        return await http.get(config.base_url + path, headers={"Authorization": f"Bearer {config.api_key.reveal()}"})

    def read(self, response: httpx.Response) -> httpx.Response:
        raise_for_status(response)
        return response


def new_sandbox(api_key: str) -> Sandbox:
    app = Starlette(routes=[Route("/status", _status), Route("/members", _member), Route("/members/{id}", _profile)])
    app.state.api_key = api_key
    sample = {"known": [{"email": "pat@example.test"}], "unknown": [{"email": "nobody@example.test"}]}
    return Sandbox(app=app, settings={"api_key": api_key}, sample=sample)


def _answer(request: Request, body: object) -> JSONResponse:
    if request.headers.get("Authorization") != f"Bearer {request.app.state.api_key}":
        return JSONResponse({"error": "who are you?"}, 401)
    return JSONResponse(body, 404 if body is None else 200)


async def _status(request: Request) -> JSONResponse:
    return _answer(request, {"open": True})


async def _member(request: Request) -> JSONResponse:
    member = MEMBERS.get(request.query_params["mail"])
    return _answer(request, member and {"id": member})


async def _profile(request: Request) -> JSONResponse:
    return _answer(request, PROFILES.get(request.path_params["id"]))


plugin = Club()
