"""Who may come in, how often, and how a refusal is told."""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl

import attrs
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from partnerenrich import ConfigError, between, one_of
from partnerenrich.settings import structure
from partnerenrich_amperity._sandbox import people

if TYPE_CHECKING:
    from partnerenrich_amperity._sandbox.people import Person

READ = "profile-collections:read"
PII = "pii:read"
SEGMENTS = "real-time-segments:read"
EVENTS = ("profile-events:write", "streaming-ingest-api:write")
"""Either of them allows sending events."""


@attrs.frozen(kw_only=True)
class Behaviour:
    """
    How the imitation behaves; ``POST /_sandbox`` changes single fields.

    Attributes:
        envelope: Shape of errors: ``generic``, or ``draft``, which repeats the looked-up value.
        realtime_per_second: Calls of one tenant to ``/prof`` before 429; 0 for no limit.
        indexes_per_second: The same for ``/api/indexes``.
        general_per_second: The same for the token endpoint.
        retry_after: Whether a 429 says when to come back; the vendor documents no such header.
        latency_ms: Median of a lognormal delay; 0 for none. The vendor's indexes show about 40.
        latency_p99_ms: Its 99th percentile.
        seed: Of the delays.
        calls_per_token: Calls after which a token has expired; None for no end.
        page_size: Most entries on one page.
        links: How ``links`` are told: ``map`` or ``array``.
        sunset: Whether answers announce the end of the API.
    """

    envelope: str = attrs.field(default="generic", validator=one_of("generic", "draft"))
    realtime_per_second: float = attrs.field(default=500, validator=between(0, 1e9))
    indexes_per_second: float = attrs.field(default=2000, validator=between(0, 1e9))
    general_per_second: float = attrs.field(default=10, validator=between(0, 1e9))
    retry_after: bool = False
    latency_ms: float = attrs.field(default=0, validator=between(0, 60_000))
    latency_p99_ms: float = attrs.field(default=100, validator=between(0, 600_000))
    seed: int = 0
    calls_per_token: int | None = attrs.field(default=None, validator=between(0, 1e9))
    page_size: int = attrs.field(default=100, validator=between(1, 1000))
    links: str = attrs.field(default="map", validator=one_of("map", "array"))
    sunset: bool = False

    def limit_of(self, api: str) -> float:
        """Calls a second of one tenant to ``realtime``, ``indexes`` or ``general``."""
        limit: float = getattr(self, f"{api}_per_second")
        return limit


@attrs.frozen
class Tenant:
    """
    One tenant. All have a collection of the same id and the same people, with other attributes.

    Attributes:
        id: What the header names.
        subdomain: Its own host below ``amperity.com``.
        offset: What makes its attributes differ.
    """

    id: str
    subdomain: str
    offset: int = 0

    def attributes(self, person: Person) -> dict[str, Any]:
        """What this tenant knows of a person."""
        return people.attributes(person.number + self.offset)


DEMO = Tenant("demo-sb-10001", "demo")
OTHER = Tenant("other", "other", offset=17)
TENANTS: Mapping[str, Tenant] = {tenant.id: tenant for tenant in (DEMO, OTHER)}

OAUTH_CLIENTS = {("sandbox-client", "sandbox-client-secret"): DEMO.id}


@attrs.define
class Credential:
    """A token: whose it is, what it may, when it ends, how often it was used."""

    tenant: str
    permissions: frozenset[str]
    expires_at: float = math.inf
    calls: int = 0


def _issued_keys() -> dict[str, Credential]:
    everything = frozenset({READ, PII, SEGMENTS, *EVENTS})
    return {
        "sandbox-key-of-demo": Credential(DEMO.id, everything),
        "sandbox-key-of-other": Credential(OTHER.id, everything),
        "sandbox-key-without-pii": Credential(DEMO.id, everything - {PII}),
        "sandbox-key-for-events": Credential(DEMO.id, frozenset(EVENTS[1:])),
        "sandbox-key-expired": Credential(DEMO.id, everything, expires_at=-math.inf),
    }


@attrs.define
class Bucket:
    """A token bucket that holds one second's worth of calls."""

    rate: float
    filled_at: float
    level: float

    def take(self, now: float) -> bool:
        """Whether one more call is allowed."""
        self.level = min(max(1.0, self.rate), self.level + (now - self.filled_at) * self.rate)
        self.filled_at = now
        if self.level < 1:
            return False
        self.level -= 1
        return True


class Refusal(Exception):
    """An error answer. `code` and `about` are told in the draft envelope alone."""

    def __init__(self, status: int, message: str, code: str | None = None, **about: str) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.code = code
        self.about = about


@attrs.frozen
class Asked:
    """An admitted request."""

    gate: Gate
    request: Request
    tenant: Tenant

    def path(self, name: str) -> str:
        """A part of the path."""
        text: str = self.request.path_params[name]
        return text

    @property
    def query(self) -> list[tuple[str, str]]:
        """All parameters, in their order."""
        return self.request.query_params.multi_items()


Handler = Callable[[Asked], Awaitable[Response]]
Endpoint = Callable[[Request], Awaitable[Response]]


