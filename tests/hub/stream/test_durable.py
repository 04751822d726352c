"""What the hub answers with 200 is in the stream: enriched, once, in the order of each visitor."""

import asyncio
import json
import sys
import time

import jsonschema
import pytest

from partnerenrich import Resolution
from partnerenrich_server.hub.openapi import DOCUMENT

PAT = "pat@example.test"
SIGNATURE = "1790000000.canary-of-a-signature"


def messages(entries):
    return [entry.event["messageId"] for entry in entries]


async def send_until_written(browser, message_id):
    for _ in range(100):
        if (await browser.event("page", messageId=message_id)).status_code == 200:
            return
        await asyncio.sleep(0.1)
    raise AssertionError("the stream does not recover")


def check(path, answer):
    """The answer is as the document of the API says."""
    [body] = DOCUMENT["paths"][path]["post"]["responses"][str(answer.status_code)].get("content", {}).values() or [{}]
    if "schema" in body:
        jsonschema.validate(answer.json(), {**body["schema"], "components": DOCUMENT["components"]})


async def test_an_event_is_written_enriched_before_it_is_answered(browser, toy, hub, broker):
    toy.answers[PAT] = Resolution("p", attributes={"Tier": 3})

    answer = await browser.identify(PAT, messageId="m1", signature=SIGNATURE, wait_ms=0)
    [entry] = broker.entries()

    assert (answer.status_code, answer.json()) == (200, {"success": True, "durable": True})
    assert entry.org == "acme"
    assert entry.key in {f"acme:{browser.cookies['_dfdid']}", None}
    assert entry.event["context"]["partner_attrs"]["toy"] == {"Tier": 3}
    assert entry.event["context"]["enrichment"]["toy"]["outcome"] == "fresh"
    assert SIGNATURE not in json.dumps(entry.event)
    assert (await hub.metrics())['partnerenrich_stream_events_total{result="written"}'] == 1


async def test_a_batch_is_answered_when_all_of_it_is_written(browser, broker):
    events = [{"type": "page", "messageId": f"m{number}"} for number in range(50)]

    answer = await browser.call("POST", "/v1/batch", body={"batch": [*events, {"type": "none"}]})

    told = answer.json()
    assert (answer.status_code, told["success"], told["durable"]) == (200, True, True)
    assert (told["accepted"], told["rejected"]) == (50, 1)
    assert messages(broker.entries()) == [event["messageId"] for event in events]


async def test_answers_are_as_the_document_says(browser, broker):
    def of(path, body):
        return browser.call("POST", path, body=body)

    check("/v1/events", await of("/v1/events", {"type": "page"}))
    check("/v1/batch", await of("/v1/batch", {"batch": [{"type": "page"}, {}]}))
    check("/v1/batch", await of("/v1/batch", {"batch": []}))
    broker.pause()
    refused = await of("/v1/events", {"type": "page"})
    broker.resume()

    assert refused.status_code == 503
    assert "503" in DOCUMENT["paths"]["/v1/events"]["post"]["responses"]
    assert refused.json().keys() == {"error"}


async def test_each_visitor_keeps_its_order_however_long_a_partner_takes(raw, store, broker, open_running_hub, until):
    """Batches of one event overlap, and every other one is slow to be enriched."""
    raw |= {"stream": broker.stream, "batch": {"size": 1, "linger_ms": 0, "in_flight": 16}}

    async with open_running_hub(raw, store) as hub:
        toy = sys.modules["partnerenrich_file_toy"]
        browsers = [hub.browser(cookies={"_dfdid": f"0c2d9c1e-6a4f-4a7e-9b0a-{n:012}"}) for n in range(8)]

        async def visit(browser):
            asked = []
            for number in range(10):  # sent when the hub works on the one before, without waiting for its answer
                toy.delay = 0.05 * (number % 2)
                email = f"{browser.cookies['_dfdid'][-2:]}-{number}@example.test"
                sending = browser.event("identify", messageId=str(number), traits={"email": email})
                asked.append(asyncio.ensure_future(sending))
                await until(lambda: ("resolve", email) in toy.calls)  # noqa: B023 - it is over before the next
            return [answer.status_code for answer in await asyncio.gather(*asked)]

        statuses = await asyncio.gather(*map(visit, browsers))

    in_order = {}
    for entry in broker.entries():
        in_order.setdefault(entry.event["context"]["canonical_id"], []).append(entry.event["messageId"])
    assert statuses == [[200] * 10] * 8
    assert list(in_order.values()) == [list(map(str, range(10)))] * 8


async def test_round_trips_are_shared(raw, store, new_broker, open_running_hub, until):
    """Many requests at one moment do not cost a round trip each."""
    broker = new_broker("valkey")
    raw |= {"stream": broker.stream, "batch": {"size": 10, "linger_ms": 5, "in_flight": 16}}

    async with open_running_hub(raw, store) as hub:
        toy = sys.modules["partnerenrich_file_toy"]
        browser = hub.browser()
        await browser.event("page")
        before = broker.ask("INFO", "stats")["total_reads_processed"]
        toy.go.clear()  # so that all are there before the first one is written
        asked = [asyncio.ensure_future(browser.identify(PAT)) for _ in range(90)]

        async def have_come():
            return (await hub.metrics())["partnerenrich_queue_events"] == len(asked)

        await until(have_come)
        toy.go.set()
        answers = await asyncio.gather(*asked)
        reads = broker.ask("INFO", "stats")["total_reads_processed"] - before

    assert {answer.status_code for answer in answers} == {200}
    assert reads < 45
    assert len(broker.entries()) == 91


