"""``partnerenrich deliver``: files become a sealed batch, and nothing of what is in them is told."""

from __future__ import annotations

import asyncio
import gzip
import json
import os
import subprocess
import sys
from pathlib import Path

import attrs
import duckdb
import pytest
import yaml
import zstandard

from partnerenrich import Secret, recipes
from partnerenrich.configuration import bind, load_file
from partnerenrich_server.delivery.stage import Stage
from partnerenrich_server.delivery.storage import Storage

CANARIES = ("canary-kim@example.test", "+442079460199", "Canarina", "canary-id-4711")
KIM, PAT = ("kim@example.test", "pat@example.test")
CSV = f"customer_id,email,first_name,phone\nk1,{KIM},Kim,+44 20 7946 0123\np1, Pat@Example.test ,Pat,\n"


@attrs.frozen
class Outcome:
    code: int
    stdout: str
    stderr: str

    @property
    def told(self):
        return json.loads(self.stdout)


@attrs.define
class Place:
    """A folder with a configuration, and the command in it."""

    folder: object
    deliver: dict

    def write(self, **integration):
        written = {"provider": "room", "deliver": self.deliver, **integration}
        raw = {"org": "acme", "default_region": "GB", "plugins_dir": "partners", "integrations": [written]}
        (self.folder / "config.yaml").write_text(yaml.safe_dump(raw))

    def run(self, *arguments, integration="room", stdout=subprocess.PIPE):
        if not (self.folder / "config.yaml").exists():
            self.write()
        command = [sys.executable, "-c", "from partnerenrich_server.cli import main; main()", "deliver"]
        command += ["--config", "config.yaml", "--integration", integration, *map(str, arguments)]
        environment = {key: value for key, value in os.environ.items() if key != "PARTNERENRICH_DEBUG"}
        done = subprocess.run(
            command,
            cwd=self.folder,
            env=environment,
            stdout=stdout,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
            timeout=120,
        )
        return Outcome(done.returncode, done.stdout, done.stderr)

    def rows(self):
        """All rows of the newest batch."""
        integration = bind(load_file(self.folder / "config.yaml", {}))[0]["acme"][0]
        stage = Stage.open(integration, integration.delivery.settings, local=self.folder / "scratch")

        async def read():
            return await stage.manifest((await stage.batches())[-1])

        return sorted(stage.rows(asyncio.run(read())), key=lambda row: row.get("customer_id", ""))


@pytest.fixture
def place(partners, tmp_path):
    return Place(tmp_path, {"staging": "staging", "collect": "append"})


def email(address):
    return recipes.apply("sha256", "email", address)


EXPECTED = [
    {
        "customer_id": "k1",
        "email": email(KIM),
        "first_name": "Kim",
        "phone": recipes.apply("sha256", "phone", "+442079460123"),
    },
    {"customer_id": "p1", "email": email(PAT), "first_name": "Pat"},
]


# Kinds of files


def as_csv(path, separator=",", opened=None):
    content = CSV.replace(",", separator).encode()
    path.write_bytes(opened(content) if opened else content)


def as_ndjson(path, opened=None):
    lines = [
        {"customer_id": "k1", "email": KIM, "first_name": "Kim", "phone": "+44 20 7946 0123"},
        {"customer_id": "p1", "email": " Pat@Example.test ", "first_name": "Pat", "phone": None},
    ]
    content = "\n".join(map(json.dumps, lines)).encode()
    path.write_bytes(opened(content) if opened else content)


def as_parquet(path):
    text = str(path.with_suffix(".csv"))
    as_csv(path.with_suffix(".csv"))
    duckdb.sql(f"COPY (FROM read_csv('{text}')) TO '{path}' (FORMAT parquet)")
    path.with_suffix(".csv").unlink()


KINDS = {
    "people.csv": as_csv,
    "people.tsv": lambda path: as_csv(path, "\t"),
    "semicolons.csv": lambda path: as_csv(path, ";"),
    "windows.csv": lambda path: path.write_bytes(b"\xef\xbb\xbf" + CSV.replace("\n", "\r\n").encode()),
    "people.csv.gz": lambda path: as_csv(path, opened=gzip.compress),
    "people.csv.zst": lambda path: as_csv(path, opened=zstandard.compress),
    "people.ndjson": as_ndjson,
    "people.jsonl.gz": lambda path: as_ndjson(path, gzip.compress),
    "people.parquet": as_parquet,
}


