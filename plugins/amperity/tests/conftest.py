from __future__ import annotations

import time
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from partnerenrich import Call, Link
from partnerenrich.settings import structure
from partnerenrich_amperity import _api
from partnerenrich_amperity._sandbox import new_app, new_sandbox
from partnerenrich_amperity.config import Config

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

SETTINGS = {
    "tenant_subdomain": "acme",
    "tenant_id": "acme-sb-12345",
    "profile_api_key": "canary-key",
    "profile_collection_id": "apc-demo0001",
}


@pytest.fixture
def configured() -> Callable[..., Config]:
    """Makes a configuration of the four required settings and others."""
    return lambda **others: structure(Config, SETTINGS | others, "settings")


@pytest.fixture
def link() -> Link:
    return Link("email", "email", "pat+canary@example.test")


@pytest.fixture
def call() -> Call:
    return Call("acme", "amperity", "amperity", time.monotonic() + 5)


class Wire:
    """Answers requests with what was put in, in order, and keeps the requests."""

    def __init__(self, *answers: Any) -> None:
        self.answers = list(answers)
        self.requests: list[httpx.Request] = []

    async def __call__(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return httpx.Response(answer) if isinstance(answer, int) else answer

    def client(self) -> httpx.AsyncClient:
        return httpx.AsyncClient(transport=httpx.MockTransport(self))


@pytest.fixture
def wire() -> type[Wire]:
    return Wire


@pytest.fixture
def sandboxed() -> Callable[..., AbstractAsyncContextManager[httpx.AsyncClient]]:
    """Opens a client of a new imitation, by default with the headers of its first tenant."""

    @asynccontextmanager
    async def opened(
        headers: dict[str, str] | None = None, base_url: str = "http://sandbox.test", **options: Any
    ) -> AsyncIterator[httpx.AsyncClient]:
        settings = new_sandbox().settings
        default = {
            "Authorization": f"Bearer {settings['profile_api_key']}",
            "Amperity-Tenant": settings["tenant_id"],
        }
        async with httpx.AsyncClient(
            transport=httpx.ASGITransport(new_app(**options)),
            base_url=base_url,
            headers=default if headers is None else headers,
        ) as client:
            yield client

    return opened


@pytest.fixture(autouse=True)
def _warns_anew() -> Iterator[None]:
    yield
    _api.warn_once.cache_clear()
