"""What has collected becomes sealed batches: each record once, nobody who has withdrawn, nothing plain."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import hashlib
import json
import time
from pathlib import Path

import attrs
import pytest

from partnerenrich import ConfigError, recipes
from partnerenrich_server.delivery.manifest import new_id, time_of
from partnerenrich_server.delivery.query import QueryError
from partnerenrich_server.delivery.rejects import TooManyRejected
from partnerenrich_server.delivery.stage import SealedByAnother
from partnerenrich_server.delivery.storage import Storage, StorageError

NOW = time.time()
APPEND = {"collect": "append"}


def person(name, **fields):
    traits = {"email": f"{name}@example.test", "firstName": name.title()}
    return {"type": "identify", "userId": name, "traits": traits, **fields}


def digest(name):
    return recipes.apply("sha256", "email", f"{name}@example.test")


def at(moment):
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(moment))


def rows_of(stage, manifest):
    return sorted(stage.rows(manifest), key=lambda row: row.get("customer_id", ""))


def ids_of(stage, manifest):
    return [row["customer_id"] for row in rows_of(stage, manifest)]


def change(file, content):
    path = Path(file.url.removeprefix("file://"))
    path.write_bytes(content(path.read_bytes()))


def files_below(stage, folder):
    return [entry.path for entry in stage._storage.list(f"{stage.folder}/{folder}")]


async def sealed(stage, *, now=NOW):
    return await stage.flush(now=now, force=True)


# Sealing


@pytest.mark.parametrize("format_", ["csv", "parquet"])
async def test_what_has_collected_is_sealed_in_any_storage(any_store, open_stage, collect, format_):
    """The files hold the columns of the blueprint, hashed, and are what the manifest says."""
    deliver = any_store.settings(format=format_)
    stage = open_stage(deliver)
    collect(deliver, [person("pat"), person("kim")])

    manifest = await sealed(stage)

    assert await stage.batches() == [manifest.batch_id]
    assert await stage.manifest(manifest.batch_id) == manifest
    assert (manifest.rows, manifest.columns[:2]) == (2, ("customer_id", "email"))
    assert [row["email"] for row in rows_of(stage, manifest)] == [digest("kim"), digest("pat")]
    assert rows_of(stage, manifest)[0] == {"customer_id": "kim", "email": digest("kim"), "first_name": "Kim"}
    for file in manifest.files:
        content = stage.open_file(file).read()
        assert (len(content), hashlib.sha256(content).hexdigest()) == (file.bytes, file.sha256)
    assert files_below(stage, "incoming") == []


async def test_nothing_has_collected(open_stage):
    assert await sealed(open_stage()) is None
    assert await open_stage().batches() == []


async def test_a_snapshot_has_the_latest_record_of_each_person(open_stage, collect):
    """Of earlier batches, too; by the time of the event, not of its arrival."""
    stage = open_stage()
    collect({}, [person("pat", timestamp=at(NOW - 50)), person("kim", timestamp=at(NOW - 50))])
    await sealed(stage)
    newer = person("pat", timestamp=at(NOW - 10), traits={"email": "pat@example.test", "first_name": "Patrice"})
    older = person("kim", timestamp=at(NOW - 90), traits={"email": "kim@example.test", "first_name": "Old"})
    collect({}, [newer, older], origin="second@1")

    manifest = await sealed(stage)

    assert [row["first_name"] for row in rows_of(stage, manifest)] == ["Kim", "Patrice"]


async def test_a_key_is_chosen(open_stage, collect):
    """People whom the shop does not know by an id are told apart by their e-mail."""
    deliver = {"key": "email"}
    stage = open_stage(deliver)
    collect(deliver, [{"type": "identify", "traits": {"email": "Pat@Example.test "}}, person("pat")])

    assert (await sealed(stage)).rows == 1


async def test_an_appended_batch_has_what_is_new(open_stage, collect):
    stage = open_stage(APPEND)
    collect(APPEND, [person("pat"), person("pat")])
    first = await sealed(stage)
    collect(APPEND, [person("kim")], origin="second@1")
    second = await sealed(stage)

    assert (ids_of(stage, first), ids_of(stage, second)) == (["pat", "pat"], ["kim"])
    assert await stage.batches() == [first.batch_id, second.batch_id]


async def test_a_line_that_collects_twice_is_there_once(open_stage, collect):
    """As after a run that was killed and started again."""
    stage = open_stage(APPEND)
    collect(APPEND, [person("pat"), person("kim")])
    collect(APPEND, [person("pat"), person("kim"), person("lee")])

    assert ids_of(stage, await sealed(stage)) == ["kim", "lee", "pat"]


@pytest.mark.parametrize(
    ("format_", "compression", "suffix"),
    [
        ("csv", "none", ".csv"),
        ("csv", "gzip", ".csv.gz"),
        ("csv", "zstd", ".csv.zst"),
        ("parquet", "snappy", ".parquet"),
        ("parquet", "zstd", ".parquet"),
        ("parquet", "gzip", ".parquet"),
        ("parquet", "none", ".parquet"),
    ],
)
async def test_every_format_can_be_read_again(open_stage, collect, format_, compression, suffix):
    deliver = {"format": format_, "compression": compression}
    stage = open_stage(deliver)
    odd = 'a "quoted", name\nof two lines'
    collect(deliver, [person("pat", traits={"email": "pat@example.test", "lastName": odd})])

    manifest = await sealed(stage)

    assert manifest.files[0].url.endswith(suffix)
    assert rows_of(stage, manifest)[0]["last_name"] == odd


async def test_csv_is_as_the_standard_wants_it(open_stage, collect):
    """A header, commas, quotes where they are needed, line feeds."""
    deliver = {"compression": "gzip"}
    stage = open_stage(deliver)
    collect(deliver, [person("pat", traits={"email": "pat@example.test", "lastName": 'O"Hare, Pat'})])

    (file,) = (await sealed(stage)).files

    assert gzip.decompress(stage.open_file(file).read()).decode() == (
        f'customer_id,email,first_name,last_name,phone\npat,{digest("pat")},,"O""Hare, Pat",\n'
    )


async def test_parts_are_of_bounded_size(open_stage, collect):
    deliver = {"format": "parquet", "part_rows": 1000, **APPEND}
    stage = open_stage(deliver)
    collect(deliver, [person(f"p{n}") for n in range(5000)])

    manifest = await sealed(stage)

    assert sum(file.rows for file in manifest.files) == manifest.rows == 5000
    assert max(file.rows for file in manifest.files) <= 3000
    assert len(manifest.files) >= 2


async def test_parts_of_csv_are_of_bounded_size(open_stage, collect):
    deliver = {"part_bytes": 1 << 18, **APPEND}
    stage = open_stage(deliver)
    collect(deliver, [person(f"p{n}") for n in range(20_000)])

    manifest = await sealed(stage)

    assert len(manifest.files) > 2
    assert {file.url.rpartition("/")[0] for file in manifest.files} == {manifest.files[0].url.rpartition("/")[0]}
    assert len(set(ids_of(stage, manifest))) == 20_000


# What is set aside


async def test_poison_is_set_aside_and_counted(open_stage, collect):
    deliver = {"max_rejected": 0.5}
    stage = open_stage(deliver)
    bad = person("bad", traits={"email": "no address", "phone": "12"})
    nobody = {"type": "identify", "traits": {"email": "kim@example.test"}}
    collect(deliver, [person("pat"), person("lee"), bad, nobody])

    manifest = await sealed(stage)

    assert (manifest.rows, manifest.rejected) == (2, {"unusable email, phone": 1, "no customer_id": 1})


async def test_half_a_character_is_kept_where_it_tells_nobody_apart(open_stage, collect):
    """Of two broken ids nobody knows whether they were one; a broken name is a name all the same."""
    deliver = {"max_rejected": 0.8}
    stage = open_stage(deliver)
    broken = [{**person("kim"), "userId": "kim \ud83d"}, {**person("lee"), "userId": "kim \ud83e"}]
    cut = person("pat", traits={"email": "pat@example.test", "firstName": "Pat \ud83d"})
    collect(deliver, [*broken, cut, person("bad", traits={"email": "x\ud83d@example.test"})])

    manifest = await sealed(stage)

    assert manifest.rejected == {"no customer_id": 2, "unusable email": 1}
    assert [row["first_name"] for row in rows_of(stage, manifest)] == ["Pat \ufffd"]


@pytest.mark.parametrize("value", [True, 3.5, ["pat"], {"id": "pat"}])
async def test_what_is_no_text_and_no_integer_is_no_identifier(open_stage, collect, value):
    deliver = {"max_rejected": 0.5}
    stage = open_stage(deliver)
    collect(deliver, [{**person("pat"), "userId": value}, {**person("lee"), "userId": 7}])

    manifest = await sealed(stage)

    assert (ids_of(stage, manifest), manifest.rejected) == (["7"], {"no customer_id": 1})


async def test_too_much_poison_stops_the_batch_and_loses_nothing(open_stage, collect):
    stage = open_stage()
    collect({}, [person("pat"), person("bad", traits={"email": "no address"})])

    for _ in range(2):
        with pytest.raises(TooManyRejected, match=r"1 of 2 records .*unusable email: 1.*max_rejected allows \(10%\)"):
            await sealed(stage)

    assert await stage.batches() == []
    assert (await sealed(open_stage({"max_rejected": 0.5}))).rows == 1


@pytest.mark.parametrize(
    "event",
    [
        {"type": "track", "event": "Seen", "userId": "pat"},
        {"type": "page", "anonymousId": "a-1"},
        {"type": "identify", "userId": "pat", "traits": {"email": "", "phone": None}},
    ],
)
async def test_an_event_without_an_identifier_is_no_record_and_no_reject(open_stage, collect, event):
    """Most events of a stream say nothing new of a person, and must not wipe out what is known."""
    stage = open_stage()
    collect({}, [event])

    assert await sealed(stage) is None


async def test_a_plain_value_where_a_digest_has_to_be_stops_the_batch(open_stage, collect, tmp_path):
    """As when records collected under a blueprint that did not hash yet."""
    plain = "global: {mappings: [{source: user_id, target: customer_id}, {source: $traits.email, target: email}]}"
    (tmp_path / "plain.yaml").write_text(plain)
    collect({}, [person("pat")], blueprint=str(tmp_path / "plain.yaml"))
    stage = open_stage()

    with pytest.raises(QueryError, match="holds something that is no digest; nothing was staged") as raised:
        await sealed(stage)

    assert "pat" not in str(raised.value)
    assert files_below(stage, "batches") == []


# Consent


CONSENT = {"consent": ["marketing"]}


def consenting(name, *, moment, granted, **fields):
    return person(name, timestamp=at(moment), context={"consent": {"marketing": granted}}, **fields)


async def test_without_consent_nothing_collects(open_stage, collect):
    stage = open_stage(**CONSENT)
    collect({}, [person("pat")], **CONSENT)

    assert await sealed(stage) is None


@pytest.mark.parametrize("deliver", [{}, APPEND])
async def test_who_withdraws_is_taken_out(open_stage, collect, deliver):
    """Under whatever identifier; one who consents again later is in again."""
    stage = open_stage(deliver, **CONSENT)
    withdrawal = {"type": "track", "event": "Consent", "timestamp": at(NOW - 50)}
    no = {"consent": {"marketing": False}}
    events = [
        consenting("pat", moment=NOW - 90, granted=True),
        consenting("kim", moment=NOW - 90, granted=True),
        consenting("lee", moment=NOW - 90, granted=True),
        withdrawal | {"context": no | {"traits": {"email": "PAT@example.test"}}},
        withdrawal | {"context": no, "userId": "kim"},
        consenting("kim", moment=NOW - 10, granted=True),
    ]
    collect(deliver, events, **CONSENT)

    assert ids_of(stage, await sealed(stage)) == ["kim", "lee"]


async def test_who_has_withdrawn_stays_out_of_later_snapshots(open_stage, collect):
    """Also when an older event arrives late."""
    stage = open_stage(**CONSENT)
    collect({}, [consenting(name, moment=NOW - 90, granted=True) for name in ("pat", "kim")], **CONSENT)
    await sealed(stage)
    collect({}, [consenting("pat", moment=NOW - 50, granted=False)], origin="second@1", **CONSENT)
    assert ids_of(stage, await sealed(stage)) == ["kim"]
    collect({}, [consenting("pat", moment=NOW - 70, granted=True)], origin="third@1", **CONSENT)

    assert ids_of(stage, await sealed(stage)) == ["kim"]


@pytest.mark.parametrize("deliver", [{}, APPEND])
@pytest.mark.parametrize("between", [False, True])
async def test_who_withdraws_before_a_batch_is_submitted_is_not_in_it(open_stage, collect, deliver, between):
    """The new batch supersedes the old one, whether or not the withdrawal was sealed meanwhile."""
    stage = open_stage(deliver, **CONSENT)
    collect(deliver, [consenting(name, moment=NOW - 90, granted=True) for name in ("pat", "kim")], **CONSENT)
    manifest = await sealed(stage)
    assert await stage.recheck(manifest) == manifest
    collect(deliver, [consenting("pat", moment=NOW - 50, granted=False)], origin="second@1", **CONSENT)
    if between:
        await sealed(stage)

    checked = await stage.recheck(manifest)

    assert (checked.supersedes, ids_of(stage, checked)) == (manifest.batch_id, ["kim"])
    assert manifest.batch_id not in await stage.batches()
    assert await stage.recheck(manifest) == checked
    assert await stage.recheck(checked) == checked


async def test_a_withdrawal_that_led_to_a_recheck_still_counts_for_the_next_batch(open_stage, collect):
    stage = open_stage(**CONSENT)
    collect({}, [consenting(name, moment=NOW - 90, granted=True) for name in ("pat", "kim")], **CONSENT)
    manifest = await sealed(stage)
    collect({}, [consenting("pat", moment=NOW - 50, granted=False)], origin="second@1", **CONSENT)
    await stage.recheck(manifest)

    assert ids_of(stage, await sealed(stage)) == ["kim"]


# When


@pytest.mark.parametrize(
    ("deliver", "later", "due"),
    [
        ({}, 3600, False),
        ({}, 90_000, True),
        ({"flush_rows": 2}, 0, True),
        ({"flush_rows": 3}, 0, False),
        ({"flush_bytes": 10}, 0, True),
        ({"flush_seconds": 60}, 61, True),
        ({"flush_seconds": 60}, 30, False),
        ({"schedule": "0 2 * * *"}, 90_000, True),
        ({"schedule": "0 0 1 1 *"}, 90_000, False),
        ({"schedule": "0 0 1 1 *", "flush_seconds": 60}, 61, True),
    ],
)
async def test_a_batch_is_sealed_when_it_is_due(open_stage, collect, deliver, later, due):
    """By rows, bytes, age or schedule; without a schedule, after a day."""
    stage = open_stage(deliver)
    collect(deliver, [person("pat"), person("kim")])
    (started,) = [time_of(path.rpartition("/")[2].split(".")[0]) for path in files_below(stage, "incoming")]

    assert (await stage.flush(now=started + later) is not None) == due


def test_a_schedule_that_does_not_exist_is_told(open_stage):
    with pytest.raises(ConfigError, match=r"deliver\.schedule"):
        open_stage({"schedule": "99 2 * * *"})


# What is over


async def test_files_of_a_batch_are_deleted_in_any_storage(any_store, open_stage, collect):
    """All of them, and no other one's; the next batch goes on from the newest."""
    deliver = any_store.settings()
    stage = open_stage(deliver)
    made = []
    for name in ("pat", "kim", "lee"):
        collect(deliver, [person(name)], origin=f"{name}@1")
        made.append(await sealed(stage))
        await stage.begin(made[-1].batch_id, "mark")
    first, second, newest = (manifest.batch_id for manifest in made)

    for _ in range(2):
        await stage.delete({first, "no-batch"})

    assert await stage.batches() == [second, newest]
    assert not [path for path in files_below(stage, "batches") if first in path]
    assert ids_of(stage, made[1]) == ["kim", "pat"]
    collect(deliver, [person("zoe")], origin="zoe@1")
    await stage.delete({second})
    assert ids_of(stage, await sealed(stage)) == ["kim", "lee", "pat", "zoe"]


