"""What becomes of a batch: every answer of the partner, every failure, every way to be cut off."""

import asyncio
import json
import time
from datetime import date

import pytest
from click.testing import CliRunner

from partnerenrich import (
    AuthError,
    BadResponse,
    NotSupported,
    RateLimited,
    Receipt,
    RequestRefused,
    Unavailable,
)
from partnerenrich.governor import LocalDailyBudget
from partnerenrich_server.cli import main
from partnerenrich_server.delivery.database import LedgerError
from partnerenrich_server.delivery.entries import State
from partnerenrich_server.delivery.ledger import Ledger
from partnerenrich_server.delivery.pace import Pace


@pytest.fixture
def ledger_url(sqlite_url):
    """One kind of database will do: `test_ledger` has them all."""
    return sqlite_url


def saving(progress, then):
    """The plugin saves its progress, and then answers."""

    async def answer(batch, call):
        await batch.save(progress)
        return then

    return answer


async def states(ledger, batch_id="1"):
    return [change.state for change in await ledger.history(batch_id)]


# All goes well


@pytest.mark.parametrize("final", ["published", "handed_over"])
async def test_a_batch_is_seen_through_to_its_end(ledger, stage, club, ship, final):
    stage.seal("1")
    club.answers = [Receipt("submitted"), Receipt("running"), Receipt("running"), Receipt(final, accepted=2)]

    report = await ship().once()

    assert report.ok
    assert await states(ledger) == ["staged", "submitting", "submitted", "running", final]
    kept = await ledger.entry("1")
    assert (kept.receipt["accepted"], kept.rejected, kept.error, kept.owner) == (2, {"no e-mail": 3}, None, None)
    assert club.rows == ["p1", "p2"]
    assert report.settled == (kept,)


async def test_what_is_saved_is_there_at_the_next_call(ledger, stage, club, ship):
    stage.seal("1")
    club.answers = [saving({"import": "i7"}, Receipt("running")), Receipt("published")]

    await ship().once()

    assert club.batches == [("1", {}), ("1", {"import": "i7"})]


async def test_submitting_is_durable_before_the_call(ledger, other, stage, club, ship):
    seen = []

    async def look(batch, call):
        seen.append((await other.entry(batch.id)).state)
        return Receipt("published")

    stage.seal("1")
    club.answers = [look]

    await ship().once()

    assert seen == ["submitting"]


async def test_progress_is_durable_when_save_returns(ledger, other, stage, club, ship):
    seen = []

    async def look(batch, call):
        await batch.save({"n": 1})
        seen.append((await other.entry(batch.id)).progress)
        return Receipt("published")

    stage.seal("1")
    club.answers = [look]

    await ship().once()

    assert seen == [{"n": 1}]


async def test_snapshots_go_one_after_the_other(ledger, stage, club, ship):
    for batch_id in "123":
        stage.seal(batch_id)
    club.answers = [Receipt("running"), Receipt("published")] * 3

    await ship().once()

    assert [batch_id for batch_id, _ in club.batches] == ["1", "1", "2", "2", "3", "3"]


async def test_batches_that_add_go_side_by_side(ledger, stage, club, ship):
    both = asyncio.Barrier(2)

    async def meet(batch, call):
        await both.wait()
        return Receipt("published")

    stage.seal("1")
    stage.seal("2")
    club.answers = [meet, meet]

    assert (await ship(collect="append").once()).ok


async def test_what_has_collected_is_sealed_on_demand(ledger, stage, club, ship):
    stage.due = ["1"]
    club.answers = [Receipt("published")]

    assert (await ship().once()).sealed == ()
    assert (await ship().once(flush=True)).sealed == ("1",)


