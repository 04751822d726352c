"""
One batch on its way through InfoSum, stage by stage, without ever asking twice for what may have been granted.

Around each request that begins something, progress is saved twice: that it is about to be made, and the id that
came of it. Where only the first is found, the stage looks for what it may have begun before it begins anything
anew: InfoSum knows no idempotency key, but lists all executions.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any, Final, Literal, Protocol

import attrs

from partnerenrich import AuthError, Batch, Call, RateLimited, Receipt
from partnerenrich_infosum._api import Api, Document, Refused, entries, error_code, inside, text

State = Literal["running", "failed", "rejected", "uncertain"]
Mark = dict[str, Any]

COMPLETED: Final = "COMPLETED"
PARTLY: Final = "PARTIALLY_COMPLETED"
FRUITLESS: Final = frozenset({"FAILED", "CANCELED", "CANCELLED", "STALE"})
"""Final, and nothing came of it. That ``STALE`` is final is assumed."""

ELSEWHERE: Final = "ELSEWHERE"
"""A status of our own: something was done that this batch cannot answer for."""

SETTLES: Final = 60.0
"""Seconds after which a request whose answer was lost, and that no list shows, has not arrived. Assumed."""

MAY_PUBLISH: Final = frozenset({"publish", "automation"})
"""Stages that may change the dataset without being asked again."""

SPARE: Final = 10.0
"""Seconds that must be left of a call for one more stage."""


@attrs.frozen
class Seen:
    """
    What a poll told of an execution. Any status that is not known to be final means that it still runs.

    Attributes:
        status: InfoSum's word.
        code: InfoSum's code of the last error.
        trouble: What a person should know or do, when nothing good came of it.
    """

    status: str
    code: str | None = None
    trouble: str | None = None


class Unclear(Exception):
    """Whether a request was granted cannot be told yet."""


class Stage(Protocol):
    """
    Something that InfoSum is asked to do and that takes its time.

    A stage is made anew at each call, from what the stages before it left in their marks.
    """

    @property
    def name(self) -> str:
        """Names its mark in the progress, and itself in messages."""

    async def before(self, run: Run) -> Mark:
        """What to remember before it is asked for. May be called again."""

    async def start(self, run: Run, mark: Mark) -> str:
        """Ask for it. Returns the id of the execution."""

    async def find(self, run: Run, mark: Mark) -> str | None:
        """The execution that was asked for, if InfoSum has one. Raises `Unclear`."""

    async def poll(self, run: Run, mark: Mark) -> Seen:
        """How it fares. Adds to the mark what came of it."""


@attrs.define(eq=False)
class Run:
    """
    One batch, and how far it has come.

    Attributes:
        api: InfoSum.
        batch: The batch.
        call: Until when.
        clock: Unix time in seconds.
        progress: What is saved: ``attempt``, ``plan``, and in ``stages`` a mark for each stage that was begun.
    """

    api: Api
    batch: Batch
    call: Call
    clock: Callable[[], float]
    progress: dict[str, Any]

    @classmethod
    def of(cls, api: Api, batch: Batch, call: Call, clock: Callable[[], float]) -> Run:
        """Take up where the last call left off."""
        progress = {"attempt": 1, "stages": {}, **copy.deepcopy(dict(batch.progress))}
        return cls(api, batch, call, clock, progress)

    @property
    def name(self) -> str:
        """Of the batch, at InfoSum: its id, and from the second attempt on a number."""
        attempt = self.progress["attempt"]
        return self.batch.id if attempt == 1 else f"{self.batch.id}-{attempt}"

    @property
    def rows(self) -> int:
        """Records in the batch."""
        return sum(file.rows for file in self.batch.files)

    @property
    def stages(self) -> dict[str, Mark]:
        """Name of each stage that was begun to its mark."""
        stages: dict[str, Mark] = self.progress["stages"]
        return stages

    async def save(self) -> None:
        """Make the progress durable. As long as nothing was asked for there is none."""
        is_untouched = self.progress["attempt"] == 1 and not self.stages and "per_event" not in self.progress
        await self.batch.save({} if is_untouched else copy.deepcopy(self.progress))

    async def begin_anew_after_failure(self) -> None:
        """
        Drop the stage that failed and those after it.

        A batch whose receipt was final is handed over again only when somebody asked for a retry. Its names at
        InfoSum then differ from those of the attempt before.
        """
        names = list(self.stages)
        failed = [index for index, name in enumerate(names) if self.stages[name].get("failed")]
        if failed:
            for name in names[failed[0] :]:
                del self.stages[name]
            self.progress["attempt"] += 1
            await self.save()

    async def fail(self, mark: Mark) -> None:
        """Nothing came of a stage. What was found out at the start is found out anew, for somebody may change it."""
        mark["failed"] = True
        self.progress.pop("plan", None)
        await self.save()

    async def is_settled(self, mark: Mark) -> bool:
        """Whether what a poll found odd has been so for long enough not to be a list that lags behind."""
        if "odd_since" not in mark:
            mark["odd_since"] = self.clock()
            await self.save()
        return bool(self.clock() >= mark["odd_since"] + SETTLES)

    def receipt(self, state: State, *, message: str | None = None, reason: str | None = None) -> Receipt:
        """How far the batch has come, with the last id that InfoSum gave."""
        ids = [mark["id"] for mark in self.stages.values() if "id" in mark]
        reasons = {} if reason is None else {reason: self.rows}
        return Receipt(state, reasons=reasons, partner_ref=ids[-1] if ids else None, message=message)


async def advance(run: Run, stage: Stage) -> Receipt | None:
    """
    Begin a stage, or look how it fares.

    Returns:
        None when it is complete; else what to tell for now. A definite no is told as ``failed``.

    Raises:
        AuthError: The key is refused or lacks a right.
        PartnerError: InfoSum gave no answer that can be understood.
    """
    mark = run.stages.get(stage.name, {})
    if mark.get("complete"):
        return None
    try:
        if "id" not in mark:
            mark = await _begun(run, stage, mark)
    except Unclear:
        return await _still(run, stage, mark)
    except Refused as refused:
        return run.receipt("failed", message=str(refused), reason=f"{stage.name}:{refused.status}")
    return await _told(run, stage, mark, await stage.poll(run, mark))


async def _told(run: Run, stage: Stage, mark: Mark, seen: Seen) -> Receipt | None:
    """What a poll means for the batch; None when the stage is complete."""
    if seen.status == COMPLETED:
        mark["complete"] = True
        await run.save()
        return None
    if seen.status == ELSEWHERE:
        return run.receipt("uncertain", message=seen.trouble, reason=f"{stage.name}:{seen.code}")
    if seen.status in FRUITLESS or seen.status == PARTLY:
        await run.fail(mark)
        return _failed(run, stage, seen)
    return await _still(run, stage, mark)


async def _begun(run: Run, stage: Stage, mark: Mark) -> Mark:
    """The mark of the stage with the id of its execution. Raises `Unclear`."""
    identifier = await stage.find(run, mark) if "asked" in mark else None
    if identifier is None:
        if "asked" in mark and run.clock() < mark["asked"] + SETTLES:
            raise Unclear
        since = mark.get("since", run.clock())
        mark = run.stages[stage.name] = {**await stage.before(run), "since": since, "asked": run.clock()}
        await run.save()
        identifier = await _started(run, stage, mark)
    mark["id"] = identifier
    await run.save()
    return mark


async def _started(run: Run, stage: Stage, mark: Mark) -> str:
    try:
        return await stage.start(run, mark)
    except Refused as refused:
        if refused.status != 409:
            await _forget(run, stage)
            raise
        if (identifier := await stage.find(run, mark)) is not None:
            return identifier
        await run.fail(mark)
        taken = "the name of the batch is taken at InfoSum by something else; look there, then send the batch again"
        raise Refused(f"{refused}: {taken}", 409) from None
    except (AuthError, RateLimited):
        await _forget(run, stage)
        raise


async def _forget(run: Run, stage: Stage) -> None:
    """A definite no leaves nothing to look for."""
    del run.stages[stage.name]
    run.progress.pop("plan", None)
    await run.save()


async def _still(run: Run, stage: Stage, mark: Mark) -> Receipt:
    """It goes on, unless it has taken too long."""
    limit = run.api.config.stage_deadline
    if run.clock() < mark["since"] + limit:
        return run.receipt("running")
    late = f"InfoSum has not finished the {stage.name} within {limit:g} s (stage_deadline)"
    if stage.name in MAY_PUBLISH:
        mark["since"] = run.clock()  # whoever hands the batch over again waits for as long again
        message = f"{late} and may yet publish: look at the dataset in the InfoSum UI before anything is sent again"
        await run.save()
        return run.receipt("uncertain", message=message, reason=f"{stage.name}:deadline")
    await run.fail(mark)
    return run.receipt("failed", message=f"{late}; nothing is published", reason=f"{stage.name}:deadline")


def _failed(run: Run, stage: Stage, seen: Seen) -> Receipt:
    is_about_data = seen.status == "FAILED" and stage.name in {"recordset", "normalization"}
    why = seen.code or seen.status
    message = f"InfoSum's {stage.name} came to nothing ({why}){f': {seen.trouble}' if seen.trouble else ''}"
    return run.receipt("rejected" if is_about_data else "failed", message=message, reason=f"{stage.name}:{why}")


def status_of(execution: Document, field: str = "current_status") -> str:
    """InfoSum's word, which may be one that nobody knows today."""
    return text(execution, field) or "NO_STATUS"


def last_code(details: Document) -> str | None:
    """The code of the last error in a history."""
    codes = [error_code(inside(entry, "error")) for entry in entries(details, "history")]
    return next((code for code in reversed(codes) if code), None)