# Several workers, and kills


async def test_of_two_workers_one_seals(any_store, open_stage, collect):
    """Nothing is in two batches."""
    deliver = any_store.settings(collect="append")
    stages = [open_stage(deliver) for _ in range(3)]
    collect(deliver, [person("pat")])

    made = await asyncio.gather(*(sealed(stage) for stage in stages))

    (manifest,) = [each for each in made if each]
    assert await stages[0].batches() == [manifest.batch_id]
    assert len(files_below(stages[0], "batches")) == 2
    assert await sealed(stages[1]) is None


async def test_whoever_comes_too_late_to_seal_files_is_told(open_stage, monkeypatch):
    stage = open_stage(APPEND)
    monkeypatch.setattr(
        Storage, "create", lambda self, path, content: path.endswith("first.json") and _first(self, path)
    )

    with pytest.raises(SealedByAnother):
        await stage.seal(_one_row, ["people.csv"])


def _first(storage, path):
    Path(storage.url.removeprefix("file://"), path).parent.mkdir(parents=True)
    return Path(storage.url.removeprefix("file://"), path).write_text(new_id())


def _one_row(connection, rejects):
    return "SELECT 'pat' AS customer_id, NULL AS email, NULL AS first_name, NULL AS last_name, NULL AS phone"


class Killed(BaseException):
    """Stands for kill -9: nothing after it is done."""


