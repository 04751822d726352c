"""How much one visitor, and one address, may ask for."""

import asyncio

import pytest

COOKIE = "0c2d9c1e-6a4f-4a7e-9b0a-1f2e3d4c5b6a"


async def test_the_eleventh_request_of_a_visitor_in_a_minute_is_refused(hub):
    visitor = hub.browser(cookies={"_dfdid": COOKIE})

    statuses = [(await visitor.enrich()).status_code for _ in range(11)]
    refused = await visitor.enrich()

    assert statuses == [200] * 10 + [429]
    assert refused.json()["error"]["code"] == "rate_limited"
    assert 1 <= int(refused.headers["retry-after"]) <= 60


async def test_a_page_can_read_when_to_come_again(hub):
    visitor = hub.browser(cookies={"_dfdid": COOKIE})
    refused = [await visitor.enrich() for _ in range(11)][-1]

    assert refused.status_code == 429
    assert refused.headers["access-control-allow-origin"] == "https://www.shop.example"
    assert "retry-after" in refused.headers["access-control-expose-headers"]


async def test_all_hubs_count_together(hub, raw, store, open_running_hub):
    async with open_running_hub(raw, store) as other:
        browsers = [each.browser(cookies={"_dfdid": COOKIE}) for each in (hub, other)]
        answers = await asyncio.gather(*(browser.enrich() for browser in browsers for _ in range(10)))

    assert sorted(answer.status_code for answer in answers) == [200] * 10 + [429] * 10


async def test_each_visitor_has_a_limit_of_his_own(hub):
    other = hub.browser(cookies={"_dfdid": COOKIE.replace("0", "1")})
    visitor = hub.browser(cookies={"_dfdid": COOKIE})
    for _ in range(11):
        await visitor.enrich()

    assert (await other.enrich()).status_code == 200


async def test_the_limit_ends_with_the_minute(hub, redis):
    visitor = hub.browser(cookies={"_dfdid": COOKIE})
    for _ in range(11):
        await visitor.enrich()
    [counter] = [key async for key in redis.scan_iter("*:enrich")]

    assert 0 < await redis.pttl(counter) <= 60_000
    await redis.delete(counter)
    assert (await visitor.enrich()).status_code == 200


async def test_a_hub_that_the_store_has_forgotten_loads_its_script_again(hub, redis):
    visitor = hub.browser(cookies={"_dfdid": COOKIE})
    await visitor.enrich()
    await redis.script_flush()

    answers = await asyncio.gather(*(visitor.enrich() for _ in range(10)))

    assert sorted(answer.status_code for answer in answers) == [200] * 9 + [429]


class TestOneAddress:
    @pytest.fixture(name="raw")
    def _raw(self, raw):
        raw["hub"]["limits"] = {"address_per_minute": 20}
        return raw

    async def test_many_cookies_from_one_address_are_limited_and_leave_nothing_behind(self, hub, redis):
        answers = await asyncio.gather(
            *(hub.browser(cookies={"_dfdid": f"{n:08x}{COOKIE[8:]}"}).enrich() for n in range(60))
        )
        keys = [key async for key in redis.scan_iter("*:enrich")]

        assert sorted(answer.status_code for answer in answers) == [200] * 20 + [429] * 40
        assert len(keys) == 20

    async def test_writes_are_counted_apart_from_reads(self, hub):
        statuses = [(await hub.browser().event(wait_ms=0)).status_code for _ in range(21)]

        assert statuses == [202] * 20 + [429]
        assert (await hub.browser(cookies={"_dfdid": COOKIE}).enrich()).status_code == 200

    async def test_signed_calls_are_not_limited(self, hub):
        statuses = {(await hub.signed("/v1/events", b'{"type": "page", "userId": "u"}')).status_code for _ in range(25)}

        assert statuses == {202}

    async def test_no_address_is_in_the_store(self, hub, redis):
        await hub.browser(cookies={"_dfdid": COOKIE}).enrich()

        assert [key async for key in redis.scan_iter("*127.0.0.1*")] == []

    async def test_an_address_that_a_stranger_forwards_is_not_believed(self, hub):
        statuses = [
            (await hub.browser().event(wait_ms=0, headers={"x-forwarded-for": f"203.0.113.{n}"})).status_code
            for n in range(21)
        ]

        assert statuses[-1] == 429


async def test_an_address_that_a_proxy_forwards_is_believed(raw, store, open_running_hub):
    raw["hub"] |= {"limits": {"address_per_minute": 2}, "proxies": ["127.0.0.0/8"]}
    async with open_running_hub(raw, store) as hub:
        sent = ["203.0.113.1"] * 3 + ["203.0.113.2", "2001:db8::1", "2001:db8::2", "2001:db8::3"]
        statuses = [
            (await hub.browser().event(wait_ms=0, headers={"x-forwarded-for": address})).status_code for address in sent
        ]

    assert statuses == [202, 202, 429, 202, 202, 202, 429]
