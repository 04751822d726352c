"""A hub on a real socket over a real store, browsers that call it, and a partner that answers as it is told."""

from __future__ import annotations

import asyncio
import inspect
import json
import logging
import queue
import re
import socket
import sys
import threading
import time
from contextlib import asynccontextmanager

import attrs
import httpx
import pytest
from redis.asyncio import Redis

from partnerenrich.configuration import load_mapping
from partnerenrich_server.embedded import Store, open_store
from partnerenrich_server.hub import api, signing
from partnerenrich_server.hub.app import open_hub
from partnerenrich_server.hub.logs import JsonFormatter
from partnerenrich_server.hub.serving import Server

SHOP = "https://www.shop.example"
INGEST_SECRET = "ingest-secret-canary-0123456789"
CREDENTIAL = "credential-canary-0123456789"

PARTNER = """
import asyncio
import attrs
from partnerenrich import Limits, LinkingKey, Partner, Resolution, Secret, hookimpl

answers = {}
calls = []
delay = 0.0
go = asyncio.Event()
go.set()


@attrs.frozen(kw_only=True)
class Settings:
    token: Secret = Secret("none")


@hookimpl
def partner():
    keys = (LinkingKey("email", "email"), LinkingKey("anonymous_id", "cookie"))
    return Partner(title="Toy", config=Settings, linking_keys=keys, limits=Limits(timeout=30))


@hookimpl
async def resolve_id(link):
    calls.append(("resolve", link.value))
    await asyncio.sleep(delay)
    await go.wait()
    answer = answers.get(link.value, Resolution.absent())
    if isinstance(answer, Exception):
        raise answer
    return answer
"""
PERSONALIZE = """

@hookimpl
async def personalize(partner_id, context):
    calls.append(("personalize", partner_id, dict(context)))
    await asyncio.sleep(delay)
    await go.wait()
    answer = answers.get("personalize", {})
    if isinstance(answer, Exception):
        raise answer
    return answer(context) if callable(answer) else answer
"""


PATIENCE = 25
"""How many times as long a page waits here as it says: a machine may stand still for a while."""


@pytest.fixture(autouse=True, name="patience")
def _patience(monkeypatch):
    wait = api._wait
    monkeypatch.setattr(api, "_wait", lambda call: PATIENCE * wait(call))
    monkeypatch.setattr("partnerenrich_server.hub.app.LONGEST_WAIT_MS", PATIENCE * api.LONGEST_WAIT_MS)
    return PATIENCE


@pytest.fixture(name="running_store", scope="session")
def _running_store():
    with open_store("embedded:") as store:
        yield store


@pytest.fixture(name="store")
async def _store(running_store):
    async with Redis.from_url(running_store.url) as redis:
        await redis.flushall()
    return running_store


@pytest.fixture(name="redis")
async def _redis(store):
    async with Redis.from_url(store.url) as redis:
        yield redis


@pytest.fixture(name="plugins_dir")
def _plugins_dir(tmp_path):
    """The partners ``toy``, and ``plain``, which has no contextual call."""
    folder = tmp_path / "partners"
    folder.mkdir()
    (folder / "toy.py").write_text(PARTNER + PERSONALIZE)
    (folder / "plain.py").write_text(PARTNER)
    return folder


@pytest.fixture(name="toy")
def _toy(hub):
    """The module of the partner ``toy``: its `answers`, its `calls`, its `delay`; it answers while `go` is set."""
    return sys.modules["partnerenrich_file_toy"]


@pytest.fixture(name="raw")
def _raw(plugins_dir):
    """A configuration as a mapping, to be changed before a hub is opened."""
    return {
        "org": "acme",
        "plugins_dir": str(plugins_dir),
        "batch": {"linger_ms": 0},
        "integrations": [
            {
                "provider": "toy",
                "settings": {"token": CREDENTIAL},
                "browser_attribute_allowlist": "Persona, Tier, Banner",
            },
            {"provider": "plain", "linking_keys": [{"source": "user_id", "key": "id"}]},
        ],
        "hub": {
            "origins": [SHOP, "https://checkout.shop.example"],
            "public_key": "pk-shop",
            "ingest_secret": INGEST_SECRET,
            "identity_secret": "identity-secret-canary-0123456789",
            "browser_identity": "trusted",
        },
    }


