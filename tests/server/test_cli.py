"""The command line as a whole, and the commands that do not enrich a stream."""

from __future__ import annotations

import base64
import importlib
import json
import os
import re
import signal
import subprocess
import sys

import click
import httpx
import jsonschema
import pytest
import yaml

from partnerenrich_server.cli import COMMANDS
from partnerenrich_server.failures import explained


def test_help_lists_every_command(partnerenrich):
    done = partnerenrich("--help")
    assert done.returncode == 0
    for name, summary in COMMANDS.items():
        assert name in done.stdout.decode()
        assert summary in done.stdout.decode()


def test_help_imports_nothing_heavy():
    heavy = ("httpx", "redis", "rich", "starlette", "cryptography", "uvicorn", "partnerenrich", "pydantic", "asyncio")
    code = f"import sys, partnerenrich_server.cli as c; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_a_module_and_help(name):
    command = importlib.import_module(f"partnerenrich_server.commands.{name}").command
    assert isinstance(command, click.Command)
    assert command.help


def test_the_version(partnerenrich):
    assert partnerenrich("--version").stdout.startswith(b"partnerenrich, version 0.")


def test_an_unknown_command_is_bad_usage(partnerenrich):
    done = partnerenrich("rnu")
    assert done.returncode == 2
    assert b"No such command 'rnu'" in done.stderr


@pytest.mark.parametrize("arguments", [["--version"], ["--help"], ["schema"], ["schema", "--help"]])
def test_a_result_that_cannot_be_written_is_told_in_one_line(redirected, arguments):
    buffered = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    done = redirected(">/dev/full", *arguments, env=buffered)
    assert (done.returncode, done.stderr) == (1, b"Error: No space left on device\n")


def test_a_traceback_changes_no_exit_code(redirected, config):
    config.write_text("org: acme\nnope: 1\n")
    done = redirected("", "check", "--config", config, env=os.environ | {"PARTNERENRICH_DEBUG": "1"})
    told = done.stderr.decode()

    assert done.returncode == 2
    assert told.startswith("Traceback")
    assert "\nError: nope (line 2): " in told


def test_an_unforeseen_error_shows_its_place_and_never_its_text():
    with pytest.raises(KeyError) as caught:
        {}["pat@example.test"]
    failure = explained(caught.value)
    assert failure.exit_code == 1
    assert "KeyError at test_cli.py:" in failure.message
    assert "example.test" not in failure.message


def test_generated_keys_are_32_random_bytes(partnerenrich):
    keys = {partnerenrich("secrets", "generate-key").stdout.decode().strip() for _ in range(2)}
    assert len(keys) == 2
    assert all(len(base64.b64decode(key, validate=True)) == 32 for key in keys)


# plugins


@pytest.fixture
def mixed_dir(plugins_dir):
    """The partner, an extension, and two files that do not load."""
    (plugins_dir / "timing.py").write_text(
        "from partnerenrich import hookimpl\n@hookimpl(wrapper=True)\ndef resolve_id():\n    return (yield)\n"
    )
    (plugins_dir / "broken.py").write_text("import no_such_module\n")
    (plugins_dir / "empty.py").write_text("\n")
    return plugins_dir


def test_plugins_as_json(partnerenrich, mixed_dir):
    done = partnerenrich("plugins", "--json", "--plugins-dir", mixed_dir)
    listed = json.loads(done.stdout)

    assert done.returncode == 0
    assert listed["partners"]["loyalty"] == {
        "origin": str(mixed_dir / "loyalty.py"),
        "title": "Loyalty Club",
        "category": "other",
        "supports": ["check", "resolve_id", "sandbox"],
        "linking_keys": [{"source": "email", "key": "mail", "hash": "none"}],
        "docs": None,
    }
    assert listed["extensions"] == {"timing": {"origin": str(mixed_dir / "timing.py")}}
    assert "no_such_module" in listed["failures"]["broken"]
    assert "hookimpl" in listed["failures"]["empty"]


def test_plugins_as_text(partnerenrich, mixed_dir):
    told = partnerenrich("plugins", "--plugins-dir", mixed_dir).stdout.decode()
    assert "Loyalty Club" in told
    assert "timing: an extension" in told
    assert "FAILED  plugin 'broken'" in told


# check


def test_check_says_for_each_integration_whether_it_works(partnerenrich, config):
    done = partnerenrich("check", "--config", config)
    assert (done.returncode, done.stdout) == (0, b"ok      acme/loyalty: works\n")


