"""Events leave the page in order, once the network lets them, and not later than the page itself."""

from __future__ import annotations

import asyncio
import re
from datetime import datetime

import pytest

pytestmark = pytest.mark.asyncio(loop_scope="session")

POSTS = ("/v1/events", "/v1/batch", "/v1/reset")
DROPPED = "datafly: dropped track: no JSON, above 60 KB, queue full, or no https"
HIDE = """
Object.defineProperty(document, 'hidden', {value: true, configurable: true});
document.dispatchEvent(new Event('visibilitychange'));
"""


async def refused(page, script):
    """Run a script, and wait until the page has the answer to its event."""
    async with page.expect_response("**/v1/events*") as answer:
        await page.evaluate(script)
    await (await answer.value).finished()


async def passes_until(clock, condition):
    """Let the time of the pages pass until something has come of it."""
    async with asyncio.timeout(20):
        while not condition():
            await clock.run_for(100)
            await asyncio.sleep(0.01)


def names(events):
    return [event.get("event") or event.get("userId") for event in events]


async def test_a_track_is_a_canonical_event(hub, visit):
    """All that datafly's schema asks of a page; the anonymous id is the hub's to add."""
    page = await visit()
    await page.evaluate("datafly.consent({marketing: true, advertising: false})")
    await page.evaluate("datafly.track('Basket Viewed', {value: 42.5, currency: 'GBP'})")
    await hub.until(lambda: hub.events)
    [call] = hub.to("/v1/events")
    [event] = call.events
    context = event["context"]

    assert (call.method, call.query) == ("POST", {"key": hub.key})
    assert call.headers["content-type"] == "text/plain;charset=UTF-8"
    assert event.keys() == {"type", "event", "properties", "context", "timestamp", "messageId"}
    assert (event["type"], event["event"]) == ("track", "Basket Viewed")
    assert event["properties"] == {"value": 42.5, "currency": "GBP"}
    assert context["page"] == {
        "url": f"{hub.shop}/basket?step=2",
        "path": "/basket",
        "referrer": "",
        "title": "Shop",
        "search": "?step=2",
    }
    assert context["consent"] == {"marketing": True, "advertising": False}
    assert context["userAgent"] == await page.evaluate("navigator.userAgent")
    assert context["locale"] == await page.evaluate("navigator.language")
    assert context["timezone"] == await page.evaluate("Intl.DateTimeFormat().resolvedOptions().timeZone")
    assert datetime.fromisoformat(event["timestamp"]).tzinfo
    assert re.fullmatch(r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}", event["messageId"])


async def test_a_page_view_may_have_a_name_and_properties(hub, visit):
    page = await visit()
    await page.evaluate("datafly.page(); datafly.page('Basket', {items: 2})")
    await hub.until(lambda: len(hub.events) == 2)

    assert [(event["type"], event.get("name"), event["properties"]) for event in hub.events] == [
        ("page", None, {}),
        ("page", "Basket", {"items": 2}),
    ]
    assert "consent" not in hub.events[0]["context"]


async def test_events_keep_their_order_and_those_that_wait_share_a_request(hub, visit):
    """An identify goes alone, for it is enriched while the page waits."""
    hub.will("/v1/events", hub.says(hold=(first := hub.hold())), hub.says())

    page = await visit()
    for name in ("a", "b", "c"):
        await page.evaluate("(name) => datafly.track(name)", name)
    await page.evaluate("datafly.identify('user-1'); datafly.track('d')")
    await hub.until(lambda: hub.to("/v1/events"))
    first.set()
    await hub.until(lambda: len(hub.events) == 5)

    assert [(call.path, names(call.events)) for call in hub.to(*POSTS)] == [
        ("/v1/events", ["a"]),
        ("/v1/batch", ["b", "c"]),
        ("/v1/events", ["user-1"]),
        ("/v1/events", ["d"]),
    ]