async def test_a_broker_that_hangs_is_told_and_stops_nothing_else(browser, toy, hub, broker, until):
    toy.answers[PAT] = Resolution("p", attributes={"Persona": "Hiker"})
    assert (await browser.event("page", messageId="before")).status_code == 200

    broker.pause()
    started = time.monotonic()
    refused = await browser.identify(PAT, messageId="meanwhile")
    seconds = time.monotonic() - started
    degraded = (await hub.client.get(f"{hub.url}/readyz")).json()
    healthy, profile = await hub.client.get(f"{hub.url}/healthz"), await browser.profile()
    broker.resume()

    assert (refused.status_code, refused.json()["error"]["code"]) == (503, "not_written")
    assert int(refused.headers["retry-after"]) >= 1
    assert seconds < 15
    assert degraded == {"ready": True, "degraded": True}
    assert (healthy.status_code, profile) == (200, {"toy": {"Persona": "Hiker"}})
    assert (await hub.metrics())['partnerenrich_stream_events_total{result="failed"}'] >= 1

    async def is_well():
        return (await hub.client.get(f"{hub.url}/readyz")).json() == {"ready": True, "degraded": False}

    await send_until_written(browser, "after")
    await until(is_well)
    assert {"before", "after"} <= set(messages(broker.entries()))


async def test_an_event_comes_again_as_that_of_the_same_device(hub, broker):
    """A visitor without a cookie is given one with the refusal, too."""
    browser = hub.browser()
    broker.pause()
    refused = await browser.event("page")
    device = browser.cookies["_dfdid"]
    broker.resume()
    await send_until_written(browser, "again")
    written = [e.event for e in broker.entries() if e.event.get("messageId") == "again"]

    assert refused.status_code == 503
    assert {event["context"]["canonical_id"] for event in written} == {device}


@pytest.mark.parametrize("kind", ["redis", "valkey"])
async def test_nothing_that_was_answered_with_200_is_missing_after_kills(
    raw, store, new_broker, open_running_hub, until, kind
):
    broker = new_broker(kind)
    acknowledged, refused = set(), 0

    async with open_running_hub({**raw, "stream": broker.stream}, store) as hub:
        goes_on = True

        async def visit(browser, name):
            nonlocal refused
            number = 0
            while goes_on:
                answer = await browser.event("page", messageId=f"{name}-{number}")
                if answer.status_code == 200:
                    acknowledged.add(f"{name}-{number}")
                    number += 1
                else:
                    assert answer.status_code == 503
                    refused += 1
                    await asyncio.sleep(0.02)

        visitors = [asyncio.create_task(visit(hub.browser(), name)) for name in range(4)]
        for _ in range(3):
            before, told = len(acknowledged), refused
            await until(lambda: len(acknowledged) > before + 50)  # noqa: B023 - it is over before the next
            broker.kill()
            await until(lambda: refused > told + 10)  # noqa: B023 - as above
            await asyncio.to_thread(broker.start)
        before = len(acknowledged)
        await until(lambda: len(acknowledged) > before + 50)
        goes_on = False
        await asyncio.gather(*visitors)

    written = messages(broker.entries())
    assert refused > 0
    assert len(acknowledged) > before > 0
    assert acknowledged <= set(written)
    for name in range(4):  # in order: what comes again comes before what follows
        numbers = [int(each.split("-")[1]) for each in written if each.startswith(f"{name}-")]
        assert numbers == sorted(numbers)


async def test_a_cluster_that_forgot_its_producers_is_written_to_again(raw, store, new_broker, open_running_hub):
    """It was killed and comes back empty: an idempotent producer cannot go on there."""
    broker = new_broker("tansu")

    async with open_running_hub({**raw, "stream": broker.stream}, store) as hub:
        browser = hub.browser()
        for message_id in ("one", "two"):
            await send_until_written(browser, message_id)
            assert set(messages(broker.entries())) == {message_id}
            broker.kill()
            assert (await browser.event("page", messageId="meanwhile")).status_code == 503
            await asyncio.to_thread(broker.start)
        await send_until_written(browser, "three")

    assert messages(broker.entries())[-1] == "three"


async def test_a_broker_that_is_killed_is_told(browser, hub, broker, log_lines):
    assert (await browser.event("page", messageId="before")).status_code == 200
    assert messages(broker.entries()) == ["before"]

    broker.kill()
    statuses = [(await browser.event("page")).status_code for _ in range(2)]

    assert statuses == [503, 503]
    assert (await hub.client.get(f"{hub.url}/readyz")).json() == {"ready": True, "degraded": True}
    assert any("the stream does not take events" in line for line in log_lines)
