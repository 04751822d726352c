"""``partnerenrich run`` is killed without a warning, and started again over the store that it kept."""

import itertools
import json
import os
import signal
import time

import pytest

pytestmark = pytest.mark.soak

AMPERITY = ["amperity"]
PATIENT = {"timeout": 5, "attempts": 1}


def test_a_killed_run_leaves_no_process_and_no_lock_and_the_next_one_is_spared_its_calls(
    soak, new_embedded, new_partner, configured, started, crowd, some_time_of, tmp_path
):
    partner, many = new_partner("amperity"), crowd(people=3000, devices=6000, settled=True)
    partner.behave(latency_ms=20)
    config = configured([partner.integration(limits=PATIENT)])
    length, given, output, summary = 40_000, tmp_path / "in", tmp_path / "out", tmp_path / "summary"
    given.write_bytes(b"".join(sent.line for sent in itertools.islice(many.lines(), length)))
    files = ("--config", config, "--input", given, "--output", output, "--summary-json", summary)
    rounds = kills = spared = calls = 0

    def came_out(**how):
        with output.open("rb") as lines:
            tally = many.account(itertools.islice(many.lines(), length), lines, AMPERITY, **how)
            assert how or lines.read() == b""
        return tally

    while soak.goes_on:
        store, answered, before = new_embedded(), set(), partner.calls
        while not answered:
            output.unlink(missing_ok=True)
            run = started("run", *files, "--store", store.url)
            some_time_of(run, output)
            kills += run.poll() is None
            run.kill()
            run.wait()
            assert store.is_left(), "something is left of the store"
            if output.exists():
                answered |= came_out(killed=True).answered["amperity"]
        made = partner.calls
        assert started("run", *files, "--store", store.url).wait(120) == 0
        whole = came_out()
        whole.agrees_with(json.loads(summary.read_text()))
        assert partner.calls - made <= len(whole.named - answered)
        assert store.is_left()
        rounds, spared, calls = rounds + 1, spared + len(answered), calls + partner.calls - before
    soak.tell(rounds=rounds, kills=kills, events=rounds * whole.events, calls=calls, spared=spared)


@pytest.mark.parametrize("kept", [True, False], ids=["kept", "private"])
def test_runs_that_end_while_they_start_leave_nothing_behind(
    soak, kept, new_embedded, new_partner, configured, started, crowd, tmp_path
):
    """Killed or told to end in their first seconds, again and again, the next one started at once."""
    store, many, length = new_embedded(), crowd(settled=True), 50
    store.folder.mkdir()
    config = configured([new_partner("amperity").integration(limits=PATIENT)], store.url if kept else None)
    given, output = tmp_path / "in", tmp_path / "out"
    given.write_bytes(b"".join(sent.line for sent in itertools.islice(many.lines(), length)))
    environment = {**os.environ, "TMPDIR": str(store.folder)}

    def start():
        return started("run", "--config", config, "--input", given, "--output", output, env=environment)

    starts = 0
    while soak.goes_on:
        run = start()
        time.sleep(soak.random.uniform(0, 3))
        run.send_signal(soak.random.choice([signal.SIGKILL, signal.SIGTERM, signal.SIGINT]))
        run.wait(60)
        starts += 1
        if soak.random.random() < 0.2:
            assert store.is_left(), "something is left of the store"
    assert start().wait(60) == 0
    with output.open("rb") as lines:
        whole = many.account(itertools.islice(many.lines(), length), lines, AMPERITY)
        assert lines.read() == b""
    assert store.is_left(), "something is left of the store"
    soak.tell(starts=starts, events=whole.events)
