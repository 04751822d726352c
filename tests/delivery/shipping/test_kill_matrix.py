"""
Real processes, killed at every state and met by every fault: nothing is lost, nothing is published twice.

A kill comes from outside, at a moment that is held still: by the partner, which does not answer, or by the ledger's
database, which does not let a certain change be committed.
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import signal
import sqlite3
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import attrs
import psycopg
import pytest

LOCK = 4711

# A change of the ledger, as a condition of its trigger, and when it happens
COMMITS = {
    "sealed, not in the ledger": ("INSERT", "NEW.state = 'staged'"),
    "staged, to be claimed": ("UPDATE", "OLD.state = 'staged' AND OLD.owner IS NULL AND NEW.owner IS NOT NULL"),
    "staged, `submitting` to be written": ("UPDATE", "OLD.state = 'staged' AND NEW.state = 'submitting'"),
    "submitting, import to be asked for": ("UPDATE", "NEW.progress::text LIKE '%import%asked%'"),
    "submitting, import granted, not saved": ("UPDATE", "NEW.progress::text LIKE '%import%granted%'"),
    "submitting, `submitted` to be written": ("UPDATE", "OLD.state = 'submitting' AND NEW.state = 'submitted'"),
    "submitted, publish to be asked for": ("UPDATE", "NEW.progress::text LIKE '%publish%asked%'"),
    "submitted, publish granted, not saved": ("UPDATE", "NEW.progress::text LIKE '%publish%granted%'"),
    "submitted, `running` to be written": ("UPDATE", "OLD.state = 'submitted' AND NEW.state = 'running'"),
    "running, `published` to be written": ("UPDATE", "NEW.state = 'published'"),
}
# A request, and whether it is acted upon
REQUESTS = {
    "submitting, request for import lost": ("POST", "import", "before", True),
    "submitting, imported, not answered": ("POST", "import", "after", False),
    "submitted, poll under way": ("GET", "import", "before", False),
    "submitted, request to publish lost": ("POST", "publish", "before", True),
    "submitted, published, not answered": ("POST", "publish", "after", False),
    "running, poll under way": ("GET", "publish", "before", False),
}


@attrs.frozen
class Row:
    """One line of the matrix."""

    moment: str
    partner: str
    state: str
    imported: int
    published: int

    @property
    def ok(self):
        """A careful plugin publishes once; of a careless one nothing is sent twice, and a person is told."""
        if self.partner == "resumes":
            return (self.state, self.imported, self.published) == ("published", 1, 1)
        done = (self.state, self.imported, self.published) == ("handed_over", 1, 1)
        return done or (self.state == "uncertain" and self.imported <= 1 and self.published <= 1)


class DatabaseHolds:
    """PostgreSQL waits before it commits a certain change of a delivery, once."""

    def __init__(self, url, event, condition):
        self._connection = psycopg.connect(url, autocommit=True)
        self._connection.execute("SELECT pg_advisory_lock(%s)", [LOCK])
        self._connection.execute(
            f"CREATE FUNCTION hold() RETURNS trigger LANGUAGE plpgsql AS "
            f"$$BEGIN PERFORM pg_advisory_xact_lock({LOCK}); RETURN NEW; END$$"
        )
        self._connection.execute(
            f"CREATE TRIGGER hold BEFORE {event} ON partnerenrich_deliveries "
            f"FOR EACH ROW WHEN ({condition}) EXECUTE FUNCTION hold()"
        )

    def wait(self):
        """Until somebody waits."""
        until = time.monotonic() + 120
        waiting = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"
        while not self._connection.execute(waiting).fetchone()[0]:
            assert time.monotonic() < until
            time.sleep(0.05)

    def let_go(self):
        self._connection.execute("DROP TRIGGER hold ON partnerenrich_deliveries CASCADE")
        self._connection.close()


def killed_at_commit(moment, new_place, new_database):
    url = new_database()
    place = new_place(url)
    place.entries()  # makes the ledger
    place.seal()
    event, condition = COMMITS[moment]
    database = DatabaseHolds(url, event, condition)
    process = place.start()
    database.wait()
    process.kill()
    process.wait()
    _end_sessions(url)
    database.let_go()
    return _outcome(moment, place, "resumes")


def _end_sessions(url):
    """The server notices only later that the process is gone; its transaction is rolled back."""
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE datname = current_database() AND wait_event = 'advisory'"
        )


def killed_in_request(moment, new_place, *, careful):
    place = new_place(careful=careful)
    place.seal()
    method, name, when, lose = REQUESTS[moment]
    held = place.partner.hold(method, name, when, lose=lose)
    process = place.start()
    assert held.reached.wait(120), place.entries()
    process.kill()
    process.wait()
    held.goes_on.set()
    if careful:
        return _outcome(moment, place, "resumes")
    return _outcome(moment.replace("submitted,", "submitting,"), place, "does not")


def killed_between_calls(new_place):
    place = new_place()
    place.partner.endless = True
    place.seal()
    process = place.start()
    while not any(entry.state == "submitted" and not entry.owner for entry in place.entries()):
        time.sleep(0.05)
    process.kill()
    process.wait()
    place.partner.endless = False
    return _outcome("submitted, until the next poll", place, "resumes")


def _outcome(moment, place, partner):
    place.ship()
    (entry,) = place.entries()
    return Row(moment, partner, entry.state.value, place.partner.imported.total(), place.partner.published.total())


@pytest.mark.timeout(600)
def test_kill_matrix(new_place, new_database, capsys):
    """SIGKILL at every state."""
    stories = [lambda moment=moment: killed_at_commit(moment, new_place, new_database) for moment in COMMITS]
    stories += [lambda moment=moment: killed_in_request(moment, new_place, careful=True) for moment in REQUESTS]
    stories += [
        lambda moment=moment: killed_in_request(moment, new_place, careful=False)
        for moment in REQUESTS
        if moment.endswith(("lost", "not answered"))
    ]
    stories += [lambda: killed_between_calls(new_place)]

    with ThreadPoolExecutor(4) as pool:
        rows = [story.result() for story in [pool.submit(story) for story in stories]]

    with capsys.disabled():
        print(f"\n{'killed when':42} {'plugin':9} {'in the end':12} imported published")
        for row in rows:
            print(f"{row.moment:42} {row.partner:9} {row.state:12} {row.imported:8} {row.published:9}")
    assert [row for row in rows if not row.ok] == []


@pytest.mark.parametrize("database", ["sqlite", "postgresql"])
def test_two_processes_ship_each_batch_once(new_place, request, database):
    ledger = "sqlite:///ledger.db" if database == "sqlite" else request.getfixturevalue("new_database")()
    place = new_place(ledger)
    batches = {place.seal() for _ in range(6)}

    both = [place.start("--once"), place.start("--once")]

    assert [(process.wait(), process.stderr.read().count("Error")) for process in both] == [(0, 0), (0, 0)]
    assert set(place.partner.imported.elements()) == batches
    assert place.partner.imported == place.partner.published
    assert place.partner.published.total() == len(batches)
    assert {entry.state for entry in place.entries()} == {"published"}


def test_a_poll_that_never_ends_goes_to_a_person(new_place):
    place = new_place(deadline=3)
    place.partner.endless = True
    place.seal()

    report = place.ship()

    assert [entry.state for entry in report.settled] == ["uncertain"]
    assert "not settled within 3 s" in report.settled[0].error
    assert place.partner.published.total() == 0


def test_a_credential_refused_in_the_middle(new_place):
    """The integration stops with what to do; with a new key the batch goes on where it was."""
    place = new_place()
    held = place.partner.hold("POST", "publish", "before")
    batch_id = place.seal()
    process = place.start("--once")
    assert held.reached.wait(120)
    place.partner.status = 401
    held.goes_on.set()
    out, _ = process.communicate(timeout=60)

    assert (process.returncode, batch_id in out) == (1, True)
    assert "refuses the credential" in out
    place.partner.status = None
    assert place.run("deliveries", "retry", batch_id).returncode == 0
    place.ship()
    assert (place.partner.imported.total(), place.partner.published.total()) == (1, 1)
    assert place.entries()[0].state == "published"


def test_a_storage_that_refuses(new_place):
    """It is told; when the storage is back everything goes."""
    place = new_place()
    batch_id = place.seal()
    (place.folder / "staging").rename(place.folder / "gone")
    (place.folder / "staging").write_text("no folder")

    done = place.run("ship", "--once")

    assert done.returncode != 0
    assert "staging" in done.stderr
    (place.folder / "staging").unlink()
    (place.folder / "gone").rename(place.folder / "staging")
    place.ship()
    assert place.partner.published == {batch_id: 1}


def test_half_a_part_is_no_batch(new_place):
    """Somebody died while it was written; without a manifest nothing is sealed."""
    place = new_place()
    batch_id = place.seal()
    folder = place.folder / "staging" / "acme" / "club" / "batches" / "20260101t000000-00000000"
    folder.mkdir()
    (folder / "part-00001.csv").write_text("customer_id\npers")

    place.ship()

    assert place.partner.published == {batch_id: 1}


def test_a_part_that_was_cut_is_not_sent(new_place):
    """It is no more what was sealed."""
    place = new_place()
    batch_id = place.seal()
    part = place.folder / "staging" / "acme" / "club" / "batches" / batch_id / "part-00001.csv"
    os.truncate(part, 5)

    place.start()

    while not (place.folder / "ledger.db").exists() or not any(entry.error for entry in place.entries()):
        time.sleep(0.1)
    (entry,) = place.entries()
    assert (entry.state, entry.error) == (
        "staged",
        "the stage: a staged file is not what was sealed: it was changed, or not read to its end",
    )
    assert place.partner.imported.total() == 0


def test_a_full_disk(new_place):
    """The ledger cannot grow: nothing is sent, for nothing could be written down; then it goes on."""
    place = new_place()
    place.entries()
    batch_id = place.seal()

    def no_room():
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))

    process = place.start("--once", preexec_fn=no_room)
    _, err = process.communicate(timeout=60)

    assert process.returncode == 1
    assert "the ledger cannot be used" in err
    assert place.partner.imported.total() == 0
    place.ship()
    assert place.partner.published == {batch_id: 1}


def test_a_locked_ledger_is_waited_for(new_place):
    place = new_place()
    place.entries()
    place.seal()
    with contextlib.closing(sqlite3.connect(place.folder / "ledger.db", isolation_level=None)) as blocker:
        blocker.execute("BEGIN IMMEDIATE")
        process = place.start("--once")
        time.sleep(3)
        blocker.execute("ROLLBACK")

    assert process.wait(60) == 0
    assert place.partner.published.total() == 1


def test_a_lost_ledger_sends_nothing_twice(new_place):
    place = new_place()
    place.seal()
    place.ship()
    for path in place.folder.glob("ledger.db*"):
        path.unlink()

    report = place.ship()

    assert [entry.state for entry in report.settled] == ["uncertain"]
    assert (place.partner.imported.total(), place.partner.published.total()) == (1, 1)


FAILURES = {
    "an error of the plugin": "raise KeyError([row for row in batch.rows()], config.token.reveal())",
    "an error of the client": "await http.get(f'{config.base_url}:x/{config.token.reveal()}')",
    "progress that is no JSON": "await batch.save({'rows': batch.rows(), 'token': config.token})",
}


@pytest.mark.parametrize(("body", "careful"), list(zip(FAILURES.values(), [True, True, False])), ids=list(FAILURES))
def test_nothing_of_a_person_and_no_secret_comes_out(new_place, body, careful):
    """Neither in the ledger nor in what is printed."""
    place = new_place(body=body, careful=careful)
    batch_id = place.seal()
    process = place.start()
    while not any(entry.error for entry in place.entries()):
        time.sleep(0.1)
    process.terminate()
    printed = "".join(process.communicate(timeout=60))
    place.ship()
    for words in (["list"], ["show", batch_id], ["show", batch_id, "--json"]):
        done = place.run("deliveries", *words)
        printed += done.stdout + done.stderr

    assert printed.count("deliver_batch failed with") >= 4
    assert "canary" not in printed
    assert b"canary" not in b"".join(path.read_bytes() for path in place.folder.glob("ledger.db*"))


def test_the_calls_of_a_day_are_counted_in_the_store(new_place):
    """By all processes together: here they are used up before the first one."""
    place = new_place()
    written = json.loads(place.config.read_text())
    written["integrations"][0]["limits"] = {"calls_per_day": 0}
    place.config.write_text(json.dumps(written | {"store": "embedded:memory"}))
    place.seal()

    process = place.start()
    told = [process.stdout.readline() for _ in range(2)]
    process.terminate()

    assert "staged" in told[0]
    assert "the calls of today (limits.calls_per_day, UTC) are used up" in told[1]
    assert (process.wait(30), place.partner.imported) == (0, {})


def test_sigterm_lets_the_step_finish(new_place):
    """What the partner granted is written down, and the next run goes on from there."""
    place = new_place()
    held = place.partner.hold("POST", "import", "after")
    place.seal()
    process = place.start()
    assert held.reached.wait(120)

    process.send_signal(signal.SIGTERM)
    threading.Timer(1, held.goes_on.set).start()

    assert process.wait(30) == 0
    (entry,) = place.entries()
    assert (entry.state, entry.owner, entry.progress) == ("submitted", None, {"import": "granted"})
