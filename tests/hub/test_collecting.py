"""A hub whose organisation delivers batches stages the records of its events."""

from __future__ import annotations

import json

import zstandard

ROOM = """
from attrs import frozen
from partnerenrich import Delivery, Partner, Receipt, hookimpl

MAPPING = '''
events: {identify: {mappings: [{source: $traits.email, target: email, transform: sha256}]}}
'''


@frozen
class Settings:
    pass


@hookimpl
def partner():
    return Partner(title="Room", config=Settings, delivery=Delivery(formats=("csv",), default_blueprint=MAPPING))


@hookimpl
async def deliver_batch(batch):
    return Receipt("published")
"""


async def test_records_of_the_pages_events_are_staged_when_the_hub_ends(
    raw, store, open_running_hub, plugins_dir, tmp_path
):
    (plugins_dir / "room.py").write_text(ROOM)
    staging = tmp_path / "staging"
    deliver = {"staging": str(staging), "collect": "append"}
    raw["integrations"].append({"provider": "room", "deliver": deliver})

    async with open_running_hub(raw, store) as hub:
        browser = hub.browser()
        await browser.identify("pat@example.test")
        await browser.call("POST", "/v1/events", body={"type": "page"})

    lines = [
        json.loads(line)
        for file in staging.rglob("incoming/*")
        for line in zstandard.ZstdDecompressor().stream_reader(file.read_bytes()).read().splitlines()
    ]
    assert len(lines) == 1
    assert "pat@example.test" not in json.dumps(lines)