@pytest.mark.parametrize("name", KINDS)
def test_a_file_of_any_kind_is_sealed(place, name):
    KINDS[name](place.folder / name)

    outcome = place.run(name, "--json")

    assert (outcome.code, outcome.stderr) == (0, "")
    assert (outcome.told["records"], outcome.told["rejected"]) == (2, {})
    assert place.rows() == EXPECTED


def test_many_files_are_one_batch(place):
    """Wildcards, and kinds side by side; each file once."""
    for number in range(3):
        (place.folder / f"part-{number}.csv").write_text(f"customer_id,email\nc{number},p{number}@example.test\n")
    as_ndjson(place.folder / "others.ndjson")

    outcome = place.run("part-*.csv", "part-1.csv", "others.ndjson", "--json")

    assert outcome.told["inputs"] == ["part-0.csv", "part-1.csv", "part-2.csv", "others.ndjson"]
    assert [row["customer_id"] for row in place.rows()] == ["c0", "c1", "c2", "k1", "p1"]


def test_files_in_object_storage_are_read(place, s3_store):
    place.deliver = s3_store.settings(collect="append")
    inputs = s3_store.settings()
    storage = Storage.open(inputs["staging"], {name: Secret(value) for name, value in inputs["options"].items()})
    storage.create("nightly/people-1.csv", CSV.encode())
    storage.create("nightly/people-2.csv", b"customer_id,email\nz9,zoe@example.test\n")

    outcome = place.run(f"{inputs['staging']}/nightly/people-*.csv", "--json")

    assert (outcome.stderr, outcome.told["records"]) == ("", 3)
    assert [row["customer_id"] for row in place.rows()] == ["k1", "p1", "z9"]


# Columns


@pytest.mark.parametrize(
    "header",
    [
        "user_id,E-Mail,FirstName,Phone Number",
        "userId,email_address,first name,mobile",
        "Customer-ID,hashed_email,forename,msisdn",
        "id,EMAIL_SHA256,given_name,telephone",
    ],
)
def test_usual_spellings_of_columns_are_known(place, header):
    (place.folder / "people.csv").write_text(f"{header}\n" + CSV.partition("\n")[2])

    assert place.run("people.csv").stderr == ""
    assert place.rows() == EXPECTED


@pytest.mark.parametrize("written", ["command line", "configuration"])
def test_a_column_is_chosen_where_its_name_does_not_tell(place, written):
    (place.folder / "people.csv").write_text(CSV.replace("email", "contact").replace("customer_id", "ref"))
    chosen = []
    if written == "configuration":
        place.deliver["columns"] = {"contact": "email", "ref": "customer_id"}
    else:
        chosen = ["--column", "contact=email", "--column", "ref=customer_id"]

    assert place.run("people.csv", *chosen).stderr == ""
    assert place.rows() == EXPECTED


@pytest.mark.parametrize("digest", [email(KIM), email(KIM).upper(), f"  {email(KIM)} "])
def test_a_digest_is_not_hashed_again(place, digest):
    (place.folder / "people.csv").write_text(f"customer_id,email\nk1,{digest}\n")

    place.run("people.csv")

    assert place.rows() == [{"customer_id": "k1", "email": email(KIM)}]


def test_a_snapshot_of_files_has_the_last_line_of_each_person(place):
    """Of the last file, and of what was sealed before."""
    del place.deliver["collect"]
    (place.folder / "old.csv").write_text("customer_id,email\na,a@example.test\nb,b@example.test\na,a2@example.test\n")
    (place.folder / "new.csv").write_text("customer_id,email\nb,b2@example.test\n")

    place.run("old.csv")
    place.run("new.csv")

    assert [row["email"] for row in place.rows()] == [email("a2@example.test"), email("b2@example.test")]


# Telling


