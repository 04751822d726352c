"""The ledger, in SQLite and in PostgreSQL: what is written stays, and of two workers one is first."""

import asyncio
import contextlib
import sqlite3

import pytest

from partnerenrich import ConfigError
from partnerenrich_server.delivery.database import LeaseLost, LedgerError, connect
from partnerenrich_server.delivery.entries import Pause, State
from partnerenrich_server.delivery.ledger import LEASE_SECONDS, Ledger


async def test_a_batch_is_taken_up_once(ledger, other, entry, clock):
    """The second worker changes nothing."""
    taken = await asyncio.gather(ledger.take_up(entry(1)), other.take_up(entry(1, rows=99)))

    assert sorted(taken) == [False, True]
    assert [kept.id for kept in await ledger.entries()] == ["batch-1"]
    assert [change.state for change in await ledger.history("batch-1")] == [State.STAGED]
    assert await ledger.known("acme", "club") == {"batch-1"}
    assert await ledger.known("acme", "other") == set()


async def test_all_that_is_recorded_comes_back(ledger, other, entry, clock):
    await ledger.take_up(entry(1, rejected={"no e-mail": 4}))
    held = await ledger.claim("batch-1")

    now = await ledger.record(
        held, state=State.RUNNING, progress={"step": [1, {"é": None}]}, receipt={"accepted": 2}, polls=3, error="e"
    )

    assert await other.entry("batch-1") == now
    assert (now.progress, now.rejected, now.state) == ({"step": [1, {"é": None}]}, {"no e-mail": 4}, State.RUNNING)


async def test_of_two_workers_one_claims(ledger, other, entry):
    await ledger.take_up(entry(1))

    claimed = await asyncio.gather(ledger.claim("batch-1"), other.claim("batch-1"))

    assert [held is None for held in claimed].count(True) == 1


async def test_a_worker_claims_again_what_it_holds(ledger, entry):
    """Its step may have failed for want of the ledger."""
    await ledger.take_up(entry(1))
    await ledger.claim("batch-1")

    assert await ledger.claim("batch-1")


async def test_what_a_dead_worker_held_is_free_when_its_lease_ends(ledger, other, entry, clock):
    await ledger.take_up(entry(1))
    held = await ledger.claim("batch-1")

    clock.now += LEASE_SECONDS - 1
    assert await other.claim("batch-1") is None
    clock.now += 1
    assert await other.claim("batch-1")

    with pytest.raises(LeaseLost):
        await ledger.record(held, state=State.SUBMITTING)
    with pytest.raises(LeaseLost):
        await ledger.renew("batch-1")
    assert (await other.entry("batch-1")).state is State.STAGED


async def test_a_renewed_lease_goes_on(ledger, other, entry, clock):
    await ledger.take_up(entry(1))
    await ledger.claim("batch-1")
    clock.now += LEASE_SECONDS - 1

    await ledger.renew("batch-1")

    clock.now += LEASE_SECONDS - 1
    assert await other.claim("batch-1") is None


@pytest.mark.parametrize("state", [state for state in State if state not in {"staged", "submitting"}])
async def test_only_what_is_open_is_claimed(ledger, entry, state):
    await ledger.take_up(entry(1, state=state))

    assert (await ledger.claim("batch-1") is not None) == (state in {"submitted", "running"})


async def test_what_is_not_due_is_not_claimed(ledger, entry, clock):
    await ledger.take_up(entry(1, next_attempt=clock.now + 5))

    assert await ledger.claim("batch-1") is None
    clock.now += 5
    assert await ledger.claim("batch-1")


@pytest.mark.parametrize(
    ("state", "free"), [(s, s not in {"staged", "submitting", "submitted", "running", "uncertain"}) for s in State]
)
async def test_snapshots_keep_their_order(ledger, entry, state, free):
    """A later one waits until the one before is settled, if need be by a person."""
    await ledger.take_up(entry(2, state=state))
    await ledger.take_up(entry(1))
    await ledger.take_up(entry(3, integration="neighbour"))

    assert (await ledger.claim("batch-1") is not None) == free
    assert await ledger.claim("batch-3")


async def test_batches_that_add_to_each_other_do_not_wait(ledger, entry):
    await ledger.take_up(entry(1, replaces=False))
    await ledger.take_up(entry(2, replaces=False))

    assert await ledger.claim("batch-2")


