"""Who may come in, what goes wrong on purpose, and how a refusal is told."""

from __future__ import annotations

import asyncio
import re
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import attrs
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from partnerenrich import ConfigError
from partnerenrich.settings import structure
from partnerenrich_infosum._sandbox.behaviour import Behaviour
from partnerenrich_infosum._sandbox.connectors import connector
from partnerenrich_infosum._sandbox.filters import InvalidFilter, listed
from partnerenrich_infosum._sandbox.machine import SPELT_IN_2022, envelope
from partnerenrich_infosum._sandbox.world import KEYS, Key, World

_is_v1_form = re.compile(r"[^/\s]+/[^/\s]+").fullmatch

Body = Mapping[str, Any]


class Refusal(Exception):
    """An error answer."""

    def __init__(self, status: int, code: str, message: str, *, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.headers = headers


@attrs.frozen
class Asked:
    """
    An admitted request.

    Attributes:
        world: What there is.
        request: As it came.
        key: Who asks.
        body: Its JSON object; empty where it has none.
    """

    world: World
    request: Request
    key: Key
    body: Body

    def path(self, name: str) -> str:
        """A part of the path."""
        text: str = self.request.path_params[name]
        return text

    def text(self, name: str) -> str:
        """A required text of the body."""
        value = self.body.get(name)
        if not isinstance(value, str) or not value:
            raise Refusal(400, "MISSING_REQUIRED_FIELD", f"{name} is required")
        return value

    def own(self, things: Mapping[str, Any], identifier: str, code: str) -> Any:
        """A thing of the company of the key: 404 when there is none, 403 when it is another company's."""
        thing = things.get(identifier)
        if thing is None:
            raise Refusal(404, code, "there is nothing of this id")
        if thing.company != self.key.company:
            raise Refusal(403, "ACCOUNTS_REQUIRE_COMPANY_RIGHT", "it belongs to another company")
        return thing

    def page(self, name: str, entries: list[dict[str, Any]]) -> dict[str, Any]:
        """A list as the query wants it."""
        try:
            shown, pagination = listed(entries, self.request.query_params)
        except (InvalidFilter, TypeError) as error:
            raise Refusal(400, "INVALID_FILTER_INPUT", f"the list cannot be filtered: {error}") from error
        return {name: shown, "pagination": pagination}


Handler = Callable[[Asked], dict[str, Any]]
Endpoint = Callable[[Request], Awaitable[Response]]


class Gate:
    """
    The checks before each request.

    Attributes:
        calls: Name of a handler to how often it was called.
        world: What there is.
    """

    def __init__(self, behaviour: Behaviour, clock: Callable[[], float]) -> None:
        self._initial, self._clock = behaviour, clock
        self._turn = asyncio.Lock()
        self.start_afresh()

    def start_afresh(self) -> None:
        """Forget everything."""
        self.world = World(self._initial, self._clock)
        self.calls: Counter[str] = Counter()

    def guarded(self, handler: Handler, *, begins: bool = False) -> Endpoint:
        """
        An endpoint for those who have a key, one request after the other.

        Args:
            handler: Answers, in a thread of its own, since it may read whole files.
            begins: Whether it begins something, so that a lost answer matters.
        """

        async def endpoint(request: Request) -> Response:
            body = await _body(request)
            async with self._turn:
                self.calls[handler.__name__] += 1
                answer = await asyncio.to_thread(self._answer, handler, request, body)
                if begins and self._take("lost_answers"):
                    raise Refusal(503, "INTERNAL", "the answer was lost")
            return JSONResponse(answer)

        return endpoint

    def _answer(self, handler: Handler, request: Request, body: Body | None) -> Any:
        if self.world.behaviour.outage:
            raise Refusal(self.world.behaviour.outage, "INTERNAL", "out of order")
        if self._take("throttled"):
            raise Refusal(429, "INTERNAL", "too many requests", headers={"Retry-After": "1"})
        key = self._key(request)
        if body is None:
            raise Refusal(400, "API_MALFORMED_INPUT", "the body must be a JSON object")
        if not key.may_operate:
            raise Refusal(403, "ACCOUNTS_REQUIRE_COMPANY_RIGHT", "the right Bunker Operations is missing")
        self.world.advance()
        answer = handler(Asked(self.world, request, key, body))
        self.world.advance()
        return _respelt(answer) if self.world.behaviour.spelling == "2022" else answer

    def _key(self, request: Request) -> Key:
        given = request.headers.get("Authorization", "")
        key = KEYS.get(given)
        if key is not None and self._clock() < key.expires_at:
            return key
        if not given:
            why = "no key was given"
        elif key is not None:
            why = "the key has expired"
        elif _is_v1_form(given):
            why = "a V1 key was given, and a V2 key is needed"
        else:
            why = "the key is unknown"
        raise Refusal(401, "UNAUTHENTICATED", why)

    def _take(self, countdown: str) -> bool:
        left: int = getattr(self.world.behaviour, countdown)
        if left:
            self.world.behaviour = structure(Behaviour, attrs.asdict(self.world.behaviour) | {countdown: left - 1})
        return left > 0

    # Around the imitation

    async def control(self, request: Request) -> Response:
        """``/_sandbox``: GET tells behaviour, calls and datasets, POST changes fields, DELETE starts afresh."""
        if request.method == "DELETE":
            self.start_afresh()
        elif request.method == "POST":
            try:
                changes = await request.json()
                self.world.behaviour = structure(Behaviour, {**attrs.asdict(self.world.behaviour), **changes})
            except (ConfigError, ValueError, TypeError) as error:
                raise Refusal(400, "INVALID_ARGUMENT", f"send a JSON object of fields to change: {error}") from error
        async with self._turn:
            await asyncio.to_thread(self.world.advance)
        return JSONResponse(
            {"behaviour": attrs.asdict(self.world.behaviour), "calls": self.calls, "datasets": self._datasets()}
        )

    def _datasets(self) -> dict[str, Any]:
        """Dataset id to what it shows, and how often it was published."""
        return {
            dataset.id: {
                "records": dataset.publications[-1].records if dataset.publications else None,
                "execution_id": dataset.publications[-1].execution_id if dataset.publications else None,
                "publications": len(dataset.publications),
            }
            for dataset in self.world.datasets.values()
        }

    async def connect(self, request: Request) -> Response:
        """``/_sandbox/connector``: where the importers copy from. GET tells it, PUT changes it."""
        if request.method == "PUT":
            try:
                asked = await request.json()
                url, options = asked["url"], asked.get("options") or {}
                self.world.connectors["ICC.11"] = connector(url, options)
            except (ValueError, TypeError, KeyError, AttributeError) as error:
                hint = 'send {"url": "s3://bucket/prefix", "options": {"endpoint": "http://127.0.0.1:9000"}}'
                raise Refusal(400, "INVALID_ARGUMENT", f"{hint}: {error}") from error
            return JSONResponse({"url": url})
        return JSONResponse({"url": self.world.bucket_url, **self.world.connectors["ICC.11"].described()})

    async def refuse(self, _: Request, error: Exception) -> Response:
        """The error answer."""
        assert isinstance(error, Refusal)
        body = envelope(error.code, _SUMMARY.get(error.status, "The request failed."), self._clock(), error.message)
        return JSONResponse(body, error.status, dict(error.headers or {}))


_SUMMARY = {
    400: "The request is not valid.",
    401: "The request is not authorised.",
    403: "A right is missing.",
    404: "It was not found.",
    409: "There is one already.",
}


async def refuse_route(_: Request, error: Exception) -> Response:
    """No such path, or a method that it does not have."""
    assert isinstance(error, HTTPException)
    return JSONResponse(envelope("UNIMPLEMENTED", error.detail, 0.0), error.status_code, error.headers)


async def _body(request: Request) -> Body | None:
    """The JSON object; None for anything else."""
    raw = await request.body()
    if not raw:
        return {}
    try:
        body = await request.json()
    except ValueError:
        return None
    return body if isinstance(body, dict) else None


def _respelt(answer: Any) -> Any:
    if isinstance(answer, dict):
        return {
            name: SPELT_IN_2022.get(value, value) if name in {"status", "current_status"} else _respelt(value)
            for name, value in answer.items()
        }
    return [_respelt(each) for each in answer] if isinstance(answer, list) else answer
