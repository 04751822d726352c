"""The hooks as the core calls them, over a socket and with the core's own client."""

from __future__ import annotations

import time

import attrs
import httpx
import pytest

from partnerenrich import Call, plugins
from partnerenrich.http import hosts_of, open_client
from partnerenrich.settings import structure
from partnerenrich.testing.loopback import Witness, served


@pytest.fixture
def served_sandbox():
    """The partner, and settings that reach its sandbox, whose stages take no time."""
    partner = plugins.load(["infosum"]).partner("infosum")
    sandbox = partner.sandbox()
    with served(Witness(sandbox.app, "/infosum")) as port:
        base_url = f"http://127.0.0.1:{port}/infosum"
        with httpx.Client(verify=False) as http:
            http.post(f"{base_url}/_sandbox", json={"latency_s": 0}).raise_for_status()
        yield partner, structure(partner.facts.config, {**sandbox.settings, "base_url": base_url}, "settings")


@pytest.mark.parametrize("mode", ["staged", "local_upload"])
async def test_a_batch_is_published(served_sandbox, bench, csv_of, made_people, mode):
    """In one call, where InfoSum takes no time; the first one reads from the sandbox's own bucket."""
    partner, config = served_sandbox
    limits = attrs.evolve(partner.facts.limits, timeout=20)
    async with open_client(limits, allowed_hosts=hosts_of(config)) as http:
        told = (await http.get(f"{config.base_url}/_sandbox/connector")).json()
        bench.folder = type(bench.folder)(told["sftp_connector"]["root_directory"])
        batch = bench.stage(csv_of(made_people(25)), mode=mode)
        call = Call("acme", "infosum", "infosum", time.monotonic() + 30)

        receipt = await partner.deliver_batch(config, http, batch, call)
        shown = (await http.get(f"{config.base_url}/_sandbox")).json()["datasets"][config.dataset_id]

    assert (receipt.state, receipt.accepted) == ("published", 25)
    assert (shown["records"], shown["publications"]) == (25, 1)