def test_check_fails_when_a_partner_refuses(partnerenrich, config, sandbox):
    raw = json.loads(config.read_text())
    raw["integrations"][0]["limits"] = {"timeout": 0.5}
    config.write_text(json.dumps(raw))
    httpx.post(f"{sandbox.base_url}/_faults", json={"mode": "timeout", "times": 100})
    done = partnerenrich("check", "--config", config, "--json")
    (result,) = json.loads(done.stdout)
    assert done.returncode == 1
    assert (result["org"], result["integration"], result["ok"]) == ("acme", "loyalty", False)
    assert result["message"]


@pytest.fixture
def half_broken(config):
    """The configuration with a partner more, which is not installed, and one that is switched off."""
    raw = json.loads(config.read_text())
    raw["integrations"] += [{"provider": "nosuch", "name": "second"}, {"provider": "neither", "enabled": False}]
    config.write_text(json.dumps(raw))
    return config


def test_check_tells_of_a_partner_that_does_not_load(partnerenrich, half_broken):
    done = partnerenrich("check", "--config", half_broken)
    works, failed = done.stdout.decode().splitlines()

    assert done.returncode == 1
    assert works == "ok      acme/loyalty: works"
    assert failed.startswith("FAILED  acme/second: no plugin 'nosuch' is installed (installed: ")


def test_check_as_json_has_an_entry_for_a_partner_that_does_not_load(partnerenrich, half_broken):
    done = partnerenrich("check", "--config", half_broken, "--json")
    works, failed = json.loads(done.stdout)

    assert done.returncode == 1
    assert (works["integration"], works["ok"]) == ("loyalty", True)
    assert (failed["org"], failed["integration"], failed["ok"]) == ("acme", "second", False)
    assert failed["message"].startswith("no plugin 'nosuch' is installed")


# explain


def test_explain_tells_the_decisions_and_no_personal_value(partnerenrich, config):
    event = json.dumps({"type": "track", "userId": "u-77", "properties": {"email": "pat@example.test"}}).encode()
    done = partnerenrich("explain", "--config", config, "-", stdin=event)

    assert done.returncode == 0
    (partner,) = json.loads(done.stdout)["partners"]
    assert partner["result"]["outcome"] == "fresh"
    for personal in (b"example.test", b"u-77", b"Value Hunter"):
        assert personal not in done.stdout


def test_explain_reads_a_file_of_many_lines(partnerenrich, config, tmp_path):
    path = tmp_path / "event.json"
    path.write_text(json.dumps({"type": "track", "userId": "u-77"}, indent=2))
    assert partnerenrich("explain", "--config", config, path).returncode == 0


def test_explain_refuses_what_is_no_event(partnerenrich, config):
    done = partnerenrich("explain", "--config", config, "-", stdin=b"pat@example.test")
    assert (done.returncode, done.stderr) == (2, b"Error: the event is not JSON\n")


def test_explain_takes_a_byte_order_mark(partnerenrich, config):
    assert partnerenrich("explain", "--config", config, "-", stdin=b"\xef\xbb\xbf {}\n").returncode == 0


@pytest.mark.parametrize(("redirection", "name"), [("<&-", "standard input"), ("</dev/null >&-", "standard output")])
def test_explain_tells_that_a_stream_is_closed(redirected, config, redirection, name):
    done = redirected(redirection, "explain", "--config", config, "-")
    assert done.returncode == 2
    assert done.stderr.decode().startswith(f"Error: {name} is closed; redirect it")


def test_explain_over_several_organisations_needs_one_that_is_named(partnerenrich, several):
    done = partnerenrich("explain", "--config", several, "-", stdin=b"{}")
    told = "--org: say whose events these are: one of acme, other; or let org_from in the configuration find it"
    assert (done.returncode, done.stderr.decode()) == (2, f"Error: {told}\n")
    assert partnerenrich("explain", "--config", several, "--org", "other", "-", stdin=b"{}").returncode == 0


def test_explain_tells_where_the_organisation_was_looked_for(partnerenrich, several):
    several.write_text(json.dumps(json.loads(several.read_text()) | {"org_from": "context.shop"}))
    done = partnerenrich("explain", "--config", several, "-", stdin=b'{"context": {"shop": "nobody"}}')

    assert done.returncode == 2
    assert done.stderr.decode() == (
        "Error: the event belongs to no configured organisation (acme, other): org_from looks at context.shop in it; "
        "mend that, or name one by --org\n"
    )


# schema


def test_schema_describes_the_settings_of_each_partner(partnerenrich, config, plugins_dir):
    schema = json.loads(partnerenrich("schema", "--plugins-dir", plugins_dir).stdout)
    jsonschema.Draft202012Validator.check_schema(schema)
    validator = jsonschema.Draft202012Validator(schema)
    raw = json.loads(config.read_text())
    assert validator.is_valid(raw)

    del raw["integrations"][0]["settings"]["token"]
    assert not validator.is_valid(raw)