def test_a_dry_run_stages_nothing(place):
    as_csv(place.folder / "people.csv")
    with (place.folder / "people.csv").open("a") as more:
        more.write("x1,no address,,\ny1,,,\nz1\n")

    outcome = place.run("people.csv", "--dry-run")
    told = place.run("people.csv", "--dry-run", "--json").told

    assert "nothing was staged; it would be refused: 3 of 5 records" in outcome.stdout
    assert not (place.folder / "staging" / "acme").exists()
    assert (outcome.code, told["records"], told["batch_id"]) == (1, 2, None)
    assert told["rejected"] == {
        "unusable email, phone": 1,
        "no email or phone": 1,
        "too few cells in a line": 1,
    }
    assert told["unusable"] == {"email": 1}
    assert told["filled"] == {"customer_id": 2, "email": 2, "first_name": 2, "last_name": 0, "phone": 1}
    assert told["preview"][0]["email"] == "digest of 64"


def test_too_many_rejects_stop_the_batch(place):
    (place.folder / "people.csv").write_text("customer_id,email\na,a@example.test\nb,bad\n")

    outcome = place.run("people.csv")

    assert (outcome.code, outcome.stdout) == (1, "")
    assert "1 of 2 records were set aside (unusable email: 1)" in outcome.stderr
    assert not list((place.folder / "staging").rglob("manifest.json"))


def test_poison_is_set_aside(place):
    """Lines that cannot be read, and text that is no UTF-8; what is good around them is delivered."""
    place.deliver["max_rejected"] = 0.9
    lines = [
        b"a,a@example.test",
        b"too,many,cells",
        b"few",
        b"b,\xff\xfe@example.test",
        b'c,"c@example.test"',
        b"",
        b"d,d@example.test",
    ]
    (place.folder / "people.csv").write_bytes(b"customer_id,email\n" + b"\n".join(lines) + b"\n")

    told = place.run("people.csv", "--json").told

    assert [row["customer_id"] for row in place.rows()] == ["a", "c", "d"]
    assert told["rejected"] == {
        "too many cells in a line": 1,
        "too few cells in a line": 1,
        "text that is not UTF-8": 1,
    }


def people(count, **odd):
    """A CSV of so many people, some lines of which are odd: ``n7`` is the seventh."""
    lines = (odd.get(f"n{n}", f"{n},u{n}@example.test,Ann,Doe") for n in range(1, count + 1))
    return "\n".join(["customer_id,email,first_name,last_name", *lines]) + "\n"


@pytest.mark.parametrize("pack", ["", ".gz", ".zst"])
def test_a_quote_that_is_never_closed_loses_nothing_in_silence(place, pack):
    packed = {"": bytes, ".gz": gzip.compress, ".zst": zstandard.compress}[pack]
    content = people(2000, n1000='1000,u1000@example.test,"Ann,Doe')
    (place.folder / f"people.csv{pack}").write_bytes(packed(content.encode()))

    outcome = place.run(f"people.csv{pack}")

    assert outcome.code == 1
    assert "1,001 of 2,000 records were set aside (quotes that do not match: 1,001)" in outcome.stderr
    assert not list((place.folder / "staging").rglob("manifest.json"))


@pytest.mark.parametrize("header", ["customer_id,email,first_name,last_name", "customer_id,email,city,last_name"])
def test_lines_that_a_stray_quote_makes_one_are_set_aside(place, header):
    """Whether the column is delivered or not: nobody is lost in silence, and nobody lies in the cell of another."""
    content = people(2000, n1000='1000,u1000@example.test,"Ann,Doe', n1100='1100,u1100@example.test,Ann",Doe')
    (place.folder / "people.csv").write_text(content.replace("customer_id,email,first_name,last_name", header))

    told = place.run("people.csv", "--json").told

    assert (told["records"], told["rejected"]) == (1899, {"a line break in quotes": 101})
    assert "u1050" not in str(place.rows())


