"""One batch, from its files to the dataset: which stages, in which order."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import attrs

from partnerenrich import RequestRefused
from partnerenrich_infosum import _per_event
from partnerenrich_infosum._automation import Automation
from partnerenrich_infosum._run import SPARE, Run, Stage, advance
from partnerenrich_infosum._staged import Import, Reach, refuse_azure
from partnerenrich_infosum._stages import Normalization, Prepare, Publish, Recordset, published
from partnerenrich_infosum._startup import Plan, start_up
from partnerenrich_infosum._upload import Upload

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from partnerenrich import Receipt


async def deliver(run: Run) -> Receipt:
    """
    Bring the batch as far as it comes without waiting.

    Raises:
        PartnerError: InfoSum refuses, or gave no answer.
    """
    if run.batch.mode == "per_event":
        return await _per_event.send(run)
    await run.begin_anew_after_failure()
    plan = await _plan(run)
    async for stage in _stages(run, plan):
        receipt = await advance(run, stage)
        if receipt is not None:
            return receipt
        if run.call.seconds_left < SPARE:
            return run.receipt("running")
    return _published(run)


async def _plan(run: Run) -> Plan:
    """What the check at the start found. It is kept from the moment that anything was asked for."""
    if "plan" not in run.progress:
        is_staged = run.batch.mode == "staged"
        _refuse_compressed(run)
        if is_staged:
            refuse_azure(run.batch.files)
        automated = is_staged and run.api.config.automation_id is not None
        run.progress["plan"] = attrs.asdict(await start_up(run.api, is_automated=automated))
    return Plan(**run.progress["plan"])


def _refuse_compressed(run: Run) -> None:
    """Nothing public says that InfoSum opens a compressed CSV file; Parquet is compressed inside."""
    if not all(file.url.endswith((".csv", ".parquet")) for file in run.batch.files):
        raise RequestRefused("InfoSum takes plain .csv and .parquet files: remove deliver.compression, or use Parquet")


async def _stages(run: Run, plan: Plan) -> AsyncIterator[Stage]:
    """Each stage, made of what those before it have left in their marks."""
    if run.batch.mode == "local_upload":
        uploads = [Upload(plan, file) for file in run.batch.files]
        for upload in uploads:
            yield upload
        filepaths = [run.stages[upload.name]["path"] for upload in uploads]
    else:
        reach = Reach(None) if _is_under_way(run) else await Reach.of(run, plan)
        if plan.automation is not None:
            yield Automation(plan, reach, plan.automation)
            return
        yield Import(plan, reach)
        filepaths = run.stages["import"]["filepaths"]
    yield Recordset(plan, tuple(filepaths))
    yield Normalization(plan, run.stages["recordset"]["recordset_id"])
    yield Prepare(plan, run.stages["normalization"]["recordset_id"])
    yield Publish(run.stages["prepare"]["id"])


def _is_under_way(run: Run) -> bool:
    """Whether the importer, or the automation, has been set off: then its reach matters no more."""
    return any("id" in run.stages.get(name, {}) for name in ("import", "automation"))


def _published(run: Run) -> Receipt:
    marks = run.stages
    told: dict[str, Any] = marks.get("automation") or {**marks["normalization"], **_malformed(marks["recordset"])}
    reference = told.get("published") or marks["prepare"]["id"]
    return published(run, reference, told.get("malformed", 0), told.get("records"), told.get("invalid", {}))


def _malformed(mark: dict[str, Any]) -> dict[str, Any]:
    return {"malformed": mark["malformed"]}
