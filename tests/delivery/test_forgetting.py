"""Whoever is forgotten is not delivered: not staged any more, and taken out of what is staged, sealed or not."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import time

import attrs
import duckdb
import pytest
import yaml
import zstandard

from partnerenrich import recipes
from partnerenrich.configuration import bind, load_file, load_mapping
from partnerenrich.events import Event
from partnerenrich.store import StoreFailed
from partnerenrich_server.delivery.collector import Collector
from partnerenrich_server.delivery.stage import Stage
from partnerenrich_server.delivery.withdrawing import withdraw

NOW = time.time()
DAY = 86_400
EVER = float("inf")
APPEND = {"collect": "append"}


def person(name, **fields):
    return {"type": "identify", "userId": name, "traits": {"email": f"{name}@example.test"}, **fields}


def at(moment):
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(moment))


def ids_of(stage, manifest):
    return sorted(row["customer_id"] for row in stage.rows(manifest))


async def sealed(stage):
    return await stage.flush(now=NOW, force=True)


def read_incoming(stage):
    return [entry.path for entry in stage._storage.list(f"{stage.folder}/incoming")]


@pytest.fixture
def forget(partners, tmp_path):
    """``forget(deliver, source, value, until, **integration)``: what the command does with what is staged."""

    def forget(deliver, source, value, until=EVER, **integration):
        written = {"provider": "room", "deliver": {"staging": str(tmp_path / "staging"), **deliver}, **integration}
        raw = {"org": "acme", "default_region": "GB", "plugins_dir": str(partners), "integrations": [written]}
        return withdraw(load_mapping(raw, {}), "acme", source, value, until)["room"]

    return forget


# What is staged


@pytest.mark.parametrize("deliver", [{}, APPEND])
async def test_who_is_forgotten_is_in_no_later_batch(any_store, open_stage, collect, forget, deliver):
    """Whatever comes of that person, whenever it happened; others stay."""
    deliver = any_store.settings(**deliver)
    stage = open_stage(deliver)
    collect(deliver, [person("pat"), person("kim")])
    if deliver.get("collect") != "append":
        await sealed(stage)

    assert forget(deliver, "email", " Pat@Example.test ").found_by == ("email",)
    collect(deliver, [person("pat"), person("lee")], origin="second@1")
    manifest = await sealed(stage)
    assert ids_of(stage, manifest) == ["kim", "lee"]

    collect(deliver, [person("pat"), person("zoe")], origin="third@1")
    assert "pat" not in ids_of(stage, await sealed(stage))


@pytest.mark.parametrize("deliver", [{}, APPEND])
@pytest.mark.parametrize("between", [False, True])
async def test_who_is_forgotten_before_a_batch_goes_is_not_in_it(open_stage, collect, forget, deliver, between):
    """Whether or not another batch was sealed meanwhile."""
    stage = open_stage(deliver)
    collect(deliver, [person("pat"), person("kim")])
    manifest = await sealed(stage)
    forget(deliver, "user_id", "pat")
    if between:
        await sealed(stage)

    checked = await stage.recheck(manifest)

    assert (checked.supersedes, ids_of(stage, checked)) == (manifest.batch_id, ["kim"])
    if between and deliver != APPEND:
        assert remembered(stage, checked) == ["kim"]


def remembered(stage, manifest):
    """Customer ids of the records that the next snapshot is built on."""
    path = stage._storage._folder / stage.folder / "snapshots" / f"{manifest.state}.state"
    rows = duckdb.sql(f"SELECT customer_id FROM read_parquet('{path}') WHERE _withdrawn IS NOT true").fetchall()
    return [row[0] for row in rows]


@pytest.mark.parametrize(("source", "value"), [("phone", "020 7946 0123"), ("user_id", "pat")])
async def test_anybody_is_found_by_any_identifier(open_stage, collect, forget, source, value):
    stage = open_stage()
    phone = {"email": "pat@example.test", "phone": "+44 20 7946 0123"}
    collect({}, [person("pat", traits=phone), person("kim")])

    forget({}, source, value)

    assert ids_of(stage, await sealed(stage)) == ["kim"]


async def test_a_time_ends(open_stage, collect, forget):
    """What happens after it is delivered again; what happened before is not."""
    stage = open_stage()
    forget({}, "email", "pat@example.test", NOW - 100)
    collect({}, [person("pat", timestamp=at(NOW - 200)), person("kim", timestamp=at(NOW - 200))])
    assert ids_of(stage, await sealed(stage)) == ["kim"]

    collect({}, [person("pat", timestamp=at(NOW - 50))], origin="second@1")
    assert ids_of(stage, await sealed(stage)) == ["kim", "pat"]


@pytest.mark.parametrize("between", [False, True])
async def test_what_is_said_last_counts(open_stage, collect, forget, between):
    """Who is taken off the list again is delivered from then on."""
    stage = open_stage()
    collect({}, [person("kim", timestamp=at(NOW - 90)), person("pat", timestamp=at(NOW - 90))])
    forget({}, "email", "pat@example.test")
    if between:
        assert ids_of(stage, await sealed(stage)) == ["kim"]
    forget({}, "email", "pat@example.test", NOW - 50)
    collect({}, [person("pat", timestamp=at(NOW - 10))], origin="second@1")

    assert ids_of(stage, await sealed(stage)) == ["kim", "pat"]


async def test_a_withdrawal_that_is_written_late_is_heeded_all_the_same(open_stage, collect):
    """Noted before a batch was sealed, in the storage only after it, and sealed into the next one."""
    consent = {"consent": ["marketing"]}
    stage = open_stage(APPEND, **consent)
    yes, no = ({"context": {"consent": {"marketing": granted}}} for granted in (True, False))
    collect(APPEND, [person("pat", **yes), person("kim", **yes)], **consent)
    late = Collector([stage._integration])
    late.add([Event.parse(json.dumps(person("pat", **no)).encode(), "acme")])
    manifest = await sealed(stage)
    late.flush()
    await sealed(stage)

    assert ids_of(stage, await stage.recheck(manifest)) == ["kim"]


PLAIN = """
global:
  mappings:
    - {source: user_id, target: customer_id}
    - {source: $traits.email, target: email}
    - {source: $traits.phone, target: phone}
