"""A store that is refused, killed, full or hanging: every event comes out, once, in order, in time, with its reason."""

import asyncio
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from partnerenrich import Unavailable
from partnerenrich.store import CLAIM, PAUSE_SECONDS, Store

BUDGET_MS = 4000
"""For a store that hangs. A busy machine is not to look like one: a command may take a quarter of it."""
IN_TIME = 10.0
"""Seconds: half of what an event may be held back otherwise. Who waits for a store that hangs waits for ever."""
DEVICE = "0c2d9c1e-6a4f-4a7e-9b0a-1f2e3d4c5b6a"
COPY = f"partnerenrich:browser_attrs:acme:{DEVICE}"


def visitor(number, device=None):
    return json.dumps(
        {"n": number, "anonymousId": device or f"anon-{number}", "traits": {"email": f"p{number}@example.test"}}
    ).encode()


def page(device=DEVICE):
    return json.dumps({"anonymousId": device}).encode()


def outcomes(lines):
    return [json.loads(line)["context"]["enrichment"]["toy"]["outcome"] for line in lines]


def names(lines):
    return [json.loads(line)["context"].get("partner_attrs", {}).get("toy", {}).get("name") for line in lines]


async def enrich(enricher, events):
    """Enrich within the budget; nothing is lost, doubled or out of order."""
    started = time.perf_counter()
    lines = await enricher.enrich(events)
    assert time.perf_counter() - started < IN_TIME
    assert [_without_context(line) for line in lines] == [_without_context(event) for event in events]
    return lines


def _without_context(line):
    return {name: value for name, value in json.loads(line).items() if name != "context"}


def unreachable(kind):
    return {
        "socket": "unix:///nonexistent/socket",
        "port": "redis://127.0.0.1:1",
        "cluster": "redis+cluster://127.0.0.1:1",
    }[kind]


@pytest.mark.parametrize("kind", ["socket", "port", "cluster"])
async def test_a_store_that_is_refused_from_the_start(open_enricher, toy, kind):
    async with open_enricher(unreachable(kind)) as enricher:
        assert outcomes(await enrich(enricher, [visitor(n) for n in range(5)] + [page()])) == ["fresh"] * 5 + [
            "skipped"
        ]
        assert names(await enrich(enricher, [visitor(3)])) == ["p3@example.test"]
        assert outcomes(await enrich(enricher, [visitor(n) for n in range(5)])) == ["hit"] * 5
    assert len(toy.calls) == 5


@pytest.mark.parametrize("kind", ["valkey", "cluster"])
async def test_a_store_that_wants_another_password_says_so(new_server, open_enricher, kind, caplog):
    server = new_server(kind)
    server.ask("CONFIG", "SET", "requirepass", "password-canary")
    async with open_enricher(server.url) as enricher:
        assert outcomes(await enrich(enricher, [visitor(1)])) == ["fresh"]
        told = {record.getMessage() for record in caplog.records}
    assert told == {"the store refuses the user or the password of its URL; going on without it"}


async def test_direct_calls_are_limited_while_the_store_is_gone(open_enricher, toy):
    async with open_enricher(unreachable("socket"), limits={"concurrency": 20}) as enricher:
        await enrich(enricher, [page()])
        toy.go.clear()
        enriching = asyncio.create_task(enrich(enricher, [visitor(n) for n in range(100)]))
        for _ in range(1000):  # turns of the event loop: all have asked by then, however long a turn takes
            await asyncio.sleep(0)
        toy.go.set()
        found = outcomes(await enriching)
    assert found.count("fresh") == len(toy.calls) == 5
    assert found.count("limited") == 95


@pytest.mark.parametrize("kind", ["valkey", "redis", "cluster"])
async def test_a_store_that_is_killed_and_started_again(new_server, open_enricher, toy, kind):
    server = new_server(kind)
    async with open_enricher(server.url) as enricher:
        warm = [visitor(n) for n in range(10)]
        assert outcomes(await enrich(enricher, warm)) == ["fresh"] * 10
        server.kill()
        for _ in range(3):
            assert outcomes(await enrich(enricher, warm)) == ["hit"] * 10, "this process remembers for a minute"
        assert outcomes(await enrich(enricher, [visitor(99), page()])) == ["fresh", "skipped"]
        server.start()
        await asyncio.sleep(PAUSE_SECONDS + 0.1)
        again = outcomes(await enrich(enricher, warm))
        assert set(again) <= {"fresh", "hit"}
        assert outcomes(await enrich(enricher, [page(f"anon-{n}") for n in range(10)])) == ["hit"] * 10
        assert server.ask("DBSIZE") >= 30