def killed_at(monkeypatch, method, times):
    """Let the storage die at a call of this method."""
    original = getattr(Storage, method)
    left = [times]

    def dying(self, *arguments):
        left[0] -= 1
        if left[0] <= 0:
            raise Killed
        return original(self, *arguments)

    monkeypatch.setattr(Storage, method, dying)


@pytest.mark.parametrize("deliver", [{}, APPEND])
@pytest.mark.parametrize(
    ("method", "times"),
    [("upload", 1), ("upload", 2), ("create", 1), ("create", 2), ("delete", 1), ("delete", 2), ("delete", 3)],
)
async def test_a_kill_at_any_moment_loses_nothing_and_seals_nothing_twice(
    open_stage, collect, monkeypatch, deliver, method, times
):
    """What it left is swept by the next one."""
    stage = open_stage(deliver)
    collect(deliver, [person("pat")])
    with monkeypatch.context() as patched:
        killed_at(patched, method, times)
        with contextlib.suppress(Killed):
            await asyncio.to_thread(lambda: stage._flush(NOW, force=True))

    collect(deliver, [person("kim")], origin="second@1")
    await sealed(stage)

    manifests = [await stage.manifest(batch_id) for batch_id in await stage.batches()]
    in_batches = [name for manifest in manifests for name in ids_of(stage, manifest)]
    if deliver == APPEND:
        assert sorted(in_batches) == ["kim", "pat"]
    else:
        assert ids_of(stage, manifests[-1]) == ["kim", "pat"]
    kept = {stage._storage.path_of(file.url) for manifest in manifests for file in manifest.files}
    assert {path for path in files_below(stage, "batches") if "/part-" in path} == kept
    assert files_below(stage, "incoming") == []
    assert len(files_below(stage, "snapshots")) == 1


