"""Records in the body of a request: low volume, at least once."""

from __future__ import annotations

import json

import pytest

from partnerenrich import AuthError, RequestRefused

PATH = "/api/v2/import/executions/execute"


@pytest.fixture
def batch_of(bench, csv_of, made_people):
    def make(count: int):
        records = made_people(count)
        return bench.stage(csv_of(records), mode="per_event", records=records)

    return make


async def test_records_are_handed_over(bench, batch_of):
    """In requests of a hundred; no more is known of them than an execution id."""
    receipt = await bench.drive(batch_of(250))

    assert (receipt.state, receipt.accepted, receipt.reasons) == ("handed_over", 250, {})
    assert receipt.partner_ref.startswith("IMT.")
    bodies = [json.loads(request.content) for request in bench.asked("POST", PATH)]
    assert [len(body["records"]) for body in bodies] == [100, 100, 50]
    assert {body["importer_id"] for body in bodies} == {"IMP.11"}
    assert {body["dataset_id"] for body in bodies} == {"AWS_EU_CENTRAL_1.11"}
    assert {body["region"] for body in bodies} == {"eu"}
    assert bodies[0]["records"][0].keys() == {"customer_id", "email", "first_name", "last_name", "phone"}


async def test_an_empty_cell_is_sent_as_an_empty_text(bench, csv_of, made_people):
    """InfoSum wants each column in every record, as in a file. The shipper leaves out what is empty."""
    records = made_people(3)
    del records[0]["phone"], records[1]["email"], records[1]["phone"]
    batch = bench.stage(csv_of(records), mode="per_event", records=records)

    receipt = await bench.drive(batch)

    assert (receipt.state, receipt.accepted, receipt.reasons) == ("handed_over", 3, {})
    (request,) = bench.asked("POST", PATH)
    sent = json.loads(request.content)["records"]
    assert [[record["email"] != "", record["phone"] != ""] for record in sent] == [
        [True, False],
        [False, False],
        [True, True],
    ]
    assert [list(record) for record in sent] == [list(batch.columns)] * 3


@pytest.mark.parametrize(("where", "again"), [("kill_before", {"sent_again": 100}), ("kill_after", {})])
async def test_records_whose_answer_was_lost_are_sent_again_and_counted(bench, batch_of, where, again):
    """At least once, and never silently twice."""
    setattr(bench.ledger, where, 4)

    receipt = await bench.drive(batch_of(250))

    assert (receipt.state, receipt.accepted, receipt.reasons) == ("handed_over", 250, again)


async def test_a_lost_answer_is_counted_too(bench, batch_of):
    bench.line.lose_answer_of = PATH

    receipt = await bench.drive(batch_of(30))

    assert (receipt.accepted, receipt.reasons) == (30, {"sent_again": 30})


async def test_a_call_that_is_short_of_time_goes_on_later(bench, batch_of):
    batch = batch_of(250)

    first = await bench.call(batch, seconds=5)

    assert (first.state, bench.ledger.progress["per_event"]["sent"]) == ("running", 100)
    assert (await bench.drive(batch)).reasons == {}


async def test_a_large_batch_is_for_files(bench, batch_of, made_people, csv_of):
    batch = bench.stage(csv_of(made_people(1)), mode="per_event", batch_id="large", rows=10_001)

    with pytest.raises(RequestRefused, match=r"set deliver\.mode to staged"):
        await bench.call(batch)


@pytest.mark.parametrize(
    "changes", [{"dataset_id": "AWS_EU_CENTRAL_1.14"}, {"region": "uk"}], ids=["columns", "region"]
)
async def test_a_refusal_says_what_to_look_at(bench, batch_of, changes):
    """Columns and region; nothing was sent, and nothing is saved."""
    bench.config = bench.configured(**changes)

    receipt = await bench.call(batch_of(3))

    assert (receipt.state, receipt.accepted, receipt.reasons) == ("failed", 0, {"records:400": 3})
    assert "column names that are sent" in receipt.message
    assert "residency region" in receipt.message
    assert bench.ledger.progress == {}


async def test_a_key_that_is_refused_leaves_nothing_open(bench, batch_of):
    bench.config = bench.configured(api_key="sandbox-v2-key-expired")
    batch = batch_of(3)

    with pytest.raises(AuthError):
        await bench.call(batch)

    assert bench.ledger.progress == {}
    bench.config = bench.configured()
    assert (await bench.drive(batch)).reasons == {}