async def test_forever_ends_when_it_is_told_to(ledger, stage, club, ship):
    """And takes up what comes meanwhile."""
    ledger.clock = time.time
    shipped = asyncio.Event()
    shipper = ship(tell=lambda entry: shipped.set() if entry.state == "published" else None)
    running = asyncio.create_task(shipper.forever())
    await asyncio.sleep(0.1)
    stage.seal("1")
    club.answers = [Receipt("published")]

    await asyncio.wait_for(shipped.wait(), 20)
    shipper.stop()
    await asyncio.wait_for(running, 20)


async def test_a_stop_lets_the_call_finish(ledger, stage, club, ship):
    shipper = ship()

    async def be_stopped(batch, call):
        shipper.stop()
        await asyncio.sleep(0.05)
        return Receipt("running")

    stage.seal("1")
    club.answers = [be_stopped]

    report = await shipper.once()

    assert (await ledger.entry("1")).state is State.RUNNING
    assert not report.ok


# What the partner refuses


@pytest.mark.parametrize("final", ["rejected", "failed"])
async def test_a_refusal_is_told_and_the_next_batch_goes(ledger, stage, club, ship, final):
    stage.seal("1")
    stage.seal("2")
    club.answers = [Receipt(final, rejected=2, reasons={"BAD_COLUMN": 2}), Receipt("published")]

    report = await ship().once()

    assert not report.ok
    assert [(entry.state, entry.error) for entry in report.settled] == [(final, "BAD_COLUMN 2"), ("published", None)]


@pytest.mark.parametrize("error", [RequestRefused("no such importer"), NotSupported("no staged mode")])
async def test_what_time_does_not_heal_is_a_dead_letter(ledger, stage, club, ship, error):
    stage.seal("1")
    club.answers = [error]

    report = await ship().once()

    assert [(entry.state, entry.error) for entry in report.settled] == [("failed", str(error))]


async def test_a_refusal_of_what_the_partner_has_goes_to_a_person(ledger, stage, club, ship):
    stage.seal("1")
    club.answers = [Receipt("running"), RequestRefused("no such execution")]

    report = await ship().once()

    assert report.settled[0].state is State.UNCERTAIN
    assert "no such execution" in report.settled[0].error
    assert "partnerenrich deliveries resolve 1" in report.settled[0].error


async def test_a_refused_credential_stops_the_integration(ledger, stage, club, ship, clock):
    """Nothing is lost; no second batch is tried with the same credential; later it goes on by itself."""
    stage.seal("1")
    stage.seal("2")
    club.answers = [AuthError("the key is expired: make a new one")]

    report = await ship(collect="append").once()

    assert [left.why for left in report.left] == ["the key is expired: make a new one"] * 2
    assert not report.ok
    assert len(club.batches) == 1
    assert {entry.state for entry in await ledger.entries()} == {State.STAGED}

    clock.now += 900
    club.answers = [Receipt("published")] * 2
    assert (await ship(collect="append").once()).ok


async def test_a_credential_refused_in_the_middle_loses_nothing(ledger, stage, club, ship, clock):
    stage.seal("1")
    club.answers = [saving({"import": "i7"}, Receipt("running")), AuthError("expired")]

    await ship().once()
    assert (await ledger.entry("1")).state is State.RUNNING

    clock.now += 900
    club.answers = [Receipt("published")]
    assert (await ship().once()).ok
    assert club.batches[-1] == ("1", {"import": "i7"})


async def test_a_partner_that_asks_for_patience_gets_it(ledger, stage, club, ship, clock):
    stage.seal("1")
    club.answers = [RateLimited(retry_after=600)]

    report = await ship().once()

    assert [pause.until for pause in await ledger.pauses()] == [clock.now + 600]
    assert report.left[0].entry.state is State.STAGED


# What cannot be told


async def test_a_partner_that_is_down_is_tried_again(ledger, stage, club, ship):
    stage.seal("1")
    club.answers = [Unavailable("down"), Unavailable("down"), Receipt("published")]

    assert (await ship().once()).ok
    assert await states(ledger) == ["staged", "submitting", "staged", "submitting", "staged", "submitting", "published"]


