"""Make an imitation of a partner fail as partners fail. Needs nothing but the core."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from typing import Any

import attrs

from partnerenrich.errors import ConfigError
from partnerenrich.settings import between, one_of, structure

Message = MutableMapping[str, Any]
Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
ASGIApp = Callable[[Scope, Receive, Send], Awaitable[None]]

MODES = (
    "unauthorized",
    "forbidden",
    "not_found",
    "rate_limited",
    "rate_limited_retry_after",
    "server_error",
    "unavailable",
    "redirect",
    "bad_json",
    "wrong_shape",
    "wrong_content_type",
    "oversized",
    "truncated",
    "drop",
    "timeout",
    "slow_drip",
)
"""All faults. The body of each answer repeats the whole request, as bodies of real partners do."""

_STATUSES = {
    "unauthorized": 401,
    "forbidden": 403,
    "not_found": 404,
    "rate_limited": 429,
    "rate_limited_retry_after": 429,
    "server_error": 500,
    "unavailable": 503,
    "redirect": 302,
}
_JSON = "application/json"
_CHUNK = 1 << 16


@attrs.frozen(kw_only=True)
class Fault:
    """
    What happens to the next requests.

    Attributes:
        mode: One of `MODES`; None for a right answer, after `latency_ms`.
        times: Number of requests; None until cleared.
        latency_ms: Milliseconds before anything is answered.
        retry_after: Seconds, in the header of ``rate_limited_retry_after``.
        location: Where ``redirect`` leads to.
        size: Bytes in the body of ``oversized``.
        interval: Seconds between two bytes of ``slow_drip``.
        lasts: Seconds after which ``timeout`` and ``slow_drip`` end, if the client stays so long.
    """

    mode: str | None = attrs.field(default=None, validator=one_of(*MODES))
    times: int | None = attrs.field(default=1, validator=between(1, 1_000_000_000))
    latency_ms: float = attrs.field(default=0, validator=between(0, 600_000))
    retry_after: int = attrs.field(default=1, validator=between(0, 86_400))
    location: str = "http://elsewhere.invalid/"
    size: int = attrs.field(default=8 << 20, validator=between(1, 1 << 30))
    interval: float = attrs.field(default=0.05, validator=between(0.001, 60))
    lasts: float = attrs.field(default=600, validator=between(0.001, 3600))


class FaultMiddleware:
    """
    An ASGI application in front of another one, which fails when it is told to.

    Below its root path, ``POST /_faults`` with a JSON object of the fields of
    `Fault`, such as ``{"mode": "server_error", "times": 3}``, arms it;
    ``GET /_faults`` shows what is armed and which modes there are;
    ``DELETE /_faults`` clears it. `arm` and `clear` do the same from Python.

    ``truncated`` and ``drop`` end a connection in the middle of an answer,
    ``drop`` right after the head, the first moment that ASGI allows. Both need a
    real server around the application.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app
        self._armed: Fault | None = None
        self._left: int | None = None

    def arm(self, fault: Fault) -> None:
        """Let the next `Fault.times` requests meet this fault."""
        self._armed, self._left = fault, fault.times

    def clear(self) -> None:
        """Answer as usual again."""
        self._armed = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one connection."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
        elif _path_below_root(scope) == "/_faults":
            await self._control(_Exchange(scope, receive, send))
        elif fault := self._take():
            await asyncio.sleep(fault.latency_ms / 1000)
            if fault.mode is None:
                await self.app(scope, receive, send)
            else:
                await _fail(fault.mode, fault, _Exchange(scope, receive, send))
        else:
            await self.app(scope, receive, send)

    def _take(self) -> Fault | None:
        fault = self._armed
        if fault is not None and self._left is not None:
            self._left -= 1
            if self._left == 0:
                self._armed = None
        return fault

    async def _control(self, exchange: _Exchange) -> None:
        method = exchange.scope["method"]
        if method == "POST":
            try:
                self.arm(structure(Fault, json.loads(await body_of(exchange.receive))))
            except ValueError:
                await exchange.answer_json(400, {"error": 'the body must be JSON, such as {"mode": "timeout"}'})
                return
            except ConfigError as error:
                await exchange.answer_json(400, {"error": str(error)})
                return
        elif method == "DELETE":
            self.clear()
        elif method != "GET":
            await exchange.answer_json(405, {"error": "use GET, POST or DELETE"}, {"allow": "GET, POST, DELETE"})
            return
        armed = attrs.asdict(self._armed) | {"times": self._left} if self._armed else None
        await exchange.answer_json(200, {"fault": armed, "modes": MODES})


