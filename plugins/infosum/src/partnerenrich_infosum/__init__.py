"""InfoSum for partnerenrich: publish batches of hashed records to a dataset of the clean room."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from partnerenrich import Delivery, Limits, Partner, hookimpl
from partnerenrich_infosum._api import Api
from partnerenrich_infosum._delivery import deliver
from partnerenrich_infosum._run import Run
from partnerenrich_infosum._startup import start_up
from partnerenrich_infosum.config import Config

if TYPE_CHECKING:
    import httpx

    from partnerenrich import Batch, Call, Receipt, Sandbox

BLUEPRINT = """\
global:
  mappings:
    - {source: user_id, target: customer_id}
    - {source: $traits.email, target: email, transform: sha256_lower_trim}
    - {source: $traits.first_name, target: first_name}
    - {source: $traits.last_name, target: last_name}
    - {source: $traits.phone, target: phone, transform: sha256}
"""
"""Columns of the default blueprint. `sha256` of a phone is that of its E.164 form."""


@hookimpl
def partner() -> Partner:
    """
    A clean room that takes files.

    Nothing is repeated within one call of a hook, for most of what is asked for must not be done twice: whoever
    calls again hands over the progress that was saved.
    """
    return Partner(
        title="InfoSum",
        category="clean_room",
        config=Config,
        limits=Limits(timeout=60, attempts=1, concurrency=4),
        delivery=Delivery(
            formats=("csv", "parquet"),
            default_blueprint=BLUEPRINT,
            max_bytes=1_000_000_000,
            modes=("staged", "local_upload", "per_event"),
            appends=("per_event",),
            resumes=True,
        ),
        docs="https://infosum.github.io/infosum-docs/",
    )


@hookimpl
async def deliver_batch(config: Config, http: httpx.AsyncClient, batch: Batch, call: Call) -> Receipt:
    """Bring the batch as far as it comes without waiting; called again, go on from there."""
    return await deliver(Run.of(Api(config, http), batch, call, time.time))


@hookimpl
async def check(config: Config, http: httpx.AsyncClient) -> None:
    """Read importer, vault, dataset and what is to be discovered, and compare the regions."""
    await start_up(Api(config, http), is_automated=config.automation_id is not None)


@hookimpl
def sandbox() -> Sandbox:
    """An imitation of InfoSum, with a bucket to stage in."""
    from partnerenrich_infosum._sandbox import new_sandbox  # noqa: PLC0415  Starlette is needed here alone

    return new_sandbox()
