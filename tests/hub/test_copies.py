"""The browser copies in a cluster, where keys of one script must lie on one node, and in a store that is in trouble."""

import asyncio
import shutil
import socket
import subprocess
import time

import pytest
from redis.asyncio import Redis

from partnerenrich_server.hub import copies as copies_module
from partnerenrich_server.hub.copies import BrowserCopies, Limit, LimitPassed, StoreDown

KEY = "partnerenrich:browser_attrs:acme:0c2d9c1e-6a4f-4a7e-9b0a-1f2e3d4c5b6a"
VISITOR = Limit("visitor", f"{{{KEY}}}:enrich", 3)
ADDRESS = Limit("address", "partnerenrich:reads:acme:f00", 100)


@pytest.fixture(name="cluster")
def _cluster(tmp_path):
    """The URL of a cluster of one node, which refuses scripts over several slots as any other does."""
    server = shutil.which("redis-server")
    if server is None:
        pytest.skip("needs redis-server")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    if port > 55_000:
        pytest.skip("the bus of a cluster needs a port below")
    options = {"port": port, "bind": "127.0.0.1", "dir": tmp_path, "save": "", "cluster-enabled": "yes"}
    command = [server, *(text for name, value in options.items() for text in (f"--{name}", str(value)))]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
        cli = ["redis-cli", "-p", str(port)]
        until = time.monotonic() + 20
        while b"cluster_state:ok" not in (said := told(*cli, "cluster", "info")):
            assert time.monotonic() < until, said
            told(*cli, "cluster", "addslotsrange", "0", "16383")
            time.sleep(0.05)
        yield f"redis+cluster://127.0.0.1:{port}"
        process.terminate()


def told(*command):
    return subprocess.run(command, capture_output=True, check=False).stdout


async def both(url):
    copies = BrowserCopies(url, command_seconds=10.0)
    try:
        return [
            await asyncio.gather(
                *(copies.read(KEY, ("who", "p:toy"), (ADDRESS, VISITOR)) for _ in range(4)), return_exceptions=True
            ),
            await copies.retire(KEY, 60),
            copies.failures,
        ]
    finally:
        await copies.close()


async def test_a_cluster_counts_and_reads_as_a_single_store_does(cluster):
    answers, _, failures = await both(cluster)

    assert answers[:3] == [[None, None]] * 3
    assert isinstance(answers[3], LimitPassed)
    assert (answers[3].limit, failures) == ("visitor", 0)


async def test_requests_of_one_moment_share_a_round_trip(store, redis):
    before = (await redis.info("stats"))["total_reads_processed"]
    copies = BrowserCopies(store.url, command_seconds=10.0)
    await copies.read(KEY, ("who",), ())
    before = (await redis.info("stats"))["total_reads_processed"]
    await asyncio.gather(*(copies.read(KEY, ("who",), (ADDRESS,)) for _ in range(20)))
    after = (await redis.info("stats"))["total_reads_processed"]
    await copies.close()

    assert after - before <= 3  # two of them, and the question itself


async def test_a_store_that_refuses_writes_is_asked_again_at_once(store, redis):
    """It is full, not gone."""
    copies = BrowserCopies(store.url, command_seconds=10.0)
    await redis.config_set("maxmemory", "1")
    try:
        with pytest.raises(StoreDown):
            await copies.read(KEY, ("who",), (ADDRESS, VISITOR))
    finally:
        await redis.config_set("maxmemory", str(1 << 30))

    assert await copies.read(KEY, ("who",), (ADDRESS, VISITOR)) == [None]
    await copies.close()


async def test_a_store_that_hangs_is_left_alone_for_a_while(monkeypatch):
    monkeypatch.setattr(copies_module, "PAUSE_SECONDS", 60)
    end = asyncio.Event()
    asked = []

    async def hang(_reader, writer):
        asked.append(writer)
        await end.wait()
        writer.close()
        await writer.wait_closed()

    async with await asyncio.start_server(hang, "127.0.0.1", 0) as server:
        copies = BrowserCopies(f"redis://127.0.0.1:{server.sockets[0].getsockname()[1]}", command_seconds=0.1)
        answers = await asyncio.gather(
            *(copies.read(KEY, ("who",), (ADDRESS,)) for _ in range(50)), return_exceptions=True
        )
        with pytest.raises(StoreDown):
            await copies.read(KEY, ("who",), (ADDRESS,))
        await copies.close()
        end.set()
        await asyncio.sleep(0.05)

    assert {type(answer) for answer in answers} == {StoreDown}
    assert len(asked) <= 1


async def test_time_that_this_process_was_busy_is_not_held_against_the_store(store, monkeypatch):
    loop, busy = asyncio.get_running_loop(), 0
    monkeypatch.setattr(loop, "time", lambda: time.monotonic() + busy)
    copies = BrowserCopies(store.url, command_seconds=20)
    await copies.read(KEY, ("who",), ())
    for steps in range(2, 8):  # of the way of a request that the busy time falls into
        reading = asyncio.create_task(copies.read(KEY, ("who",), ()))
        for _ in range(steps):
            await asyncio.sleep(0)
        time.sleep(0.01)  # noqa: ASYNC251 - on purpose; the answer comes meanwhile
        busy += 30
        assert await reading == [None]
    await copies.close()

    assert copies.failures == 0


async def test_what_is_written_late_into_a_retired_copy_belongs_to_nobody(store):
    copies = BrowserCopies(store.url, command_seconds=10.0)
    async with Redis.from_url(store.url) as redis:
        await redis.hset(KEY, mapping={"who": "s1", "p:toy": "old"})
        await copies.retire(KEY, 60)
        await redis.hsetnx(KEY, "who", "s1")
        who, extract = await copies.read(KEY, ("who", "p:toy"), ())
        lives = await redis.ttl(KEY)
    await copies.close()

    assert who not in {b"s1", None}
    assert extract is None
    assert 0 < lives <= 60
