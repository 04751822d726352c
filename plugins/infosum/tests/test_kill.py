"""Wherever the process ends or the line breaks: each stage is begun once, and the dataset published once."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

ONCE = {"import": 1, "recordset": 1, "normalization": 1, "prepare": 1, "publish": 1}
UPLOADED = {**ONCE, "import": 0}


@pytest.fixture
async def ready(bench, csv_of, made_people):
    """A bench whose stages take no time, and its batch."""
    await bench.behave(latency_s=0)
    return bench, bench.stage(csv_of(made_people(5)), csv_of(made_people(5, 5)))


async def saves_of(bench, batch) -> int:
    assert (await bench.drive(batch)).state == "published"
    return bench.ledger.saves


async def test_what_is_saved_is_known(ready):
    """The matrix below is as long as a delivery that nothing disturbs."""
    bench, batch = ready

    assert await saves_of(bench, batch) == 15
    assert await bench.begun() == ONCE


@pytest.mark.parametrize("where", ["kill_before", "kill_after"])
@pytest.mark.parametrize("save", range(1, 16))
async def test_the_process_is_killed_at_a_save(ready, where, save):
    """Right before it is durable, which is after the request was granted; or right after it."""
    bench, batch = ready
    setattr(bench.ledger, where, save)

    receipt = await bench.drive(batch)

    assert (receipt.state, receipt.accepted) == ("published", 10)
    assert await bench.begun() == ONCE


@pytest.mark.parametrize(
    "path",
    ["IMP.11/execute", "recordset-creation/execute", "normalizations/execute", "prepares/execute", "/publish"],
)
@pytest.mark.parametrize("latency", [0, 40])
async def test_an_answer_is_lost(ready, path, latency):
    """InfoSum has granted the request, whether the execution is over or still runs when it is looked for."""
    bench, batch = ready
    await bench.behave(latency_s=latency)
    bench.line.lose_answer_of = path

    receipt = await bench.drive(batch, calls=100)

    assert receipt.state == "published"
    assert bench.line.lose_answer_of == ""
    assert await bench.begun() == ONCE


@pytest.mark.parametrize("kind", ["lost_requests", "lost_answers"])
async def test_any_request_is_lost(bench, csv_of, made_people, kind):
    """One after the other, on its way there or back."""
    batch = bench.stage(csv_of(made_people(3)))
    await bench.behave(latency_s=0)
    getattr(bench.line, kind).update(range(1, 200, 2))

    receipt = await bench.drive(batch, calls=400, step=30)

    assert (receipt.state, receipt.accepted) == ("published", 3)
    assert await bench.begun() == ONCE


@given(
    lost_requests=st.sets(st.integers(1, 60), max_size=8),
    lost_answers=st.sets(st.integers(1, 60), max_size=8),
    kill=st.integers(1, 20),
    latency=st.sampled_from([0, 5, 90]),
)
@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_everything_at_once(make_bench, csv_of, made_people, lost_requests, lost_answers, kill, latency):
    """Any requests and answers are lost, and the process is killed as well."""

    async def run() -> None:
        async with make_bench() as bench:
            await bench.behave(latency_s=latency)
            bench.line.lost_requests, bench.line.lost_answers = lost_requests, lost_answers
            bench.ledger.kill_before = kill

            receipt = await bench.drive(bench.stage(csv_of(made_people(4))), calls=400, step=20)

            assert (receipt.state, receipt.accepted) == ("published", 4)
            assert await bench.begun() == ONCE

    asyncio.run(run())


async def test_progress_that_is_lost_is_not_published_twice(ready):
    """A ledger restored from yesterday finds the recordset by its name, and publishes nothing again."""
    bench, batch = ready
    await bench.drive(batch)
    bench.ledger.progress = {}

    receipt = await bench.drive(batch)

    assert receipt.state == "published"
    begun = await bench.begun()
    assert begun == {**ONCE, "import": 2}


@pytest.mark.parametrize("save", range(1, 17))
async def test_a_local_upload_is_killed(bench, csv_of, made_people, save):
    """Files may be put twice to the same path; nothing else happens twice."""
    await bench.behave(latency_s=0)
    bench.ledger.kill_before = save

    receipt = await bench.drive(bench.stage(csv_of(made_people(4)), mode="local_upload"))

    assert (receipt.state, receipt.accepted) == ("published", 4)
    assert await bench.begun() == UPLOADED


@pytest.mark.parametrize("save", range(1, 5))
@pytest.mark.parametrize("latency", [0, 3])
async def test_an_automation_is_killed(bench, csv_of, made_people, save, latency):
    """It is run once, whatever was saved of it."""
    await bench.behave(latency_s=latency)
    bench.config = bench.configured(automation_id="ATM.11")
    bench.ledger.kill_before = save

    receipt = await bench.drive(bench.stage(csv_of(made_people(4))))

    assert (receipt.state, receipt.accepted) == ("published", 4)
    assert await bench.begun() == ONCE


async def test_an_automation_whose_answer_is_lost(bench, csv_of, made_people):
    """The execution that is new is the one that was asked for."""
    bench.config = bench.configured(automation_id="ATM.11")
    assert (await bench.drive(bench.stage(csv_of(made_people(4)), batch_id="before"))).state == "published"
    bench.ledger.progress = {}
    bench.line.lose_answer_of = "ATM.11/execute"

    receipt = await bench.drive(bench.stage(csv_of(made_people(6)), batch_id="after"))

    assert (receipt.state, receipt.accepted) == ("published", 6)
    assert (await bench.shown())["publications"] == 2