async def test_an_event_is_what_it_was_when_it_happened(hub, visit):
    """What the page does with its objects afterwards changes nothing."""
    hub.will("/v1/events", hub.says(hold=(first := hub.hold())), hub.says())

    page = await visit()
    await page.evaluate("datafly.track('a'); const order = {value: 1}; datafly.track('b', order); order.value = 2")
    first.set()
    await hub.until(lambda: len(hub.events) == 2)

    assert hub.events[1]["properties"] == {"value": 1}


async def test_offline_events_wait_for_the_network(hub, visit, context):
    """In order, each once."""
    page = await visit()
    await page.evaluate("datafly.onProfileReady()")
    await context.set_offline(True)
    await page.evaluate("for (const name of 'abcdef') datafly.track(name)")
    await hub.quiet()
    before = len(hub.events)
    await context.set_offline(False)
    await hub.until(lambda: len(hub.events) == 6)

    assert (before, names(hub.events)) == (0, list("abcdef"))


async def test_the_queue_is_bounded(hub, visit, context):
    """It takes what fits, says what it drops, and goes on afterwards."""
    page = await visit()
    warnings = []
    page.on("console", lambda line: warnings.append(line.text))
    await page.evaluate("datafly.onProfileReady()")
    await context.set_offline(True)
    await page.evaluate("for (let i = 0; i < 60; i++) datafly.track('e' + i, {text: 'x'.repeat(40000)})")
    await context.set_offline(False)
    await hub.until(lambda: len(hub.events) == 50)
    await page.evaluate("datafly.track('later')")
    await hub.until(lambda: len(hub.events) == 51)

    assert names(hub.events) == [*(f"e{i}" for i in range(50)), "later"]
    assert warnings == [DROPPED] * 10


async def test_what_a_busy_hub_refuses_comes_again(hub, visit, clock):
    """Not before `Retry-After`, and with the same message id."""
    busy = [hub.says(status=status, headers={"Retry-After": "0.1"}) for status in (502, 503, 504)]
    hub.will("/v1/events", hub.says(status=429, headers={"Retry-After": "1"}), *busy, hub.says())

    page = await visit()
    await refused(page, "datafly.track('a')")
    await hub.quiet()
    await clock.run_for(999)
    await hub.quiet()
    early = len(hub.events)
    await passes_until(clock, lambda: len(hub.events) == 5)

    assert early == 1
    assert hub.events == [hub.events[0]] * 5


async def test_what_the_hub_will_never_take_blocks_nothing(hub, visit):
    hub.will("/v1/events", *(hub.says(status=status) for status in (400, 401, 413, 500)), hub.says())

    page = await visit()
    for count, name in enumerate("abcde", 1):
        await page.evaluate("(name) => datafly.track(name)", name)
        await hub.until(lambda count=count: len(hub.events) == count)
    await hub.quiet()

    assert names(hub.events) == list("abcde")


async def test_what_cannot_be_sent_is_dropped_with_a_word(hub, visit):
    """The page sees no exception; nothing of the event is in the console."""
    page = await visit()
    lines = []
    page.on("console", lambda line: lines.append(line.text))

    for value in ("1n", "{toJSON() { throw Error('no') }}", "'x'.repeat(70000)", "'ж'.repeat(35000)"):
        await page.evaluate(f"datafly.track('a', {{value: {value}}})")
    await page.evaluate("datafly.track('b')")
    await hub.until(lambda: hub.events)

    assert lines == [DROPPED] * 4
    assert names(hub.events) == ["b"]


@pytest.mark.parametrize("leave", ["location.href = 'about:blank'", "dispatchEvent(new Event('pagehide'))"])
async def test_what_waits_when_the_page_goes_leaves_with_it(hub, visit, leave):
    """As beacons, text/plain, with the cookie; by the one event or the other, as browsers differ."""
    hub.will("/v1/events", hub.says(status=503, headers={"Retry-After": "60"}), hub.says())

    page = await visit()
    await refused(page, "datafly.track('a'); datafly.track('b')")
    await page.evaluate("datafly.track('c')")
    await hub.quiet()
    hub.calls.clear()
    await page.evaluate(leave)
    await hub.until(lambda: len(hub.events) == 3)
    beacons = hub.to(*POSTS)

    assert sorted(names(hub.events)) == ["a", "b", "c"]
    assert {call.headers["sec-fetch-mode"] for call in beacons} == {"no-cors"}
    assert {call.headers["content-type"] for call in beacons} == {"text/plain;charset=UTF-8"}
    assert {call.headers["cookie"][:7] for call in beacons} == {"_dfdid="}


