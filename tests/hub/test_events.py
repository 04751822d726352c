"""Events come in: from pages by origin and public key, from backends by signature."""

import asyncio
import json
import time
import uuid

import pytest

from partnerenrich import Resolution

PAT = "pat@example.test"
SHOP = "https://www.shop.example"
ID = "0c2d9c1e-6a4f-4a7e-9b0a-1f2e3d4c5b6a"
FLAGS = "Max-Age=34560000; Path=/; HttpOnly; Secure; SameSite=Lax"


@pytest.fixture(name="processed")
def _processed(hub, monkeypatch):
    """All events that were enriched, as they were when they were accepted."""
    seen = []
    from partnerenrich_server.hub import arrivals

    read = arrivals.read_event

    def remember(*arguments):
        event = read(*arguments)
        seen.append(json.loads(event.encode()))
        return event

    monkeypatch.setattr(arrivals, "read_event", remember)
    return seen


async def test_an_event_is_accepted(browser):
    answer = await browser.event()

    assert (answer.status_code, answer.json()) == (202, {"success": True, "durable": False})


class TestCookies:
    async def test_a_new_device_gets_both_with_the_same_id(self, browser):
        answer = await browser.event()
        ids = set(browser.cookies.values())

        assert sorted(browser.cookies) == ["_dfdid", "_dfid"]
        assert [uuid.UUID(each).version for each in ids] == [4]
        assert answer.headers.get_list("set-cookie") == [f"{n}={v}; {FLAGS}" for n, v in browser.cookies.items()]

    async def test_they_are_renewed(self, browser):
        await browser.event()
        before = dict(browser.cookies)

        answer = await browser.event()

        assert browser.cookies == before
        assert len(answer.headers.get_list("set-cookie")) == 2

    async def test_different_ids_stay_different(self, hub):
        ids = {"_dfid": str(uuid.uuid4()), "_dfdid": str(uuid.uuid4())}
        browser = hub.browser(cookies=dict(ids))

        await browser.event()

        assert browser.cookies == ids

    async def test_they_belong_to_the_domain_that_is_set(self, raw, store, open_running_hub):
        raw["hub"]["cookie_domain"] = "shop.example"
        async with open_running_hub(raw, store) as hub:
            answer = await hub.browser().event()

        assert all("; Path=/; Domain=shop.example; HttpOnly" in each for each in answer.headers.get_list("set-cookie"))

    async def test_two_that_differ_are_none_and_those_of_the_host_are_taken_out(self, raw, store, open_running_hub):
        raw["hub"]["cookie_domain"] = "shop.example"
        old = [str(uuid.uuid4()) for _ in range(2)]
        headers = {"cookie": f"_dfdid={old[0]}; _dfdid={old[1]}; _dfid={old[0]}"}
        async with open_running_hub(raw, store) as hub:
            browser = hub.browser()
            answer = await browser.event(headers=headers)

        set_cookies = answer.headers.get_list("set-cookie")
        assert [each.partition(";")[0] for each in set_cookies if "Max-Age=0" in each] == ["_dfid=", "_dfdid="]
        assert browser.cookies["_dfdid"] not in {old[1], ""}

    @pytest.mark.parametrize(
        "forged",
        [
            "1",
            "x" * 9000,
            "0c2d9c1e-6a4f-1a7e-9b0a-1f2e3d4c5b6a",
            ID.upper(),
            f'"{ID}"',
            f"{ID}%0d%0aX: y",
            "../../etc",
            "\x80\xff",
        ],
    )
    async def test_what_no_hub_has_issued_is_replaced(self, hub, forged):
        browser = hub.browser()
        answer = await browser.event(headers={"cookie": f"_dfdid={forged}".encode("latin-1")})

        assert answer.status_code == 202
        assert uuid.UUID(browser.cookies["_dfdid"]).version == 4
        assert browser.cookies["_dfdid"] != forged

    async def test_a_backend_gets_none(self, hub):
        answer = await hub.signed("/v1/events", b'{"type": "page"}')

        assert "set-cookie" not in answer.headers


