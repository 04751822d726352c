"""Several ``partnerenrich run`` at once over one store, with the same visitors."""

import itertools
import json
import time

import pytest

pytestmark = pytest.mark.soak

AMPERITY = ["amperity"]
LENGTH = 8_000
RUNS = 3
CONCURRENCY = 64


@pytest.fixture(params=["embedded", "redis"])
def open_store(request, new_embedded, new_store):
    """Open an empty store, started by the runs themselves or by somebody else."""
    if request.param == "embedded":
        return new_embedded
    store = new_store(kept=False)

    def emptied():
        store.ask("FLUSHALL")
        return store

    return emptied


def test_a_partner_is_asked_once_about_each_person_by_all_of_them(
    soak, open_store, new_partner, configured, started, crowd, tmp_path
):
    """One of them may be killed: what it was asking then is asked again, when its leases have ended."""
    partner, many = new_partner("amperity"), [crowd(seed=f"{soak.seed} {n}", settled=True) for n in range(RUNS)]
    partner.behave(latency_ms=20)
    limits = {"timeout": 20, "attempts": 1, "concurrency": CONCURRENCY}
    rounds = kills = events = calls = twice = disturbed = 0
    for n, one in enumerate(many):
        (tmp_path / f"in-{n}").write_bytes(b"".join(sent.line for sent in itertools.islice(one.lines(), LENGTH)))
    while soak.goes_on:
        config = configured([partner.integration(limits=limits)], open_store().url)
        before = partner.calls
        runs = [
            started(
                *("run", "--config", config, "--input", tmp_path / f"in-{n}"),
                *("--output", tmp_path / f"out-{n}", "--summary-json", tmp_path / f"summary-{n}"),
                log=tmp_path / f"err-{n}",
            )
            for n in range(RUNS)
        ]
        killed = soak.random.choice([None, *range(RUNS)])
        if killed is not None:
            time.sleep(soak.random.uniform(0, 6))
            kills += runs[killed].poll() is None
            runs[killed].kill()
        named, missed = set(), 0
        for n, run in enumerate(runs):
            code = run.wait(120)
            if n != killed:
                assert code == 0
                with (tmp_path / f"out-{n}").open("rb") as lines:
                    tally = many[n].account(itertools.islice(many[n].lines(), LENGTH), lines, AMPERITY)
                tally.agrees_with(json.loads((tmp_path / f"summary-{n}").read_text()))
                missed += tally.knowable["amperity"] - tally.known["amperity"]
                events += tally.events
                named |= tally.named
        rounds, made = rounds + 1, partner.calls - before
        calls += made
        if any(b"the store does not answer" in (tmp_path / f"err-{n}").read_bytes() for n in range(RUNS)):
            disturbed += 1  # the machine is so busy that even the store is slow: without it nobody knows of the others
            continue
        assert missed == 0
        assert made <= len(named) + (0 if killed is None else 2 * CONCURRENCY)
        twice = max(twice, made - len(named))
    soak.tell(
        rounds=rounds, disturbed=disturbed, kills=kills, events=events, calls=calls, people=len(named), twice=twice
    )