"""


@pytest.mark.parametrize(
    ("source", "value"),
    [
        ("email", "pat@example.test"),
        ("email", "PAT@example.test"),
        ("phone", "+442079460123"),
        ("user_id", "pat"),
    ],
)
async def test_plain_columns_are_compared_in_their_normal_form(open_stage, collect, forget, tmp_path, source, value):
    """Not as somebody happened to write them."""
    (tmp_path / "plain.yaml").write_text(PLAIN)
    blueprint = {"blueprint": str(tmp_path / "plain.yaml")}
    stage = open_stage(**blueprint)
    spelled = {"email": " Pat@Example.test", "phone": "020 7946 0123"}
    collect({}, [person("pat", userId=" pat ", traits=spelled)], **blueprint)
    collect({}, [person("kim")], origin="second@1", **blueprint)

    forget({}, source, value, **blueprint)

    assert ids_of(stage, await sealed(stage)) == ["kim"]


def test_an_identifier_that_is_in_no_column_is_told(forget, open_stage):
    """And nothing is written."""
    told = forget({}, "canonical_id", "device-1")

    assert (told.found_by, told.problem) == ((), None)
    assert read_incoming(open_stage()) == []


def test_an_integration_that_is_switched_off_is_not_left_out(forget, open_stage):
    """It may be switched on again."""
    assert forget({}, "email", "pat@example.test", enabled=False).found_by == ("email",)
    assert len(read_incoming(open_stage())) == 1


@pytest.mark.parametrize(
    ("integration", "said"),
    [({"provider": "nobody"}, "nobody"), ({"settings": {"nonsense": 1}}, "nonsense")],
)
def test_a_destination_that_cannot_be_told_is_a_problem(partners, tmp_path, integration, said):
    """And no other one's."""
    written = {"name": "broken", "provider": "room", "deliver": {"staging": "staging"}, **integration}
    well = {"provider": "room", "deliver": {"staging": str(tmp_path / "staging")}}
    raw = {"org": "acme", "plugins_dir": str(partners), "integrations": [written, well]}

    told = withdraw(load_mapping(raw, {}), "acme", "email", "pat-canary@example.test", EVER)

    assert said in told["broken"].problem
    assert "canary" not in told["broken"].problem
    assert told["room"].found_by == ("email",)