async def test_a_substitute_takes_the_turn_of_what_it_stands_for(ledger, entry):
    await ledger.take_up(entry(1))
    await ledger.take_up(entry(2))
    await ledger.claim("batch-1")

    assert await ledger.take_up(entry(3), supersedes="batch-1")

    assert [each.id for each in await ledger.entries(states=[State.STAGED])] == ["batch-3", "batch-2"]
    assert await ledger.claim("batch-2") is None
    old = await ledger.entry("batch-1")
    assert (old.state, old.superseded_by, old.owner) == (State.SUPERSEDED, "batch-3", None)


@pytest.mark.parametrize("state", ["submitting", "running", "published"])
async def test_what_was_begun_has_no_substitute(ledger, entry, state):
    """Else its records would go twice."""
    await ledger.take_up(entry(1, state=state))

    assert not await ledger.take_up(entry(2), supersedes="batch-1")

    assert [each.id for each in await ledger.entries()] == ["batch-1"]


async def test_a_substitute_of_the_unknown_is_a_batch_like_any_other(ledger, entry):
    """The ledger is new, or never saw the first one."""
    assert await ledger.take_up(entry(2), supersedes="batch-1")


async def test_a_pause_holds_for_all_workers_and_ends(ledger, other, entry, clock):
    await ledger.take_up(entry(1))
    await ledger.pause("acme", "club", 10, "refused")
    await ledger.pause("acme", "club", 20, "refused again")

    assert await other.pauses() == [Pause("acme", "club", clock.now + 20, "refused again")]
    assert await other.claim("batch-1") is None
    clock.now += 20
    assert await other.pauses() == []
    assert await other.claim("batch-1")


async def test_a_person_decides_on_what_was_seen(ledger, entry, clock):
    """A decision on an older state of things counts for nothing."""
    await ledger.take_up(entry(1, state=State.UNCERTAIN))
    await ledger.pause("acme", "club", 10, "refused")
    seen = await ledger.entry("batch-1")

    clock.now += 1
    decided = await ledger.decide(seen, State.FAILED, "looked there")

    assert decided.state is State.FAILED
    assert await ledger.decide(seen, State.PUBLISHED, "looked there") is None
    assert [(change.state, change.owner is None) for change in await ledger.history("batch-1")] == [
        ("uncertain", False),
        ("failed", True),
    ]
    assert await ledger.pauses() == []


async def test_a_person_does_not_interfere_with_a_worker(ledger, entry):
    await ledger.take_up(entry(1))
    held = await ledger.claim("batch-1")

    assert await ledger.decide(held, State.CANCELLED, "") is None


async def test_one_worker_flushes_at_a_time(ledger, other, clock):
    async with (
        ledger.lease("acme", "club") as held,
        other.lease("acme", "club") as also_held,
        other.lease("acme", "neighbour") as free,
    ):
        assert (held, also_held, free) == (True, False, True)

    async with other.lease("acme", "club") as held:
        assert held


async def test_a_lease_that_is_lost_ends_the_work(ledger_url, clock):
    """Whoever was suspended for too long notices before it does harm."""

    async def work(slow, quick):
        async with slow.lease("acme", "club"), quick.lease("acme", "club") as taken:
            assert taken
            await asyncio.sleep(10)

    async with Ledger.open(ledger_url, clock=clock, lease_seconds=0.3) as slow, Ledger.open(ledger_url) as quick:
        quick.clock = lambda: clock.now + 1

        with pytest.raises(LeaseLost):
            await work(slow, quick)


async def test_a_lease_is_renewed_while_the_work_lasts(ledger_url, clock, monkeypatch):
    renewed = asyncio.Event()

    async def renew(name):
        await renew_lease(name)
        renewed.set()

    async with (
        Ledger.open(ledger_url, clock=clock, lease_seconds=6) as ledger,
        Ledger.open(ledger_url, clock=clock) as other,
    ):
        renew_lease = ledger._renew_lease
        monkeypatch.setattr(ledger, "_renew_lease", renew)
        async with ledger.lease("acme", "club"):
            clock.now += 5
            await renewed.wait()
            clock.now += 5
            async with other.lease("acme", "club") as held:
                assert not held


async def test_a_timeout_inside_is_no_lost_lease(ledger):
    with pytest.raises(TimeoutError):
        async with ledger.lease("acme", "club"):
            raise TimeoutError


