"""From files in the Cloud Vault to a published dataset: recordset, normalization, prepare, publish."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import attrs

from partnerenrich import Receipt
from partnerenrich_infosum import _advice
from partnerenrich_infosum._api import Document, entries, inside, needed, number, text
from partnerenrich_infosum._run import (
    COMPLETED,
    ELSEWHERE,
    FRUITLESS,
    PARTLY,
    Mark,
    Run,
    Seen,
    last_code,
    status_of,
)
from partnerenrich_infosum._startup import Plan

if TYPE_CHECKING:
    from collections.abc import Mapping

EVERYTHING: Mapping[str, Any] = {"all_keys": True, "all_categories": True, "all_export_columns": False}
"""What is published where no prepare config is known."""

SHARDS = 1
"""``processing_speed`` of a normalization, as in InfoSum's playbook."""


def quoted(value: str) -> str:
    """A text in a filter. Ids and names of ours hold no quote."""
    return "'" + value.replace("'", "") + "'"


@attrs.frozen
class Recordset:
    """Reads the files of the batch into a table. Its name is the batch's, so InfoSum makes no second one (409)."""

    plan: Plan
    filepaths: tuple[str, ...]
    name: str = "recordset"

    async def before(self, run: Run) -> Mark:
        """Names the recordset."""
        return {"recordset_name": run.name}

    async def start(self, run: Run, mark: Mark) -> str:
        """``POST /recordset-creation/execute``."""
        config = self.plan.recordset
        how: Document = {"config_id": config} if config else {"execution_config": self._as_written()}
        asked = {
            "cloud_vault_id": self.plan.vault,
            "recordset_name": mark["recordset_name"],
            "filepaths": list(self.filepaths),
            **how,
        }
        wish = "create a recordset"
        return needed(wish, await run.api.post(wish, "recordset-creation", "execute", json=asked), "execution_id")

    def _as_written(self) -> Document:
        is_parquet = self.filepaths[0].endswith(".parquet")
        return {"header_row": True, "primary_delimiter": ",", "file_type": "PARQUET" if is_parquet else "CSV"}

    async def find(self, run: Run, mark: Mark) -> str | None:
        """By its name."""
        name = mark["recordset_name"]
        query = f"recordset_name eq {quoted(name)}"
        listed = run.api.pages(
            "list recordset executions", "recordset-creation", "executions", of="executions", filter=query
        )
        async for execution in listed:
            is_ours = text(execution, "recordset_name") == name
            if is_ours and text(execution, "cloud_vault_id") == self.plan.vault and _may_bear_fruit(execution):
                return text(execution, "id")
        return None

    async def poll(self, run: Run, mark: Mark) -> Seen:
        """``GET /recordset-creation/executions/{id}``."""
        wish = "tell of the recordset"
        answer = await run.api.get(wish, "recordset-creation", "executions", mark["id"])
        details = inside(answer, "execution_details") or {}
        seen = Seen(status_of(details), last_code(details))
        if seen.status == COMPLETED:
            mark["recordset_id"] = needed(wish, details, "recordset_id")
            mark["malformed"] = number(details, "progress", "malformed_lines") or 0
        elif seen.status in FRUITLESS:
            return attrs.evolve(seen, trouble="all files must have the same columns in the same order, and one type")
        return seen


@attrs.frozen
class Normalization:
    """Turns the columns of the recordset into keys and categories."""

    plan: Plan
    recordset_id: str
    name: str = "normalization"

    async def before(self, run: Run) -> Mark:
        """Names the recordset that comes out."""
        return {"output_name": f"{run.name}-normalized"}

    async def start(self, run: Run, mark: Mark) -> str:
        """``POST /normalizations/execute``."""
        asked = {
            "cloud_vault_id": self.plan.vault,
            "input_recordset_id": self.recordset_id,
            "normalization_config_id": self.plan.normalization,
            "output_recordset_name": mark["output_name"],
            "processing_speed": SHARDS,
        }
        wish = "normalize the recordset"
        return needed(wish, await run.api.post(wish, "normalizations", "execute", json=asked), "execution_id")

    async def find(self, run: Run, mark: Mark) -> str | None:
        """By the name and the source of what comes out."""
        name = mark["output_name"]
        query = f"output_recordset_name eq {quoted(name)}"
        listed = run.api.pages("list normalizations", "normalizations", "executions", of="normalizations", filter=query)
        async for execution in listed:
            is_ours = text(execution, "output_recordset_name") == name
            if is_ours and text(execution, "input_recordset_id") == self.recordset_id and _may_bear_fruit(execution):
                return text(execution, "id")
        return None

    async def poll(self, run: Run, mark: Mark) -> Seen:
        """``GET /normalizations/executions/{id}``; rejected rows show only as counters of the columns."""
        wish = "tell of the normalization"
        answer = await run.api.get(wish, "normalizations", "executions", mark["id"])
        details = inside(answer, "normalization_details") or {}
        execution = inside(details, "normalization") or {}
        seen = Seen(status_of(execution), last_code(details))
        if seen.status == COMPLETED:
            mark["recordset_id"] = needed(wish, execution, "output_recordset_id")
            mark.update(await counts(run, self.plan.vault, mark["recordset_id"]))
        elif seen.status in FRUITLESS:
            return attrs.evolve(seen, trouble=await self._trouble(run, seen))
        return seen

    async def _trouble(self, run: Run, seen: Seen) -> str:
        if seen.code == "TRANSFORM_EXCEEDED_ROW_ERRORS":
            return f"too many values cannot be used; {_advice.MATCHING}"
        assert self.plan.normalization is not None
        config = await run.api.get(
            "read the normalization config", "normalizations", "configs", self.plan.normalization
        )
        missing = sorted(_expected(config) - set(run.batch.columns))
        if missing:
            return f"the columns {', '.join(missing)} are expected and not sent; {_advice.COLUMNS}"
        return _advice.COLUMNS