# What is not staged


def test_while_nobody_can_tell_who_is_suppressed_nothing_is_gathered(configured):
    def unknown(_):
        raise StoreFailed("the suppression list of acme could not be read since the start")

    collector = Collector([configured(APPEND)], unknown)

    with pytest.raises(StoreFailed):
        collector.add([Event.parse(json.dumps(person("pat")).encode(), "acme")])

    collector.flush()
    assert collector.collected == {"acme/room": 0}


async def test_a_hub_goes_on_without_records_then(configured, caplog):
    def unknown(_):
        raise StoreFailed("the suppression list of acme could not be read since the start")

    await Collector([configured(APPEND)], unknown).collect([Event.parse(json.dumps(person("pat")).encode(), "acme")])

    assert "nothing of 1 events is delivered: the suppression list of acme" in caplog.text
    assert "pat" not in caplog.text


# The commands


@attrs.define
class Place:
    """A folder with a configuration whose store is kept, and commands in it."""

    folder: object
    deliver: dict
    store: str = "embedded:memory"
    key: str | None = None

    def run(self, *words, stdin=""):
        written = {"provider": "room", "deliver": self.deliver}
        raw = {"org": "acme", "default_region": "GB", "plugins_dir": "partners", "integrations": [written]}
        raw |= {"store": self.store, "key": self.key}
        (self.folder / "config.yaml").write_text(yaml.safe_dump(raw))
        command = [sys.executable, "-c", "from partnerenrich_server.cli import main; main()", *words]
        return subprocess.run(
            [*command, "--config", "config.yaml"],
            cwd=self.folder,
            input=stdin,
            env={key: value for key, value in os.environ.items() if key != "PARTNERENRICH_DEBUG"},
            capture_output=True,
            text=True,
            check=False,
            timeout=50,
        )

    def forget(self, option, value, *more):
        return self.run("forget", option, "-", *more, stdin=value)

    def delivered(self, *more):
        done = self.run("deliver", "--integration", "room", "people.csv", "--json", *more)
        assert done.stderr == ""
        return json.loads(done.stdout)

    def ids(self):
        """Customer ids in the newest batch."""
        integration = bind(load_file(self.folder / "config.yaml", {}))[0]["acme"][0]
        stage = Stage.open(integration, integration.delivery.settings, local=self.folder / "scratch")

        async def read():
            return await stage.manifest((await stage.batches())[-1])

        return ids_of(stage, asyncio.run(read()))


@pytest.fixture
def place(partners, tmp_path):
    return Place(tmp_path, {"staging": "staging"})


CANARY = "pat.canary"
PEOPLE = [("kim", "kim@example.test", ""), ("pat", f" {CANARY.title()}@Example.test ", "+44 20 7946 0123")]


def write_people(folder, people=PEOPLE):
    lines = ["customer_id,email,phone", *(",".join(row) for row in people)]
    (folder / "people.csv").write_text("\n".join(lines) + "\n")


@pytest.mark.parametrize(
    ("option", "value"),
    [("--email", f"{CANARY}@example.test"), ("--phone", "02079460123"), ("--user-id", "pat")],
)
@pytest.mark.parametrize("deliver", [{}, APPEND])
def test_files_are_delivered_without_who_is_on_the_list(place, deliver, option, value):
    """Counted; and however many they are, that stops nothing."""
    place.deliver |= deliver
    write_people(place.folder)
    forgotten = place.forget(option, value)

    rehearsed = place.delivered("--dry-run")
    told = place.delivered()

    assert forgotten.returncode == 0
    assert "taken out of what is staged for room: no batch that goes from now on has it" in forgotten.stdout
    assert rehearsed["rejected"] == told["rejected"] == {"on the suppression list": 1}
    assert (rehearsed["records"], told["records"], rehearsed["refused"]) == (1, 1, None)
    assert place.ids() == ["kim"]