async def test_a_file_that_was_changed_is_not_delivered(open_stage, collect):
    stage = open_stage()
    collect({}, [person("pat")])
    (file,) = (await sealed(stage)).files
    change(file, lambda content: b"x" * len(content))

    with pytest.raises(StorageError, match="is not what was sealed"):
        stage.open_file(file).read()


async def test_half_a_file_is_not_delivered(open_stage, collect):
    stage = open_stage()
    collect({}, [person("pat")])
    manifest = await sealed(stage)
    change(manifest.files[0], lambda content: content[:20])

    with pytest.raises(StorageError, match="is not what was sealed"):
        list(stage.rows(manifest))


async def test_a_file_of_elsewhere_is_not_opened(open_stage, collect):
    stage = open_stage()
    collect({}, [person("pat")])
    (file,) = (await sealed(stage)).files

    with pytest.raises(StorageError, match="not in the staging folder"):
        stage.open_file(attrs.evolve(file, url="file:///etc/passwd"))


async def test_a_submission_begins_once(any_store, open_stage):
    stage = open_stage(any_store.settings())

    assert await stage.begin("b1", "mark of one") == "mark of one"
    assert await stage.begin("b1", "mark of another") == "mark of one"


async def test_the_scratch_folder_is_left_empty(open_stage, collect, tmp_path):
    stage = open_stage()
    collect({}, [person("pat")])
    list(stage.rows(await sealed(stage)))

    assert list((tmp_path / "scratch").iterdir()) == []