@attrs.frozen
class Prepare:
    """Makes a publishable dataset of the normalized recordset."""

    plan: Plan
    recordset_id: str
    name: str = "prepare"

    async def before(self, _: Run) -> Mark:
        """Recordset and dataset tell it apart."""
        return {}

    async def start(self, run: Run, _: Mark) -> str:
        """``POST /prepares/execute``."""
        config = self.plan.prepare
        how: Document = {"config_id": config} if config else {"config_embedded": EVERYTHING}
        asked = {
            "cloud_vault_id": self.plan.vault,
            "dataset_id": run.api.config.dataset_id,
            "recordset_id": self.recordset_id,
            **how,
        }
        wish = "prepare the dataset"
        return needed(wish, await run.api.post(wish, "prepares", "execute", json=asked), "execution_id")

    async def find(self, run: Run, _: Mark) -> str | None:
        """By its recordset, which is of this batch alone."""
        query = f"recordset_id eq {quoted(self.recordset_id)}"
        async for execution in run.api.pages("list prepares", "prepares", "executions", of="prepares", filter=query):
            is_ours = text(execution, "recordset_id") == self.recordset_id
            to_ours = text(execution, "dataset_id") == run.api.config.dataset_id
            if is_ours and to_ours and _may_bear_fruit(execution):
                return text(execution, "id")
        return None

    async def poll(self, run: Run, mark: Mark) -> Seen:
        """``GET /prepares/executions/{id}``."""
        details, execution = await _prepared(run, mark["id"])
        seen = Seen(status_of(execution), last_code(details))
        if seen.code == "FILE_INVALID_REGION":
            return attrs.evolve(seen, trouble=_advice.REGION)
        return seen


@attrs.frozen
class Publish:
    """Puts what was prepared in the place of what the dataset has. The same prepare twice is one publish."""

    prepare_id: str
    name: str = "publish"

    async def before(self, _: Run) -> Mark:
        """The prepare tells it apart."""
        return {}

    async def start(self, run: Run, _: Mark) -> str:
        """``POST /prepares/{id}/publish``, unless it was asked for already."""
        if already := await self.find(run, {}):
            return already
        await run.api.post("publish the dataset", "prepares", self.prepare_id, "publish")
        return self.prepare_id

    async def find(self, run: Run, _: Mark) -> str | None:
        """The prepare itself tells."""
        execution = (await _prepared(run, self.prepare_id))[1]
        return self.prepare_id if text(execution, "prepare_status") in {"PUBLISHING", "PUBLISHED"} else None

    async def poll(self, run: Run, mark: Mark) -> Seen:
        """Published is what the prepare calls so and the dataset names."""
        details, execution = await _prepared(run, self.prepare_id)
        status, code = text(execution, "prepare_status"), last_code(details)
        if status_of(execution) in FRUITLESS:
            return Seen(status_of(execution), code)
        if status in {"PUBLISHING", "NO_STATUS", None}:
            return Seen("RUNNING")
        if await published_by(run) == self.prepare_id:
            return Seen(COMPLETED)
        if not await run.is_settled(mark):
            return Seen("RUNNING")
        if status != "PUBLISHED":
            return Seen("FAILED", status, trouble="what was prepared is gone")
        return Seen(ELSEWHERE, "replaced", "the batch was published, but the dataset names another publish by now")


async def published_by(run: Run) -> str | None:
    """The prepare that the dataset shows now."""
    answer = await run.api.get("read the dataset", "datasets", run.api.config.dataset_id)
    return text(answer, "dataset", "publish_details", "execution_id")


async def counts(run: Run, vault: str, recordset_id: str) -> Mark:
    """Records of a normalized recordset, and values by column that could not be used."""
    wish = "tell of the normalized recordset"
    recordset = await run.api.get(wish, "recordsets", vault, recordset_id)
    invalid = {}
    async for column in run.api.pages(wish, "recordsets", vault, recordset_id, "columns", of="columns"):
        name, count = text(column, "name"), number(column, "statistics", "invalid_count")
        if name and count:
            invalid[name] = count
    return {"records": number(recordset, "recordset", "record_count"), "invalid": invalid}


def published(
    run: Run, reference: str | None, malformed: int, records: int | None, invalid: Mapping[str, int]
) -> Receipt:
    """The receipt of a batch that the dataset shows."""
    reasons = {f"invalid:{column}": count for column, count in invalid.items()}
    if malformed:
        reasons["malformed_lines"] = malformed
    dropped = None if records is None else max(0, run.rows - malformed - records)
    if dropped:
        reasons["dropped_by_normalization"] = dropped
    message = f"some values could not be used; {_advice.MATCHING}" if invalid else None
    return Receipt(
        "published",
        accepted=records,
        rejected=dropped,
        malformed=malformed,
        reasons=reasons,
        partner_ref=reference,
        message=message,
    )


async def _prepared(run: Run, execution_id: str) -> tuple[Document, Document]:
    answer = await run.api.get("tell of the prepare", "prepares", "executions", execution_id)
    details = inside(answer, "prepare_details") or {}
    return details, inside(details, "prepare") or {}


def _may_bear_fruit(execution: Document) -> bool:
    return status_of(execution) not in FRUITLESS | {PARTLY}


def _expected(config: Document) -> set[str]:
    """Input columns of a normalization config, in its newer form."""
    found = {
        text(entry, "input_column")
        for place in (("config",), ("config", "normalization_config"))
        for kind in ("keys", "custom_keys", "categories")
        for entry in entries(config, *place, kind)
    }
    return {column for column in found if column and column.isprintable() and len(column) <= 200}
