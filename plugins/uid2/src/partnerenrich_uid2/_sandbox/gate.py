"""Who may come in, how a request is opened, and how a refusal is told."""

from __future__ import annotations

import base64
import hashlib
import json
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any

import attrs
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, PlainTextResponse, Response

from partnerenrich import ConfigError, between, one_of
from partnerenrich.settings import structure
from partnerenrich_uid2._sandbox.envelope import Opened, Refused, open_request, seal_answer

if TYPE_CHECKING:
    from starlette.requests import Request

    from partnerenrich_uid2.config import Scope

MOST_BYTES = 1 << 20
"""Of a body as it is sent."""

MAPPER, GENERATOR, SHARER, ID_READER = "MAPPER", "GENERATOR", "SHARER", "ID_READER"

FAULTS = ("none", "rate_limited", "operator_error", "wrong_nonce", "damaged_tag", "short_answer")


@attrs.frozen(kw_only=True)
class Behaviour:
    """
    How the imitation behaves; ``POST /_sandbox`` changes single fields.

    Attributes:
        opted_out: E-mails and phones of people who opted out, beside the test identities of every operator.
        salt_days: Days by which the salts are ahead, to see raw UIDs rotate.
        window_s: Seconds that a request may be off. The documentation says 60, the operator's source 120.
        most_identifiers: More in one request are refused; real operators leave it at the size. 0 for no limit.
        calls_per_second: More calls of one key get 429; 0 for no limit. The real one is not published.
        latency_ms: Milliseconds before an answer.
        fault: What goes wrong with every call: ``rate_limited`` (429 without JSON), ``operator_error`` (500),
            ``wrong_nonce``, ``damaged_tag``, ``short_answer`` (an entry is missing), or ``none``.
    """

    opted_out: tuple[str, ...] = ("leaver@example.test", "+12025550190")
    salt_days: int = attrs.field(default=0, validator=between(0, 100_000))
    window_s: float = attrs.field(default=60, validator=between(0, 1e9))
    most_identifiers: int = attrs.field(default=5_000, validator=between(0, 1e9))
    calls_per_second: int = attrs.field(default=0, validator=between(0, 1e9))
    latency_ms: float = attrs.field(default=0, validator=between(0, 60_000))
    fault: str = attrs.field(default="none", validator=one_of(*FAULTS))


@attrs.frozen
class Credential:
    """
    An API key.

    Attributes:
        token: What is sent.
        roles: What it may.
        enabled: Whether it is in use.
    """

    token: str
    roles: frozenset[str]
    enabled: bool = True

    @property
    def secret(self) -> bytes:
        """The client secret that was issued with it."""
        return hashlib.sha256(self.token.encode()).digest()

    @property
    def settings(self) -> dict[str, str]:
        """Both halves, as a user writes them."""
        return {"api_key": self.token, "client_secret": base64.b64encode(self.secret).decode()}


def credentials(scope: Scope) -> dict[str, Credential]:
    """Name to credential. Those of another scope are unknown."""

    def issued(name: str, *roles: str, enabled: bool = True) -> tuple[str, Credential]:
        return name, Credential(f"{scope}-C-T-1-sandbox.{name}", frozenset(roles), enabled)

    return dict(
        [
            issued("mapper", MAPPER),
            issued("generator", GENERATOR),
            issued("sharer", SHARER),
            issued("reader", ID_READER),
            issued("disabled", MAPPER, enabled=False),
        ]
    )


class Refusal(Exception):
    """An error answer: a status, and a plain JSON object or none."""

    def __init__(self, status: int, body: Mapping[str, str] | None = None, text: str = "") -> None:
        super().__init__(status)
        self.status = status
        self.body = body
        self.text = text


def client_error(message: str) -> Refusal:
    """What most of the errors of a client get."""
    return Refusal(400, {"status": "client_error", "message": message})


Handler = Callable[[Any], Any]
"""From the payload of a request, None when there is none, to the body of the answer. Raises `Refusal`."""