async def test_killed_in_the_middle_of_overlapping_batches(new_server, open_enricher, toy):
    server = new_server()
    toy.latency = 0.01
    async with open_enricher(server.url) as enricher:
        await enrich(enricher, [visitor(0)])
        batches = [asyncio.create_task(enrich(enricher, [visitor(10 * k + n) for n in range(10)])) for k in range(20)]
        await asyncio.sleep(0.005)
        server.kill()
        found = [outcome for batch in batches for outcome in outcomes(await batch)]
    assert len(found) == 200
    assert set(found) <= {"fresh", "hit", "limited"}


@pytest.mark.parametrize("kind", ["valkey", "cluster"])
async def test_a_store_that_hangs(new_server, open_enricher, kind):
    server = new_server(kind)
    async with open_enricher(server.url, budget_ms=BUDGET_MS) as enricher:
        warm = [visitor(n) for n in range(10)]
        await enrich(enricher, warm)
        server.pause()
        for _ in range(4):
            assert outcomes(await enrich(enricher, [*warm, visitor(77), page("nobody")]))[:10] == ["hit"] * 10
        batches = await asyncio.gather(*(enrich(enricher, warm) for _ in range(8)))
        assert {outcome for batch in batches for outcome in outcomes(batch)} == {"hit"}
        server.resume()
        await asyncio.sleep(PAUSE_SECONDS + 0.1)
        assert outcomes(await enrich(enricher, [visitor(78)])) == ["fresh"]
        assert outcomes(await enrich(enricher, [page("anon-78")])) == ["hit"]


def fill(server):
    server.ask("CONFIG", "SET", "maxmemory-policy", "noeviction")
    server.ask("CONFIG", "SET", "maxmemory", 1)


@pytest.mark.parametrize("kind", ["valkey", "redis", "cluster"])
async def test_a_store_that_is_full(new_server, open_enricher, toy, kind, caplog):
    server = new_server(kind)
    async with open_enricher(server.url) as enricher:
        warm = [visitor(n) for n in range(10)]
        await enrich(enricher, warm)
        fill(server)
        assert outcomes(await enrich(enricher, [*warm, visitor(99), page("anon-3"), page("anon-99")])) == [
            *["hit"] * 10,
            "fresh",
            "hit",
            "fresh",
        ]
        assert not enricher._store.down
        assert outcomes(await enrich(enricher, [page("anon-99")])) == ["skipped"]
        server.ask("CONFIG", "SET", "maxmemory", 0)
        assert outcomes(await enrich(enricher, [visitor(99)])) == ["fresh"]
        assert outcomes(await enrich(enricher, [page("anon-99")])) == ["hit"]
    assert "OutOfMemory" in caplog.text
    assert "example.test" not in caplog.text


@pytest.mark.parametrize("kind", ["valkey", "redis", "cluster"])
async def test_a_full_store_takes_out_and_takes_nothing_in(new_server, kind, caplog):
    """Also where both go out together: what is taken out makes no room for what Redis has refused."""
    server = new_server(kind)
    server.ask("SET", "{b1}:old", "x")
    server.ask("HSET", "{b1}:copy", "who", "ann", "other", "1")
    fill(server)
    store = Store(server.url, command_seconds=2)
    try:
        new = [("SET", "{b1}:new", b"secret-canary", "PX", 60_000), ("HSET", "{b1}:copy", "who", "bob")]
        store.queue([("DEL", "{b1}:old"), ("HDEL", "{b1}:copy", "who"), *new, ("EXPIRE", "{b1}:copy", 10)])
        await store.flush()
        assert (store.failures, store.down) == (2, False)
        assert await store.leases([("{b1}:lease", 1000, "{b1}:copy2")]) == [(True, None)]
    finally:
        await store.close()
    assert server.ask("DBSIZE") == 1
    assert server.ask("HGETALL", "{b1}:copy") == {b"other": b"1"}
    assert 0 < server.ask("TTL", "{b1}:copy") <= 10
    assert "OutOfMemory" in caplog.text
    assert "canary" not in caplog.text


@pytest.mark.parametrize("kind", ["valkey", "redis", "cluster"])
@pytest.mark.parametrize("beside", [False, True], ids=["in the place of the record", "beside the record"])
async def test_a_claim_counts_for_nothing_where_the_store_takes_no_answer(new_server, kind, beside):
    """Whoever has it may not be able to say what came of it."""
    server = new_server(kind)
    server.ask("SET", "{b1}:lease", CLAIM + b"another", "PX", 60_000)
    server.ask("SET", "{b1}:answer", "known")
    store = Store(server.url, command_seconds=2)
    claim = ("{b1}:lease", 1000, "{b1}:record" if beside else "{b1}:lease")
    try:
        assert await store.lease(claim) == (False, None if beside else CLAIM + b"another")
        fill(server)
        assert await store.lease(claim) == (True, None)
        assert await store.lease(("{b1}:answer", 1000, "{b1}:answer")) == (False, b"known")
    finally:
        await store.close()


