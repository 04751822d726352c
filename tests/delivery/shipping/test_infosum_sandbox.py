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
MANY = 20_000


def stages_take(seconds, sandbox):
    httpx.post(f"{sandbox.settings['base_url']}/_sandbox", json={"latency_s": seconds}).raise_for_status()


@pytest.fixture
def sandbox(tmp_path):
    """The sandbox, whose importers read from the folder of the stage."""
    with serve([installed(None).partners["infosum"]]) as sandboxes:
        base = sandboxes["infosum"].settings["base_url"]
        httpx.put(f"{base}/_sandbox/connector", json={"url": (tmp_path / "staging").as_uri()}).raise_for_status()
        stages_take(0.1, sandboxes["infosum"])
        yield sandboxes["infosum"]


@pytest.fixture
def config(tmp_path, sandbox):
    integration = {"provider": "infosum", "settings": dict(sandbox.settings), "deliver": {"staging": "staging"}}
    path = tmp_path / "config.yaml"
    path.write_text(json.dumps({"org": "acme", "integrations": [integration]}))
    return path


@pytest.fixture
def config_of_bucket(tmp_path, sandbox, s3_store):
    """The same with SeaweedFS in between, from which the importers read."""
    deliver = s3_store.settings()
    connector = {"url": deliver["staging"], "options": deliver["options"]}
    httpx.put(f"{sandbox.settings['base_url']}/_sandbox/connector", json=connector).raise_for_status()
    integration = {"provider": "infosum", "settings": dict(sandbox.settings), "deliver": deliver}
    path = tmp_path / "config.yaml"
    raw = {"org": "acme", "default_region": "US", "store": "embedded:memory", "integrations": [integration]}
    path.write_text(json.dumps(raw))
    return path


def command(*words):
    return [sys.executable, "-c", "from partnerenrich_server.cli import main; main()", *words]


def run(*words, stdin=None):
    done = subprocess.run(command(*words), input=stdin, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr + done.stdout
    return done.stdout


@pytest.mark.timeout(120)
def test_a_killed_delivery_is_published_once(tmp_path, config, sandbox):
    people = tmp_path / "people.csv"
    lines = [f"customer-{number},p{number}@example.test" for number in range(PEOPLE)]
    people.write_text("customer_id,email\n" + "\n".join(lines) + "\n")
    run("deliver", "--config", str(config), "--integration", "infosum", str(people))

    stages_take(1, sandbox)  # so long that each is seen to run
    with subprocess.Popen(command("ship", "--config", str(config), "--lease", "8"), stdout=subprocess.PIPE) as process:
        told = [process.stdout.readline() for _ in range(3)]
        process.kill()
    stages_take(0.1, sandbox)

    report = json.loads(run("ship", "--config", str(config), "--lease", "8", "--once", "--json"))

    (delivery,) = report["settled"]
    assert (delivery["state"], delivery["rows"], delivery["receipt"]["accepted"]) == ("published", PEOPLE, PEOPLE)
    datasets = httpx.get(f"{sandbox.settings['base_url']}/_sandbox").json()["datasets"]
    shown = datasets[sandbox.settings["dataset_id"]]
    assert (shown["publications"], shown["records"]) == (1, PEOPLE)
    assert b"running" in told[-1]


def write_people(path):
    """A file as it comes: white space, capitals, phones in several ways, and rows of which nothing is usable."""
    with path.open("w") as file:
        file.write("customer_id,email,first_name,last_name,phone\n")
        for number in range(MANY):
            phone = f"555{number // 10_000 % 900 + 100}{number % 10_000:04}"
            if number % 200 == 0:
                file.write(f"c{number},no address,Pat,Doe,12\n")
            elif number % 333 == 0:
                file.write(f"c{number},p{number}@example.test,one,cell,too,many\n")
            elif number % 7 == 0:
                file.write(f"c{number}, P{number}@Example.test ,Pat,Doe,00 1 ({phone[:3]}) {phone[3:6]}-{phone[6:]}\n")
            else:
                file.write(f"c{number},p{number}@example.test,Pat,Doe,+1{phone}\n")


@pytest.mark.slow
@pytest.mark.timeout(180)
def test_a_file_is_published_through_a_bucket(tmp_path, config_of_bucket, sandbox):
    """All that is usable in it; the next time without who was forgotten, before it was sealed or after."""
    config, people = ("--config", str(config_of_bucket)), tmp_path / "people.csv"
    write_people(people)
    deliver = ("deliver", *config, "--integration", "infosum", str(people), "--json")

    told = json.loads(run(*deliver))
    assert told["rejected"] == {"unusable email, phone": 100, "too many cells in a line": 60}
    assert (told["records"], published(config, sandbox)) == (MANY - 160, MANY - 160)

    run("forget", *config, "--email", "-", stdin="p1@example.test")
    told = json.loads(run(*deliver))
    run("forget", *config, "--phone", "-", stdin="+1 555 100 0002")

    assert told["rejected"]["on the suppression list"] == 1
    assert (told["records"], published(config, sandbox)) == (MANY - 161, MANY - 162)


def published(config, sandbox):
    """How many records InfoSum shows after a `ship --once`."""
    settled = json.loads(run("ship", *config, "--once", "--json"))["settled"]
    assert [delivery["state"] for delivery in settled if delivery["state"] != "superseded"] == ["published"]
    datasets = httpx.get(f"{sandbox.settings['base_url']}/_sandbox").json()["datasets"]
    return datasets[sandbox.settings["dataset_id"]]["records"]
