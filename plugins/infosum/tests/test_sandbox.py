"""The imitation itself: who comes in, what a list shows, how executions move."""

from __future__ import annotations

import hashlib

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.applications import Starlette
from starlette.routing import Mount

from partnerenrich import recipes
from partnerenrich.testing.loopback import Witness, served
from partnerenrich_infosum._sandbox import new_app, new_sandbox
from partnerenrich_infosum._sandbox.connectors import connector, passes
from partnerenrich_infosum._sandbox.filters import InvalidFilter, listed, matches
from partnerenrich_infosum._sandbox.machine import End, Task
from partnerenrich_infosum._sandbox.tables import Input, Reading, Table, Unreadable, counted, normalize

KEY = "sandbox-v2-key-of-acme"
VAULT = "CLV.AWS_EU_CENTRAL_1.1"


@pytest.fixture
def ask(bench):
    """Asks as a user of the sandbox."""

    async def ask(method: str, path: str, key: str | None = KEY, **content) -> httpx.Response:
        headers = {} if key is None else {"Authorization": key}
        return await bench.http.request(method, f"http://infosum.example.test/api/v2{path}", headers=headers, **content)

    return ask


# Who comes in


@pytest.mark.parametrize(
    ("key", "status", "told"),
    [
        (None, 401, "no key was given"),
        (f"Bearer {KEY}", 401, "the key is unknown"),
        ("sandbox-public/sandbox-private", 401, "a V1 key was given"),
        ("nobody", 401, "the key is unknown"),
        ("sandbox-v2-key-expired", 401, "has expired"),
        ("sandbox-v2-key-without-rights", 403, "Bunker Operations is missing"),
    ],
)
async def test_keys(ask, key, status, told):
    """In the order of the checks; the key is never repeated."""
    response = await ask("GET", "/cloud_vaults", key)

    assert response.status_code == status
    assert told in response.json()["details"]["message"]
    assert response.json().keys() == {"error", "details", "help_url", "request_id", "time"}
    assert not key or key.removeprefix("Bearer ") not in response.text


@pytest.mark.parametrize(
    ("path", "status", "code"),
    [
        ("/imports/importers/IMP.91", 403, "ACCOUNTS_REQUIRE_COMPANY_RIGHT"),
        ("/datasets/AWS_EU_CENTRAL_1.91", 403, "ACCOUNTS_REQUIRE_COMPANY_RIGHT"),
        ("/cloud_vaults/CLV.9", 403, "ACCOUNTS_REQUIRE_COMPANY_RIGHT"),
        ("/imports/importers/IMP.0", 404, "IMPORTS_NOT_FOUND"),
        ("/imports/executions/IMT.0", 404, "IMPORTS_EXECUTION_TASK_NOT_FOUND"),
        ("/datasets/none", 404, "DATASET_NOT_FOUND"),
        ("/lineage/publish/AWS_EU_CENTRAL_1.13", 404, "DATASET_NOT_FOUND"),
        ("/imports/connector-configs/ICC.0", 404, "ICC_NOT_FOUND"),
        ("/no/such/path", 404, "UNIMPLEMENTED"),
    ],
)
async def test_what_is_not_there_or_not_ours(ask, path, status, code):
    response = await ask("GET", path)

    assert (response.status_code, response.json()["error"]["code"]) == (status, code)


async def test_throttle_and_outage(bench, ask):
    """The header says when to come back."""
    await bench.behave(throttled=1)
    first = await ask("GET", "/cloud_vaults")
    await bench.behave(outage=500)

    assert (first.status_code, first.headers["Retry-After"]) == (429, "1")
    assert (await ask("GET", "/cloud_vaults")).status_code == 500


async def test_a_granted_request_whose_answer_is_lost(bench, ask):
    await bench.behave(lost_answers=1)

    assert (await ask("POST", "/imports/importers/IMP.11/execute")).status_code == 503
    assert len((await ask("GET", "/imports/executions")).json()["executions"]) == 1
    assert (await ask("POST", "/imports/importers/IMP.11/execute")).status_code == 200