async def test_ledgers_opened_at_once_make_one(ledger_url, entry):
    async def take_up(number):
        async with Ledger.open(ledger_url) as ledger:
            return await ledger.take_up(entry(number))

    assert all(await asyncio.gather(*map(take_up, range(6))))


async def test_who_only_looks_makes_nothing(ledger_url):
    with pytest.raises(LedgerError, match="partnerenrich ship makes it"):
        async with Ledger.open(ledger_url, create=False):
            pass


async def test_a_ledger_of_another_version_is_refused(sqlite_url, tmp_path):
    async with Ledger.open(sqlite_url):
        pass
    with contextlib.closing(sqlite3.connect(tmp_path / "ledger.db", isolation_level=None)) as connection:
        connection.execute("UPDATE partnerenrich_ledger SET version = 1")

    with pytest.raises(LedgerError, match="version 1"):
        async with Ledger.open(sqlite_url):
            pass


@pytest.mark.parametrize("url", ["nonsense", "mysql://host/name", "sqlite://", "sqlite:///:memory:", "sqlite:///"])
async def test_a_wrong_url_is_a_problem_of_the_field(url):
    with pytest.raises(ConfigError, match="ledger"):
        async with Ledger.open(url):
            pass


async def test_a_ledger_that_was_taken_away_is_missed_and_not_made_anew(sqlite_url, tmp_path, entry):
    """An empty one would have all batches sent again."""
    async with Ledger.open(sqlite_url) as ledger:
        await ledger.take_up(entry(1))
        for path in tmp_path.glob("ledger.db*"):
            path.unlink()

        with pytest.raises(LedgerError, match="unable to open"):
            await ledger.claim("batch-1")
        assert list(tmp_path.iterdir()) == []


async def test_a_folder_that_is_not_there_is_told(tmp_path):
    with pytest.raises(LedgerError, match="No such file or directory"):
        async with Ledger.open(f"sqlite:///{tmp_path}/missing/ledger.db"):
            pass


async def test_a_locked_ledger_is_told_and_opens_again(sqlite_url, tmp_path, entry, monkeypatch):
    monkeypatch.setattr("partnerenrich_server.delivery.database.BUSY_SECONDS", 0.05)
    async with Ledger.open(sqlite_url) as ledger:
        blocker = sqlite3.connect(tmp_path / "ledger.db", isolation_level=None)
        blocker.execute("BEGIN IMMEDIATE")

        with pytest.raises(LedgerError, match="database is locked"):
            await ledger.take_up(entry(1))

        blocker.execute("ROLLBACK")
        blocker.close()
        assert await ledger.take_up(entry(1))


async def test_a_server_that_is_gone_is_told_and_comes_back(postgresql, entry):
    postgresql.ask("CREATE DATABASE comes_and_goes")
    async with Ledger.open(postgresql.url("comes_and_goes")) as ledger:
        postgresql.stop()

        with pytest.raises(LedgerError, match="the ledger cannot be used"):
            await ledger.take_up(entry(1))

        postgresql.start()
        assert await ledger.take_up(entry(1))


async def test_an_error_of_the_database_holds_nothing_that_was_written(ledger, entry):
    """Not even in what it was raised from."""
    await ledger.take_up(entry(1))
    held = await ledger.claim("batch-1")

    with ledger._engine.begin() as connection:
        connection.exec_driver_sql("DROP TABLE partnerenrich_transitions")

    with pytest.raises(LedgerError) as caught:
        await ledger.record(held, state=State.RUNNING, why="canary", progress={"canary": 1})

    assert "canary" not in repr(caught.value)
    assert caught.value.__context__ is None


async def test_what_is_committed_is_on_the_disk(sqlite_url):
    """WAL with full synchronisation."""
    async with Ledger.open(sqlite_url) as ledger:
        with ledger._engine.connect() as connection:
            journal = connection.exec_driver_sql("PRAGMA journal_mode").scalar()
            synchronous = connection.exec_driver_sql("PRAGMA synchronous").scalar()

    assert (journal, synchronous) == ("wal", 2)


def test_others_cannot_read_the_file(sqlite_url, tmp_path):
    connect(sqlite_url, create=True).dispose()

    assert (tmp_path / "ledger.db").stat().st_mode & 0o077 == 0
