"""``partnerenrich run``, as a user meets it."""

from __future__ import annotations

import gzip
import json
import re
import shutil
import signal
from pathlib import Path

import httpx
import pytest
import yaml
import zstandard


def event(number: int, email: str | None = None) -> dict:
    properties = {"email": email} if email else {}
    return {"type": "track", "event": "Basket Viewed", "messageId": f"m{number}", "properties": properties}


def ndjson(*events) -> bytes:
    return b"".join(json.dumps(event).encode() + b"\n" for event in events)


def parsed(output: bytes) -> list[dict]:
    return [json.loads(line) for line in output.splitlines()]


EXAMPLES = Path(__file__).parents[2] / "docs" / "examples"
EVENTS = ndjson(event(1, "pat@example.test"), event(2, "nobody@example.test"), event(3), event(4, "sam@example.test"))


def test_events_come_out_enriched_in_order_from_stdin_to_stdout(partnerenrich, config):
    done = partnerenrich("run", "--config", config, stdin=EVENTS)

    assert done.returncode == 0
    out = parsed(done.stdout)
    assert [event["messageId"] for event in out] == ["m1", "m2", "m3", "m4"]
    assert out[0]["context"]["vendor_ids"] == {"loyalty": "p1"}
    assert out[0]["context"]["partner_attrs"] == {"loyalty": {"Persona": "Value Hunter", "Tier": 2}}
    assert [event["context"]["enrichment"]["loyalty"]["outcome"] for event in out] == [
        "fresh",
        "absent",
        "skipped",
        "fresh",
    ]


def test_the_summary_counts_and_names_no_visitor(partnerenrich, config):
    done = partnerenrich("run", "--config", config, stdin=EVENTS)
    told = done.stderr.decode()
    assert told.startswith("4 events in ")
    assert "3 partner calls" in told
    assert "loyalty  absent 1, fresh 2, skipped 1; 3 calls of " in told
    assert "example.test" not in told


def test_the_example_that_times_is_heard(partnerenrich, config, plugins_dir):
    shutil.copy(EXAMPLES / "timing_extension.py", plugins_dir)
    config.write_text(json.dumps(json.loads(config.read_text()) | {"extensions": ["timing_extension"]}))

    done = partnerenrich("run", "--config", config, stdin=EVENTS)

    assert len(re.findall(r"^loyalty resolve_id took \d+\.\d ms$", done.stderr.decode(), re.MULTILINE)) == 3
    assert len(parsed(done.stdout)) == 4


@pytest.mark.parametrize("compress", [bytes, gzip.compress, zstandard.compress], ids=["plain", "gzip", "zstd"])
def test_files_in_and_out(partnerenrich, config, tmp_path, compress):
    (tmp_path / "in").write_bytes(compress(EVENTS))
    out, report = tmp_path / "out", tmp_path / "summary.json"
    done = partnerenrich(
        "run", "--config", config, "--input", tmp_path / "in", "--output", out, "--summary-json", report
    )

    assert (done.returncode, done.stdout) == (0, b"")
    assert len(parsed(out.read_bytes())) == 4
    summary = json.loads(report.read_text())
    assert (summary["events"], summary["calls"], summary["rejected"]) == (4, 3, 0)
    assert summary["partners"]["loyalty"]["outcomes"] == {"absent": 1, "fresh": 2, "skipped": 1}
    assert summary["events_per_second"] > 0


def test_the_summary_as_json(partnerenrich, config):
    done = partnerenrich("run", "--config", config, "--json", stdin=EVENTS)
    assert json.loads(done.stderr)["events"] == 4


def test_lines_that_are_no_events_are_told_and_the_rest_goes_on(partnerenrich, config):
    bad = b"pat@example.test\n[]\n" + b"x" * (2 << 20) + b"\n"
    done = partnerenrich("run", "--config", config, stdin=bad + EVENTS)

    assert done.returncode == 0
    assert len(parsed(done.stdout)) == 4
    told = done.stderr.decode()
    assert "3 lines rejected" in told
    assert "line 1: is not JSON" in told
    assert "line 2: is JSON but no object" in told
    assert "line 3: is longer than 1048576 bytes" in told
    assert "example.test" not in told


