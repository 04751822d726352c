"""
Records in the body of a request, for low volume: the alpha way.

``POST /api/v2/import/executions/execute`` stands in no published file of InfoSum's API, and the shape of its body is
assumed. Delivered at least once: records whose answer was lost are sent again, and the receipt counts them.
"""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING, Any

from partnerenrich import AuthError, RateLimited, Receipt, RequestRefused
from partnerenrich_infosum import _advice
from partnerenrich_infosum._api import Refused, needed
from partnerenrich_infosum._run import SPARE, Run

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

MOST_RECORDS = 10_000
"""In one batch. More is what staged files are for."""

IN_ONE_REQUEST = 100


async def send(run: Run) -> Receipt:
    """
    Send what is left of the batch.

    Raises:
        RequestRefused: The batch is too large.
        PartnerError: InfoSum gave no answer, or refuses the key.
    """
    if run.rows > MOST_RECORDS:
        raise RequestRefused(
            f"the batch has {run.rows} records, and mode per_event takes {MOST_RECORDS} at most: "
            "set deliver.mode to staged"
        )
    done: dict[str, Any] = run.progress.setdefault("per_event", {"sent": 0, "again": 0})
    if done.pop("sending", 0):
        done["again"] += min(IN_ONE_REQUEST, run.rows - done["sent"])
    rows = islice(run.batch.rows(), done["sent"], None)
    while chunk := [_record(run.batch.columns, row) for row in islice(rows, IN_ONE_REQUEST)]:
        if run.call.seconds_left < SPARE and done["sent"]:
            return run.receipt("running")
        done["sending"] = len(chunk)
        await run.save()
        try:
            done["id"] = await _sent(run, chunk)
        except Refused as refused:
            await _take_back(run, done)
            return _refused(run, done, refused)
        except (AuthError, RateLimited):
            await _take_back(run, done)
            raise
        done["sent"] += done.pop("sending")
        await run.save()
    reasons = {"sent_again": done["again"]} if done["again"] else {}
    return Receipt("handed_over", accepted=done["sent"], reasons=reasons, partner_ref=done.get("id"))


def _record(columns: Sequence[str], row: Mapping[str, str]) -> dict[str, str]:
    """With all columns, as a line of a file has them: a row leaves its empty cells out."""
    return {column: row.get(column, "") for column in columns}


async def _sent(run: Run, records: list[dict[str, str]]) -> str:
    config = run.api.config
    body = {
        "importer_id": config.importer_id,
        "dataset_id": config.dataset_id,
        "region": config.region,
        "records": records,
    }
    wish = "take records"
    return needed(wish, await run.api.post(wish, "import", "executions", "execute", json=body), "execution_id")


def _refused(run: Run, done: dict[str, Any], refused: Refused) -> Receipt:
    advice = f": {_advice.COLUMNS}; {_advice.REGION}" if refused.status == 400 else ""
    return Receipt(
        "failed",
        accepted=done["sent"],
        reasons={f"records:{refused.status}": run.rows - done["sent"]},
        partner_ref=done.get("id"),
        message=f"{refused}{advice}",
    )


async def _take_back(run: Run, done: dict[str, Any]) -> None:
    """A definite no: these records were not sent."""
    del done["sending"]
    if not done["sent"]:
        del run.progress["per_event"]
    await run.save()