class Gate:
    """What lasts from one request to the next, and the checks before each."""

    def __init__(
        self, behaviour: Behaviour, clock: Callable[[], float], sleep: Callable[[float], Awaitable[None]]
    ) -> None:
        self._clock = clock
        self._sleep = sleep
        self._initial = behaviour
        self.start_afresh()

    def start_afresh(self) -> None:
        """Forget all calls, issued tokens and merges."""
        self.behave(self._initial)
        self.calls: Counter[str] = Counter()
        self.merges: Counter[tuple[str, str]] = Counter()
        self._credentials = _issued_keys()

    def behave(self, behaviour: Behaviour) -> None:
        """Change the behaviour; rate limits begin anew."""
        self.behaviour = behaviour
        self._buckets: dict[tuple[str, str], Bucket] = {}
        self._random = random.Random(behaviour.seed)  # noqa: S311  a delay is no secret

    def guarded(
        self, handler: Handler, *, api: str, all_of: tuple[str, ...] = (), any_of: tuple[str, ...] = ()
    ) -> Endpoint:
        """
        An endpoint that admits a request, then hands it to `handler`.

        Bearer, then tenant, then rate (its place is assumed), then permission.
        """

        async def endpoint(request: Request) -> Response:
            self.calls[handler.__name__] += 1
            await self._delay()
            credential = self._bearer(request)
            tenant = self._tenant(request)
            if credential.tenant != tenant.id:
                raise Refusal(403, "the token belongs to another tenant")
            self._count(tenant, api)
            if not credential.permissions.issuperset(all_of) or (any_of and credential.permissions.isdisjoint(any_of)):
                raise Refusal(403, "a permission is missing")
            response = await handler(Asked(self, request, tenant))
            if self.behaviour.sunset:
                response.headers["Deprecation"] = "true"
                response.headers["Sunset"] = "Sat, 01 Jan 2028 00:00:00 GMT"
            return response

        return endpoint

    async def issue_token(self, request: Request) -> Response:
        """``POST /api/v0/oauth2/token``. The bodies of its errors are assumed."""
        self.calls["issue_token"] += 1
        await self._delay()
        tenant = self._tenant(request)
        self._count(tenant, "general")
        form = dict(parse_qsl((await request.body()).decode("utf-8", "replace")))
        if form.get("grant_type") != "client_credentials":
            raise Refusal(400, "grant_type must be client_credentials")
        if OAUTH_CLIENTS.get((form.get("client_id", ""), form.get("client_secret", ""))) != tenant.id:
            raise Refusal(401, "unknown client")
        token, lifetime = f"sandbox-token-{self.calls['issue_token']}", 3600
        everything = frozenset({READ, PII, SEGMENTS, *EVENTS})
        self._credentials[token] = Credential(tenant.id, everything, expires_at=self._clock() + lifetime)
        return JSONResponse({"access_token": token, "expires_in": lifetime, "token_type": "Bearer"})

    async def control(self, request: Request) -> Response:
        """``/_sandbox``: GET tells behaviour and calls, POST changes fields, DELETE starts afresh."""
        if request.method == "DELETE":
            self.start_afresh()
        elif request.method == "POST":
            try:
                changes = await request.json()
                self.behave(structure(Behaviour, {**attrs.asdict(self.behaviour), **changes}))
            except (ConfigError, ValueError, TypeError) as error:
                raise Refusal(400, f"send a JSON object of fields to change: {error}") from error
        return JSONResponse({"behaviour": attrs.asdict(self.behaviour), "calls": self.calls})

    async def refuse(self, _: Request, refusal: Exception) -> Response:
        """The error answer in the envelope of the day."""
        assert isinstance(refusal, Refusal)
        headers = {"Retry-After": "1"} if refusal.status == 429 and self.behaviour.retry_after else None
        if refusal.code and self.behaviour.envelope == "draft":
            body: dict[str, Any] = {"error": refusal.code, "message": refusal.message, **refusal.about}
        else:
            body = _envelope(refusal.status, refusal.message)
        return JSONResponse(body, refusal.status, headers)

    def _bearer(self, request: Request) -> Credential:
        scheme, _, token = request.headers.get("Authorization", "").partition(" ")
        credential = self._credentials.get(token) if scheme.lower() == "bearer" else None
        if credential is None:
            raise Refusal(401, "no valid token")
        credential.calls += 1
        most = self.behaviour.calls_per_token
        if self._clock() >= credential.expires_at or (most is not None and credential.calls > most):
            raise Refusal(401, "the token has expired")
        return credential

    def _tenant(self, request: Request) -> Tenant:
        """The tenant of either header. A host of the vendor must be shared or its own (assumed)."""
        name = request.headers.get("Amperity-Tenant") or request.headers.get("X-Amperity-Tenant")
        tenant = TENANTS.get(name or "")
        if tenant is None:
            raise Refusal(403, "no such tenant")
        label, _, domain = (request.url.hostname or "").partition(".")
        if domain == "amperity.com" and label not in {"app", tenant.subdomain}:
            raise Refusal(403, "the tenant is not served here")
        return tenant

    def _count(self, tenant: Tenant, api: str) -> None:
        rate = self.behaviour.limit_of(api)
        if not rate:
            return
        now = self._clock()
        bucket = self._buckets.setdefault((tenant.id, api), Bucket(rate, now, max(1.0, rate)))
        if not bucket.take(now):
            raise Refusal(429, "too many requests")

    async def _delay(self) -> None:
        median, p99 = self.behaviour.latency_ms, self.behaviour.latency_p99_ms
        if median:
            spread = max(0.0, math.log(p99 / median)) / 2.3263 if p99 else 0.0
            await self._sleep(self._random.lognormvariate(math.log(median), spread) / 1000)


async def refuse_route(_: Request, error: Exception) -> Response:
    """No such path, or a method that it does not have."""
    assert isinstance(error, HTTPException)
    return JSONResponse(_envelope(error.status_code, error.detail), error.status_code, error.headers)


def _envelope(status: int, message: str) -> dict[str, Any]:
    return {"status": status, "message": message, "request_id": "req-sandbox", "trace_id": "trace-sandbox"}