def test_lines_that_a_stray_quote_makes_one_of_too_many_cells_are_counted(place):
    odd = {"n1000": '1000,u1000@example.test,"Ann,Doe', "n1010": '1010,u1010@example.test,Ann",Doe,more'}
    (place.folder / "people.csv").write_text(people(2000, **odd))

    told = place.run("people.csv", "--json").told

    assert told["records"] + sum(told["rejected"].values()) == 2000
    assert told["rejected"] == {"too many cells in a line": 1, "quotes that do not match": 10}


def test_a_quote_within_a_cell_costs_its_line_alone(place):
    """Also with several files, each of which is read to its end."""
    for name in ("some", "more"):
        content = people(2000, n1000='1000,u1000@example.test,"Ann"x,Doe', n1500='1500,u1500@example.test,"A "B" C",D')
        (place.folder / f"{name}.csv").write_text(content)

    told = place.run("some.csv", "more.csv", "--json").told

    assert (told["records"], told["rejected"]) == (3996, {"quotes that do not match": 4})


def test_a_column_that_is_not_delivered_may_hold_line_breaks(place):
    rows = "".join(f'{n},u{n}@example.test,"12, High Street\nLondon\n\nat the back"\n' for n in range(3))
    (place.folder / "people.csv").write_text("customer_id,email,address\n" + rows)

    told = place.run("people.csv", "--json").told

    assert (told["records"], told["rejected"]) == (3, {})


def test_lines_that_are_no_json_are_set_aside(place):
    place.deliver["max_rejected"] = 0.9
    lines = [
        '{"customer_id": "a", "email": "a@example.test"}',
        "not json",
        "[1]",
        '{"customer_id": 7, "email": "b@example.test"}',
    ]
    (place.folder / "people.ndjson").write_text("\n".join(lines))

    told = place.run("people.ndjson", "--json").told

    assert [row["customer_id"] for row in place.rows()] == ["7", "a"]
    assert told["rejected"] == {"nothing in a line": 2}


@pytest.mark.parametrize("value", [True, 3.5, 1e3, ["z"], {"z": 1}, "z\ufffd"])
@pytest.mark.parametrize("column", ["customer_id", "email"])
def test_what_is_no_text_and_no_integer_is_no_identifier(place, column, value):
    """In a column that does not tell people apart it is text, as JSON writes it."""
    del place.deliver["collect"]
    place.deliver["max_rejected"] = 0.5
    people = [{"customer_id": 123456789012345678901, "email": KIM, "first_name": True}]
    people += [{"customer_id": "p1", "email": PAT, column: value}]
    (place.folder / "people.ndjson").write_text("\n".join(map(json.dumps, people)))

    told = place.run("people.ndjson", "--json").told

    assert place.rows() == [{"customer_id": "123456789012345678901", "email": email(KIM), "first_name": "true"}]
    reason = "no customer_id" if column == "customer_id" else "unusable email"
    assert (told["rejected"], told["unusable"]) == ({reason: 1}, {column: 1})


@pytest.mark.parametrize("kind", ["DOUBLE", "BOOLEAN", "DECIMAL(4,2)", "INTEGER[]", "STRUCT(a INTEGER)", "BIGINT"])
def test_columns_of_parquet_hold_identifiers_by_their_types(place, kind):
    del place.deliver["collect"]
    place.deliver["max_rejected"] = 1.0
    value = {"INTEGER[]": "[1]", "STRUCT(a INTEGER)": "{'a': 1}"}.get(kind, "1")
    people = f"SELECT {value}::{kind} AS customer_id, '{KIM}' AS email"
    duckdb.sql(f"COPY ({people}) TO '{place.folder / 'people.parquet'}' (FORMAT parquet)")

    told = place.run("people.parquet", "--json").told

    assert (told["records"], told["unusable"]) == ((1, {}) if kind == "BIGINT" else (0, {"customer_id": 1}))


def test_a_column_of_ndjson_may_begin_late(place):
    lines = [{"customer_id": f"c{n}", "first_name": "Kim"} for n in range(1500)]
    lines += [{"customer_id": "z1", "email": KIM}]
    place.deliver["max_rejected"] = 1.0
    (place.folder / "people.ndjson").write_text("\n".join(map(json.dumps, lines)))

    place.run("people.ndjson")

    assert place.rows() == [{"customer_id": "z1", "email": email(KIM)}]