async def test_an_event_on_its_way_survives_the_page(hub, visit):
    """A click that leads away is counted, once, however long the hub takes."""
    hub.will("/v1/events", hub.says(hold=(late := hub.hold())))

    page = await visit()
    await page.evaluate("datafly.track('Clicked'); location.href = 'about:blank'")
    await hub.until(lambda: hub.events)
    await hub.quiet()
    late.set()
    await hub.quiet()

    assert names(hub.events) == ["Clicked"]
    assert hub.abandoned == []


async def test_beacons_are_smaller_than_browsers_allow(hub, visit, clock):
    """What the browser takes no more stays queued and goes later."""
    hub.will("/v1/events", hub.says(status=503, headers={"Retry-After": "1.5"}), hub.says())

    page = await visit()
    await refused(page, "datafly.track('e0')")
    await hub.quiet()
    hub.calls.clear()
    await page.evaluate("for (let i = 1; i < 6; i++) datafly.track('e' + i, {text: 'x'.repeat(20000)})")
    await page.evaluate(HIDE)
    await hub.until(lambda: hub.events)
    await passes_until(clock, lambda: len(hub.events) == 6)

    assert sorted(names(hub.events)) == [f"e{i}" for i in range(6)]
    assert hub.to(*POSTS)[0].headers["sec-fetch-mode"] == "no-cors"
    assert max(len(call.body) for call in hub.to(*POSTS)) < 60_100


async def test_an_identify_that_left_with_a_beacon_is_still_answered(hub, visit, clock):
    """A tab that was only hidden asks again, as the same message, for the profile waits for the answer."""
    hub.will("/v1/enrich", hub.says({}), hub.says({"amperity": {"Persona": "Loyal"}}))
    hub.will("/v1/events", hub.says(status=503, headers={"Retry-After": "1.5"}), hub.says())

    page = await visit()
    await refused(page, "datafly.identify('user-1')")
    await hub.quiet()
    await page.evaluate(HIDE)
    await hub.until(lambda: len(hub.events) == 2)
    await passes_until(clock, lambda: len(hub.events) == 3)
    profile = await page.evaluate("datafly.refreshProfile()")

    assert profile == {"amperity": {"Persona": "Loyal"}}
    assert [call.headers["sec-fetch-mode"] for call in hub.to(*POSTS)] == ["cors", "no-cors", "cors"]
    assert hub.events == [hub.events[0]] * 3


async def test_hidden_without_a_network_nothing_is_lost(hub, visit, context):
    page = await visit()
    await page.evaluate("datafly.onProfileReady()")
    await context.set_offline(True)
    await page.evaluate("datafly.track('a')")
    await page.evaluate(HIDE)
    await context.set_offline(False)
    await hub.until(lambda: hub.events)

    assert names(hub.events) == ["a"]


async def test_what_follows_a_log_out_never_leaves_before_it(hub, visit, clock):
    """An anonymous event with the old cookie would be the old person's. The log-out itself waits for its answer."""
    hub.will("/v1/events", hub.says(status=503, headers={"Retry-After": "1.5"}), hub.says())

    page = await visit()
    await refused(page, "datafly.track('a')")
    await hub.quiet()
    hub.calls.clear()
    await page.evaluate("datafly.reset(); datafly.track('b')")
    await page.evaluate(HIDE)
    await hub.until(lambda: len(hub.to("/v1/reset")) == 1)
    await hub.quiet()
    left_hidden = names(hub.events)
    await passes_until(clock, lambda: "b" in names(hub.events))

    assert left_hidden == ["a"]
    assert [call.path for call in hub.to(*POSTS)][-3:] == ["/v1/reset", "/v1/reset", "/v1/events"]
