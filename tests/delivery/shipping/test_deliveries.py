"""The command ``partnerenrich deliveries``: what it tells, and what it lets a person decide."""

import asyncio
import json

import pytest
from click.testing import CliRunner

from partnerenrich_server.cli import main
from partnerenrich_server.delivery.entries import State
from partnerenrich_server.delivery.ledger import Ledger


@pytest.fixture
def config(tmp_path):
    path = tmp_path / "config.yaml"
    path.write_text(json.dumps({"org": "acme", "ledger": "sqlite:///ledger.db"}))
    return path


@pytest.fixture
def deliveries(config):
    """Run the command."""

    def run(subcommand, *arguments):
        return CliRunner().invoke(main, ["deliveries", subcommand, "--config", str(config), *arguments])

    return run


@pytest.fixture
def filled(tmp_path, entry):
    """A ledger of one batch in each of these states; the batch has the name of its state."""

    def fill(*states, paused=None, **fields):
        async def work():
            async with Ledger.open(f"sqlite:///{tmp_path}/ledger.db") as ledger:
                for state in states:
                    fresh = {"recheck": state == "staged"}
                    await ledger.take_up(entry(state, id=state, state=state, **{**fresh, "replaces": False, **fields}))
                if paused:
                    await ledger.pause("acme", "club", 900, paused)

        asyncio.run(work())

    return fill


@pytest.fixture
def look(tmp_path):
    """The entry and the pauses that the ledger holds."""

    def entry_of(batch_id):
        async def work():
            async with Ledger.open(f"sqlite:///{tmp_path}/ledger.db") as ledger:
                return await ledger.entry(batch_id), await ledger.pauses(), await ledger.history(batch_id)

        return asyncio.run(work())

    return entry_of


def test_the_list_shows_what_is_there(deliveries, filled):
    filled("published", "failed", error="no such importer", receipt={"accepted": 2, "rejected": 0}, rejected={"x": 7})

    told = deliveries("list").output

    assert "published" in told
    assert "2 rows, 2 accepted, 0 rejected, 7 set aside before" in told
    assert "no such importer" in told


def test_dead_letters_are_told_apart(deliveries, filled):
    filled(*State)

    told = json.loads(deliveries("list", "--dead", "--json").output)

    assert [entry["state"] for entry in told] == ["rejected", "failed", "uncertain"]


def test_the_list_can_be_narrowed(deliveries, filled):
    filled("published", "failed")
    filled("running", integration="neighbour")

    def ids(*arguments):
        return [entry["id"] for entry in json.loads(deliveries("list", "--json", *arguments).output)]

    assert ids() == ["published", "failed", "running"]
    assert ids("--integration", "neighbour") == ["running"]
    assert ids("--org", "other") == []
    assert ids("--state", "failed", "--state", "running") == ["failed", "running"]
    assert ids("--limit", "1") == ["running"]


def test_an_integration_that_is_left_alone_is_told(deliveries, filled):
    filled("staged", paused="the key is expired: make a new one")

    assert "acme/club is left alone until" in deliveries("list").output
    assert "the key is expired: make a new one" in deliveries("list").output


def test_show_tells_everything(deliveries, filled):
    filled("running", progress={"import": "i7"}, receipt={"malformed": 1, "partner_ref": "PUB.1", "reasons": {"A": 1}})

    text = deliveries("show", "running").output
    told = json.loads(deliveries("show", "running", "--json").output)

    assert all(word in text for word in ('{"import": "i7"}', '"malformed": 1', "PUB.1"))
    assert told["progress"] == {"import": "i7"}
    assert [change["state"] for change in told["history"]] == ["running"]


def test_what_is_not_known_is_told(deliveries, filled):
    filled("staged")

    result = deliveries("show", "nonsense")

    assert (result.exit_code, result.output) == (1, "Error: the ledger knows no nonsense\n")


def test_a_ledger_that_was_never_made_is_told(deliveries):
    result = deliveries("list")

    assert result.exit_code == 1
    assert "partnerenrich ship makes it" in result.output


@pytest.mark.parametrize(
    ("state", "becomes"),
    [
        ("staged", "staged"),
        ("submitting", "submitting"),
        ("running", "running"),
        ("failed", "staged"),
        ("rejected", "staged"),
        ("uncertain", "submitting"),
        ("published", None),
        ("cancelled", None),
        ("superseded", None),
    ],
)
def test_retry(deliveries, filled, look, state, becomes):
    """What was refused is handed over again, what is uncertain asked about; both at once, and the pause ends."""
    filled(state, paused="refused", progress={"a": 1}, failures=3, next_attempt=4e9, deadline=1.0, error="e")

    result = deliveries("retry", state, "--note", "new key")

    entry, pauses, history = look(state)
    if becomes is None:
        assert (result.exit_code, entry.state) == (1, state)
        return
    assert (result.exit_code, entry.state, entry.progress) == (0, becomes, {"a": 1})
    assert (entry.failures, entry.next_attempt, entry.deadline, entry.error, pauses) == (0, 0, None, None, [])
    assert (history[-1].why, history[-1].owner) == ("retry: new key", None)
    assert entry.recheck == (state in {"staged", "failed", "rejected"})


def test_what_has_no_files_any_more_is_told(deliveries, filled, look):
    """By `show`, and by `retry`, which has nothing to hand over."""
    filled("rejected", files_deleted=1_800_000_000.0)

    shown, retried = deliveries("show", "rejected"), deliveries("retry", "rejected")

    assert "files deleted  2027-01-15T08:00:00+00:00" in shown.output
    assert (retried.exit_code, look("rejected")[0].state) == (1, "rejected")
    assert "its files were deleted on 2027-01-15T08:00:00+00:00 (deliver.keep_seconds)" in retried.output


def test_an_old_snapshot_is_not_sent_over_a_new_one(deliveries, filled, look):
    filled("failed", "published", replaces=True)

    result = deliveries("retry", "failed")

    assert result.exit_code == 1
    assert "a later batch has taken its place" in result.output
    assert look("failed")[0].state is State.FAILED


@pytest.mark.parametrize("state", list(State))
def test_cancel(deliveries, filled, look, state):
    """Only what the partner surely does not have."""
    filled(state)

    result = deliveries("cancel", state)

    may = state in {"staged", "failed", "rejected"}
    assert result.exit_code == (0 if may else 1)
    assert look(state)[0].state == ("cancelled" if may else state)


def test_what_was_begun_is_not_cancelled(deliveries, filled, look):
    filled("staged", recheck=False, progress={"asked": 1})

    assert deliveries("cancel", "staged").exit_code == 1


@pytest.mark.parametrize("state", list(State))
@pytest.mark.parametrize("verdict", ["published", "failed"])
def test_resolve(deliveries, filled, look, state, verdict):
    """Only what is uncertain."""
    filled(state)

    result = deliveries("resolve", state, "--as", verdict, "--note", "seen in the dataset")

    entry, _, history = look(state)
    assert result.exit_code == (0 if state == "uncertain" else 1)
    assert entry.state == (verdict if state == "uncertain" else state)
    if state == "uncertain":
        assert history[-1].why == "seen in the dataset"


def test_one_refusal_does_not_stop_the_others(deliveries, filled):
    filled("published", "failed", "rejected")

    result = deliveries("cancel", "published", "failed", "nonsense", "rejected")

    assert result.exit_code == 1
    assert result.output.count("cancelled") == 2
    assert "published is published" in result.output
    assert "knows no nonsense" in result.output