@attrs.define
class Browser:
    """A browser with its cookies, on a page of the shop."""

    url: str
    client: httpx.AsyncClient = attrs.field(repr=False)
    cookies: dict[str, str] = attrs.Factory(dict)
    origin: str | None = SHOP
    key: str | None = "pk-shop"
    seen: list[httpx.Response] = attrs.Factory(list)

    async def call(self, method, path, *, body=None, headers=(), **query):
        sent = {"content-type": "text/plain;charset=UTF-8"} if body is not None else {}
        if self.origin:
            sent["origin"] = self.origin
        if self.cookies:
            sent["cookie"] = "; ".join(f"{name}={value}" for name, value in self.cookies.items())
        if self.key and "key" not in query:
            query["key"] = self.key
        content = body if isinstance(body, (bytes, str, type(None))) else json.dumps(body)
        response = await self.client.request(
            method, f"{self.url}{path}", params=query, content=content, headers={**sent, **dict(headers)}
        )
        self.seen.append(response)
        for header in response.headers.get_list("set-cookie"):
            name, value = re.match(r"([^=]+)=([^;]*)", header).groups()
            self.cookies[name] = value
        return response

    async def enrich(self, **query):
        return await self.call("GET", "/v1/enrich", **query)

    async def profile(self):
        return (await self.enrich()).json()

    async def event(self, type_="track", *, wait_ms=800, headers=(), **fields):
        body = {"type": type_, **({"event": "Seen"} if type_ == "track" else {}), **fields}
        return await self.call("POST", "/v1/events", body=body, headers=headers, wait_ms=wait_ms)

    async def identify(self, email, **fields):
        return await self.event("identify", userId=f"user of {email}", traits={"email": email}, **fields)


@attrs.define
class RunningHub:
    """A hub that accepts connections."""

    url: str
    app: object
    server: Server
    client: httpx.AsyncClient = attrs.field(repr=False)

    def browser(self, **fields) -> Browser:
        return Browser(self.url, self.client, **fields)

    @property
    def address(self):
        host, port = self.url.removeprefix("http://").split(":")
        return host, int(port)

    async def signed(self, path, body: bytes, *, secret=INGEST_SECRET, timestamp=None, **query):
        moment = int(time.time() * 1000) if timestamp is None else timestamp
        headers = {
            "x-timestamp": str(moment),
            "x-signature": signing.sign(secret.encode(), moment, body),
            "content-type": "application/json",
        }
        return await self.client.post(f"{self.url}{path}", content=body, headers=headers, params=query)

    async def is_idle(self) -> bool:
        """Whether no event waits or is under way."""
        return not (await self.metrics())["partnerenrich_queue_events"]

    async def metrics(self) -> dict[str, float]:
        text = (await self.client.get(f"{self.url}/metrics")).text
        return {
            name: float(value)
            for name, value in (line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
        }


@asynccontextmanager
async def open_running_hub(raw, store: Store, **options):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        configuration = load_mapping(raw)
        async with (
            open_hub(configuration, store, **options) as app,
            httpx.AsyncClient(trust_env=False, timeout=30) as client,
        ):
            server = Server(app, configuration.hub.proxies)
            serving = asyncio.create_task(server.serve([listener]))
            url = f"http://127.0.0.1:{listener.getsockname()[1]}"
            try:
                yield RunningHub(url, app, server, client)
            finally:
                await client.aclose()
                server.should_exit = True
                await serving


@pytest.fixture(name="open_running_hub")
def _open_running_hub():
    """``async with open_running_hub(raw, store) as hub``: one more hub."""
    return open_running_hub


@pytest.fixture(name="hub")
async def _hub(raw, store):
    async with open_running_hub(raw, store) as hub:
        yield hub


@pytest.fixture(name="browser")
def _browser(hub):
    return hub.browser()


@pytest.fixture(name="log_lines")
def _log_lines():
    """All that is logged, at every level, as the hub writes it."""
    lines: list[str] = []

    class Handler(logging.Handler):
        def emit(self, record):
            lines.append(self.format(record))

    handler = Handler()
    handler.setFormatter(JsonFormatter())
    ours = [logging.getLogger(name) for name in ("partnerenrich", "partnerenrich_server", "uvicorn")]
    before = [logger.level for logger in ours]
    for logger in ours:
        logger.setLevel(logging.DEBUG)
        logger.addHandler(handler)
    yield lines
    for logger, level in zip(ours, before):
        logger.setLevel(level)
        logger.removeHandler(handler)


@pytest.fixture(name="until")
def _until():
    """Wait for what happens in the background."""

    async def until(condition):
        async def is_met():
            met = condition()
            return await met if inspect.isawaitable(met) else met

        async with asyncio.timeout(20):
            while not await is_met():  # noqa: ASYNC110 - nobody tells
                await asyncio.sleep(0.01)

    return until


@pytest.fixture(name="hub_in_a_thread")
def _hub_in_a_thread(raw, store):
    """The URL of a hub in an event loop of its own, for clients that block."""
    started: queue.SimpleQueue[tuple[str, asyncio.AbstractEventLoop, asyncio.Event]] = queue.SimpleQueue()

    async def main():
        end = asyncio.Event()
        async with open_running_hub(raw, store) as hub:
            started.put((hub.url, asyncio.get_running_loop(), end))
            await end.wait()

    thread = threading.Thread(target=asyncio.run, args=(main(),))
    thread.start()
    url, loop, end = started.get(timeout=20)
    yield url
    loop.call_soon_threadsafe(end.set)
    thread.join()
