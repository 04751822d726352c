"""An `Enricher` over a Redis inside the process, and a partner that answers as it is told."""

from __future__ import annotations

import asyncio
import base64
import json
import selectors
import time
from contextlib import asynccontextmanager

import attrs
import fakeredis
import pytest

from partnerenrich import (
    Limits,
    LinkingKey,
    Partner,
    Resolution,
    hookimpl,
    plugins,
    store,
)
from partnerenrich.configuration import load_mapping
from partnerenrich.enrichment import Enricher
from partnerenrich.memory import pack, unpack_answer
from partnerenrich.plugins import PluginSource

KEY = base64.b64encode(b"k" * 32).decode()
ONE_ATTEMPT = Limits(attempts=1)


@attrs.frozen
class Settings:
    pass


class Resolver:
    """
    A partner that answers with attributes that name whom it was asked about.

    `answers` says otherwise for single values: a Resolution, or an exception.
    """

    def __init__(self, *linking_keys: LinkingKey, latency: float = 0.0):
        self.linking_keys = linking_keys or (LinkingKey("email", "email"),)
        self.latency = latency
        self.answers: dict[str, object] = {}
        self.calls: list[tuple[str, str]] = []

    @hookimpl
    def partner(self):
        return Partner(title="Toy", config=Settings, linking_keys=self.linking_keys)

    @hookimpl
    async def resolve_id(self, link):
        self.calls.append(("resolve", link.value))
        return await self.answer(link.value, Resolution(f"id-{link.value}", attributes={"name": link.value}))

    async def answer(self, value, usual):
        latency = self.latency(value) if callable(self.latency) else self.latency
        if latency:
            await asyncio.sleep(latency)
        answer = self.answers.get(value, usual)
        if isinstance(answer, BaseException):
            raise answer
        return answer


class Fetcher(Resolver):
    """The same partner in two steps: first the id, then the attributes."""

    @hookimpl
    async def resolve_id(self, link):
        self.calls.append(("resolve", link.value))
        return await self.answer(link.value, Resolution(f"id-{link.value}"))

    @hookimpl
    async def fetch_attributes(self, partner_id):
        self.calls.append(("fetch", partner_id))
        return await self.answer(partner_id, {"name": partner_id.removeprefix("id-")})


class Bulk(Resolver):
    """The same partner, asked about many links in one call; `calls` has the values of each. It has no `resolve_id`."""

    def __init__(self, *linking_keys: LinkingKey, latency: float = 0.0, limits: Limits = ONE_ATTEMPT):
        super().__init__(*linking_keys, latency=latency)
        self.limits = limits
        self.calls: list[list[str]] = []
        self.under_way = self.most_under_way = 0
        self.fails: list[BaseException] = []

    resolve_id = None

    @hookimpl
    def partner(self):
        return Partner(title="Toy", config=Settings, linking_keys=self.linking_keys, limits=self.limits)

    @hookimpl
    async def resolve_ids(self, links):
        self.calls.append([link.value for link in links])
        self.under_way += 1
        self.most_under_way = max(self.most_under_way, self.under_way)
        try:
            await asyncio.sleep(self.latency)
        finally:
            self.under_way -= 1
        if self.fails:
            raise self.fails.pop(0)
        return [self.answer_one(link.value) for link in links]

    def answer_one(self, value):
        return self.answers.get(value, Resolution(f"id-{value}", attributes={"name": value}))


@pytest.fixture(name="bulk")
def _bulk():
    return Bulk


@pytest.fixture(name="resolver")
def _resolver():
    return Resolver


@pytest.fixture(name="fetcher")
def _fetcher():
    return Fetcher


@pytest.fixture(name="server")
def _server(monkeypatch):
    """What the core finds at every URL; not ``connected`` while that is False."""
    server = fakeredis.FakeServer()

    class Redis:
        @staticmethod
        def from_url(_url, **_options):
            return fakeredis.FakeAsyncRedis(server=server)

    monkeypatch.setattr(store, "Redis", Redis)
    return server


