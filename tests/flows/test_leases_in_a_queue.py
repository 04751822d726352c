"""Several processes over one store, and a partner that lets few calls through at a time."""

import asyncio
import json


def visitor(number):
    return json.dumps({"anonymousId": f"anon-{number}", "traits": {"email": f"p{number}@example.test"}}).encode()


async def test_nobody_is_asked_about_twice_while_calls_queue(new_server, open_enricher, toy):
    toy.latency = 0.35
    limits = {"timeout": 2, "attempts": 1, "concurrency": 1}  # a lease lasts a second more, and the queue longer
    url, people = new_server().url, [visitor(number) for number in range(12)]
    async with (
        open_enricher(url, budget_ms=20_000, limits=limits) as here,
        open_enricher(url, budget_ms=20_000, limits=limits) as there,
    ):
        await asyncio.gather(here.enrich(people), there.enrich(people))

    assert sorted(toy.calls) == sorted(set(toy.calls))