@pytest.mark.parametrize("changes", [{"latency": {"lunch": 1}}, {"stuck": "x"}, {"outag": 1}, {"latency_s": -1}])
async def test_a_change_that_is_misspelt_is_refused(bench, changes):
    response = await bench.http.post("http://infosum.example.test/_sandbox", json=changes)

    assert response.status_code == 400
    assert "send a JSON object of fields to change" in response.text


async def test_all_is_forgotten(bench, ask):
    await ask("POST", "/imports/importers/IMP.11/execute")
    await bench.http.delete("http://infosum.example.test/_sandbox")

    assert (await ask("GET", "/imports/executions")).json()["executions"] == []


# Lists


async def test_pages(ask):
    """A hundred at once by default."""
    for _ in range(3):
        await ask("POST", "/imports/importers/IMP.11/execute")

    page = (
        await ask(
            "GET",
            "/imports/executions",
            params={
                "pagination.page": "1",
                "pagination.per_page": "2",
                "order_by": "id DESC",
                "filter": "import_id eq 'IMP.11'",
            },
        )
    ).json()

    assert [entry["id"] for entry in page["executions"]] == ["IMT.0003", "IMT.0002"]
    assert page["pagination"] == {"results": 2, "total_results": 3, "next_page": 2}
    assert (await ask("GET", "/imports/executions", params={"filter": "import_id eq IMP.11"})).status_code == 400
    assert (await ask("GET", "/imports/executions", params={"pagination.per_page": "501"})).status_code == 400


ENTRY = {"name": "Acme daily", "size": "12", "meta": {"kind": "FILE"}}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("name eq 'Acme daily'", True),
        ('name eq "Acme daily"', True),
        ("name ne 'Acme daily'", False),
        ("name co 'daily' and size gt 11", True),
        ("name co 'Daily'", False),
        ("name ico 'DAILY'", True),
        ("name nc 'x' and name inc 'ACMES'", True),
        ("size le 12 and not (size lt 12)", True),
        ("name eq 'x' or meta.kind eq 'FILE'", True),
        ("name eq 'x' or name eq 'y' and size eq 12", False),
        ("(name eq 'x' or size eq 12) and meta.kind co 'FI'", True),
        ("size gt 12.5", False),
        ("absent gt 1", False),
        ("absent eq ''", True),
    ],
)
def test_filters(text, expected):
    assert matches(text, ENTRY) is expected


@pytest.mark.parametrize(
    "text", ["name", "name eq", "name is 'x'", "name eq 'x", "(name eq 'x'", "name eq 'x')", "x eq 1 y"]
)
def test_filters_that_cannot_be_understood(text):
    with pytest.raises(InvalidFilter):
        matches(text, ENTRY)


@given(st.lists(st.integers(0, 50), max_size=30), st.integers(1, 12))
def test_pages_hold_everything_once(numbers, size):
    """And in order."""
    entries = [{"id": f"{number:02}"} for number in numbers]
    found, page = [], 1
    while True:
        query = {"pagination.page": str(page), "pagination.per_page": str(size), "order_by": "id ASC"}
        shown, pagination = listed(entries, query)
        found += shown
        if "next_page" not in pagination:
            break
        page = pagination["next_page"]

    assert found == sorted(entries, key=lambda entry: entry["id"])


# Executions


async def test_states_follow_the_clock(bench, ask):
    """Nothing runs in the background, and the history tells each change at its time."""
    started = (await ask("POST", "/imports/importers/IMP.11/execute")).json()["execution_id"]
    seen = []
    for seconds in (0, 1, 2, 8, 9, 10):
        bench.clock.now = 1_767_225_600.0 + seconds
        details = (await ask("GET", f"/imports/executions/{started}")).json()["execution_details"]
        seen.append((details["execution"]["current_status"], details["execution"]["progress"]["completion_percentage"]))

    assert seen == [
        ("WAITING", 0.0),
        ("INITIALIZING", 10.0),
        ("RUNNING", 20.0),
        ("RUNNING", 80.0),
        ("RUNNING", 90.0),
        ("COMPLETED", 100.0),
    ]
    assert [(entry["date_time"][-13:], entry["status"]) for entry in details["history"]] == [
        ("T00:00:00.000Z"[1:], "WAITING"),
        ("T00:00:01.000Z"[1:], "INITIALIZING"),
        ("T00:00:02.000Z"[1:], "RUNNING"),
        ("T00:00:10.000Z"[1:], "COMPLETED"),
    ]


