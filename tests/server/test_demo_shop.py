"""What the shop of the demo answers to others than its page."""

from __future__ import annotations

import asyncio
import re

import httpx
import pytest

from partnerenrich_server.demo_shop.serving import open_shop
from partnerenrich_server.hub.serving import ServingError

PAT = {"type": "identify", "traits": {"email": "pat@example.test"}}
KNOWN = {"partner_attrs": {"loyalty": {"Persona": "Value Hunter"}}, "enrichment": {"loyalty": {"outcome": "fresh"}}}


@pytest.fixture(name="url")
async def _url(sandbox, plugins_dir):
    async with open_shop([sandbox], [PAT | {"context": KNOWN}], plugins_dir=plugins_dir) as url:
        yield url


@pytest.fixture(name="page")
async def _page(url):
    """Calls as the page makes them."""
    async with httpx.AsyncClient(base_url=url, headers={"origin": url.rstrip("/")}, trust_env=False) as client:
        yield client


@pytest.mark.parametrize("origin", ["https://evil.example", "null", "http://localhost:1", None])
@pytest.mark.parametrize(
    ("method", "path"), [("POST", "/shop/session"), ("DELETE", "/shop/session"), ("POST", "/shop/partners/loyalty")]
)
async def test_only_the_page_may_change_anything(url, origin, method, path):
    async with httpx.AsyncClient(base_url=url, trust_env=False) as client:
        answer = await client.request(method, path, json={"person": 0}, headers={"origin": origin} if origin else {})

    assert (answer.status_code, answer.json()["error"]["code"]) == (403, "unknown_origin")


@pytest.mark.parametrize(
    ("path", "body", "status", "code"),
    [
        ("/shop/session", b'{"person": 99}', 404, "unknown_person"),
        ("/shop/session", b'{"person": -1}', 404, "unknown_person"),
        ("/shop/session", b'{"person": "0"}', 400, "invalid_body"),
        ("/shop/session", b"\xff", 400, "invalid_body"),
        ("/shop/session", b" " * 2000, 400, "too_large"),
        ("/shop/partners/nobody", b'{"down": true}', 404, "unknown_provider"),
        ("/shop/partners/loyalty", b'{"down": 1}', 400, "invalid_body"),
    ],
)
async def test_what_makes_no_sense_is_refused_in_the_shape_of_the_hub(page, path, body, status, code):
    answer = await page.post(path, content=body, headers={"content-type": "application/json"})

    assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)


async def test_who_logs_in_is_vouched_for_until_the_log_out(page):
    answer = await page.post("/shop/session", json={"person": 0})
    said = answer.json()
    within = (await page.get("/")).text
    await page.delete("/shop/session")

    assert (said["name"], said["traits"]) == ("Pat", {"email": "pat@example.test"})
    assert re.fullmatch(r"\d{10}\.[0-9a-f]{64}", said["signature"])
    assert re.search(
        r"partnerenrich_demo_shop=\S{40,}; HttpOnly; Path=/; SameSite=strict", answer.headers["set-cookie"]
    )
    assert '"session": {"name": "Pat"' in within
    assert '"session": null' in (await page.get("/")).text


async def test_the_page_is_at_one_address_only(url):
    """By another name of this machine the hub would take it for a stranger's."""
    elsewhere = url.replace("127.0.0.1", "localhost")
    async with httpx.AsyncClient(trust_env=False) as client:
        answer = await client.get(elsewhere)

    assert (answer.status_code, answer.headers["location"]) == (307, url)


async def test_files_are_asked_for_again_and_not_sent_again(page):
    first = await page.get("/shop/shop.js")
    again = await page.get("/shop/shop.js", headers={"if-none-match": first.headers["etag"]})

    assert (first.status_code, first.headers["content-type"]) == (200, "text/javascript; charset=utf-8")
    assert (again.status_code, again.content) == (304, b"")


@pytest.mark.parametrize("name", ["index.html", "serving.py", "..%2fserving.py", "nothing"])
async def test_nothing_but_the_files_of_the_page_is_served(page, name):
    assert (await page.get(f"/shop/{name}")).status_code == 404


async def test_an_outage_is_over_when_the_switch_says_so(page, sandbox):
    async def armed():
        return (await page.get(f"{sandbox.base_url}/_faults")).json()["fault"]

    await page.post("/shop/partners/loyalty", json={"down": True})
    down = await armed(), (await page.get("/shop/live")).json()["down"]
    await page.post("/shop/partners/loyalty", json={"down": False})

    assert (down[0]["mode"], down[1]) == ("unavailable", ["loyalty"])
    assert (await armed(), (await page.get("/shop/live")).json()["down"]) == (None, [])


async def test_sessions_do_not_pile_up(page, monkeypatch):
    monkeypatch.setattr("partnerenrich_server.demo_shop.backend.MOST_SESSIONS", 2)
    cookies = []
    for _ in range(3):
        page.cookies.clear()
        await page.post("/shop/session", json={"person": 0})
        cookies.append(dict(page.cookies))
    seen = []
    for each in cookies:
        page.cookies.clear()
        page.cookies.update(each)
        seen.append('"session": null' in (await page.get("/")).text)

    assert seen == [True, False, False]


async def test_the_last_events_say_nothing_of_anybody(url, page):
    session = (await page.post("/shop/session", json={"person": 0})).json()
    event = {"type": "identify", **{name: session[name] for name in ("userId", "traits", "signature")}}
    event["context"] = {"consent": {"marketing": True}}
    await page.post("/v1/events?key=pk-demo&wait_ms=800", json=event)
    for number in range(15):
        await page.post("/v1/events?key=pk-demo&wait_ms=800", json={"type": "track", "event": f"{number}" * 60})
    async with asyncio.timeout(20):
        live = await page.get("/shop/live")
        while live.json()["events"][-1:] == [] or live.json()["events"][-1]["number"] < 16:
            await asyncio.sleep(0.02)
            live = await page.get("/shop/live")
    events = live.json()["events"]

    assert [each["number"] for each in events] == list(range(5, 17))
    assert {len(each["name"]) for each in events} == {40}
    assert not any(word in live.text for word in ("pat@", "Value Hunter", session["userId"], session["signature"]))


async def test_a_port_that_is_taken_is_said(url, sandbox, plugins_dir):
    with pytest.raises(ServingError, match=r"127\.0\.0\.1 port \d+: "):
        async with open_shop([sandbox], [], port=httpx.URL(url).port, plugins_dir=plugins_dir):
            pass