def test_what_was_sealed_is_told_and_how_it_goes_on(place):
    as_csv(place.folder / "people.csv")

    outcome = place.run("people.csv")

    assert outcome.code == 0
    assert "2 records for room in the batch, those of files included: people.csv\n" in outcome.stdout
    assert "partnerenrich ship --once" in outcome.stdout


def test_a_report_that_cannot_be_written_is_no_failure_once_it_is_sealed(place):
    """Or a script would run it again, and deliver everybody twice."""
    as_csv(place.folder / "people.csv")

    with Path("/dev/full").open("w") as full:
        outcome = place.run("people.csv", stdout=full)
        rehearsed = place.run("people.csv", "--dry-run", stdout=full)

    assert (outcome.code, rehearsed.code) == (0, 1)
    assert "is sealed; its report cannot be written: No space left on device" in outcome.stderr
    assert place.rows() == EXPECTED


@pytest.mark.parametrize("arguments", [[], ["--dry-run"], ["--json"], ["--dry-run", "--json"]])
@pytest.mark.parametrize("wrong", ["nothing", "lines", "header", "staging"])
def test_nothing_of_a_person_is_told(place, arguments, wrong):
    """Neither of who is delivered, nor of who is set aside, nor in an error."""
    mail, phone, name, number = CANARIES
    lines = ["customer_id,email,first_name,phone", f"{number},{mail},{name},{phone}"]
    if wrong == "lines":
        lines += [
            f"{number},{mail}x@,{name},{phone}9999999999",
            f'{number},"{mail},{name}',
            f"{mail},{mail},{name},{phone},{number}",
        ]
    elif wrong == "header":
        del lines[0]
    elif wrong == "staging":
        place.deliver["staging"] = "/proc/version/staging"
    (place.folder / "people.csv").write_text("\n".join(lines) + "\n")

    outcome = place.run("people.csv", *arguments)

    assert not [canary for canary in CANARIES if canary in outcome.stdout + outcome.stderr]


# Scratch


