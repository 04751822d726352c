"""How many connections one process has to its store."""

import asyncio

import pytest

from partnerenrich.store import Store


@pytest.mark.xfail(
    raises=AssertionError,
    reason="each turn of the event loop sends its leases over a connection of its own, however many are under way, "
    "and the pool keeps them all for ever",
)
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
