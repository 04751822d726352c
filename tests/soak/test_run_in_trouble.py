"""``partnerenrich run`` on a stream without end, while its store and its partners break again and again."""

import itertools
import json
import subprocess
from collections import Counter

import pytest

pytestmark = pytest.mark.soak

PROVIDERS = ("amperity", "uid2")
BUDGET = 4.0
"""Seconds for which an event may be held back."""
RECOVERY = 90.0
"""Seconds after the last trouble within which all is as it should be. Most of them are for a slow machine."""
LIMITS = {"timeout": 3, "attempts": 2, "pause": 0.2, "concurrency": 32, "calls_per_second": 400}
TTL = {"resolved": 30, "attributes": 30, "not_found": 10, "failed": 1, "stale_for": 20, "remember_visitor": 60}

TROUBLED = ("error", "limited", "late", "stale")


@pytest.fixture(params=["lossy", "kept", "embedded"])
def store(request, new_store, new_embedded):
    """A store that forgets all when it is killed, one that does not, and the one that the command brings along."""
    return new_embedded() if request.param == "embedded" else new_store(kept=request.param == "kept")


def test_every_event_comes_out_once_in_order_and_with_nobody_elses_attributes(
    soak, store, new_partner, configured, started, crowd, watch, tmp_path
):
    partners, many = [new_partner(name) for name in PROVIDERS], crowd()
    integrations = [partner.integration(limits=LIMITS, ttl=TTL) for partner in partners]
    config = configured(integrations, store.url, budget_ms=1000 * BUDGET)
    output, summary, rejects = (tmp_path / name for name in ("out", "summary", "rejects"))
    run = started(
        *("run", "--config", config, "--output", output, "--summary-json", summary, "--rejects", rejects),
        stdin=subprocess.PIPE,
    )
    watched = watch(run.pid, output)
    feeding = many.feed(run.stdin)
    befell = soak.suffer(*(each.misfortunes(soak.random) for each in (store, *partners)), calm=(0.5, 4))
    recovery = soak.recovery(lambda: is_well(output), RECOVERY)
    feeding.end()

    assert run.wait(60) == 0
    watched.end()
    with output.open("rb") as lines:
        sane = many.account(itertools.islice(many.lines(), feeding.lines), lines, PROVIDERS)
        assert lines.read() == b""
    told = json.loads(summary.read_text())
    soak.tell(
        events=sane.events,
        rejected=len(sane.rejected),
        rate=f"{told['events_per_second']:,.0f}/s",
        **befell,
        **{f"calls to {name}": partner["calls"] for name, partner in told["partners"].items()},
        **{f"{name} found": f"{sane.found[name] / sane.events:.0%}" for name in PROVIDERS},
        recovery=f"{recovery:.1f} s",
        silence=f"{watched.silence():.1f} s",
        **watched.told(),
    )
    sane.agrees_with(told)
    assert [json.loads(line)["line"] for line in rejects.read_text().splitlines()] == sane.rejected
    assert watched.silence() < BUDGET + 5
    watched.check_flat()
    assert watched.most("memory") < 200


def is_well(output):
    """Whether nearly all of what came out last says what is known."""
    with output.open("rb") as lines:
        lines.seek(max(0, output.stat().st_size - 200_000))
        contexts = [json.loads(line)["context"] for line in lines.readlines()[1:-1] if b'"enrichment"' in line]
    for name in PROVIDERS:
        told = Counter(context["enrichment"][name]["outcome"] for context in contexts)
        known, troubled = told["fresh"] + told["hit"], sum(told[each] for each in TROUBLED)
        if known <= 9 * troubled:
            return False
    return True
