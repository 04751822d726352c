"""An automation: one execution that does all stages, as somebody has set it up in the InfoSum UI."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

from partnerenrich_infosum import _advice
from partnerenrich_infosum._api import Document, entries, error_code, inside, needed, number, text
from partnerenrich_infosum._run import COMPLETED, ELSEWHERE, FRUITLESS, Mark, Run, Seen, status_of
from partnerenrich_infosum._staged import REMEMBERED, Reach, narrow
from partnerenrich_infosum._stages import counts, published_by, quoted
from partnerenrich_infosum._startup import Plan

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


@attrs.frozen
class Automation:
    """
    The automation of the settings. It takes what the importer takes, so the importer is narrowed to the batch.

    Any execution that begins after that publishes this batch, whoever asked for it.
    """

    plan: Plan
    reach: Reach
    config_id: str
    name: str = "automation"

    async def before(self, run: Run) -> Mark:
        """Narrows the importer, and tells older executions apart."""
        await narrow(run, self.reach)
        known = [execution async for execution in self._executions(run)]
        return {"known": [identifier for execution in known if (identifier := text(execution, "id"))][:REMEMBERED]}

    async def start(self, run: Run, _: Mark) -> str:
        """``POST /automations/configs/{id}/execute``."""
        wish = "run the automation"
        path = ("automations", "configs", self.config_id, "execute")
        return needed(wish, await run.api.post(wish, *path), "execution_id")

    async def find(self, run: Run, mark: Mark) -> str | None:
        """The first execution that is new."""
        new = [
            identifier
            async for execution in self._executions(run)
            if (identifier := text(execution, "id")) and identifier not in mark["known"]
        ]
        return new[-1] if new else None

    async def poll(self, run: Run, mark: Mark) -> Seen:
        """``GET /automations/executions/{id}``; complete when the dataset names the prepare of its last step."""
        answer = await run.api.get("tell of the automation", "automations", "executions", mark["id"])
        steps = {text(step, "task_type"): step for step in entries(answer, "execution_steps")}
        for step in (*steps.values(), {"current_task_status": text(answer, "execution", "current_step_status")}):
            if status_of(step, "current_task_status") in FRUITLESS:
                code = error_code(inside(step, "error")) or error_code(inside(answer, "execution", "error"))
                return Seen("FAILED", code, _advice.COLUMNS)
        last = steps.get("TASK_TYPE_PUBLISH", {})
        if status_of(last, "current_task_status") != COMPLETED:
            return Seen("RUNNING")
        task, shown = text(last, "task_id"), await published_by(run)
        if task is None or shown != task:
            return Seen(ELSEWHERE, "replaced", "the automation has published, but the dataset names another publish")
        await self._count(run, mark, steps)
        return Seen(COMPLETED)

    async def _count(self, run: Run, mark: Mark, steps: dict[str | None, Document]) -> None:
        """What its recordset and its normalization tell."""
        mark["published"] = text(steps["TASK_TYPE_PUBLISH"], "task_id")
        if recordset := text(steps.get("TASK_TYPE_RECORDSET", {}), "task_id"):
            answer = await run.api.get("tell of the recordset", "recordset-creation", "executions", recordset)
            mark["malformed"] = number(answer, "execution_details", "progress", "malformed_lines") or 0
        if normalization := text(steps.get("TASK_TYPE_NORMALIZATION", {}), "task_id"):
            answer = await run.api.get("tell of the normalization", "normalizations", "executions", normalization)
            output = text(answer, "normalization_details", "normalization", "output_recordset_id")
            if output is not None:
                mark.update(await counts(run, self.plan.vault, output))

    async def _executions(self, run: Run) -> AsyncIterator[Document]:
        listed = run.api.pages(
            "list executions of the automation",
            "automations",
            "executions",
            of="executions",
            filter=f"config_id eq {quoted(self.config_id)}",
            order_by="started_date_time DESC",
        )
        count = 0
        async for execution in listed:
            if text(execution, "config_id") == self.config_id:
                yield execution
                count += 1
            if count >= REMEMBERED:
                return
