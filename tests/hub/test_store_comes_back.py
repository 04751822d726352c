"""What a page is shown right after the store has been away."""

import asyncio
import os
import signal
import sys
import time
from contextlib import contextmanager

import attrs
import pytest
from redis.asyncio import Redis

from partnerenrich import Resolution
from partnerenrich_server.embedded import open_store

ANN = {"toy": {"Persona": "of ann"}}


@attrs.frozen
class Shop:
    """A hub over a store of its own, which can be halted, and a browser in which Ann is shown."""

    hub: object
    redis: Redis
    process: int
    browser: object
    toy: object

    @contextmanager
    def without_store(self):
        os.kill(self.process, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(self.process, signal.SIGCONT)


@pytest.fixture(name="shop")
async def _shop(raw, open_running_hub, until, tmp_path):
    raw |= {"budget_ms": 800, "hub": {**raw["hub"], "limits": {"visitor_per_minute": 100_000}}}
    with open_store(f"embedded:{tmp_path / 'memory'}") as store:
        async with open_running_hub(raw, store) as hub, Redis.from_url(store.url) as redis:
            toy = sys.modules["partnerenrich_file_toy"]
            for name in ("ann", "bob"):
                toy.answers[f"{name}@example.test"] = Resolution(f"id of {name}", attributes={"Persona": f"of {name}"})
            browser = hub.browser()

            async def is_ann():
                await browser.identify("ann@example.test")
                return await browser.profile() == ANN

            await until(is_ann)
            yield Shop(hub, redis, (await redis.info("server"))["process_id"], browser, toy)


async def test_nobody_is_shown_the_person_before_when_the_store_comes_back(shop):
    with shop.without_store():
        assert (await shop.browser.identify("bob@example.test")).status_code == 202
    shown, back = [], time.monotonic()
    while time.monotonic() - back < 2:
        shown.append(await shop.browser.profile())
        await asyncio.sleep(0.005)

    assert ANN not in shown


class TestReset:
    """A log-out that the store missed."""

    @pytest.fixture(name="log_out")
    def _log_out(self, shop, until):
        """Log out while the store is gone, until the hub knows; gives a browser that has kept the old cookies."""

        async def failures():
            return (await shop.hub.metrics())['partnerenrich_store_failures{connection="events"}']

        async def log_out(browser):
            thief = shop.hub.browser(cookies=dict(browser.cookies))
            before = await failures()

            async def is_missed():
                return await failures() > before

            with shop.without_store():
                assert (await browser.call("POST", "/v1/reset", body="")).json() == {"success": True}
                await until(is_missed)
            return thief

        return log_out

    @pytest.fixture(name="made_up")
    def _made_up(self, shop, until):
        """Wait until the store is believed again; gives what a browser was shown meanwhile."""

        async def made_up(thief):
            shown, other = [], shop.hub.browser()

            async def is_over():
                shown.append(await thief.profile())
                await other.identify("ann@example.test")
                return await other.profile()

            await until(is_over)
            return shown

        return made_up

    async def test_the_cookies_are_new_at_once(self, shop, log_out):
        thief = await log_out(shop.browser)

        assert thief.cookies.keys() == shop.browser.cookies.keys()
        assert set(thief.cookies.values()).isdisjoint(shop.browser.cookies.values())

    async def test_the_old_cookie_shows_nothing_once_the_store_is_back(self, shop, log_out, made_up):
        thief = await log_out(shop.browser)
        shown = await made_up(thief)

        assert [*shown, await thief.profile()] == [{}] * (len(shown) + 1)

    async def test_an_event_of_the_old_cookie_brings_nothing_back(self, shop, log_out, made_up):
        thief = await log_out(shop.browser)
        await made_up(thief)
        await thief.event("page")

        assert await thief.profile() == {}

    async def test_a_lookup_that_ends_afterwards_brings_nothing_back(self, shop, log_out, made_up, until):
        cid = "cid@example.test"
        shop.toy.answers[cid] = Resolution("id of cid", attributes={"Persona": "of cid"})
        shop.toy.go.clear()
        browser = shop.hub.browser()
        await browser.identify(cid, wait_ms=0)
        await until(lambda: ("resolve", cid) in shop.toy.calls)
        await until(shop.hub.is_idle)
        thief = await log_out(browser)
        await made_up(thief)
        shop.toy.go.set()
        other = shop.hub.browser()
        await other.identify(cid)
        assert await other.profile() == {"toy": {"Persona": "of cid"}}

        assert await thief.profile() == {}