async def test_a_visitor_who_comes_back_while_the_store_is_full_waits_for_no_claim(new_server, open_enricher, toy):
    server = new_server()
    async with open_enricher(server.url) as enricher:
        await enrich(enricher, [visitor("first")])
        toy.go.clear()
        first = asyncio.create_task(enrich(enricher, [visitor("back")]))
        async with asyncio.timeout(20):
            while len(toy.calls) < 2:  # noqa: ASYNC110 - nobody tells
                await asyncio.sleep(0.01)
        fill(server)
        toy.go.set()
        assert outcomes(await first) == ["fresh"]
        assert outcomes(await enrich(enricher, [visitor("back")])) == ["fresh"]


# Nobody receives another's attributes, whatever the store has missed


async def logged_in_after_another(server, enricher, spoil, repair):
    """Somebody else logs in while the store cannot be told."""
    await enrich(enricher, [visitor("ann", DEVICE)])
    assert names(await enrich(enricher, [page()])) == ["pann@example.test"]
    spoil()
    assert names(await enrich(enricher, [visitor("bob", DEVICE)])) == ["pbob@example.test"]
    assert names(await enrich(enricher, [page()]))[0] in {None, "pbob@example.test"}
    repair()
    for _ in range(3):
        assert names(await enrich(enricher, [page()]))[0] in {None, "pbob@example.test"}
        await asyncio.sleep(0.6)
    assert server.ask("HGET", COPY, "who") is None or b"pann" not in server.ask("HGET", COPY, "p:toy")


async def test_a_log_in_that_a_full_store_refused(new_server, open_enricher):
    server = new_server()
    async with open_enricher(server.url) as enricher:
        await logged_in_after_another(
            server, enricher, lambda: fill(server), lambda: server.ask("CONFIG", "SET", "maxmemory", 0)
        )


async def test_a_log_in_while_the_store_hung(new_server, open_enricher):
    server = new_server()
    async with open_enricher(server.url, budget_ms=BUDGET_MS) as enricher:
        await logged_in_after_another(server, enricher, server.pause, server.resume)


async def test_a_log_in_elsewhere_while_this_process_cannot_see_the_store(new_server, open_enricher, monkeypatch):
    server = new_server()
    async with open_enricher(server.url) as here, open_enricher(server.url) as there:
        await enrich(here, [visitor("ann", DEVICE)])
        assert names(await enrich(here, [page()])) == ["pann@example.test"]
        monkeypatch.setattr("partnerenrich.store.PAUSE_SECONDS", 60)
        here._store._failed(TimeoutError())
        assert names(await enrich(there, [visitor("bob", DEVICE)])) == ["pbob@example.test"]
        assert names(await enrich(here, [page(), visitor("ann", "d2")])) == [None, "pann@example.test"]


# Partners


async def test_a_partner_that_is_down_costs_30_seconds_of_errors_and_one_call(server, open_enricher, toy):
    toy.answers["p1@example.test"] = Unavailable("down")
    async with open_enricher(server.url, limits={"attempts": 1}) as enricher:
        for _ in range(3):
            (line,) = await enrich(enricher, [visitor(1)])
            assert (
                json.loads(line)["context"]["enrichment"]["toy"].items()
                >= {"outcome": "error", "step": "resolve"}.items()
            )
    assert len(toy.calls) == 1


def test_no_server_outlives_a_killed_test_run(tmp_path):
    """The fixture's own promise: the server dies with the process that started it, however that one dies."""
    conftest = Path(__file__).with_name("conftest.py")
    code = (
        f"import importlib.util, time\nspec = importlib.util.spec_from_file_location('c', {str(conftest)!r})\n"
        "c = importlib.util.module_from_spec(spec); spec.loader.exec_module(c)\n"
        "server = c.Server('valkey', None); print(server._process.pid, server._folder, flush=True); time.sleep(60)"
    )
    child = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    pid, folder = child.stdout.readline().split()
    os.kill(int(pid), 0)
    child.send_signal(signal.SIGKILL)
    child.wait()
    child.stdout.close()
    for _ in range(2000):
        state = Path(f"/proc/{pid}/stat")
        if not state.exists() or state.read_text().rpartition(")")[2].split()[0] == "Z":
            break
        time.sleep(0.01)
    else:
        pytest.fail("the server is still there")
    shutil.rmtree(folder)