class TestStamps:
    async def test_the_cookie_is_the_canonical_id_whatever_the_page_says(self, browser, processed):
        forged = {"canonical_id": "forged", "canonicalId": "forged", "ip": "203.0.113.7"}
        await browser.event(canonical_id="forged", context=forged)
        [event] = processed

        assert event["context"]["canonical_id"] == browser.cookies["_dfdid"]
        assert event["context"]["ip"] == "127.0.0.1"
        assert "canonicalId" not in event["context"]

    async def test_an_event_without_an_anonymous_id_gets_the_cookie(self, browser, processed):
        await browser.event()
        await browser.event(anonymousId="mine")
        await browser.event(anonymous_id="mine too")

        assert [event.get("anonymousId") for event in processed] == [browser.cookies["_dfid"], "mine", None]

    async def test_a_backend_may_name_any_device(self, hub, processed):
        await hub.signed("/v1/events", b'{"type": "page", "context": {"canonical_id": "theirs"}}')

        assert processed == [{"type": "page", "context": {"canonical_id": "theirs"}}]

    async def test_all_else_stays_as_it_was(self, browser, processed):
        body = '{"type": "page", "n": 1.10, "big": 123456789012345678901234567890, "context": {"x": 1E5}}'
        await browser.call("POST", "/v1/events", body=body)

        assert processed[0]["big"] == 123456789012345678901234567890


class TestProxies:
    @pytest.fixture(name="raw")
    def _raw(self, raw):
        raw["hub"]["proxies"] = ["127.0.0.1"]
        return raw

    @pytest.mark.parametrize(
        ("forwarded", "address"),
        [
            ("203.0.113.7", "203.0.113.7"),
            ("203.0.113.7:4711", "203.0.113.7"),
            ("[2001:db8::7]:4711", "2001:db8::7"),
            ("pat@example.test, 203.0.113.7", "203.0.113.7"),
            ("pat@example.test", "127.0.0.1"),
            ("203.0.113.7, pat@example.test", "127.0.0.1"),
            ("203.0.113.7, unix:", "127.0.0.1"),
            ("fe80::7%pat@example.test", "127.0.0.1"),
            ("203.0.113", "127.0.0.1"),
            ("", "127.0.0.1"),
        ],
    )
    async def test_what_a_proxy_says_counts_if_it_is_an_address(self, browser, processed, forwarded, address):
        await browser.event(headers={"x-forwarded-for": forwarded})

        assert [event["context"]["ip"] for event in processed] == [address]


class TestWho:
    @pytest.mark.parametrize("origin", ["https://evil.example", "null", "https://www.shop.example.evil.example", ""])
    async def test_a_page_of_another_origin_is_refused(self, hub, origin):
        calls = (("POST", "/v1/events"), ("GET", "/v1/enrich"), ("OPTIONS", "/v1/events"))
        answers = [await hub.browser().call(*call, headers={"origin": origin}) for call in calls]

        assert {answer.status_code for answer in answers} == {403}
        assert {answer.json()["error"]["code"] for answer in answers} == {"unknown_origin"}
        assert not any("access-control-allow-origin" in answer.headers for answer in answers)

    async def test_a_call_without_origin_and_signature_is_refused(self, hub):
        answer = await hub.browser(origin=None).event()

        assert (answer.status_code, answer.json()["error"]["code"]) == (403, "unknown_origin")

    @pytest.mark.parametrize("key", [None, "pk-other", ""])
    async def test_a_page_must_name_its_organisation(self, hub, key):
        answer = await hub.browser(key=key).event(headers={})

        assert (answer.status_code, answer.json()["error"]["code"]) == (401, "unknown_key")

    async def test_a_page_may_ask_before_it_sends_json(self, browser):
        answer = await browser.call(
            "OPTIONS",
            "/v1/events",
            headers={"access-control-request-method": "POST", "access-control-request-headers": "content-type"},
        )

        assert (answer.status_code, answer.content) == (204, b"")
        assert answer.headers["access-control-allow-origin"] == SHOP
        assert answer.headers["access-control-allow-credentials"] == "true"
        assert answer.headers["access-control-allow-headers"] == "content-type, x-request-id"
        assert answer.headers["vary"] == "origin"

    @pytest.mark.parametrize(
        ("off", "secret", "status"),
        [
            (0, None, 202),
            (-290_000, None, 202),
            (290_000, None, 202),
            (-301_000, None, 401),
            (301_000, None, 401),
            (0, "another secret, just as long", 401),
        ],
    )
    async def test_a_backend_signs(self, hub, off, secret, status):
        moment = int(time.time() * 1000) + off
        options = {"secret": secret} if secret else {}

        answer = await hub.signed("/v1/events", b'{"type": "page"}', timestamp=moment, **options)

        assert answer.status_code == status

    @pytest.mark.parametrize(
        "headers",
        [
            {"x-signature": "sha256=00"},
            {"x-signature": "", "x-timestamp": "1"},
            {"x-signature": "sha256=é".encode(), "x-timestamp": "%now"},
            {"x-signature": "x", "x-timestamp": "٣"},
            {"x-signature": "x", "x-timestamp": "9" * 400},
        ],
    )
    async def test_junk_is_no_signature(self, hub, headers):
        now = str(int(time.time() * 1000)).encode()
        sent = {
            name: now if value == "%now" else value if isinstance(value, bytes) else value.encode()
            for name, value in headers.items()
        }
        answer = await hub.client.post(f"{hub.url}/v1/events", content=b'{"type": "page"}', headers=sent)

        assert (answer.status_code, answer.json()["error"]["code"]) == (401, "invalid_signature")

    async def test_the_signature_is_of_the_very_bytes(self, hub):
        """The published vector: other languages can check themselves against it."""
        from partnerenrich_server.hub.signing import sign

        signature = sign(b"ingest-secret-for-the-docs", 1_790_000_000_000, b'{"type":"page"}')

        assert signature == "sha256=c9e193c8300695fa6893ed4e7973ea5ebc7175e077e67760172beee74bc93b24"