async def body_of(receive: Receive) -> bytes:
    """The whole body of a request."""
    chunks: list[bytes] = []
    while True:
        message = await receive()
        chunks.append(message.get("body", b""))
        if not message.get("more_body", False):
            return b"".join(chunks)


@attrs.frozen
class _Exchange:
    """One request and its answer."""

    scope: Scope
    receive: Receive
    send: Send

    async def echo(self) -> bytes:
        """A JSON object that repeats the request."""
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in self.scope["headers"]}
        request = {
            "method": self.scope["method"],
            "path": self.scope["path"],
            "query": self.scope["query_string"].decode("latin-1"),
            "headers": headers,
            "body": (await body_of(self.receive)).decode("utf-8", "replace"),
        }
        return json.dumps({"error": "a fault that was asked for", "request": request}).encode()

    async def answer_json(self, status: int, body: object, headers: Mapping[str, str] | None = None) -> None:
        await self.answer(status, json.dumps(body).encode(), headers or {})

    async def answer(self, status: int, body: bytes, headers: Mapping[str, str], kind: str = _JSON) -> None:
        await self.start(status, {"content-type": kind, "content-length": str(len(body)), **headers})
        await self.chunk(body, more=False)

    async def start(self, status: int, headers: Mapping[str, str]) -> None:
        encoded = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers.items()]
        await self.send({"type": "http.response.start", "status": status, "headers": encoded})

    async def chunk(self, body: bytes, *, more: bool = True) -> None:
        await self.send({"type": "http.response.body", "body": body, "more_body": more})

    async def client_leaves(self, within: float) -> bool:
        """Whether the client closes the connection within so many seconds."""

        async def disconnected() -> None:
            while (await self.receive())["type"] != "http.disconnect":
                pass

        try:
            await asyncio.wait_for(disconnected(), within)
        except TimeoutError:
            return False
        return True


async def _fail(mode: str, fault: Fault, exchange: _Exchange) -> None:
    echo = await exchange.echo()
    if mode in _STATUSES:
        headers = {
            "rate_limited_retry_after": {"retry-after": str(fault.retry_after)},
            "redirect": {"location": fault.location},
        }
        await exchange.answer(_STATUSES[mode], echo, headers.get(mode, {}))
    elif mode == "bad_json":
        await exchange.answer(200, echo[:-1], {})
    elif mode == "wrong_shape":
        await exchange.answer(200, json.dumps(echo.decode()).encode(), {})
    elif mode == "wrong_content_type":
        await exchange.answer(200, b"<!doctype html><title>Sign in</title>" + echo, {}, kind="text/html")
    elif mode == "oversized":
        await _oversized(fault, exchange, echo)
    elif mode in {"truncated", "drop"}:
        await exchange.start(200, {"content-type": _JSON, "content-length": str(len(echo))})
        if mode == "truncated":
            await exchange.chunk(echo[: len(echo) // 2])
    elif mode == "timeout":
        await exchange.client_leaves(within=fault.lasts)
    elif mode == "slow_drip":
        await _drip(fault, exchange)


async def _oversized(fault: Fault, exchange: _Exchange, echo: bytes) -> None:
    await exchange.start(200, {"content-type": _JSON})
    await exchange.chunk(echo[:-1] + b', "padding": "')
    for _ in range(0, fault.size, _CHUNK):
        await exchange.chunk(b"x" * _CHUNK)
    await exchange.chunk(b'"}', more=False)


async def _drip(fault: Fault, exchange: _Exchange) -> None:
    await exchange.start(200, {"content-type": _JSON})
    for _ in range(round(fault.lasts / fault.interval)):
        await exchange.chunk(b" ")
        if await exchange.client_leaves(within=fault.interval):
            return
    await exchange.chunk(b"{}", more=False)


def _path_below_root(scope: Scope) -> str:
    path: str = scope["path"]
    return path.removeprefix(scope.get("root_path", ""))
