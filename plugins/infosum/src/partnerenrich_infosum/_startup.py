"""
The check at the start: do importer, Cloud Vault, dataset and region fit together? Reads only.

What is not configured is found out: the importer names the vault, the lineage of a published dataset names the
configs that it was made with.
"""

from __future__ import annotations

import logging
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import attrs

from partnerenrich import RequestRefused
from partnerenrich_infosum import _advice
from partnerenrich_infosum._api import Api, Refused, entries, inside, needed, text

if TYPE_CHECKING:
    from partnerenrich_infosum.config import Config

log = logging.getLogger(__name__)

WARN_DAYS = 30
"""Days before the end of a key from which the log warns."""


@attrs.frozen
class Plan:
    """
    What a batch goes through.

    Attributes:
        vault: The Cloud Vault that the importer copies to.
        connector: The importer's connector.
        recordset: Config of that stage; None to describe the files as they were written.
        normalization: Config of that stage; None where an automation does it.
        prepare: Config of that stage; None to publish everything.
        automation: The automation that does all stages.
    """

    vault: str
    connector: str | None
    recordset: str | None = None
    normalization: str | None = None
    prepare: str | None = None
    automation: str | None = None


async def start_up(api: Api, *, is_automated: bool) -> Plan:
    """
    Check the settings against InfoSum.

    Args:
        api: InfoSum.
        is_automated: Whether the automation of the settings does the stages.

    Raises:
        RequestRefused: An id is unknown, or the regions differ.
        AuthError: The key is refused or lacks a right.
    """
    config = api.config
    warn_of_key(config, datetime.now(UTC))
    importer = await _got(api, "importer_id", "read the importer", "imports", "importers", config.importer_id)
    vault_id = needed("read the importer", importer, "import", "cloud_vault_id")
    vault = await api.get("read the Cloud Vault", "cloud_vaults", vault_id)
    dataset = await _got(api, "dataset_id", "read the dataset", "datasets", config.dataset_id)
    _compare_regions(
        config,
        needed("read the Cloud Vault", vault, "cloud_vault", "region"),
        needed("read the dataset", dataset, "dataset", "region"),
    )
    connector = text(importer, "import", "icc_id")
    if is_automated:
        await _check_automation(api)
        return Plan(vault_id, connector, automation=config.automation_id)
    return await _with_configs(api, Plan(vault_id, connector))


def warn_of_key(config: Config, now: datetime) -> None:
    """Log that the key looks old, or that it ends soon."""
    if config.looks_like_v1:
        log.warning("%s", _advice.V1)
    if config.api_key_expires is not None:
        days = (datetime.fromisoformat(config.api_key_expires).date() - now.date()).days
        if days <= WARN_DAYS:
            log.warning("api_key expires in %d days (api_key_expires): make a new V2 API key in the InfoSum UI", days)


async def _got(api: Api, setting: str, wish: str, *path: str) -> dict[str, object]:
    try:
        return dict(await api.get(wish, *path))
    except Refused as refused:
        if refused.status == 404:
            raise RequestRefused(f"InfoSum knows nothing of this id (404): check {setting}") from None
        raise


def _compare_regions(config: Config, vault: str, dataset: str) -> None:
    words = {name: word for word, names in config.REGIONS.items() for name in names}
    for what, region in (("the Cloud Vault of the importer", vault), ("the dataset", dataset)):
        if words.get(region) != config.region:
            raise RequestRefused(
                f"region is {config.region}, but {what} is in {words.get(region, 'another one')}: {_advice.REGION}"
            )
    if vault != dataset:
        raise RequestRefused(
            f"the Cloud Vault of the importer and the dataset are in two regions of {config.region}; "
            "InfoSum publishes within one"
        )


async def _check_automation(api: Api) -> None:
    config = api.config
    assert config.automation_id is not None
    answer = await _got(api, "automation_id", "read the automation", "automations", "configs", config.automation_id)
    steps = list(entries(answer, "config", "automation_steps"))
    imports = {text(step, "import", "config_id") for step in steps}
    datasets = {text(step, "publish", "dataset_id") for step in steps}
    if config.importer_id not in imports or config.dataset_id not in datasets:
        raise RequestRefused("the automation (automation_id) does not run importer_id and publish to dataset_id")


async def _with_configs(api: Api, plan: Plan) -> Plan:
    """The configs of the settings; those that are missing, from the lineage of the dataset."""
    config = api.config
    found = {
        "recordset": config.recordset_config_id,
        "normalization": config.normalization_config_id,
        "prepare": config.prepare_config_id,
    }
    if None in found.values():
        try:
            lineage = await api.get("read the lineage of the dataset", "lineage", "publish", config.dataset_id)
        except Refused as refused:
            if refused.status != 404:
                raise
            lineage = {}
        step = inside(lineage, "lineage") or {}
        for name, path in (("recordset", "recordset_creation"), ("normalization",) * 2, ("prepare", "publish")):
            found[name] = found[name] or text(step, path, "config_id")
    if found["normalization"] is None:
        raise RequestRefused(
            "the dataset was never published, so its normalization config is not known: "
            "publish it once in the InfoSum UI, or set normalization_config_id"
        )
    return attrs.evolve(
        plan, recordset=found["recordset"], normalization=found["normalization"], prepare=found["prepare"]
    )