class TestBatch:
    async def test_all_are_accepted(self, browser):
        answer = await browser.call("POST", "/v1/batch", body={"batch": [{"type": "page"}] * 3})

        assert (answer.status_code, answer.json()) == (202, {"success": True, "durable": False, "accepted": 3})

    async def test_those_that_are_no_events_are_named(self, browser):
        events = [{"type": "page"}, 1, {"type": "track"}, {"type": "page", "context": []}, {"type": "alias"}]

        answer = await browser.call("POST", "/v1/batch", body={"batch": events})

        told = answer.json()
        assert (answer.status_code, told["accepted"], told["rejected"], told["success"]) == (202, 1, 4, True)
        assert told["errors"] == [
            {"index": 1, "error": "is JSON but no object"},
            {"index": 2, "error": "is a track without the name of its event"},
            {"index": 3, "error": "has a context that is no object"},
            {"index": 4, "error": "must have a type: track, page, identify, group"},
        ]

    async def test_one_with_half_a_character_is_an_event_as_any(self, browser, processed):
        batch = (
            rb'{"batch": [{"type": "page", "x": "]"}, {"type": "page", "title": "Sale \ud83d"}, {"title": "\ud83d"}]}'
        )

        answer = await browser.call("POST", "/v1/batch", body=batch)

        told = answer.json()
        assert (answer.status_code, told["accepted"], [each["index"] for each in told["errors"]]) == (202, 2, [2])
        assert [event.get("title") for event in processed] == [None, "Sale \ud83d"]

    async def test_when_none_is_good_there_is_no_success(self, browser):
        answer = await browser.call("POST", "/v1/batch", body={"batch": [1]})

        assert (answer.json()["success"], answer.json()["accepted"]) == (False, 0)

    @pytest.mark.parametrize(
        ("body", "code"),
        [
            ({"batch": [{"type": "page"}] * 501}, "too_large"),
            ({"batch": [{"type": "page", "x": "y" * 65_536}]}, "too_large"),
            (b" " * (5 * 1024 * 1024 + 1), "too_large"),
            ({"batch": {}}, "invalid_body"),
            ({}, "invalid_body"),
            ([], "invalid_body"),
            (b"\xff", "invalid_body"),
            (b'{"batch": [{"type": "page", "title": "\\ud83d"}, ]}', "invalid_body"),
            (b'{"batch": ' + b"[" * 100_000, "invalid_body"),
        ],
        ids=["501", "64 KB", "5 MB", "object", "empty", "array", "bytes", "half", "deep"],
    )
    async def test_too_much_or_none_is_refused_as_a_whole(self, browser, body, code):
        answer = await browser.call("POST", "/v1/batch", body=body)

        assert (answer.status_code, answer.json()["error"]["code"]) == (400, code)

    async def test_500_events_are_not_too_many(self, browser):
        answer = await browser.call("POST", "/v1/batch", body={"batch": [{"type": "page"}] * 500})

        assert answer.json()["accepted"] == 500


