"""Where a hub has an output, it gets what was enriched, and nothing that was meant for the hub alone."""

from __future__ import annotations

import asyncio
import json

import pytest

from partnerenrich import Resolution
from partnerenrich.configuration import load_mapping
from partnerenrich_server.hub.app import open_hub

PAT = "pat@example.test"
SIGNATURE = "1790000000.canary-of-a-signature"


@pytest.fixture(name="written")
def _written():
    return []


@pytest.fixture(name="hub")
async def _hub(raw, store, open_running_hub, written):
    async def write(events):
        await asyncio.sleep(0)
        written.extend(json.loads(event.encode()) for event in events)

    async with open_running_hub(raw, store, output=write) as hub:
        yield hub


async def test_events_are_written_enriched_and_in_their_order(browser, toy, written):
    toy.answers[PAT] = Resolution("p", attributes={"Tier": 3})

    await browser.identify(PAT, messageId="m1")
    await browser.call("POST", "/v1/batch", body={"batch": [{"type": "page", "messageId": "m2"}] * 2}, wait_ms=800)

    assert [event["messageId"] for event in written] == ["m1", "m2", "m2"]
    assert [event["context"]["partner_attrs"]["toy"] for event in written] == [{"Tier": 3}] * 3


@pytest.mark.parametrize("signature", [SIGNATURE, {"value": SIGNATURE}, [SIGNATURE]])
async def test_a_signature_is_not_written(browser, written, signature):
    """It vouches for a person for up to a day: no reader of a stream needs that."""
    await browser.identify(PAT, signature=signature)
    [event] = written

    assert event["traits"] == {"email": PAT}
    assert "signature" not in event
    assert SIGNATURE not in json.dumps(event)


async def test_an_output_that_fails_stops_nothing(raw, store, open_running_hub, written):
    """What it did not take is lost, and counted in the log; those who wait are answered."""
    raw["batch"] = {"size": 1, "linger_ms": 0}

    async def write(events):
        if not written:
            written.append(None)
            raise RuntimeError

    async with open_running_hub(raw, store, output=write) as hub:
        browser = hub.browser()
        statuses = [(await browser.event()).status_code for _ in range(2)]

    assert statuses == [202, 202]


async def test_without_an_output_all_is_as_before(raw, store):
    async with open_hub(load_mapping(raw), store) as app:
        assert app
