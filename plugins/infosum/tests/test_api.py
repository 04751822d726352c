"""The wire: what is sent, and what any answer is taken for."""

from __future__ import annotations

import json
import logging
import time

import attrs
import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from partnerenrich import AuthError, BadResponse, Call, PartnerError, RateLimited, RequestRefused, Unavailable, plugins
from partnerenrich.blueprint import Blueprint
from partnerenrich.settings import structure
from partnerenrich.testing.leaks import errors_text
from partnerenrich_infosum import BLUEPRINT, _per_event
from partnerenrich_infosum._api import Api, entries, error_code, inside, number, text
from partnerenrich_infosum._run import COMPLETED, FRUITLESS, PARTLY, Run
from partnerenrich_infosum._stages import Recordset
from partnerenrich_infosum._startup import Plan
from partnerenrich_infosum.config import Config

SETTINGS = {
    "api_key": "canary-v2-key-4711",
    "dataset_id": "DS:1",
    "importer_id": "IMP.42",
    "region": "eu",
}


class Wire:
    """Answers with what was put in, in order, and keeps the requests."""

    def __init__(self, *answers) -> None:
        self.answers, self.requests = list(answers), []

    async def __call__(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        answer = self.answers.pop(0)
        return httpx.Response(answer) if isinstance(answer, int) else answer

    def api(self, **settings) -> Api:
        config = structure(Config, SETTINGS | settings, "settings")
        return Api(config, httpx.AsyncClient(transport=httpx.MockTransport(self)))


async def refused(*answers, **settings) -> PartnerError:
    with pytest.raises(PartnerError) as raised:
        await Wire(*answers).api(**settings).get("do it", "datasets", "DS")
    return raised.value


async def test_the_key_is_the_whole_header():
    """Without the word Bearer; the path is quoted, and JSON is asked for."""
    wire = Wire(httpx.Response(200, json={}))
    await wire.api().get("do it", "datasets", "a b?c", filter="name eq 'x'")

    (request,) = wire.requests
    assert request.headers["Authorization"] == "canary-v2-key-4711"
    assert request.headers["Accept"] == "application/json"
    assert request.url.raw_path == b"/api/v2/datasets/a%20b%3Fc?filter=name+eq+%27x%27"
    assert request.url.host == "api.infosum.com"
    assert request.extensions["timeout"]["read"] == 30


async def test_a_body_that_is_not_wanted_is_not_sent():
    """Executing an importer has none."""
    wire = Wire(httpx.Response(200, json={}))
    await wire.api().post("do it", "imports", "importers", "IMP.42", "execute", target_folder="a/b")

    assert (wire.requests[0].content, wire.requests[0].url.params["target_folder"]) == (b"", "a/b")


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, RequestRefused),
        (401, AuthError),
        (403, AuthError),
        (404, RequestRefused),
        (409, RequestRefused),
        (418, RequestRefused),
        (429, RateLimited),
        (408, Unavailable),
        (500, Unavailable),
        (503, Unavailable),
        (302, BadResponse),
    ],
)
async def test_statuses(status, kind):
    assert type(await refused(status)) is kind or isinstance(await refused(status), kind)


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ({"error": {"code": "IMPORTS_NOT_FOUND"}, "details": {"code": "ICC_NOT_FOUND"}}, "ICC_NOT_FOUND"),
        ({"error": {"code": "IMPORTS_NOT_FOUND", "message": "secret"}}, "IMPORTS_NOT_FOUND"),
        ({"error_code": "BAD_PAGE_SIZE", "message": "secret"}, "BAD_PAGE_SIZE"),
        ({"error": "pat@example.test"}, None),
        ({"error": {"code": "pat@example.test"}}, None),
        ([], None),
    ],
)
async def test_the_code_of_an_error_is_told_and_no_other_word(body, code):
    """In the envelope of today, and in that of 2022."""
    error = await refused(httpx.Response(400, json=body))

    assert str(error) == f"InfoSum refuses to do it (400{f' {code}' if code else ''})"


@pytest.mark.parametrize("content", [b"", b"[]", b"null", b'"x"', b"{", b"<html>", b"\xff"])
async def test_an_answer_that_is_no_object(content):
    assert isinstance(await refused(httpx.Response(200, content=content)), BadResponse)


async def test_pages_are_followed():
    """By next_page, as a number or a text; no further than it grows."""
    wire = Wire(
        httpx.Response(200, json={"executions": [{"id": "1"}, "odd"], "pagination": {"next_page": 2}}),
        httpx.Response(200, json={"executions": [{"id": "2"}], "pagination": {"next_page": "3"}}),
        httpx.Response(200, json={"executions": None, "pagination": {"next_page": 3}}),
    )

    found = [entry["id"] async for entry in wire.api().pages("list", "executions", of="executions", filter="f")]

    assert found == ["1", "2"]
    assert [request.url.params["pagination.page"] for request in wire.requests] == ["1", "2", "3"]
    assert {request.url.params["pagination.per_page"] for request in wire.requests} == {"100"}
    assert {request.url.params["filter"] for request in wire.requests} == {"f"}