def test_what_a_killed_process_left_is_removed_by_the_next(place, monkeypatch):
    """And nothing of one that is at work, nor what is of others."""
    scratch = place.folder / "tmp"
    (scratch / "partnerenrich-other").mkdir(parents=True)
    monkeypatch.setenv("TMPDIR", str(scratch))
    working = "from partnerenrich_server.delivery.scratch import scratch_folder as folder\nwith folder() as made:"
    working += "\n (made / 'input.csv').write_text('x'); print(made, flush=True); input()"
    as_csv(place.folder / "people.csv")
    with (
        subprocess.Popen([sys.executable, "-c", working], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as killed,
        subprocess.Popen([sys.executable, "-c", working], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as alive,
    ):
        left, used = (process.stdout.readline().decode().strip() for process in (killed, alive))
        killed.kill()
        killed.wait()

        place.run("people.csv")

        assert {str(each) for each in scratch.iterdir()} == {used, str(scratch / "partnerenrich-other")}
        assert (Path(used) / "input.csv").exists()
        assert not Path(left).exists()
        alive.communicate(b"\n")
    assert [each.name for each in scratch.iterdir()] == ["partnerenrich-other"]


# Misuse


@pytest.mark.parametrize(
    ("content", "arguments", "said"),
    [
        (CSV, ["missing-*.csv"], "missing-*.csv: no such file"),
        (CSV, ["config.yaml"], "must end in .csv"),
        ("", [], "its columns must have names"),
        ("a,a\n1,2\n", [], "its columns must have names, each another one"),
        ("x,y\n1,2\n", [], "none of its 2 columns is known as email or phone; name it: --column THE_COLUMN=email"),
        ("work_email,home_email\na,b\n", [], "work_email and home_email may be email; choose one"),
        (CSV, ["--column", "nonsense"], "--column wants SOURCE=TARGET"),
        (CSV, ["--column", "email=mail"], "did you mean 'email'?"),
        (CSV, ["--column", "none=email"], "people.csv has no column 'none'"),
    ],
)
def test_misuse_is_told(place, content, arguments, said):
    (place.folder / "people.csv").write_text(content)
    inputs = [] if arguments and not arguments[0].startswith("--") else ["people.csv"]

    outcome = place.run(*arguments, *inputs)

    assert (outcome.code, outcome.stdout) == (2, "")
    assert said in outcome.stderr


LINES = "".join(
    json.dumps({"customer_id": f"c{n}", "email": f"u{n * 7919}@example.test"}) + "\n" for n in range(20_000)
)
PEOPLE = "customer_id,email\n" + "".join(f"c{n},u{n * 7919}@example.test\n" for n in range(20_000))
ARRAY = json.dumps([{"customer_id": "k1", "email": KIM}])
DAMAGED = "cannot be read: it is damaged, or was cut off"


def as_cut_parquet(path):
    as_parquet(path)
    path.write_bytes(path.read_bytes()[:-20])


UNREADABLE = {
    "lines that end in CR": ("people.csv", CSV.replace("\n", "\r").encode(), 2, "end in a carriage return alone"),
    "UTF-16": ("people.csv", CSV.encode("utf-16"), 2, "its first line is not UTF-8"),
    "gzip without an end": ("people.csv.gz", gzip.compress(PEOPLE.encode())[:-5000], 1, DAMAGED),
    "gzip without a line": ("people.csv.gz", gzip.compress(PEOPLE.encode())[:15], 1, DAMAGED),
    "no gzip": ("people.csv.gz", CSV.encode(), 1, DAMAGED),
    "zstd without an end": ("people.csv.zst", zstandard.compress(PEOPLE.encode())[:-5000], 1, DAMAGED),
    "no zstd": ("people.csv.zst", CSV.encode(), 1, DAMAGED),
    "JSON in gzip without an end": ("people.ndjson.gz", gzip.compress(LINES.encode())[:-5000], 1, DAMAGED),
    "JSON in zstd without an end": ("people.ndjson.zst", zstandard.compress(LINES.encode())[:-5000], 1, DAMAGED),
    "Parquet without an end": ("people.parquet", as_cut_parquet, 1, DAMAGED),
    "a JSON array": ("people.ndjson", ARRAY.encode(), 2, "no line of it is a JSON object"),
    "keys that are alike": ("people.ndjson", f'{{"email": "{KIM}", "EMAIL": 1}}'.encode(), 2, "differ in case alone"),
    "a folder": ("people.csv", Path.mkdir, 2, "is a folder; name its files, such as people.csv/*.csv"),
}


@pytest.mark.parametrize("what", UNREADABLE)
def test_a_file_that_cannot_be_read_is_named(place, what):
    name, made, code, said = UNREADABLE[what]
    as_csv(place.folder / "others.csv.gz", opened=gzip.compress)
    (place.folder / name).write_bytes(made) if isinstance(made, bytes) else made(place.folder / name)

    outcome = place.run("others.csv.gz", name)

    assert (outcome.code, outcome.stdout) == (code, "")
    assert outcome.stderr.startswith(f"Error: {name}: ")
    assert said in outcome.stderr
    assert not list((place.folder / "staging").rglob("manifest.json"))


def test_events_are_sent_to_run(place):
    (place.folder / "events.ndjson").write_text(json.dumps({"type": "identify", "traits": {"email": KIM}}))

    outcome = place.run("events.ndjson")

    assert outcome.code == 2
    assert "partnerenrich run takes them" in outcome.stderr


def test_a_snapshot_needs_its_key(place):
    del place.deliver["collect"]
    (place.folder / "people.csv").write_text(f"email\n{KIM}\n")

    outcome = place.run("people.csv")

    assert outcome.code == 2
    assert "no column is known as customer_id, which tells people apart" in outcome.stderr


@pytest.mark.parametrize(
    ("integration", "said"),
    [("nowhere", "no such integration in acme; those that deliver: room"), ("room", "has no deliver section")],
)
def test_a_destination_that_is_none_is_told(place, integration, said):
    as_csv(place.folder / "people.csv")
    if integration == "room":
        place.write(deliver=None)

    outcome = place.run("people.csv", integration=integration)

    assert outcome.code == 2
    assert said in outcome.stderr
