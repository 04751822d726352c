"""
The shop's own server side, as a customer would write it.

It knows who is logged in, and vouches for their ids by a signature: a page that makes an id up has none. That a person
is picked from a list instead of giving a password is all that is simplified. Besides, it passes the switches of the
page on to the sandboxes.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, TypeVar

import attrs
import httpx
import msgspec
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from partnerenrich.identity_signature import sign
from partnerenrich_server.hub import bodies, cookies
from partnerenrich_server.hub.replies import Refused

if TYPE_CHECKING:
    from partnerenrich_server.demo_shop.feed import Feed
    from partnerenrich_server.demo_shop.playbill import Person

COOKIE: Final = "partnerenrich_demo_shop"
SIGNED_FOR: Final = 300
"""Seconds for which a signature is good."""
MOST_SESSIONS: Final = 1000
BODY_BYTES: Final = 1024
OUTAGE: Final = {"mode": "unavailable", "times": None}

Endpoint = Callable[[Request], Awaitable[Response]]
Body = TypeVar("Body", bound=msgspec.Struct)


class _LogIn(msgspec.Struct):
    person: int


class _Switch(msgspec.Struct):
    down: bool


class Backend:
    """
    Sessions, signatures, and the switches of the page.

    Args:
        people: Who may log in, by their place.
        identity_secret: Shared with the hub.
        origin: Of the page: none but it may change anything.
        sandboxes: Provider to the base URL of its imitation.
        feed: What became of the last events.
    """

    def __init__(
        self, people: Sequence[Person], identity_secret: str, origin: str, sandboxes: Mapping[str, str], feed: Feed
    ) -> None:
        self._people = people
        self._secret = identity_secret.encode()
        self._origin = origin
        self._sandboxes = sandboxes
        self._feed = feed
        self._sessions: dict[str, Person] = {}
        self._down: set[str] = set()

    @property
    def routes(self) -> list[Route]:
        """What it serves."""
        return [
            Route("/shop/session", self._changing(self._log_in), methods=["POST"]),
            Route("/shop/session", self._changing(self._log_out), methods=["DELETE"]),
            Route("/shop/partners/{provider}", self._changing(self._switch), methods=["POST"]),
            Route("/shop/live", self._live, methods=["GET"]),
        ]

    def session(self, request: Request) -> dict[str, Any] | None:
        """Who is logged in, vouched for, as the page passes it to ``identify``; None for nobody."""
        person = self._sessions.get(request.cookies.get(COOKIE, ""))
        return None if person is None else self._vouched(person)

    def _vouched(self, person: Person) -> dict[str, Any]:
        email, phone = (person.traits.get(name) for name in ("email", "phone"))
        expires = int(time.time()) + SIGNED_FOR
        signature = sign(self._secret, user_id=person.user_id, email=email, phone=phone, expires=expires)
        return {"name": person.name, "userId": person.user_id, "traits": person.traits, "signature": signature}

    def _changing(self, change: Endpoint) -> Endpoint:
        """An endpoint for the page alone."""

        async def endpoint(request: Request) -> Response:
            try:
                self._check_origin(request)
                return await change(request)
            except Refused as refused:
                return refused.reply.as_response()

        return endpoint

    def _check_origin(self, request: Request) -> None:
        if request.headers.get("origin") != self._origin:
            raise Refused(403, "unknown_origin", "only the page of the shop may change anything")

    async def _log_in(self, request: Request) -> Response:
        place = (await _body(request, _LogIn)).person
        if not 0 <= place < len(self._people):
            raise Refused(404, "unknown_person", f"person must be from 0 to {len(self._people) - 1}")
        person = self._people[place]
        token = secrets.token_urlsafe()
        self._sessions.pop(request.cookies.get(COOKIE, ""), None)
        self._sessions[token] = person
        if len(self._sessions) > MOST_SESSIONS:
            del self._sessions[next(iter(self._sessions))]
        response = JSONResponse(self._vouched(person), headers={"Cache-Control": "no-store"})
        response.set_cookie(COOKIE, token, httponly=True, samesite="strict")
        return response

    async def _log_out(self, request: Request) -> Response:
        self._sessions.pop(request.cookies.get(COOKIE, ""), None)
        response = Response(status_code=204)
        response.delete_cookie(COOKIE, httponly=True, samesite="strict")
        return response

    async def _switch(self, request: Request) -> Response:
        provider = request.path_params["provider"]
        if provider not in self._sandboxes:
            raise Refused(404, "unknown_provider", "no sandbox of this provider is served")
        down = (await _body(request, _Switch)).down
        faults = f"{self._sandboxes[provider]}/_faults"
        async with httpx.AsyncClient(trust_env=False) as http:
            answer = await (http.post(faults, json=OUTAGE) if down else http.delete(faults))
        answer.raise_for_status()
        (self._down.add if down else self._down.discard)(provider)
        return JSONResponse({"down": down})

    async def _live(self, request: Request) -> Response:
        """What the page shows of the server, and whether the browser keeps the hub's cookies."""
        live = {
            "events": [attrs.asdict(told) for told in self._feed.last],
            "down": sorted(self._down),
            "device": cookies.read(request.scope["headers"]).device is not None,
        }
        return JSONResponse(live, headers={"Cache-Control": "no-store"})


async def _body(request: Request, kind: type[Body]) -> Body:
    body = await bodies.read(dict(request.scope["headers"]), request.receive, BODY_BYTES)
    try:
        return msgspec.json.decode(body, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise Refused(400, "invalid_body", f"the body must be JSON with {', '.join(kind.__struct_fields__)}") from None