async def test_a_failure_after_progress_is_asked_about_again(ledger, stage, club, ship):
    """The request may have come through: the plugin finds out."""
    stage.seal("1")
    club.answers = [saving({"asked": 1}, Unavailable("no answer")), Receipt("published")]

    assert (await ship().once()).ok
    assert await states(ledger) == ["staged", "submitting", "submitting", "published"]
    assert club.batches == [("1", {}), ("1", {"asked": 1})]


@pytest.mark.parametrize("error", [Unavailable("no answer"), BadResponse("nonsense"), KeyError("canary")])
async def test_a_plugin_that_cannot_find_out_is_not_called_again(ledger, stage, club, ship, error):
    club.resumes = False
    stage.seal("1")
    club.answers = [error]

    report = await ship().once()

    assert report.settled[0].state is State.UNCERTAIN
    assert "canary" not in repr(report) + report.settled[0].error


@pytest.mark.parametrize("resumes", [True, False])
async def test_a_call_that_was_cut_off(ledger, stage, club, ship, resumes):
    """A plugin that finds out is asked again; otherwise a person decides."""
    club.resumes = resumes
    stage.seal("1")

    async def die(batch, call):
        await batch.save({"asked": 1})
        raise asyncio.CancelledError

    club.answers = [die, Receipt("published")]
    report = await ship().once()

    assert [entry.state for entry in report.settled] == ["published" if resumes else "uncertain"]
    assert len(club.batches) == (2 if resumes else 1)


async def test_answers_that_nobody_understands_end_with_a_person(ledger, stage, club, ship):
    stage.seal("1")
    club.answers = [saving({"asked": 1}, BadResponse("nonsense")), *[BadResponse("nonsense")] * 4]

    report = await ship().once()

    assert [entry.state for entry in report.settled] == ["uncertain"]


async def test_a_poll_that_never_ends_does(ledger, stage, club, ship, clock):
    async def later(batch, call):
        clock.now += 10
        return Receipt("running")

    stage.seal("1")
    club.answers = [later] * 20

    report = await ship(deadline=100).once()

    assert [entry.state for entry in report.settled] == ["uncertain"]
    assert "not settled within 100 s" in report.settled[0].error
    assert len(club.batches) == 10


async def test_a_late_batch_is_asked_about_once_more(ledger, stage, club, ship, clock):
    """No worker was there for a while: the partner may have finished long ago."""
    stage.seal("1")
    stage.seal("2")
    shipper = ship(collect="append")

    async def end(batch, call):
        shipper.stop()
        return Receipt("running")

    club.answers = [end, end]
    await shipper.once()
    clock.now += 100_000
    club.answers = [Receipt("published"), Receipt("running")]

    report = await ship(collect="append").once()

    assert sorted(entry.state for entry in report.settled) == ["published", "uncertain"]


async def test_a_call_that_never_ends_does(ledger, stage, club, ship):
    async def hang(batch, call):
        await asyncio.sleep(1000)

    stage.seal("1")
    club.answers = [hang]

    report = await ship(deadline=1).once()

    assert [entry.state for entry in report.settled] == ["uncertain"]


async def test_what_is_uncertain_holds_back_the_next_snapshot(ledger, stage, club, ship):
    """It may yet replace what comes after it."""
    stage.seal("1")
    stage.seal("2")
    club.answers = [Receipt("uncertain", message="it lists nothing")]

    report = await ship().once()

    assert [left.why for left in report.left] == ["waits for 1, which is uncertain"]
    assert "it lists nothing" in report.settled[0].error


async def test_a_wrong_answer_of_the_plugin_is_no_receipt(ledger, stage, club, ship):
    club.resumes = False
    stage.seal("1")
    club.answers = [None]

    assert "must return a Receipt, not NoneType" in (await ship().once()).settled[0].error


# Two ledgers, two workers