def test_rejects_go_to_a_file_without_content(partnerenrich, config, tmp_path):
    rejects = tmp_path / "rejects.ndjson"
    done = partnerenrich("run", "--config", config, "--rejects", rejects, stdin=b"pat@example.test\n" * 20)

    assert done.returncode == 0
    assert parsed(rejects.read_bytes()) == [{"line": n, "reason": "is not JSON"} for n in range(1, 21)]
    assert done.stderr.decode().splitlines()[-1] == f"20 lines rejected; see {rejects}"


def test_a_kept_store_remembers_the_next_run(partnerenrich, config, tmp_path):
    store = f"embedded:{tmp_path}/store"
    one = json.loads(partnerenrich("run", "--config", config, "--store", store, "--json", stdin=EVENTS).stderr)
    two = json.loads(partnerenrich("run", "--config", config, "--store", store, "--json", stdin=EVENTS).stderr)
    assert (one["calls"], two["calls"]) == (3, 0)
    assert two["partners"]["loyalty"]["outcomes"]["hit"] == 2


def test_a_store_in_the_configuration_is_meant_from_its_folder(partnerenrich, config):
    config.write_text(json.dumps(json.loads(config.read_text()) | {"store": "embedded:memory"}))
    assert partnerenrich("run", "--config", config, stdin=EVENTS).returncode == 0
    assert (config.parent / "memory" / "key").exists()


def test_a_blueprint_makes_payloads_and_drops_the_rest(partnerenrich, config, tmp_path):
    blueprint = tmp_path / "blueprint.yaml"
    blueprint.write_text(
        yaml.safe_dump(
            {
                "version": 2,
                "global": {"mappings": [{"source": "partner_attrs.loyalty.Persona", "target": "user.persona"}]},
                "defaults": {"action": "drop", "mappings": []},
                "events": {"Basket Viewed": {"mappings": [{"source": "messageId", "target": "id"}]}},
            }
        )
    )
    other = ndjson({"type": "page", "userId": "u1"})
    done = partnerenrich("run", "--config", config, "--blueprint", blueprint, "--json", stdin=other + EVENTS)

    assert done.returncode == 0
    assert parsed(done.stdout)[0] == {"user": {"persona": "Value Hunter"}, "id": "m1"}
    assert len(parsed(done.stdout)) == 4
    assert json.loads(done.stderr)["dropped"] == 1


def test_a_payload_is_made_of_an_event_that_python_cannot_hold_entirely(partnerenrich, config, tmp_path):
    blueprint = tmp_path / "blueprint.yaml"
    mappings = [{"source": name, "target": name} for name in ("name", "value", "id")]
    blueprint.write_text(yaml.safe_dump({"global": {"mappings": mappings}}))
    lines = rb'{"name":"Cut \ud83d","id":1}' + b"\n" + b'{"value":1E400,"id":2}' + b"\n"
    done = partnerenrich("run", "--config", config, "--blueprint", blueprint, stdin=lines)

    assert done.returncode == 0
    assert parsed(done.stdout) == [{"name": "Cut \ufffd", "id": 1}, {"value": None, "id": 2}]


def test_a_failing_partner_loses_no_event(partnerenrich, config, sandbox):
    httpx.post(f"{sandbox.base_url}/_faults", json={"mode": "server_error", "times": 100})
    done = partnerenrich("run", "--config", config, stdin=EVENTS)

    assert done.returncode == 0
    outcomes = [event["context"]["enrichment"]["loyalty"]["outcome"] for event in parsed(done.stdout)]
    assert outcomes == ["error", "error", "skipped", "error"]