# sandbox


def test_sandbox_serves_and_prints_one_line_of_json(started, plugins_dir):
    process = started("sandbox", "loyalty", "--json", "--plugins-dir", plugins_dir)
    served = json.loads(process.stdout.readline())["loyalty"]

    assert served["settings"] == {"token": "sandbox-token", "base_url": served["base_url"]}
    assert set(served["sample"]) == {"known", "unknown", "opted_out"}
    found = httpx.post(f"{served['base_url']}/find", json={"mail": served["sample"]["known"][0]["email"]})
    assert found.json()["id"] == "p1"
    process.send_signal(signal.SIGTERM)
    assert process.wait(30) == 0
    assert process.stdout.read() == b""


def test_sandbox_prints_every_group_of_the_sample(started, plugins_dir):
    """One that the plugin leaves out is empty."""
    module = plugins_dir / "loyalty.py"
    module.write_text(module.read_text().replace('"opted_out": [{"email": "gone@example.test"}],', ""))
    process = started("sandbox", "loyalty", "--json", "--plugins-dir", plugins_dir)
    sample = json.loads(process.stdout.readline())["loyalty"]["sample"]

    assert [len(sample[group]) for group in ("known", "unknown", "opted_out")] == [2, 1, 0]


def test_sandbox_prints_settings_that_can_be_pasted(started, plugins_dir, partnerenrich, tmp_path):
    process = started("sandbox", "loyalty", "--plugins-dir", plugins_dir)
    lines = [process.stdout.readline() for _ in range(5)]
    config = tmp_path / "pasted.yaml"
    config.write_text(f"org: acme\nplugins_dir: {plugins_dir}\n" + b"".join(lines).decode())
    done = partnerenrich("run", "--config", config, stdin=b'{"properties": {"email": "pat@example.test"}}')

    assert json.loads(done.stdout)["context"]["vendor_ids"] == {"loyalty": "p1"}
    process.send_signal(signal.SIGINT)
    assert process.wait(30) == 0


def test_sandbox_takes_a_port(started, plugins_dir, sandbox):
    taken = httpx.URL(sandbox.base_url).port
    process = started("sandbox", "loyalty", "--port", taken, "--plugins-dir", plugins_dir)
    _, told = process.communicate(timeout=30)
    assert process.returncode == 1
    assert f"port {taken}".encode() in told


@pytest.mark.parametrize(("provider", "told"), [("nothing", "no sandbox 'nothing'"), ("broken", "no_such_module")])
def test_sandbox_of_something_else_is_bad_usage(partnerenrich, mixed_dir, provider, told):
    done = partnerenrich("sandbox", provider, "--plugins-dir", mixed_dir)
    assert done.returncode == 2
    assert told in done.stderr.decode()


# demo


def test_demo_shows_an_enriched_event_and_what_became_of_all(partnerenrich, plugins_dir):
    done = partnerenrich("demo", "--once", "--plugins-dir", plugins_dir)
    told = done.stdout.decode()

    assert done.returncode == 0
    assert '+       "loyalty": "p1"' in told
    for outcome in ("fresh", "hit", "absent", "denied", "opted_out", "skipped"):
        assert f"  {outcome} " in told
    assert "partner calls" in told
    assert done.stderr == b""


def test_demo_serves_a_page_and_the_sandboxes_until_a_signal(started, plugins_dir):
    process = started("demo", "--plugins-dir", plugins_dir)
    told = b""
    for line in process.stdout:
        told += line
        if line.startswith(b"Events of the page"):
            break
    url = re.search(rb"Open (http://127\.0\.0\.1:\d+/)", told)[1].decode()
    settings = yaml.safe_load(told[told.index(b"integrations:") :].partition(b"\n\n")[0])
    served = next(i["settings"] for i in settings["integrations"] if i["provider"] == "loyalty")
    page = httpx.get(url)
    event = {"type": "track", "event": "Product Viewed"}
    httpx.post(f"{url}v1/events?key=pk-demo", json=event, headers={"origin": url.rstrip("/")}).raise_for_status()

    assert httpx.get(f"{served['base_url']}/_faults").status_code == 200
    assert "datafly.js" in page.text
    assert re.search(rb"\d\d:\d\d:\d\d  Product Viewed .*loyalty ", next(filter(bytes.strip, process.stdout)))
    process.send_signal(signal.SIGINT)
    assert process.wait(30) == 0


def test_demo_takes_a_port(started, plugins_dir, sandbox):
    taken = httpx.URL(sandbox.base_url).port
    process = started("demo", "--port", taken, "--plugins-dir", plugins_dir)
    _, told = process.communicate(timeout=30)

    assert process.returncode == 1
    assert f"port {taken}".encode() in told