def test_who_was_delivered_is_not_in_the_next_snapshot(place):
    """And comes back when the list is lifted, with the next file."""
    write_people(place.folder)
    place.delivered()
    assert place.ids() == ["kim", "pat"]

    place.forget("--email", f"{CANARY}@example.test")
    write_people(place.folder, [("lee", "lee@example.test", "")])
    place.delivered()
    assert place.ids() == ["kim", "lee"]

    assert place.forget("--email", f"{CANARY}@example.test", "--lift").returncode == 0
    write_people(place.folder)
    assert place.delivered()["rejected"] == {}
    assert place.ids() == ["kim", "lee", "pat"]


@pytest.mark.parametrize("deliver", [{}, APPEND])
def test_digests_in_files_are_known_from_what_forget_left(place, deliver):
    """The list itself cannot look them up."""
    place.deliver |= deliver
    place.forget("--email", f"{CANARY}@example.test")
    digests = [(name, recipes.apply("sha256", "email", mail), "") for name, mail, _ in PEOPLE]
    write_people(place.folder, digests)

    place.delivered()

    assert place.ids() == ["kim"]


def test_to_lift_what_is_not_on_the_list_takes_nobody_out(place):
    write_people(place.folder)
    place.delivered()

    place.forget("--email", f"{CANARY}@example.test", "--lift")
    write_people(place.folder, [("lee", "lee@example.test", "")])
    place.delivered()

    assert place.ids() == ["kim", "lee", "pat"]


@pytest.mark.parametrize("more", [[], ["--dry-run"]])
def test_without_the_list_nothing_is_delivered(place, more):
    """Somebody may be on it."""
    place.store, place.key = "redis://127.0.0.1:1", "k" * 43 + "="
    write_people(place.folder)

    done = place.run("deliver", "--integration", "room", "people.csv", *more)

    assert (done.returncode, done.stdout) == (1, "")
    assert "nobody can tell who is on the suppression list, and nothing is delivered" in done.stderr
    assert "--store" in done.stderr
    assert not list(place.folder.glob("staging/**/manifest.json"))


def test_without_the_list_a_run_collects_nothing(place):
    """And fails; its events are enriched all the same."""
    place.store, place.key = "redis://127.0.0.1:1", "k" * 43 + "="
    (place.folder / "events.ndjson").write_text(json.dumps(person("pat")) + "\n")

    done = place.run("run", "--input", "events.ndjson", "--output", "out.ndjson")

    assert done.returncode == 1
    assert "the suppression list of acme could not be read since the start" in done.stderr
    assert not list(place.folder.glob("staging/**/*.zst"))


@pytest.mark.parametrize("more", [[], ["--lift"]])
def test_a_storage_that_fails_is_told_and_it_can_be_done_again(place, more):
    """Nobody is taken off the list before what is staged knows of it."""
    write_people(place.folder)
    if more:
        place.forget("--email", f"{CANARY}@example.test")
    well, place.deliver = place.deliver, {"staging": "/proc/version/staging"}

    failed = place.forget("--email", f"{CANARY}@example.test", *more)

    assert failed.returncode == 1
    assert "Error: room: the staging folder /proc/version/staging cannot be made" in failed.stderr
    assert "do it again" in failed.stderr
    place.deliver = well
    assert place.delivered("--dry-run")["rejected"] == {"on the suppression list": 1}
    again = place.forget("--email", f"{CANARY}@example.test", "--json", *more)
    assert json.loads(again.stdout)["staged"] == {"room": {"found_by": ["email"], "problem": None}}


def test_nothing_of_a_forgotten_person_is_told_or_left_plain(place):
    write_people(place.folder)
    done = [
        place.forget("--email", f"{CANARY}@example.test"),
        place.run("deliver", "--integration", "room", "people.csv"),
    ]
    done += [place.forget("--email", f"{CANARY}@example.test", *more) for more in (["--json"], ["--lift"])]

    for each in done:
        assert CANARY not in (each.stdout + each.stderr).lower()
    written = set(place.folder.glob("staging/**/*.zst"))
    assert len(written) == 2  # of the last two
    for path in place.folder.glob("staging/**/*.*"):
        content = path.read_bytes()
        assert CANARY.encode() not in (zstandard.decompress(content) if path in written else content).lower()