def test_a_broken_plugin_disables_its_own_integrations_only(partnerenrich, config, plugins_dir):
    (plugins_dir / "broken.py").write_text("import no_such_module")
    raw = json.loads(config.read_text())
    raw["integrations"].append({"provider": "broken", "settings": {}})
    config.write_text(json.dumps(raw))
    done = partnerenrich("run", "--config", config, stdin=EVENTS)

    assert done.returncode == 0
    assert b"Warning: plugin 'broken'" in done.stderr
    assert parsed(done.stdout)[0]["context"]["vendor_ids"] == {"loyalty": "p1"}


def test_a_trickling_stream_comes_out_as_it_comes_in(started, config):
    process = started("run", "--config", config)
    for number in range(3):
        process.stdin.write(ndjson(event(number, "pat@example.test")))
        process.stdin.flush()
        assert json.loads(process.stdout.readline())["messageId"] == f"m{number}"
    process.stdin.close()
    assert process.wait(30) == 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_a_stream_after_what_was_read(started, config, number):
    process = started("run", "--config", config)
    process.stdin.write(EVENTS + b'{"half": ')
    process.stdin.flush()
    out = [process.stdout.readline()]
    process.send_signal(number)
    out += process.stdout.readlines()

    assert process.wait(30) == 0
    assert [json.loads(line)["messageId"] for line in out] == ["m1", "m2", "m3", "m4"]
    told = process.stderr.read().decode()
    assert f"stopped by {number.name}" in told
    assert "4 events" in told


def test_a_file_that_a_signal_cut_short_is_no_success(started, config, tmp_path):
    path = tmp_path / "in"
    path.write_bytes(EVENTS * 100_000)
    process = started("run", "--config", config, "--input", path)
    process.stdout.readline()
    process.send_signal(signal.SIGTERM)
    _, told = process.communicate(timeout=30)
    assert process.returncode == 1
    assert b"stopped by SIGTERM" in told


def test_a_reader_that_leaves_ends_the_run_quietly(started, config, tmp_path):
    path = tmp_path / "in"
    path.write_bytes(EVENTS * 10_000)
    process = started("run", "--config", config, "--input", path)
    process.stdout.readline()
    process.stdout.close()
    assert process.wait(30) == 1
    assert process.stderr.read() == b""


def test_damaged_input_fails_after_what_came_before(partnerenrich, config, tmp_path):
    path = tmp_path / "in.gz"
    path.write_bytes(gzip.compress(ndjson(*(event(n) for n in range(20_000))))[:-9])
    done = partnerenrich("run", "--config", config, "--input", path)

    assert done.returncode == 1
    assert len(parsed(done.stdout)) > 1000
    assert done.stderr.decode().splitlines()[-1] == (
        f"Error: the compressed input ends too early, in line {len(parsed(done.stdout)) + 1}; "
        "the lines before it were taken"
    )


@pytest.mark.parametrize("option", ["--output", "--rejects", "--summary-json"])
def test_a_full_disk_is_told_with_the_file(partnerenrich, config, option, tmp_path):
    (tmp_path / "full").symlink_to("/dev/full")
    done = partnerenrich("run", "--config", config, option, tmp_path / "full", stdin=EVENTS + b"[]\n")

    assert done.returncode == 1
    assert done.stderr.decode().splitlines()[-1] == f"Error: {tmp_path / 'full'}: No space left on device"


def test_a_full_disk_behind_stdout_is_told_as_such(redirected, config, tmp_path):
    (tmp_path / "in").write_bytes(EVENTS)
    done = redirected(">/dev/full", "run", "--config", config, "--input", tmp_path / "in")
    assert done.returncode == 1
    assert done.stderr.decode().splitlines()[-1] == "Error: standard output: No space left on device"


def test_wrong_configuration_is_one_line_for_each_problem(partnerenrich, config):
    raw = json.loads(config.read_text())
    raw["integrations"][0]["settings"] = {"base_url": "http://x.test", "tokne": "s3cret"}
    config.write_text(json.dumps(raw, indent=1))
    done = partnerenrich("run", "--config", config, stdin=EVENTS)

    assert (done.returncode, done.stdout) == (2, b"")
    told = done.stderr.decode()
    assert "Error: integrations[0].settings.token (line 7): is required" in told
    assert "Error: integrations[0].settings.tokne (line 9)" in told
    assert "Traceback" not in told
    assert "s3cret" not in told