async def test_a_batch_that_another_ledger_began_is_not_sent_again(ledger, stage, club, ship, tmp_path, clock):
    """Two machines with a ledger each, or one whose ledger was lost, or restored from a backup."""
    stage.seal("1")
    club.answers = [Receipt("published")]
    await ship().once()

    async with Ledger.open(f"sqlite:///{tmp_path}/new.db", clock=clock) as fresh:
        report = await ship(fresh).once()

    assert [entry.state for entry in report.settled] == ["uncertain"]
    assert "this ledger knows nothing of it" in report.settled[0].error
    assert len(club.batches) == 1


async def test_two_workers_ship_each_batch_once(ledger, other, stage, club, ship):
    for number in range(10):
        stage.seal(f"{number}")
    club.answers = [Receipt("published")] * 10

    await asyncio.gather(ship(collect="append").once(), ship(other, collect="append").once())

    assert sorted(batch_id for batch_id, _ in club.batches) == list("0123456789")


async def test_what_a_living_worker_holds_is_left_to_it(ledger, other, stage, club, ship):
    ledger.clock = other.clock = time.time
    other.lease_seconds = 6
    stage.seal("1")
    await other.take_up(ship()._destinations["acme", "club"].entry(await stage.manifest("1")))
    await other.claim("1")

    async with other.renewed(lambda: other.renew("1")):
        report = await asyncio.wait_for(ship().once(), 20)

    assert [left.by_others for left in report.left] == [True]
    assert report.ok
    assert club.batches == []


# Who has withdrawn


async def test_who_has_withdrawn_does_not_go(ledger, stage, club, ship):
    stage.seal("1")
    stage.withdrawn = {"p2"}
    club.answers = [Receipt("published")]

    await ship().once()

    assert club.rows == ["p1"]
    assert [(entry.id, entry.state) for entry in await ledger.entries()] == [
        ("1", "superseded"),
        ("1-again", "published"),
    ]


async def test_a_batch_without_records_does_not_go(ledger, stage, club, ship):
    stage.seal("1")
    stage.withdrawn = {"p1", "p2"}

    await ship().once()

    assert (await ledger.entry("1-again")).state is State.CANCELLED
    assert club.batches == []


async def test_a_substitute_that_nobody_wrote_down_is_found(ledger, stage, club, ship):
    """The worker died between the storage and the ledger."""
    stage.seal("1")
    await ledger.take_up(ship()._destinations["acme", "club"].entry(await stage.manifest("1")))
    stage.withdrawn = {"p2"}
    await stage.recheck(await stage.manifest("1"))
    club.answers = [Receipt("published")]

    await ship().once()

    assert [batch_id for batch_id, _ in club.batches] == ["1-again"]
    assert (await ledger.entry("1")).state is State.SUPERSEDED


async def test_what_was_begun_is_not_looked_through_again(ledger, stage, club, ship):
    """A substitute would be sent beside it."""
    stage.seal("1")
    club.answers = [saving({"asked": 1}, Unavailable("no answer")), Receipt("published")]

    async def withdraw(batch, call):
        stage.withdrawn = {"p2"}
        await batch.save({"asked": 1})
        return Unavailable("no answer")

    club.answers[0] = withdraw
    await ship().once()

    assert [batch_id for batch_id, _ in club.batches] == ["1", "1"]


@pytest.mark.parametrize("state", [State.FAILED, State.REJECTED])
async def test_what_is_retried_is_looked_through_again(ledger, stage, club, ship, tmp_path, state):
    """Whoever has withdrawn since it failed does not go."""
    stage.seal("1")
    club.answers = [RequestRefused("no such importer") if state is State.FAILED else Receipt("rejected")]
    await ship().once()
    assert (await ledger.entry("1")).state is state
    stage.withdrawn = {"p2"}
    config = tmp_path / "config.yaml"
    config.write_text(json.dumps({"org": "acme", "ledger": f"sqlite:///{tmp_path}/ledger.db"}))

    retried = await asyncio.to_thread(CliRunner().invoke, main, ["deliveries", "retry", "--config", str(config), "1"])
    club.answers = [Receipt("published")]
    await ship().once()

    assert retried.exit_code == 0
    assert (club.rows, (await ledger.entry("1-again")).state) == (["p1"], State.PUBLISHED)


