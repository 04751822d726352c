"""Records of events are durable before a run reports success, and a hub never waits for them."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys

import pytest
import yaml

from partnerenrich.events import Event
from partnerenrich_server.delivery import collector as collectors
from partnerenrich_server.delivery.collector import Collector
from partnerenrich_server.delivery.storage import Storage, StorageError

APPEND = {"collect": "append"}


def identify(name):
    return {"type": "identify", "userId": name, "traits": {"email": f"{name}@example.test"}}


def event(name):
    return Event.parse(json.dumps(identify(name)).encode(), "acme")


@pytest.fixture
def run(partners, tmp_path):
    """``run(lines, **integration)``: the command with one destination; without lines, over the same file again."""

    def run(lines=None, **integration):
        written = {"provider": "room", "deliver": {"staging": "staging", **APPEND}, **integration}
        raw = {"org": "acme", "plugins_dir": "partners", "integrations": [written]}
        (tmp_path / "config.yaml").write_text(yaml.safe_dump(raw))
        if lines is not None:
            (tmp_path / "events.ndjson").write_text("\n".join(map(json.dumps, lines)))
        command = [sys.executable, "-c", "from partnerenrich_server.cli import main; main()", "run"]
        command += ["--config", "config.yaml", "--input", "events.ndjson", "--output", "out.ndjson", "--json"]
        environment = {key: value for key, value in os.environ.items() if key != "PARTNERENRICH_DEBUG"}
        return subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)

    return run


async def sealed_ids(stage):
    manifest = await stage.flush(now=0, force=True)
    return sorted(row["customer_id"] for row in stage.rows(manifest)) if manifest else []


async def test_a_run_feeds_the_destination(run, open_stage):
    done = run([identify("pat"), identify("kim"), {"type": "page"}, "no event"])

    assert done.returncode == 0
    assert json.loads(done.stderr.splitlines()[-1])["collected"] == {"acme/room": 2}
    assert await sealed_ids(open_stage(APPEND)) == ["kim", "pat"]


async def test_a_run_that_comes_again_adds_nothing(run, open_stage):
    """As after a crash: the same lines of the same file."""
    run([identify("pat"), identify("pat")])
    run()

    assert await sealed_ids(open_stage(APPEND)) == ["pat", "pat"]


async def test_another_file_of_the_same_name_is_another_input(run, open_stage):
    """As with a name that is used every night."""
    run([identify("pat")])
    run([identify("pat")])

    assert await sealed_ids(open_stage(APPEND)) == ["pat", "pat"]


def test_a_run_fails_when_its_records_are_not_durable(run):
    """Though the events themselves were written."""
    done = run([identify("pat-canary")], deliver=_unreachable())

    assert done.returncode == 1
    assert "the object storage cannot be reached" in done.stderr
    assert "canary" not in done.stderr


def _unreachable():
    options = {"endpoint": "http://127.0.0.1:1", "access_key_id": "id", "secret_access_key": "canary", "region": "x"}
    return {"staging": "s3://nowhere", "options": options, **APPEND}


def test_a_destination_takes_no_part_in_the_enrichment(run, tmp_path):
    """It knows nothing of visitors."""
    run([identify("pat")])

    (written,) = map(json.loads, (tmp_path / "out.ndjson").read_text().splitlines())
    assert "room" not in written.get("context", {}).get("enrichment", {})


async def test_who_is_suppressed_is_taken_out(configured, open_stage):
    """Whatever consent the event grants, and whatever was sealed before."""
    forgotten = set()
    collector = Collector([configured({})], lambda event: event.head.userId in forgotten)
    collector.add([event("pat"), event("kim")])
    collector.flush()
    assert await sealed_ids(open_stage()) == ["kim", "pat"]

    forgotten.add("pat")
    collector.add([event("pat")])
    collector.flush()

    assert await sealed_ids(open_stage()) == ["kim"]


async def test_records_are_written_when_they_are_many(configured, open_stage, monkeypatch):
    """So memory is bounded."""
    monkeypatch.setattr(collectors, "BYTES", 2000)
    collector = Collector([configured(APPEND)])

    for number in range(100):
        collector.add([event(f"p{number}")])

    assert collector.collected["acme/room"] > 80
    collector.flush()
    assert len(await sealed_ids(open_stage(APPEND))) == 100


async def test_records_are_written_when_they_are_old(configured, monkeypatch):
    monkeypatch.setattr(collectors, "SECONDS", 0.05)
    collector = Collector([configured(APPEND)])

    async with collector.open():
        await collector.collect([event("pat")])
        for _ in range(1000):
            if collector.collected["acme/room"]:
                break
            await asyncio.sleep(0.02)

        assert collector.collected == {"acme/room": 1}


async def test_the_end_writes_all(configured, open_stage):
    collector = Collector([configured(APPEND)])

    async with collector.open():
        await collector.collect([event("pat"), event("kim")])

    assert await sealed_ids(open_stage(APPEND)) == ["kim", "pat"]


async def test_while_the_storage_fails_records_wait_and_then_are_counted(configured, open_stage, monkeypatch, caplog):
    """Whoever collects goes on."""
    monkeypatch.setattr(collectors, "BYTES", 1)
    monkeypatch.setattr(collectors, "MOST_BYTES", 400)
    collector = Collector([configured(APPEND)])

    def refuse(*_):
        raise StorageError("the object storage cannot be reached, or fails")

    with monkeypatch.context() as patched:
        patched.setattr(Storage, "create", refuse)
        for number in range(10):
            await collector.collect([event(f"p{number}")])

    assert 0 < collector.lost < 10
    assert f"{collector.lost} were lost" in caplog.text
    assert "example.test" not in caplog.text
    collector.flush()
    assert len(await sealed_ids(open_stage(APPEND))) == 10 - collector.lost


async def test_several_threads_collect_at_once(configured, open_stage):
    collector = Collector([configured(APPEND)])

    await asyncio.gather(*(collector.collect([event(f"p{n}") for n in range(k, k + 10)]) for k in range(0, 100, 10)))
    collector.flush()

    assert len(await sealed_ids(open_stage(APPEND))) == 100