@pytest.mark.parametrize("option", ["--config", "--blueprint"])
@pytest.mark.parametrize(
    ("text", "told"),
    [
        (b"", "must be a mapping"),
        (b"org: [", "is no YAML: expected the node content, but found '<stream end>' on line 1"),
        (b"\xff", "cannot be read: it is not UTF-8"),
    ],
)
def test_a_file_that_is_wrong_as_a_whole_is_named(partnerenrich, config, tmp_path, option, text, told):
    path = tmp_path / "wrong.yaml"
    path.write_bytes(text)
    files = {"--config": config} | {option: path}
    done = partnerenrich("run", *(word for pair in files.items() for word in pair))

    assert done.returncode == 2
    assert done.stderr.decode().startswith(f"Error: {path}: {told}")


def test_a_wrong_field_of_a_blueprint_is_told_with_its_file(partnerenrich, config, tmp_path):
    path = tmp_path / "blueprint.yaml"
    path.write_text("global:\n  mappings: [{source: a}]\n")
    done = partnerenrich("run", "--config", config, "--blueprint", path)

    assert done.returncode == 2
    assert done.stderr.decode() == f"Error: {path}: global.mappings[0].target (line 2): is required\n"


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--org", "nobody"], "--org: 'nobody' is not configured; configured: acme"),
        (["--store", "http://x"], "--store: must be redis://"),
        (["--store", "redis://127.0.0.1:1"], "partnerenrich secrets generate-key"),
        (["--output", "/no/such/folder/out"], "/no/such/folder/out: No such file or directory"),
        (["--input", "/no/such/file"], "does not exist"),
        (["--wrong"], "No such option"),
    ],
)
def test_bad_usage_is_told_with_exit_code_2(partnerenrich, config, arguments, told):
    done = partnerenrich("run", "--config", config, *arguments, stdin=EVENTS)
    assert done.returncode == 2
    assert told in done.stderr.decode()


@pytest.mark.parametrize(
    ("redirection", "told"),
    [
        ("<&-", "standard input is closed; redirect it from a file or a pipe"),
        ("</dev/null >&-", "standard output is closed; redirect it to a file or a pipe"),
    ],
)
def test_a_closed_stream_is_bad_usage(redirected, config, redirection, told):
    done = redirected(redirection, "run", "--config", config)
    assert (done.returncode, done.stderr.decode()) == (2, f"Error: {told}\n")


def test_a_closed_stream_that_is_not_needed_is_no_matter(redirected, config, tmp_path):
    """No file and no socket takes its place."""
    (tmp_path / "in").write_bytes(EVENTS)
    done = redirected(
        "<&- >&- 2>&-", "run", "--config", config, "--input", tmp_path / "in", "--output", tmp_path / "out"
    )

    assert done.returncode == 0
    assert len(parsed((tmp_path / "out").read_bytes())) == 4


@pytest.mark.parametrize("written", ["--output", "--rejects", "--summary-json"])
@pytest.mark.parametrize("read", ["--config", "--input", "--blueprint"])
def test_what_is_read_is_never_written_over(partnerenrich, config, tmp_path, read, written):
    config.rename(tmp_path / "precious")
    files = {"--config": tmp_path / "precious", read: tmp_path / "precious", written: tmp_path / "x/../precious"}
    (tmp_path / "x").mkdir()
    before = (tmp_path / "precious").read_bytes()
    done = partnerenrich("run", *(word for pair in files.items() for word in pair), stdin=EVENTS)

    assert done.returncode == 2
    assert b"precious is named for two purposes: --" in done.stderr
    assert (tmp_path / "precious").read_bytes() == before