# The calls of a day


async def test_calls_beyond_those_of_the_day_are_not_made(ledger, stage, club, ship, clock):
    """The delivery goes on when there are some again."""
    stage.seal("1")
    club.answers = [Receipt("running"), Receipt("published")]
    today = [date(2026, 11, 23)]
    budget = LocalDailyBudget(1, lambda: today[0])
    shipper = ship(budget=budget, pace=Pace(first_poll=0, longest_poll=0, first_retry=600, longest_retry=600, sweep=1))

    report = await shipper.once()

    assert [left.why for left in report.left] == ["the calls of today (limits.calls_per_day, UTC) are used up"]
    assert (len(club.batches), (await ledger.entry("1")).state) == (1, State.RUNNING)

    today[0] = date(2026, 11, 24)
    clock.now += 700
    assert [entry.state for entry in (await ship(budget=budget).once()).settled] == [State.PUBLISHED]


# What is kept


async def sealed_and_settled(ledger, stage, club, ship, *answers):
    """One batch after the other, each with its answer."""
    for number, answer in enumerate(answers, 1):
        stage.seal(str(number))
        club.answers = [answer]
        await ship(collect="append").once()


async def test_files_are_deleted_when_they_were_kept_for_long_enough(ledger, stage, club, ship, clock):
    """Of what is over; what a person may still decide on, and the newest, stays."""
    ends = [Receipt("published"), Receipt("rejected"), RequestRefused("no"), Receipt("uncertain"), Receipt("published")]
    await sealed_and_settled(ledger, stage, club, ship, *ends)
    clock.now += 30 * 86_400 - 1
    await ship(collect="append").once()
    assert await stage.batches() == ["1", "2", "3", "4", "5"]

    clock.now += 2
    await ship(collect="append").once()

    assert await stage.batches() == ["3", "4", "5"]
    assert [bool(entry.files_deleted) for entry in await ledger.entries()] == [True, True, False, False, False]


async def test_files_of_a_batch_that_is_superseded_are_deleted_at_once(ledger, stage, club, ship):
    """They hold somebody who does not want to be in them."""
    stage.seal("1")
    stage.withdrawn = {"p2"}
    club.answers = [Receipt("published")]
    await ship().once()

    await ship().once()

    assert list(stage._manifests) == ["1-again"]


async def test_a_kill_while_files_are_deleted_leaves_none(ledger, stage, club, ship, clock):
    """What is noted as deleted is deleted again, until it is gone."""
    await sealed_and_settled(ledger, stage, club, ship, Receipt("published"), Receipt("published"))
    clock.now += 31 * 86_400

    async def killed(batch_ids):
        raise OSError(5, "killed")

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(stage, "delete", killed)
        report = await ship(collect="append").once()
    assert report.problems == ("acme/club: deleting files: killed",)
    assert await stage.batches() == ["1", "2"]

    await ship(collect="append").once()

    assert await stage.batches() == ["2"]


# What else fails


async def test_a_storage_that_refuses_is_told_and_nothing_is_lost(ledger, stage, club, ship):
    stage.seal("1")
    stage.broken = PermissionError(13, "Permission denied")
    warnings = []

    report = await ship(warn=warnings.append).once()

    assert report.problems == (
        "acme/club: sealing: Permission denied",
        "acme/club: taking up batches: Permission denied",
    )
    assert warnings == list(report.problems)
    stage.broken = None
    club.answers = [Receipt("published")]
    assert (await ship().once()).ok


