"""``partnerenrich forget``: nothing of the person is left, nothing is looked up again, and no value is shown."""

from __future__ import annotations

import json

import pytest
import yaml
from click.testing import CliRunner

from partnerenrich_server.cli import main

PAT = b'{"anonymousId": "device-1", "traits": {"email": "pat@example.test"}}\n'
SAM = b'{"anonymousId": "device-2", "traits": {"email": "sam@example.test"}}\n'
CANARIES = ["pat.canary@example.test", "07700900123", "user-canary"]


@pytest.fixture
def kept(config, tmp_path):
    """The configuration with a store that is kept."""
    written = yaml.safe_load(config.read_text())
    config.write_text(json.dumps(written | {"store": f"embedded:{tmp_path / 'memory'}", "default_region": "GB"}))
    return config


@pytest.fixture
def enriched(kept, partnerenrich):
    """Outcome of each event in a run of its own."""

    def enriched(events):
        lines = partnerenrich("run", "--config", kept, stdin=events).stdout.splitlines()
        return [json.loads(line)["context"]["enrichment"]["loyalty"]["outcome"] for line in lines]

    return enriched


def test_a_person_is_forgotten_and_can_come_back(kept, partnerenrich, enriched):
    assert enriched(PAT + SAM) == ["fresh", "fresh"]

    done = partnerenrich("forget", "--config", kept, "--org", "acme", "--email", "-", stdin=b"Pat@example.test\n")

    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout.decode().splitlines() == [
        "removed from 1 device: 1 link record, 1 visitor record, 0 browser copies",
        "suppressed for ever",
    ]
    assert enriched(PAT + b'{"anonymousId": "device-1"}\n' + SAM) == ["opted_out", "opted_out", "hit"]

    lifted = partnerenrich("forget", "--config", kept, "--email", "-", "--lift", stdin=b"pat@example.test")
    assert lifted.stdout == b"taken off the suppression list\n"
    assert enriched(PAT) == ["fresh"]


def test_a_device_is_forgotten_for_some_days(kept, partnerenrich, enriched):
    assert enriched(PAT) == ["fresh"]

    done = partnerenrich("forget", "--config", kept, "--canonical-id", "device-1", "--for", "30d", "--json")

    told = json.loads(done.stdout)
    assert told.pop("until").endswith("+00:00")
    assert told == {
        "org": "acme",
        "by": "canonical_id",
        "was_suppressed": False,
        "staged": {},
        "suppressed": True,
        "removed": {"devices": 1, "link_records": 1, "visitor_records": 1, "browser_copies": 0},
        "also_known_by": ["email"],
    }
    assert enriched(PAT) == ["opted_out"]


def test_a_run_that_is_under_way_hears_of_it(kept, partnerenrich, started):
    run = started("run", "--config", kept)
    run.stdin.write(PAT)
    run.stdin.flush()
    assert b'"fresh"' in run.stdout.readline()
    assert partnerenrich("forget", "--config", kept, "--email", "-", stdin=b"pat@example.test").returncode == 0
    run.stdin.write(PAT)
    run.stdin.flush()
    assert b'"opted_out"' in run.stdout.readline()
    run.stdin.close()
    assert run.wait(30) == 0


@pytest.mark.parametrize(
    ("arguments", "stdin", "reason"),
    [
        (["--email", CANARIES[0]], b"", "--email takes only -"),
        (["--phone", CANARIES[1]], b"", "--phone takes only -"),
        (["--user-id", CANARIES[2]], b"", "--user-id takes only -"),
        (["--email", "-", CANARIES[0]], b"", "standard input"),
        ([CANARIES[0]], b"", "standard input"),
        (["--email", "-"], CANARIES[2].encode(), "standard input is no e-mail address"),
        (["--phone", "-"], CANARIES[0].encode(), "standard input is no phone number"),
        (["--email", "-"], f"{CANARIES[0]}\n{CANARIES[0]}".encode(), "one e-mail address on one line"),
        (["--email", "-"], b"", "one e-mail address on one line"),
        (["--email", "-"], b"\xff" + CANARIES[0].encode(), "not UTF-8"),
        (["--email", "-", "--for", CANARIES[0]], b"", "--for"),
        (["--email", "-", "--for", "0d"], b"", "30d, or ever"),
        (["--email", "-", "--lift", "--for", "ever"], b"", "exclude each other"),
        (["--email", "-", "--phone", "-"], b"", "name one of"),
        ([], b"", "name one of"),
        (["--email", "-", "--org", "nobody"], CANARIES[0].encode(), "not configured"),
        (["--email", "-", "--store", "embedded:"], CANARIES[0].encode(), "private to one process"),
    ],
)
def test_misuse_says_why_and_repeats_no_value(tmp_path, arguments, stdin, reason):
    config = tmp_path / "config.yaml"
    config.write_text(f"org: acme\nstore: embedded:{tmp_path / 'memory'}\nintegrations: [{{provider: loyalty}}]\n")

    done = CliRunner().invoke(main, ["forget", "--config", str(config), *arguments], input=stdin)

    assert done.exit_code == 2
    assert reason in done.stderr
    assert not [word for word in CANARIES if word in done.output]


def test_a_closed_standard_input_is_told(kept, redirected):
    done = redirected("<&-", "forget", "--config", kept, "--email", "-")
    assert (done.returncode, done.stderr[:32]) == (2, b"Error: standard input is closed;")


def test_a_configuration_without_a_store_is_explained(config, partnerenrich):
    done = partnerenrich("forget", "--config", config, "--email", "-", stdin=b"pat@example.test")

    assert done.returncode == 2
    assert b"embedded:, which is private" in done.stderr


def test_with_several_organisations_one_must_be_named(kept, partnerenrich):
    written = yaml.safe_load(kept.read_text())
    integrations = written.pop("integrations")
    del written["org"]
    kept.write_text(json.dumps(written | {"orgs": {"acme": {"integrations": integrations}, "other": {}}}))

    done = partnerenrich("forget", "--config", kept, "--email", "-", stdin=b"pat@example.test")

    assert done.returncode == 2
    assert b"--org is required with several organisations: acme, other" in done.stderr


def test_a_store_that_does_not_answer_is_a_failure(kept, partnerenrich):
    written = yaml.safe_load(kept.read_text()) | {"key": "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY="}
    kept.write_text(json.dumps(written | {"store": "redis://127.0.0.1:9"}))

    done = partnerenrich("forget", "--config", kept, "--email", "-", stdin=CANARIES[0].encode())

    assert done.returncode == 1
    assert b"the store does not answer" in done.stderr
    assert CANARIES[0].encode() not in done.stdout + done.stderr
