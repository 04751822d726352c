"""The hub as a process that is told to end: what it accepted is in the stream."""

import asyncio
import json
import os
import re
import signal
import subprocess
import sys

import httpx
import pytest

SHOP = {"Origin": "https://www.shop.example"}
PASSWORD = "password-canary-0123456789"


@pytest.fixture(name="start")
def _start(raw, tmp_path):
    """Start a hub with a stream; its process and URL."""
    processes = []

    def start(stream):
        config = tmp_path / "config.yaml"
        variables = {"STREAM_URL": stream["url"], "PYTHONUNBUFFERED": "1"}
        store = f"embedded:{tmp_path / 'memory'}"
        changes = {"store": store, "budget_ms": 8_000, "stream": {**stream, "url": "${STREAM_URL}"}}
        config.write_text(json.dumps({**raw, **changes}))
        program = "from partnerenrich_server.cli import main; main()"
        process = subprocess.Popen(
            [sys.executable, "-c", program, "hub", "--config", config, "--port", "0", "--log-level", "debug"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={**os.environ, **variables},
        )
        processes.append(process)
        return process, re.search(r"http://\S+", process.stdout.readline().decode())[0]

    yield start
    for process in processes:
        process.kill()
        process.wait()
        process.stdout.close()
        process.stderr.close()


async def test_sigterm_flushes_what_was_accepted(start, broker):
    process, url = start(broker.stream)
    async with httpx.AsyncClient(base_url=url, headers=SHOP, trust_env=False, timeout=20) as client:

        async def send(number):
            batch = [{"type": "page", "messageId": f"{number}-{index}"} for index in range(20)]
            return await client.post("/v1/batch?key=pk-shop", json={"batch": batch})

        asked = [asyncio.create_task(send(number)) for number in range(20)]
        await asyncio.wait(asked, return_when=asyncio.FIRST_COMPLETED)
        process.send_signal(signal.SIGTERM)
        answers = await asyncio.gather(*asked, return_exceptions=True)
    _, told = await asyncio.to_thread(process.communicate)
    written = {entry.event["messageId"] for entry in broker.entries()}
    taken = [number for number, answer in enumerate(answers) if getattr(answer, "status_code", None) == 200]

    assert process.returncode == 0
    assert taken
    assert {f"{number}-{index}" for number in taken for index in range(20)} <= written
    assert [line for line in map(json.loads, told.splitlines()) if line["level"] not in {"debug", "info"}] == []
    assert PASSWORD not in told.decode()


async def test_who_left_before_the_answer_has_been_written_all_the_same(start, broker, until):
    """SIGTERM comes while nobody waits any more; what was taken goes on."""
    process, url = start(broker.stream)
    async with httpx.AsyncClient(base_url=url, headers=SHOP, trust_env=False, timeout=20) as client:

        async def have_been_taken():
            return 'partnerenrich_events_total{result="accepted"} 2.0' in (await client.get("/metrics")).text

        await client.post("/v1/events?key=pk-shop", json={"type": "page", "messageId": "first"})
        broker.pause()
        event = {"type": "page", "messageId": "left"}
        asked = asyncio.create_task(client.post("/v1/events?key=pk-shop", json=event))
        await until(have_been_taken)
        asked.cancel()
    process.send_signal(signal.SIGTERM)
    broker.resume()

    assert await asyncio.to_thread(process.wait, 20) == 0
    assert {entry.event["messageId"] for entry in broker.entries()} == {"first", "left"}