# What is wrong


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"secret_access_key": "a-wrong-secret-canary"}, "refuses the credentials"),
        ({"endpoint": "http://127.0.0.1:1"}, "cannot be reached"),
    ],
)
async def test_a_storage_that_refuses_is_told_without_its_credentials(s3_store, open_stage, monkeypatch, changes, said):
    from partnerenrich_server.delivery import storage

    monkeypatch.setitem(storage._RETRY, "max_retries", 0)
    deliver = s3_store.settings()
    deliver["options"] |= changes
    stage = open_stage(deliver)

    with pytest.raises(StorageError, match=said) as raised:
        await sealed(stage)

    assert not [value for value in deliver["options"].values() if value in str(raised.value)]


@pytest.mark.parametrize(
    "deliver",
    [
        {"staging": "s3://bucket", "options": {"nonsense": "option-canary"}},
        {"staging": "az://container"},
    ],
)
def test_a_place_that_cannot_be_opened_is_told(open_stage, deliver):
    with pytest.raises(ConfigError, match=r"deliver\.staging: cannot be opened") as raised:
        open_stage(deliver)

    assert "canary" not in str(raised.value)


@pytest.mark.parametrize("staging", ["file:///proc/version/folder", "/proc/version", "/proc/new"])
async def test_a_folder_that_cannot_be_made_is_a_storage_that_fails(open_stage, staging):
    """It may be there later, such as when a file system is mounted."""
    with pytest.raises(StorageError, match=r"the staging folder /proc/\w+\S* cannot be made: [A-Z]"):
        await open_stage({"staging": staging}).batches()


async def test_a_folder_is_made_when_it_can_be(open_stage, tmp_path):
    (tmp_path / "place").touch()
    stage = open_stage({"staging": str(tmp_path / "place" / "staging")})
    with pytest.raises(StorageError):
        await stage.batches()

    (tmp_path / "place").unlink()

    assert await stage.batches() == []


async def test_manifests_hold_nothing_of_anybody(open_stage, collect):
    stage = open_stage()
    collect({}, [person("pat"), person("kim", traits={"email": "kim-canary@example.test", "lastName": "Canary"})])
    manifest = await sealed(stage)

    told = json.loads(manifest.as_json())

    assert "canary" not in json.dumps(told).lower()
    assert set(told["files"][0]) == {"url", "rows", "bytes", "sha256"}
