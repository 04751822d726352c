"""``partnerenrich hub`` under load without end, while its store and its partner break again and again."""

import asyncio
import json
import os
import re
import signal
import subprocess
import threading
import time
import uuid
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from random import Random

import attrs
import httpx
import pytest

pytestmark = pytest.mark.soak

SHOP = "https://www.shop.example"
SHOWN = ("Persona", "LifetimeTier", "DaysSinceLatestOrder")
BROWSERS = 25
PEOPLE = 500
GRACE = 3.0
"""Seconds after a log-in was accepted in which a page may still be shown who was there before."""
RECOVERY = 10.0


@pytest.fixture(params=["lossy", "kept"])
def store(request, new_store):
    return new_store(kept=request.param == "kept")


@attrs.define
class Browser:
    """A page that is used by one person after the other, and what it was shown."""

    client: httpx.AsyncClient
    random: Random
    truth: object
    statuses: Counter
    device: str = attrs.Factory(lambda: str(uuid.uuid4()))
    person: str | None = None
    before: tuple[str | None, ...] = ()
    since: float = 0.0
    shown: int = 0
    old: int = 0

    async def surf(self, over):
        while not over.is_set():
            await self.random.choice([self.log_in, self.look_around, self.read, self.read])()
            await asyncio.sleep(self.random.uniform(0, 0.1))

    async def log_in(self, person=None):
        person = person or f"visitor-{self.random.randrange(PEOPLE)}@example.test"
        event = {"type": "identify", "userId": f"user of {person}", "traits": {"email": person}}
        if await self._send(event) == 202:
            self.before = (*(self.before if self._may_lag(time.monotonic()) else ()), self.person)
            self.person, self.since = person, time.monotonic()

    async def look_around(self):
        await self._send({"type": "page"})

    async def read(self):
        """What the page is shown is of its person, or of nobody."""
        asked = time.monotonic()
        response = await self._call("GET", "/v1/enrich")
        if response.status_code != 200 or response.json() == {}:
            return None
        shown = response.json()["amperity"]
        self.shown += 1
        if shown != self._known_of(self.person):
            assert self._may_lag(asked), f"shown to {self.person} after {asked - self.since:.1f} s: {shown}"
            assert shown in map(self._known_of, self.before), f"shown to {self.person}: {shown}"
            self.old += 1
        return shown

    async def is_served(self):
        """Whether a person who logs in is shown what is known."""
        await self.log_in(f"visitor-{self.random.randrange(PEOPLE)}@example.test")
        return await self.read() is not None

    def _may_lag(self, moment):
        return moment - self.since < GRACE

    def _known_of(self, person):
        known = self.truth(person).attributes[0] if person else None
        return known and {name: known[name] for name in SHOWN}

    async def _send(self, event):
        return (await self._call("POST", "/v1/events", json=event, wait_ms=self.random.choice([0, 800]))).status_code

    async def _call(self, method, path, *, json=None, **query):
        headers = {"origin": SHOP, "cookie": f"_dfdid={self.device}; _dfid={self.device}"}
        response = await self.client.request(
            method, path, params={"key": "pk-shop", **query}, json=json, headers=headers
        )
        self.statuses[response.status_code] += 1
        assert response.status_code < 500 or response.status_code == 503, response.text
        return response


async def surf(url, seed, truth, over):
    """Let all browsers surf until it is over; then until each is served. Gives them, and the seconds that this took."""
    statuses = Counter()
    async with httpx.AsyncClient(base_url=url, trust_env=False, timeout=20) as client:
        browsers = [Browser(client, Random(f"{seed} browser {n}"), truth, statuses) for n in range(BROWSERS)]
        await asyncio.gather(*(browser.surf(over) for browser in browsers))
        mended, waiting = time.monotonic(), browsers
        while waiting and time.monotonic() - mended < 4 * RECOVERY:
            served = await asyncio.gather(*(browser.is_served() for browser in waiting))
            waiting = [browser for browser, yes in zip(waiting, served) if not yes]
        return browsers, time.monotonic() - mended


def test_a_page_never_breaks_and_is_shown_nobody_else(
    soak, store, new_partner, configured, started, truth, watch, tmp_path
):
    partner = new_partner("amperity")
    limits = {"timeout": 0.4, "attempts": 2, "pause": 0.2, "concurrency": 16}
    ttl = {"resolved": 20, "attributes": 20, "not_found": 10, "failed": 1, "stale_for": 30, "remember_visitor": 60}
    config = configured(
        [partner.integration(limits=limits, ttl=ttl, browser_attribute_allowlist=", ".join(SHOWN))],
        store.url,
        hub={
            "origins": [SHOP],
            "public_key": "pk-shop",
            "browser_identity": "trusted",
            "limits": {"visitor_per_minute": 1_000_000, "address_per_minute": 1_000_000},
        },
    )
    log = tmp_path / "log"
    unbuffered = {**os.environ, "PYTHONUNBUFFERED": "1"}
    hub = started("hub", "--config", config, "--port", 0, log=log, stdout=subprocess.PIPE, env=unbuffered)
    url = re.search(r"http://\S+", hub.stdout.readline().decode())[0]
    watched, over = watch(hub.pid), threading.Event()
    with ThreadPoolExecutor(1) as pool:
        surfing = pool.submit(asyncio.run, surf(url, soak.seed, truth["amperity"], over))
        try:
            befell = soak.suffer(store.misfortunes(soak.random), partner.misfortunes(soak.random), calm=(1, 5))
        finally:
            over.set()
        browsers, seconds = surfing.result()
    watched.end()
    hub.send_signal(signal.SIGTERM)

    assert hub.wait(30) == 0
    soak.tell(
        requests=browsers[0].statuses.total(),
        statuses=str(dict(browsers[0].statuses)),
        shown=sum(browser.shown for browser in browsers),
        of_before=sum(browser.old for browser in browsers),
        **befell,
        recovery=f"{seconds:.1f} s",
        **watched.told(),
    )
    assert seconds < RECOVERY
    watched.check_flat()
    told = log.read_text()
    assert "example.test" not in told
    assert not [line for line in map(json.loads, told.splitlines()) if line["level"] == "error"]
