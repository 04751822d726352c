"""What a page is shown right after the store has been away."""

import asyncio
import os
import signal
import sys
import time

from redis.asyncio import Redis

from partnerenrich import Resolution
from partnerenrich_server.embedded import open_store


async def test_nobody_is_shown_the_person_before_when_the_store_comes_back(raw, open_running_hub, until, tmp_path):
    raw |= {"budget_ms": 800, "hub": {**raw["hub"], "limits": {"visitor_per_minute": 100_000}}}
    with open_store(f"embedded:{tmp_path / 'memory'}") as store:
        async with open_running_hub(raw, store) as hub, Redis.from_url(store.url) as redis:
            answers = sys.modules["partnerenrich_file_toy"].answers
            for name in ("ann", "bob"):
                answers[f"{name}@example.test"] = Resolution(f"id of {name}", attributes={"Persona": f"of {name}"})
            browser = hub.browser()

            async def is_ann():
                await browser.identify("ann@example.test")
                return await browser.profile() == {"toy": {"Persona": "of ann"}}

            await until(is_ann)

            server = (await redis.info("server"))["process_id"]
            os.kill(server, signal.SIGSTOP)
            try:
                assert (await browser.identify("bob@example.test")).status_code == 202
            finally:
                os.kill(server, signal.SIGCONT)
            shown, back = [], time.monotonic()
            while time.monotonic() - back < 2:
                shown.append(await browser.profile())
                await asyncio.sleep(0.005)

    assert {"toy": {"Persona": "of ann"}} not in shown
