"""
An extension that denies calls: to organisations on trial always, to all others at night.

Put this file into the folder of `plugins_dir` and name it under `extensions`::

    plugins_dir: ./partners
    extensions: [deny_extension]
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from partnerenrich import NotCalled, hookimpl

if TYPE_CHECKING:
    from collections.abc import Coroutine, Generator

    from partnerenrich import Call

    Pending = Coroutine[Any, Any, Any]
    Wrapper = Generator[None, Pending, Pending]

ON_TRIAL = frozenset({"trial"})
OPENS, CLOSES = 7, 19  # hours, UTC


@hookimpl(wrapper=True)
def resolve_id(call: Call) -> Wrapper:
    if call.org in ON_TRIAL:
        # Before the yield nothing was made yet, so there is nothing to close.
        raise NotCalled("organisations on trial call no partner")
    return _in_office_hours((yield))


resolve_ids = fetch_attributes = personalize = deliver_batch = resolve_id


async def _in_office_hours(pending: Pending) -> Any:
    if not OPENS <= now().hour < CLOSES:
        pending.close()  # else Python warns of a coroutine that was never awaited
        raise NotCalled(f"partners are called from {OPENS} to {CLOSES} o'clock UTC")
    return await pending


def now() -> datetime:
    return datetime.now(UTC)
