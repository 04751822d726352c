from __future__ import annotations

import base64
import json
import time
from typing import TYPE_CHECKING, Any

import attrs
import httpx
import pytest

from partnerenrich import Call, plugins
from partnerenrich.settings import structure
from partnerenrich_uid2 import UnifiedID, uid2
from partnerenrich_uid2._envelope import open_answer, seal
from partnerenrich_uid2._sandbox import new_app
from partnerenrich_uid2._sandbox.envelope import open_request, seal_answer
from partnerenrich_uid2._sandbox.gate import credentials
from partnerenrich_uid2.config import Config, EUIDConfig, UID2Config

if TYPE_CHECKING:
    from collections.abc import Callable

    from partnerenrich.plugins import BoundPartner

SECRET = base64.b64encode(bytes(range(32))).decode()
NOW = 1_767_225_600.0
"""2026-01-01T00:00:00Z"""


def counted() -> Callable[[int], bytes]:
    """Entropy that never repeats itself, and is the same in every run."""
    given = iter(range(1, 1_000_000))
    return lambda size: next(given).to_bytes(size, "big")


@pytest.fixture
def now() -> float:
    return NOW


@pytest.fixture
def key() -> bytes:
    return bytes(range(32))


@pytest.fixture
def call() -> Call:
    return Call("acme", "uid2", "uid2", time.monotonic() + 5)


@pytest.fixture
def configured() -> Callable[..., Config]:
    """Makes settings of a UID2 integration from the two that are required, and others."""
    return lambda **others: structure(
        UID2Config, {"api_key": "canary-api-key", "client_secret": SECRET} | others, "settings"
    )


@pytest.fixture
def partner() -> BoundPartner:
    """UID2, at a fixed time."""
    return plugins.bind("uid2", UnifiedID(UID2Config, uid2.docs, clock=lambda: NOW, entropy=counted()))


class Double:
    """An operator that answers with what was put in, in order, and keeps the requests and what they asked."""

    def __init__(self, *answers: Any, is_binary: bool | None = None) -> None:
        self.answers = list(answers)
        self.is_binary = is_binary
        self.requests: list[httpx.Request] = []
        self.asked: list[Any] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        opened = open_request(bytes(range(32)), request.content, request.headers["Content-Type"])
        self.asked.append(json.loads(opened.message))
        answer = self.answers.pop(0)
        if callable(answer):
            answer = answer(self.asked[-1])
        if isinstance(answer, (int, httpx.Response, Exception)):
            if isinstance(answer, Exception):
                raise answer
            return httpx.Response(answer) if isinstance(answer, int) else answer
        message = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
        sealed = seal_answer(bytes(range(32)), opened, message, int(NOW * 1000))
        if opened.is_binary if self.is_binary is None else self.is_binary:
            return httpx.Response(200, content=sealed, headers={"Content-Type": "application/octet-stream"})
        return httpx.Response(200, content=base64.b64encode(sealed), headers={"Content-Type": "text/plain"})

    def client(self) -> httpx.AsyncClient:
        return httpx.AsyncClient(transport=httpx.MockTransport(self))


@pytest.fixture
def double() -> type[Double]:
    return Double


@attrs.define
class Asked:
    """One exchange with the imitation, as a careful client sees it."""

    response: httpx.Response
    answer: Any

    @property
    def status(self) -> int:
        return self.response.status_code


class Imitation:
    """The imitation, and a client of its own that can also misbehave."""

    def __init__(self, scope: str = "UID2", **options: Any) -> None:
        self.time = NOW
        self.app = new_app(scope, clock=lambda: self.time, **options)
        self.credentials = credentials(scope)
        self.entropy = counted()

    def client(self) -> httpx.AsyncClient:
        return httpx.AsyncClient(transport=httpx.ASGITransport(self.app), base_url="http://operator.test")

    async def ask(
        self,
        path: str,
        payload: Any,
        *,
        key: str = "mapper",
        secret: bytes | None = None,
        body_type: str | None = "application/octet-stream",
        off: float = 0.0,
        envelope: Callable[[bytes], bytes] = bytes,
        authorization: str | None = None,
    ) -> Asked:
        """
        Make one call. The answer is opened where it is a 200.

        Args:
            path: Of the endpoint.
            payload: JSON value, or the bytes themselves.
            key: Name of the credential.
            secret: Another secret than its own.
            body_type: Content type; all but one mean text.
            off: Seconds by which the request's stamp is off.
            envelope: Changes the body before it is sent.
            authorization: Instead of the key.
        """
        secret = secret or self.credentials[key].secret
        message = payload if isinstance(payload, bytes) else json.dumps(payload).encode()
        sealed = seal(secret, message, int((self.time + off) * 1000), self.entropy)
        is_binary = (body_type or "").lower() == "application/octet-stream"
        body = envelope(sealed.envelope if is_binary else base64.b64encode(sealed.envelope))
        headers = {"Authorization": authorization or f"Bearer {self.credentials[key].token}"}
        if body_type is not None:
            headers["Content-Type"] = body_type
        async with self.client() as http:
            response = await http.post(path, content=body, headers=headers)
        if response.status_code != 200:
            return Asked(response, None)
        content = response.content
        if response.headers["Content-Type"] != "application/octet-stream":
            content = base64.b64decode(content, validate=True)
        return Asked(response, json.loads(open_answer(secret, content, sealed.nonce, int(self.time * 1000))))


@pytest.fixture
def imitation() -> type[Imitation]:
    return Imitation


@pytest.fixture
def euid_configured() -> Callable[..., Config]:
    return lambda **others: structure(EUIDConfig, {"api_key": "canary", "client_secret": SECRET} | others, "settings")
