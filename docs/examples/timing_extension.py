"""
An extension that times each call to a partner.

Put this file into the folder of `plugins_dir` and name it under `extensions`::

    plugins_dir: ./partners
    extensions: [timing_extension]

Each call is a line on stderr, or in the log where there is one, as the hub's.
"""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING, Any

from partnerenrich import hookimpl

if TYPE_CHECKING:
    from collections.abc import Awaitable, Generator

    from partnerenrich import Call

    Pending = Awaitable[Any]
    Wrapper = Generator[None, Pending, Pending]

logging.basicConfig(format="%(message)s")  # leaves a log alone that is set up already
log = logging.getLogger("partner_timing")
log.setLevel(logging.INFO)


@hookimpl(wrapper=True)
def resolve_id(call: Call) -> Wrapper:
    return _timed("resolve_id", call, (yield))


@hookimpl(wrapper=True)
def resolve_ids(call: Call) -> Wrapper:
    return _timed("resolve_ids", call, (yield))


@hookimpl(wrapper=True)
def fetch_attributes(call: Call) -> Wrapper:
    return _timed("fetch_attributes", call, (yield))


@hookimpl(wrapper=True)
def personalize(call: Call) -> Wrapper:
    return _timed("personalize", call, (yield))


async def _timed(hook: str, call: Call, pending: Pending) -> Any:
    started = time.perf_counter()
    try:
        return await pending
    finally:
        milliseconds = (time.perf_counter() - started) * 1000
        log.info("%s %s took %.1f ms", call.provider, hook, milliseconds)