async def test_an_execution_is_canceled_once(bench, ask):
    """And no more when it is over."""
    started = (await ask("POST", "/imports/importers/IMP.11/execute")).json()["execution_id"]
    path = f"/imports/executions/{started}"
    answers = [(await ask("POST", f"{path}/cancel")).status_code for _ in range(2)]
    canceling = (await ask("GET", path)).json()["execution_details"]["execution"]["current_status"]
    bench.clock.now += 2

    assert answers == [200, 400]
    assert canceling == "CANCELING"
    assert (await ask("GET", path)).json()["execution_details"]["execution"]["current_status"] == "CANCELED"
    assert (await ask("POST", f"{path}/cancel")).json()["error"]["code"] == "IMPORTS_CANNOT_CANCEL_TASK"


@given(st.lists(st.floats(0, 30), min_size=1, max_size=12), st.floats(0, 20))
def test_an_execution_ends_once_however_often_it_is_looked_at(steps, lasts):
    """Its work is done once, and its history only grows."""
    worked = []
    task = Task("X.1", "import", "u-1", 0.0, lasts, lambda: worked.append(1) or End())
    now, lengths = 0.0, []
    for step in steps:
        now += step
        task.advance(now)
        lengths.append(len(task.history))

    assert lengths == sorted(lengths)
    assert len(worked) == (now >= lasts)
    assert [entry["status"] for entry in task.history] == ["WAITING", "INITIALIZING", "RUNNING", "COMPLETED"][
        : len(task.history)
    ]


@pytest.mark.parametrize(
    ("path", "body", "status", "code"),
    [
        ("/imports/importers/IMP.11/execute?target_folder=Recordsets", None, 400, "INVALID_ARGUMENT"),
        ("/imports/importers/IMP.11/execute?target_folder=/x", None, 400, "INVALID_ARGUMENT"),
        ("/imports/importers/IMP.91/execute", None, 403, "ACCOUNTS_REQUIRE_COMPANY_RIGHT"),
        ("/imports/uploads", {"cloud_vault_id": VAULT}, 400, "MISSING_REQUIRED_FIELD"),
        ("/recordset-creation/execute", {"cloud_vault_id": VAULT, "recordset_name": "a/b"}, 400, "INVALID_ARGUMENT"),
        (
            "/recordset-creation/execute",
            {"cloud_vault_id": VAULT, "recordset_name": "a"},
            400,
            "MISSING_REQUIRED_FIELD",
        ),
        ("/normalizations/execute", {"cloud_vault_id": VAULT, "input_recordset_id": "RCS.0"}, 404, "FILE_NOT_FOUND"),
        ("/prepares/execute", {"cloud_vault_id": VAULT, "recordset_id": "RCS.0"}, 404, "FILE_NOT_FOUND"),
        ("/prepares/PUB.0/publish", None, 404, "TASK_NOT_FOUND"),
        ("/automations/configs/ATM.0/execute", None, 404, "TASK_NOT_FOUND"),
        ("/import/executions/execute", {"importer_id": "IMP.11"}, 400, "MISSING_REQUIRED_FIELD"),
        ("/import/executions/execute", [1], 400, "API_MALFORMED_INPUT"),
    ],
)
async def test_requests_that_are_refused(ask, path, body, status, code):
    response = await ask("POST", path, json=body) if body is not None else await ask("POST", path)

    assert (response.status_code, response.json()["error"]["code"]) == (status, code)


@pytest.mark.parametrize("path", ["recordset-creation/execute", "normalizations/execute", "prepares/execute"])
async def test_a_second_one_of_the_same_is_a_conflict(bench, ask, csv_of, made_people, path):
    """Recordset, normalization, prepare."""
    await bench.drive(bench.stage(csv_of(made_people(3))))
    (request,) = bench.asked("POST", path)

    assert (await ask("POST", f"/{path}", content=request.content)).status_code == 409


async def test_a_publish_needs_what_is_prepared_and_not_published(bench, ask, csv_of, made_people):
    receipt = await bench.drive(bench.stage(csv_of(made_people(3))))

    assert (await ask("POST", f"/prepares/{receipt.partner_ref}/publish")).status_code == 400