class TestWaiting:
    async def test_an_identify_that_is_waited_for_shows_with_the_next_read(self, browser, toy):
        toy.answers[PAT] = Resolution("p", attributes={"Tier": 3})
        toy.delay = 0.3

        await browser.identify(PAT)

        assert await browser.profile() == {"toy": {"Tier": 3}}

    async def test_nobody_waits_longer_than_asked(self, browser, toy, patience):
        toy.go.clear()
        started = time.monotonic()

        answer = await browser.identify(PAT, wait_ms=10)
        seconds = time.monotonic() - started
        toy.go.set()

        assert answer.status_code == 202
        assert 0.01 * patience <= seconds < 10  # and not until the partner answers

    async def test_the_background_finishes_the_rest(self, browser, toy, hub, until):
        toy.answers[PAT] = Resolution("p", attributes={"Tier": 3})
        toy.go.clear()

        await browser.identify(PAT, wait_ms=0)
        toy.go.set()

        await until(hub.is_idle)
        assert await browser.profile() == {"toy": {"Tier": 3}}

    @pytest.mark.parametrize("wait_ms", ["801", "-1", "x", "", "1e2", "٣", "9999999999999999999"])
    async def test_a_wait_is_a_number_up_to_800(self, browser, wait_ms):
        answer = await browser.event(wait_ms=wait_ms)

        assert (answer.status_code, answer.json()["error"]["code"]) == (400, "invalid_query")


class TestFull:
    @pytest.fixture(name="raw")
    def _raw(self, raw):
        raw["hub"]["limits"] = {"queue": 5}
        return raw

    async def test_a_full_hub_says_when_to_come_again(self, browser, toy):
        toy.go.clear()
        await browser.call("POST", "/v1/batch", body={"batch": [{"type": "page"}] * 5})

        answer = await browser.event(wait_ms=0)
        toy.go.set()

        assert (answer.status_code, answer.json()["error"]["code"]) == (503, "busy")
        assert answer.headers["retry-after"] == "1"

    async def test_a_batch_is_taken_whole_or_not_at_all(self, browser, hub):
        answer = await browser.call("POST", "/v1/batch", body={"batch": [{"type": "page"}] * 6})

        assert answer.status_code == 503
        assert (await hub.metrics())['partnerenrich_events_total{result="refused"}'] == 6


class TestReset:
    async def test_after_a_log_out_this_browser_is_another_device(self, browser, toy):
        toy.answers[PAT] = Resolution("p", attributes={"Tier": 3})
        await browser.identify(PAT)
        before = dict(browser.cookies)

        answer = await browser.call("POST", "/v1/reset", body="")

        assert (answer.status_code, answer.json()) == (200, {"success": True})
        assert browser.cookies["_dfid"] == browser.cookies["_dfdid"] not in before.values()
        assert await browser.profile() == {}

    async def test_the_old_cookie_shows_nothing_any_more(self, browser, toy, hub):
        toy.answers[PAT] = Resolution("p", attributes={"Tier": 3})
        await browser.identify(PAT)
        thief = hub.browser(cookies=dict(browser.cookies))
        assert await thief.profile()

        await browser.call("POST", "/v1/reset", body="")

        assert await thief.profile() == {}

    async def test_what_is_written_late_for_the_old_device_is_not_served(self, browser, toy, hub):
        toy.answers[PAT] = Resolution("p", attributes={"Tier": 3})
        await browser.event()
        thief = hub.browser(cookies=dict(browser.cookies))
        await browser.identify(PAT, wait_ms=0)
        toy.delay = 0.2

        await browser.call("POST", "/v1/reset", body="")
        await asyncio.sleep(0.5)

        assert await thief.profile() == {}

    async def test_a_backend_does_not_log_out(self, hub):
        answer = await hub.signed("/v1/reset", b"")

        assert answer.status_code == 403


class TestSeveralOrganisations:
    @pytest.fixture(name="raw")
    def _raw(self, raw):
        hub = raw.pop("hub")
        acme = {"integrations": raw.pop("integrations"), "hub": hub | {"hosts": ["id.shop.example"]}}
        other = {"hub": {"public_key": "pk-other", "origins": ["https://other.example"], "hosts": ["id.other.example"]}}
        del raw["org"]
        return raw | {"orgs": {"acme": acme, "other": other}}

    @pytest.mark.parametrize(
        ("host", "key", "status"),
        [
            ("id.shop.example", None, 200),
            ("ID.shop.example.:8443", None, 200),
            ("id.shop.example", "pk-shop", 200),
            ("proxy.internal", "pk-shop", 200),
            ("id.shop.example", "pk-other", 401),
            ("id.other.example", "pk-shop", 401),
            ("proxy.internal", None, 404),
            ("", None, 404),
        ],
    )
    async def test_host_and_key_tell_which(self, hub, host, key, status):
        answer = await hub.browser(key=key).call("GET", "/v1/enrich", headers={"host": host})

        assert answer.status_code == status

    async def test_pages_of_one_are_strangers_to_the_other(self, hub):
        answer = await hub.browser(key="pk-other").event()

        assert answer.status_code == 403