@pytest.mark.parametrize("link", ["hardlink_to", "symlink_to"])
def test_a_link_is_the_file_that_it_leads_to(partnerenrich, config, tmp_path, link):
    path, other = tmp_path / "events", tmp_path / "other"
    path.write_bytes(EVENTS)
    getattr(other, link)(path)
    done = partnerenrich("run", "--config", config, "--input", path, "--output", other)

    assert done.returncode == 2
    assert f"{other} is named for two purposes: --input and --output".encode() in done.stderr
    assert path.read_bytes() == EVENTS


def test_a_file_that_is_not_there_yet_has_one_purpose(partnerenrich, config, tmp_path):
    new = tmp_path / "new"
    done = partnerenrich("run", "--config", config, "--output", new, "--rejects", new, stdin=EVENTS)
    assert done.returncode == 2
    assert not new.exists()


def test_a_redirected_input_is_not_appended_to(redirected, config, tmp_path):
    """It would never end."""
    path = tmp_path / "events"
    path.write_bytes(EVENTS)
    done = redirected(f">>{path}", "run", "--config", config, "--input", path)
    assert (done.returncode, path.read_bytes()) == (2, EVENTS)


@pytest.mark.parametrize("option", ["--rejects", "--summary-json"])
def test_nothing_is_mixed_into_events(partnerenrich, config, option):
    done = partnerenrich("run", "--config", config, option, "-", stdin=EVENTS)
    told = f"Error: standard output is named for two purposes: --output and {option}\n"
    assert (done.returncode, done.stdout, done.stderr.decode()) == (2, b"", told)


def test_rejects_go_to_stdout_where_events_do_not(partnerenrich, config):
    done = partnerenrich("run", "--config", config, "--output", "/dev/null", "--rejects", "-", stdin=b"[]\n")
    assert parsed(done.stdout) == [{"line": 1, "reason": "is JSON but no object"}]


def test_a_device_may_have_many_purposes(partnerenrich, config):
    done = partnerenrich("run", "--config", config, "--output", "/dev/null", "--rejects", "/dev/null", stdin=EVENTS)
    assert done.returncode == 0


def test_an_output_is_left_alone_when_the_configuration_is_wrong(partnerenrich, config, tmp_path):
    out = tmp_path / "out"
    out.write_text("precious")
    config.write_text("org: acme\nintegrations: [{provider: nothing}]\nnope: 1\n")
    assert partnerenrich("run", "--config", config, "--output", out).returncode == 2
    assert out.read_text() == "precious"


def test_events_of_several_organisations_need_one_that_is_named(partnerenrich, several, tmp_path):
    done = partnerenrich("run", "--config", several, "--output", tmp_path / "out", stdin=EVENTS)

    assert done.returncode == 2
    assert done.stderr.decode() == (
        "Error: --org: say whose events these are: one of acme, other; or let org_from in the configuration find it\n"
    )
    assert not (tmp_path / "out").exists()
    assert partnerenrich("run", "--config", several, "--org", "acme", stdin=EVENTS).stdout.count(b"\n") == 4


def test_events_may_name_their_organisation(partnerenrich, several):
    several.write_text(json.dumps(json.loads(several.read_text()) | {"org_from": "shop"}))
    done = partnerenrich("run", "--config", several, stdin=ndjson({"shop": "acme"}, {"shop": "nobody's"}))

    assert (done.returncode, len(parsed(done.stdout))) == (0, 1)
    assert "line 2: belongs to no configured organisation" in done.stderr.decode()


def test_a_store_that_is_down_holds_nothing_up(partnerenrich, config):
    raw = json.loads(config.read_text()) | {"store": "redis://127.0.0.1:1", "key": "A" * 43 + "="}
    config.write_text(json.dumps(raw))
    done = partnerenrich("run", "--config", config, stdin=EVENTS)
    assert done.returncode == 0
    assert parsed(done.stdout)[0]["context"]["vendor_ids"] == {"loyalty": "p1"}