async def test_files_are_listed_and_deleted(bench, ask, csv_of, made_people):
    """One, or a folder of them; the recordset that was made of them stays."""
    await bench.drive(bench.stage(csv_of(made_people(3)), csv_of(made_people(3, 3))))
    files = (await ask("GET", f"/files/{VAULT}/partnerenrich")).json()["files"]
    assert [file["metadata"]["origin"]["task_type"] for file in files] == ["TASK_TYPE_IMPORT"] * 2

    one = (await ask("DELETE", f"/files/{VAULT}/{files[0]['name']}")).json()
    left = len((await ask("GET", f"/files/{VAULT}/")).json()["files"])
    rest = (await ask("DELETE", f"/files/{VAULT}/partnerenrich/*")).json()

    assert (one, left, rest) == ({"files_remaining": False}, 1, {"files_remaining": False})
    assert (await ask("GET", f"/files/{VAULT}/")).json()["files"] == []
    assert len((await ask("GET", f"/recordsets/{VAULT}")).json()["recordsets"]) == 2


async def test_lists_and_configs_that_people_look_at(ask):
    """Each answers, with what belongs to the company of the key."""
    assert len((await ask("GET", "/cloud_vaults")).json()["cloud_vaults"]) == 2
    assert len((await ask("GET", "/imports/importers")).json()["imports"]) == 2
    assert len((await ask("GET", "/datasets")).json()["datasets"]) == 4
    assert len((await ask("GET", "/normalizations/configs")).json()["configs"]) == 2
    assert len((await ask("GET", "/dataset-prepare-configs")).json()["configs"]) == 1
    assert (await ask("GET", "/recordset-configs/RSC.12")).json()["config"]["primary_delimiter"] == ";"
    config = (await ask("GET", "/imports/connector-configs/ICC.11")).json()["config"]
    assert config["connector_type"] == "SFTP"


# Where the importers read from


async def test_without_a_word_there_is_a_bucket():
    """A folder that lasts as long as the sandbox: stage there, and it is read."""
    async with httpx.AsyncClient(
        transport=httpx.ASGITransport(new_app()), base_url="http://sandbox.example.test"
    ) as http:
        told = (await http.get("/_sandbox/connector")).json()

        assert list(connector(told["url"], {}).files()) == []
        assert told["url"].endswith(told["sftp_connector"]["root_directory"])


@pytest.mark.parametrize("body", [{}, {"url": "az://container/x"}, {"url": 1}, []])
async def test_a_place_that_no_connector_is_for(bench, body):
    response = await bench.http.put("http://infosum.example.test/_sandbox/connector", json=body)

    assert response.status_code == 400


def test_places():
    """A URL or a path."""
    assert connector("/some/folder", {}) == connector("file:///some/folder", {})
    assert connector("s3://b/p/q/", {}).described()["s3_connector"] == {
        "bucket": "b",
        "prefix": "p/q",
        "access_keys": {},
    }
    assert connector("gs://b", {}).described()["gcs_connector"] == {"bucket": "b", "prefix": ""}
    assert "secret" not in repr(connector("s3://b", {"secret_access_key": "secret"}))


@pytest.mark.parametrize(
    ("path", "patterns", "expected"),
    [("a/b.csv", None, True), ("a/b.csv", ["*.csv"], True), ("a/b.csv", ["b.csv"], False), ("a/b.csv", [], False)],
)
def test_patterns(path, patterns, expected):
    assert passes(path, patterns) is expected


# Rows


@pytest.fixture
def table(tmp_path):
    def make(*contents: bytes, reading: Reading = Reading(), suffix: str = "csv") -> Table:  # noqa: B008  immutable
        files = []
        for number, content in enumerate(contents):
            path = tmp_path / f"{number}.{suffix}"
            path.write_bytes(content)
            files.append((path.name, path))
        return Table.of(files, reading)

    return make


def test_rows_of_csv(table):
    """Quotes as in RFC 4180; a mark of byte order is not part of a name; what is ragged cannot be read."""
    made = table(b'\xef\xbb\xbfemail,name\n"a@example.test","Doe, ""Pat"""\n\nx\n1,2,3\n', b"email,name\nb,\n")

    assert made.columns == ("email", "name")
    assert list(made.rows()) == [["a@example.test", 'Doe, "Pat"'], None, None, ["b", ""]]
    assert counted(made) == (4, 2)