class Gate:
    """
    The checks before each call, and what lasts from one to the next.

    Attributes:
        behaviour: How the imitation behaves.
        clock: Unix time in seconds.
        calls: Path to how often it was called.
    """

    def __init__(
        self,
        scope: Scope,
        behaviour: Behaviour,
        clock: Callable[[], float],
        sleep: Callable[[float], Awaitable[None]],
    ) -> None:
        self.clock = clock
        self._sleep = sleep
        self._initial = behaviour
        self._credentials = {credential.token: credential for credential in credentials(scope).values()}
        self.start_afresh()

    def start_afresh(self) -> None:
        """Forget all calls and changes."""
        self.behaviour = self._initial
        self.calls: Counter[str] = Counter()
        self._calls_in_second: Counter[tuple[str, int]] = Counter()

    def guarded(self, path: str, handler: Handler, *roles: str) -> Callable[[Request], Awaitable[Response]]:
        """An endpoint for keys with any of these roles; in the order of the operator's own checks."""

        async def endpoint(request: Request) -> Response:
            self.calls[path] += 1
            await self._sleep(self.behaviour.latency_ms / 1000)
            body = await _body(request)
            credential = self._credential(request, roles)
            self._count(credential)
            if self.behaviour.fault == "operator_error":
                raise Refusal(500, {"status": "unknown", "message": "the operator has no active key"})
            try:
                opened = open_request(credential.secret, body, request.headers.get("Content-Type", ""))
            except Refused as refused:
                raise client_error(str(refused)) from None
            if abs(self.clock() * 1000 - opened.stamped_ms) > self.behaviour.window_s * 1000:
                raise client_error("the request is too old or from the future")
            answer = {"status": "success", "body": handler(_payload(opened.message))}
            return self._answered(credential, opened, answer)

        return endpoint

    async def control(self, request: Request) -> Response:
        """``/_sandbox``: GET tells behaviour and calls, POST changes fields, DELETE starts afresh."""
        if request.method == "DELETE":
            self.start_afresh()
        elif request.method == "POST":
            try:
                changes = await request.json()
                self.behaviour = structure(Behaviour, {**attrs.asdict(self.behaviour), **changes})
            except (ConfigError, ValueError, TypeError) as error:
                raise Refusal(400, {"error": f"send a JSON object of fields to change: {error}"}) from error
        return JSONResponse({"behaviour": attrs.asdict(self.behaviour), "calls": self.calls})

    def _credential(self, request: Request, roles: tuple[str, ...]) -> Credential:
        scheme, _, token = request.headers.get("Authorization", "").partition(" ")
        credential = self._credentials.get(token.strip()) if scheme.lower() == "bearer" else None
        if credential is None or not credential.enabled or credential.roles.isdisjoint(roles):
            raise Refusal(401, {"status": "unauthorized"})
        return credential

    def _count(self, credential: Credential) -> None:
        second = (credential.token, int(self.clock()))
        self._calls_in_second[second] += 1
        limit = self.behaviour.calls_per_second
        if self.behaviour.fault == "rate_limited" or (limit and self._calls_in_second[second] > limit):
            raise Refusal(429)

    def _answered(self, credential: Credential, opened: Opened, answer: Any) -> Response:
        match self.behaviour.fault:
            case "short_answer":
                answer = _shortened(answer)
            case "wrong_nonce":
                opened = attrs.evolve(opened, nonce=bytes(8))
        message = json.dumps(answer, separators=(",", ":")).encode()
        sealed = seal_answer(credential.secret, opened, message, int(self.clock() * 1000))
        if self.behaviour.fault == "damaged_tag":
            sealed = sealed[:-1] + bytes([sealed[-1] ^ 1])
        if opened.is_binary:
            return Response(sealed, media_type="application/octet-stream")
        return PlainTextResponse(base64.b64encode(sealed))


async def refuse(_: Request, error: Exception) -> Response:
    """The error answer, never encrypted."""
    if isinstance(error, HTTPException):
        return PlainTextResponse(error.detail, error.status_code, error.headers)
    assert isinstance(error, Refusal)
    return PlainTextResponse(error.text, error.status) if error.body is None else JSONResponse(error.body, error.status)


async def _body(request: Request) -> bytes:
    """The raw body, whatever its type claims to be."""
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > MOST_BYTES:
            raise Refusal(413, text="Request Entity Too Large")
    return bytes(body)


def _payload(message: bytes) -> dict[str, Any] | None:
    if not message:
        return None
    try:
        payload = json.loads(message)
    except ValueError:
        payload = None
    if not isinstance(payload, dict):
        raise client_error("the payload must be a JSON object")
    return payload


def _shortened(answer: Any) -> Any:
    """The same without the last entry of each list."""
    if isinstance(answer, dict):
        return {name: _shortened(value) for name, value in answer.items()}
    return answer[:-1] if isinstance(answer, list) else answer