async def test_a_storage_that_refuses_before_the_call(ledger, stage, club, ship):
    """The batch stays staged, and goes when the storage is back."""

    async def refuse(batch_id, mark):
        stage.begin = begin
        raise PermissionError(13, "Permission denied")

    begin, stage.begin = stage.begin, refuse
    stage.seal("1")
    club.answers = [Receipt("published")]

    assert (await ship().once()).ok
    assert await states(ledger) == ["staged", "submitting", "staged", "submitting", "published"]
    assert (await ledger.entry("1")).calls == 1


async def test_one_broken_storage_is_no_other_ones_trouble(ledger, stage, club, ship):
    problems = []
    shipper = ship(warn=problems.append)
    neighbour = ship(name="neighbour", stage=type(stage)(stage._folder))._destinations["acme", "neighbour"]
    neighbour.stage.broken = OSError(28, "No space left on device")
    shipper._destinations = {**shipper._destinations, ("acme", "neighbour"): neighbour}
    stage.seal("1")
    club.answers = [Receipt("published")]

    report = await shipper.once()

    assert [entry.state for entry in report.settled] == ["published"]
    assert problems == [
        "acme/neighbour: sealing: No space left on device",
        "acme/neighbour: taking up batches: No space left on device",
    ]


async def test_a_ledger_that_fails_in_save_stops_the_plugin(ledger, stage, club, ship, monkeypatch):
    """It gets no further, and the batch is found as it was last written."""
    record = ledger.record
    further = []

    async def full(entry, **change):
        if "progress" in change:
            raise LedgerError("database or disk is full")
        return await record(entry, **change)

    async def save(batch, call):
        await batch.save({"asked": 1})
        further.append(batch)

    monkeypatch.setattr(ledger, "record", full)
    stage.seal("1")
    club.answers = [save]

    with pytest.raises(LedgerError, match="disk is full"):
        await ship().once()

    assert further == []
    assert (await ledger.entry("1")).state is State.SUBMITTING


async def test_a_ledger_that_comes_back_is_used_again(ledger, stage, club, ship, monkeypatch):
    failing = [LedgerError("database is locked")] * 3
    claim = ledger.claim

    async def flaky(batch_id):
        if failing:
            raise failing.pop()
        return await claim(batch_id)

    monkeypatch.setattr(ledger, "claim", flaky)
    stage.seal("1")
    club.answers = [Receipt("published")]
    warnings, done = [], asyncio.Event()
    shipper = ship(warn=warnings.append, tell=lambda entry: done.set() if entry.state == "published" else None)
    ledger.clock = time.time

    running = asyncio.create_task(shipper.forever())
    await asyncio.wait_for(done.wait(), 20)
    shipper.stop()
    await running

    assert warnings
    assert set(warnings) == {"database is locked"}


async def test_a_lost_lease_cancels_the_call(ledger, other, stage, club, ship, clock):
    """Another worker has taken over from one that was suspended: the first one writes nothing more."""
    ledger.lease_seconds = 3
    ended = asyncio.Event()

    async def be_overtaken(batch, call):
        clock.now += 10
        assert await other.claim(batch.id)
        try:
            await asyncio.sleep(10)
        except asyncio.CancelledError:
            ended.set()
            raise

    stage.seal("1")
    club.answers = [be_overtaken]
    shipper = ship()

    running = asyncio.create_task(shipper.once())
    await ended.wait()
    shipper.stop()
    await running

    assert (await ledger.entry("1")).owner == other.owner


def test_waits_grow_up_to_a_limit_and_jitter_only_shortens():
    pace = Pace()

    assert all(1.6 <= pace.poll(0) <= 2.0 for _ in range(100))
    assert all(24 <= pace.poll(99) <= 30 for _ in range(100))
    assert all(4 <= pace.retry(1) <= 5 for _ in range(100))
    assert all(240 <= pace.retry(10_000) <= 300 for _ in range(100))