@pytest.mark.parametrize("contents", [(b"a,b\n", b"b,a\n"), (b"a\n", b"a,b\n")])
def test_files_that_do_not_go_together(table, contents):
    with pytest.raises(Unreadable):
        table(*contents)


def test_a_file_that_is_no_parquet(table):
    pytest.importorskip("pyarrow")
    with pytest.raises(Unreadable):
        table(b"nonsense", suffix="parquet")


def test_columns_without_a_header(table):
    made = table(b"1;2\n", reading=Reading("CSV", ";", header=False, header_names=("a", "b")))

    assert (made.columns, list(made.rows())) == (("a", "b"), [["1", "2"]])


DIGEST = hashlib.sha256(b"x").hexdigest()


@pytest.mark.parametrize(
    ("kind", "cell", "accepted"),
    [
        ("email", "pat@example.test", True),
        ("email", DIGEST, True),
        ("email", DIGEST.upper(), True),
        ("email", DIGEST[:-1], False),
        ("email", "nobody", False),
        ("phone", "+447700900123", True),
        ("phone", DIGEST, True),
        ("phone", "07700 900123", False),
        ("phone", "12", False),
        ("custom_key", "anything", True),
        ("category", "anything", True),
    ],
)
def test_values(kind, cell, accepted):
    """Raw ones by their form, digests by their length."""
    assert Input("x", kind).accepts(cell) is accepted


@given(st.lists(st.tuples(*[st.sampled_from(["", "good", "bad"])] * 2), max_size=30))
def test_rows_are_counted_as_they_are(tmp_path_factory, cells):
    """Kept: any good key. Faulty: any bad value. Every cell is counted once."""
    words = {
        "": ("", ""),
        "good": ("pat@example.test", "+447700900123"),
        "bad": ("nobody", "12"),
    }
    rows = [f'"{words[email][0]}","{words[phone][1]}"' for email, phone in cells]
    path = tmp_path_factory.mktemp("rows") / "x.csv"
    path.write_text("\n".join(["email,phone", *rows]), "utf-8")

    made = normalize(Table.of([("x.csv", path)], Reading()), [Input("email", "email"), Input("phone", "phone")])

    assert made.kept == sum("good" in row for row in cells)
    assert made.faulty == sum("bad" in row for row in cells)
    for index, column in enumerate(("email", "phone")):
        told = made.cells[column]
        assert (told.value, told.invalid, told.null) == tuple(
            sum(row[index] == word for row in cells) for word in ("good", "bad", "")
        )


# Over a socket


@pytest.mark.parametrize(
    "below",
    [lambda app: Witness(app, "/infosum"), lambda app: Starlette(routes=[Mount("/infosum", app)])],
    ids=["prefix", "mount"],
)
def test_an_upload_over_a_socket(below):
    """The address that is named lies below the path at which the sandbox is served."""
    content = b"email\npat@example.test\n"
    with served(below(new_app())) as port:
        base, headers = f"http://127.0.0.1:{port}/infosum", {"Authorization": KEY}
        asked = {
            "cloud_vault_id": VAULT,
            "target_filepath": "x/y.csv",
            "contents_sha256_checksum": hashlib.sha256(content).hexdigest(),
        }
        with httpx.Client(verify=False) as http:
            told = http.post(f"{base}/api/v2/imports/uploads", json=asked, headers=headers).json()
            assert told["upload_url"].startswith(f"{base}/_uploads/")
            assert http.put(told["upload_url"], content=content).status_code == 403
            with_key = {**told["headers"], **headers}
            assert http.put(told["upload_url"], content=content, headers=with_key).status_code == 403
            assert http.put(told["upload_url"], content=b"other", headers=told["headers"]).status_code == 400
            assert http.put(told["upload_url"], content=content, headers=told["headers"]).status_code == 200


def test_the_sample_can_be_sent():
    """People by user id, e-mail and phone, each of a form that the default blueprint takes."""
    for person in new_sandbox().sample["known"]:
        assert recipes.normalise_email(person["email"]) == person["email"]
        assert recipes.normalise_phone(person["phone"], None) == person["phone"]
