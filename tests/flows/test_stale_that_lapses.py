"""An answer past its time that lapses while its event waits for others."""

import asyncio
import json

import pytest

from partnerenrich import Unavailable


def visitor(name):
    return json.dumps({"anonymousId": f"anon-{name}", "traits": {"email": f"{name}@example.test"}}).encode()


@pytest.mark.xfail(
    raises=AssertionError,
    reason="a lookup decides for stale when it fails, the attacher looks again when the batch is settled: in between "
    "the answer may lapse, and the event says stale with nothing attached",
)
async def test_what_is_stale_is_attached(new_server, open_enricher, toy):
    toy.latency = {"ann@example.test": 0, "bob@example.test": 1}.get
    ttl = {"resolved": 0.3, "attributes": 0.3, "stale_for": 0.7}
    async with open_enricher(
        new_server().url, budget_ms=10_000, ttl=ttl, limits={"attempts": 1, "timeout": 5}
    ) as enricher:
        await enricher.enrich([visitor("ann")])
        await asyncio.sleep(0.5)
        toy.answers["ann@example.test"] = Unavailable("down")
        line, _ = await enricher.enrich([visitor("ann"), visitor("bob")])

    context = json.loads(line)["context"]
    assert (context["enrichment"]["toy"]["outcome"] == "stale") == ("toy" in context.get("vendor_ids", {}))