@pytest.fixture(name="redis")
def _redis(server):
    """A client of the server, to look behind the core."""
    return fakeredis.FakeAsyncRedis(server=server)


@pytest.fixture(name="open_enricher")
def _open_enricher(redis, monkeypatch):
    """Open an enricher for partners that stand in the process: ``open_enricher(toy=partner)``."""
    known: dict[str, list[PluginSource]] = {}
    monkeypatch.setattr(plugins, "find", lambda plugins_dir=None: known)

    @asynccontextmanager
    async def open_enricher(*, config=None, integration=None, **partners):
        for key, partner in partners.items():
            known[key] = [PluginSource(key, "this test", lambda partner=partner: partner)]
        raw = {
            "org": "acme",
            "store": "redis://here",
            "key": KEY,
            "budget_ms": 2000,
            "integrations": [{"provider": key, **(integration or {})} for key in partners],
        }
        async with Enricher.open(load_mapping(raw | (config or {}))) as enricher:
            yield enricher

    return open_enricher


@pytest.fixture(name="grow_old")
def _grow_old(redis):
    """Make all that is remembered so many seconds older."""

    async def grow_old(seconds):
        for key in await redis.keys("*"):
            if (
                await redis.type(key) == b"string"
                and not {b"~who", b"~suppressed"} & set(key.split(b":"))
                and not key.endswith(b"~lease")
            ):
                record = unpack_answer(await redis.get(key))
                times = ("at", "refresh_at", "fresh_until", "usable_until", "resolved_until", "damped_until")
                for name in times:
                    setattr(record, name, getattr(record, name) - seconds)
                if record.expires_at is not None:
                    record.expires_at -= seconds
                await redis.set(key, pack(record), keepttl=True)

    return grow_old


class Clock:
    """Seconds. A turn of the loop takes a microsecond, and one with nothing to do leaps to the next timer."""

    now = 1000.0


CLOCK = Clock()


class LeapingSelector(selectors.DefaultSelector):
    def select(self, timeout=None):
        ready = super().select(timeout and 0)
        CLOCK.now += 1e-6
        if timeout and not ready:
            CLOCK.now += timeout
        return ready


class LeapingLoop(asyncio.SelectorEventLoop):
    def __init__(self):
        super().__init__(LeapingSelector())

    def time(self):
        return CLOCK.now


def pytest_asyncio_loop_factories(config, item):
    return {"loop": asyncio.SelectorEventLoop if item.get_closest_marker("real_time") else LeapingLoop}


@pytest.fixture(autouse=True, name="clock")
def _clock(request, monkeypatch):
    """
    The time of the test, for all that runs in this process.

    The pace of the machine is not in it. Tests that wait for what is outside, or for
    threads, are marked `real_time` and have none.
    """
    if request.node.get_closest_marker("real_time"):
        return None
    CLOCK.now, since = Clock.now, time.time() - Clock.now
    monkeypatch.setattr(time, "time", lambda: since + CLOCK.now)
    monkeypatch.setattr(time, "monotonic", lambda: CLOCK.now)
    monkeypatch.setattr(time, "perf_counter", lambda: CLOCK.now)
    return CLOCK


@pytest.fixture(name="leaping_loop")
def _leaping_loop():
    """The loop of such time, for tests that run more than one."""
    return LeapingLoop


@pytest.fixture(name="canaries")
def _canaries(caplog):
    """Texts that must not show in the log, nor in what is handed to the check."""
    caplog.set_level("DEBUG")
    words = ["pat.canary@example.test", "+447700900123", "7700900123", "user-canary", "attribute-canary"]

    def check(*texts):
        for text in (*texts, caplog.text, *(repr(record.__dict__) for record in caplog.records)):
            for word in words:
                assert word not in (text if isinstance(text, str) else json.dumps(text)), word

    return check