async def test_a_list_that_is_none():
    with pytest.raises(BadResponse, match="executions is no list"):
        [
            entry
            async for entry in Wire(httpx.Response(200, json={"executions": {}})).api().pages("x", "y", of="executions")
        ]


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("42", 42),
        (42, 42),
        ("9" * 19, int("9" * 19)),
        ("9" * 40, None),
        ("-1", None),
        (True, None),
        (1.5, None),
        ("٣", None),
        (None, None),
    ],
)
def test_whole_numbers_are_texts_or_numbers(value, expected):
    """64-bit integers are texts in InfoSum's JSON."""
    assert number({"progress": {"total": value}}, "progress", "total") == expected


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["a", "b", "error", "code"]), inner),
    max_leaves=8,
)


@given(json_values)
def test_any_answer_can_be_looked_into(value):
    """Whatever is where something else was expected is simply not there."""
    assert inside(value, "a", "b") is inside(value, "a", "b")
    assert text({"x": value}, "x", "a") is None or isinstance(text({"x": value}, "x", "a"), str)
    assert all(isinstance(entry, dict) for entry in entries({"x": value}, "x"))
    assert error_code(value) is None or error_code(value).isupper() or "_" in error_code(value)


@given(st.text(max_size=12).filter(lambda word: word not in FRUITLESS | {COMPLETED, PARTLY}))
def test_a_word_that_nobody_knows_means_that_it_still_runs(word):
    """Until the deadline of the stage."""
    import asyncio

    async def run():
        wire = Wire(httpx.Response(200, json={"execution_details": {"current_status": word}}))
        stage = Recordset(Plan("CLV.1", None), ("a.csv",))
        call = Call("acme", "infosum", "infosum", time.monotonic() + 5)
        return await stage.poll(Run.of(wire.api(), _batch(), call, time.time), {"id": "MRC.1"})

    assert asyncio.run(run()).status not in FRUITLESS | {COMPLETED, PARTLY}


def _batch():
    from partnerenrich import Batch

    async def save(_):
        """Nowhere."""

    return Batch("b-1", "acme", "infosum", "staged", (), (), None, None, {}, save)


# The seed's default blueprint


@pytest.mark.parametrize("spelling", [("first_name", "last_name"), ("firstName", "lastName")])
def test_the_default_blueprint(spelling):
    """Five columns: the id and the names plain, e-mail and phone as SHA-256 of their normal form, in both spellings."""
    first, last = spelling
    traits = {"email": "  Jane.Doe+Promo@Example.COM ", "phone": "+44 7700 900123", first: "Jane", last: "Doe"}

    payload = Blueprint.from_yaml(BLUEPRINT).payload({"type": "identify", "userId": "user-123", "traits": traits})

    assert payload == {
        "customer_id": "user-123",
        "email": "c3374bcfe3572e09f37602e0e179782352c5e117a4a3767824abbaa21bbdef8b",
        "first_name": "Jane",
        "last_name": "Doe",
        "phone": "a8acc3a90a7b4e4dc65e93db9240ed26523050ef754d63b75b5161de76781436",
    }


def test_the_partner_says_how_it_takes_batches():
    facts = plugins.load(["infosum"]).partner("infosum").facts

    assert facts.delivery.modes == ("staged", "local_upload", "per_event")
    assert (facts.delivery.formats, facts.delivery.resumes) == (("csv", "parquet"), True)
    assert facts.limits.attempts == 1
    assert facts.category == "clean_room"
    assert _per_event.MOST_RECORDS == 10_000


# Nothing shows


async def test_canaries(bench, csv_of, made_people, caplog, capsys):
    """Neither key, nor e-mail, nor phone, nor their digests, in progress, receipts, errors, reprs and the log."""
    caplog.set_level(logging.DEBUG, "partnerenrich_infosum")
    records = [{**record, "email": "pat@example.test", "phone": "+442079460123"} for record in made_people(3)]
    said = []
    for mode in ("staged", "local_upload", "per_event"):
        bench.ledger.progress = {}
        batch = bench.stage(csv_of(records), batch_id=f"batch-{mode}".replace("_", "-"), mode=mode, records=records)
        receipt = await bench.drive(batch)
        said += [repr(receipt), repr(batch), json.dumps(bench.ledger.progress), repr(attrs.asdict(receipt))]
    for changes in ({"region": "us"}, {"api_key": "sandbox-public/sandbox-private"}, {"dataset_id": "none"}):
        bench.config = bench.configured(**changes)
        bench.ledger.progress = {}
        with pytest.raises(PartnerError) as raised:
            await bench.call(bench.stage(csv_of(records), batch_id=f"x-{len(said)}"))
        said += [errors_text(raised.value), repr(bench.config)]

    captured = capsys.readouterr()
    everything = "\n".join([*said, caplog.text, captured.out, captured.err])
    for canary in ("sandbox-v2-key", "sandbox-private", "pat@example.test", "+442079460123", records[0]["customer_id"]):
        assert canary not in everything
