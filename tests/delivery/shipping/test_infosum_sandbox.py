"""From a file to a published dataset at the imitation of a real partner, with a kill on the way."""

from __future__ import annotations

import json
import subprocess
import sys

import httpx
import pytest

from partnerenrich_server.catalog import installed
from partnerenrich_server.sandboxes import serve

PEOPLE = 200


@pytest.fixture
def sandbox(tmp_path):
    """The sandbox, whose importers read from the folder of the stage."""
    with serve([installed(None).partners["infosum"]]) as sandboxes:
        base = sandboxes["infosum"].settings["base_url"]
        httpx.put(f"{base}/_sandbox/connector", json={"url": (tmp_path / "staging").as_uri()}).raise_for_status()
        httpx.post(f"{base}/_sandbox", json={"latency_s": 0.1}).raise_for_status()
        yield sandboxes["infosum"]


@pytest.fixture
def config(tmp_path, sandbox):
    integration = {"provider": "infosum", "settings": dict(sandbox.settings), "deliver": {"staging": "staging"}}
    path = tmp_path / "config.yaml"
    path.write_text(json.dumps({"org": "acme", "integrations": [integration]}))
    return path


def command(*words):
    return [sys.executable, "-c", "from partnerenrich_server.cli import main; main()", *words]


def run(*words):
    done = subprocess.run(command(*words), capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr + done.stdout
    return done.stdout


@pytest.mark.timeout(120)
def test_a_killed_delivery_is_published_once(tmp_path, config, sandbox):
    people = tmp_path / "people.csv"
    lines = [f"customer-{number},p{number}@example.test" for number in range(PEOPLE)]
    people.write_text("customer_id,email\n" + "\n".join(lines) + "\n")
    run("deliver", "--config", str(config), "--integration", "infosum", str(people))

    with subprocess.Popen(command("ship", "--config", str(config), "--lease", "8"), stdout=subprocess.PIPE) as process:
        told = [process.stdout.readline() for _ in range(3)]
        process.kill()

    report = json.loads(run("ship", "--config", str(config), "--lease", "8", "--once", "--json"))

    (delivery,) = report["settled"]
    assert (delivery["state"], delivery["rows"], delivery["receipt"]["accepted"]) == ("published", PEOPLE, PEOPLE)
    datasets = httpx.get(f"{sandbox.settings['base_url']}/_sandbox").json()["datasets"]
    shown = datasets[sandbox.settings["dataset_id"]]
    assert (shown["publications"], shown["records"]) == (1, PEOPLE)
    assert b"running" in told[-1]
