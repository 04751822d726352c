"""How many connections one process has to its store."""

import asyncio

import pytest

from partnerenrich.store import Store


async def test_a_store_that_hangs_for_a_moment_costs_few_connections(new_server):
    server = new_server()
    store = Store(server.url, command_seconds=5)
    server.pause()
    leases = []
    for number in range(60):
        leases.append(asyncio.create_task(store.lease((f"{{b0}}:{number}:~lease", 1000, f"{{b0}}:{number}"))))
        await asyncio.sleep(0.005)
    server.resume()
    granted = [ours for ours, _ in await asyncio.gather(*leases)]
    connections = server.ask("CLIENT", "LIST").count(b"\n")
    await store.close()

    assert all(granted)
    assert connections < 20


@pytest.mark.parametrize("scheme", ["redis", "redis+cluster"])
async def test_a_connection_that_the_store_has_closed_meanwhile_is_made_anew(new_server, scheme):
    """As Redis does with those that were idle for its `timeout`. It is no outage."""
    server = new_server("cluster")  # of one node, which serves plain clients as well
    store = Store(f"{scheme}://{server.url.partition('://')[2]}", command_seconds=10)
    for number in range(3):
        store.queue([("SET", "{b0}:k", str(number).encode(), "PX", 60_000)])
        await store.flush()
        server.ask("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
        await asyncio.sleep(0.02)  # the end of the connection comes
        assert await store.read(["{b0}:k"]) == [str(number).encode()]
        server.ask("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
        await asyncio.sleep(0.02)
    await store.close()

    assert store.failures == 0
