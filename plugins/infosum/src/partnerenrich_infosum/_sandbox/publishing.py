"""Recordsets, normalizations, prepares, datasets, automations, and the call that no published file has."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Mapping
from typing import Any

from partnerenrich_infosum._sandbox.gate import Asked, Refusal
from partnerenrich_infosum._sandbox.importing import task_of, told
from partnerenrich_infosum._sandbox.machine import Task, moment
from partnerenrich_infosum._sandbox.tables import Reading
from partnerenrich_infosum._sandbox.world import (
    NORMALIZATIONS,
    PREPARE_CONFIGS,
    READINGS,
    Automation,
    Dataset,
    Recordset,
    Vault,
    VaultFile,
    World,
)

_is_name = re.compile("[A-Za-z0-9_ -]+").fullmatch
_FRUITLESS = {"FAILED", "CANCELED"}

# Recordsets


def create_recordset(asked: Asked) -> dict[str, Any]:
    """``POST /recordset-creation/execute``."""
    vault: Vault = asked.own(asked.world.vaults, asked.text("cloud_vault_id"), "CLOUD_VAULT_NOT_FOUND")
    name = _name(asked, "recordset_name")
    filepaths = asked.body.get("filepaths")
    if not isinstance(filepaths, list) or not filepaths or not all(isinstance(path, str) for path in filepaths):
        raise Refusal(400, "MISSING_REQUIRED_FIELD", "filepaths is required")
    config_id = asked.body.get("config_id")
    if config_id is not None:
        reading = READINGS.get(config_id)
        if reading is None:
            raise Refusal(404, "INVALID_ARGUMENT", "there is no such recordset config")
    else:
        reading = _reading(asked.body.get("execution_config"))
    task = asked.world.begin_recordset(vault.id, asked.key.user, name, filepaths, reading, config_id)
    return {"execution_id": task.id}


def _name(asked: Asked, field: str) -> str:
    """A name for a recordset that no other has, or is about to have."""
    name = asked.text(field)
    if not _is_name(name):
        raise Refusal(400, "INVALID_ARGUMENT", f"{field} has other characters than it may")
    world = asked.world
    pending = [
        task.facts.get("recordset_name") or task.facts.get("output_recordset_name")
        for task in world.tasks.values()
        if task.status not in _FRUITLESS
    ]
    if name in pending or name in {recordset.name for recordset in world.recordsets.values()}:
        raise Refusal(409, "API_MALFORMED_INPUT", "there is a recordset of this name")
    return name


def _reading(config: object) -> Reading:
    if not isinstance(config, Mapping) or not config.get("primary_delimiter") or "header_row" not in config:
        raise Refusal(400, "MISSING_REQUIRED_FIELD", "config_id or execution_config is required")
    return Reading(
        config.get("file_type", "AUTO"),
        config["primary_delimiter"],
        bool(config["header_row"]),
        tuple(config.get("header_names") or ()),
    )


def recordset_executions(asked: Asked) -> dict[str, Any]:
    """``GET /recordset-creation/executions``."""
    return asked.page(
        "executions", [_recordset_execution(asked.world, task) for task in asked.world.of_kind("recordset")]
    )


def recordset_execution(asked: Asked) -> dict[str, Any]:
    """``GET /recordset-creation/executions/{id}``."""
    task = task_of(asked, "recordset")
    facts = {name: task.facts[name] for name in ("config_id", "filepaths")}
    return {"execution_details": {**_recordset_execution(asked.world, task), **facts, "history": task.history}}


def _recordset_execution(world: World, task: Task) -> dict[str, Any]:
    facts = {name: task.facts[name] for name in ("cloud_vault_id", "recordset_id", "recordset_name")}
    lines = {name: str(task.facts[name]) for name in ("total_lines", "malformed_lines")}
    progress = {
        "completion_percentage": task.percentage(world.clock()),
        "lines_processed": lines["total_lines"],
        **lines,
    }
    return {**told(task), **facts, "progress": progress}


def recordsets(asked: Asked) -> dict[str, Any]:
    """``GET /recordsets/{vault}``."""
    vault: Vault = asked.own(asked.world.vaults, asked.path("vault"), "CLOUD_VAULT_NOT_FOUND")
    return asked.page(
        "recordsets", [_recordset(each) for each in asked.world.recordsets.values() if each.vault == vault.id]
    )


def recordset(asked: Asked) -> dict[str, Any]:
    """``GET /recordsets/{vault}/{id}``."""
    found = _recordset_of(asked, asked.path("vault"), asked.path("recordset"))
    return {"recordset": {**_recordset(found), "columns_headers": list(found.table.columns)}}


def columns(asked: Asked) -> dict[str, Any]:
    """``GET /recordsets/{vault}/{id}/columns``."""
    found = _recordset_of(asked, asked.path("vault"), asked.path("recordset"))
    return asked.page(
        "columns",
        [
            {"name": name, "value_type": "STRING", "pii": False, "statistics": (found.cells or {}).get(name, {})}
            for name in found.table.columns
        ],
    )


def _recordset_of(asked: Asked, vault_id: str, recordset_id: str) -> Recordset:
    vault: Vault = asked.own(asked.world.vaults, vault_id, "CLOUD_VAULT_NOT_FOUND")
    found = asked.world.recordsets.get(recordset_id)
    if found is None or found.vault != vault.id:
        raise Refusal(404, "FILE_NOT_FOUND", "there is no such recordset")
    return found


def _recordset(recordset: Recordset) -> dict[str, Any]:
    return {
        "id": recordset.id,
        "name": recordset.name,
        "record_count": str(recordset.records),
        "is_publishable": recordset.cells is not None,
        "locks": [],
        "origin": {"task_id": recordset.task_id, "task_type": "", "properties": {}},
        "created_date_time": moment(recordset.created),
    }


def recordset_config(asked: Asked) -> dict[str, Any]:
    """``GET /recordset-configs/{id}``."""
    reading = READINGS.get(asked.path("config"))
    if reading is None:
        raise Refusal(404, "INVALID_ARGUMENT", "there is no such recordset config")
    told = {"header_row": reading.header, "primary_delimiter": reading.delimiter, "file_type": reading.file_type}
    return {"config": {"id": asked.path("config"), "name": asked.path("config"), **told}}


# Normalizations


def normalize(asked: Asked) -> dict[str, Any]:
    """``POST /normalizations/execute``."""
    found = _recordset_of(asked, asked.text("cloud_vault_id"), asked.text("input_recordset_id"))
    config_id = asked.text("normalization_config_id")
    if config_id not in NORMALIZATIONS:
        raise Refusal(400, "NORMALIZATIONS_CONFIG_NOT_FOUND", "there is no such normalization config")
    output = _name(asked, "output_recordset_name")
    task = asked.world.begin_normalization(found.vault, asked.key.user, found, config_id, output)
    return {"execution_id": task.id}


def normalizations(asked: Asked) -> dict[str, Any]:
    """``GET /normalizations/executions``."""
    return asked.page(
        "normalizations", [_normalization(asked.world, task) for task in asked.world.of_kind("normalization")]
    )


def normalization(asked: Asked) -> dict[str, Any]:
    """``GET /normalizations/executions/{id}``."""
    task = task_of(asked, "normalization")
    return {"normalization_details": {"normalization": _normalization(asked.world, task), "history": task.history}}


def _normalization(world: World, task: Task) -> dict[str, Any]:
    return {**told(task), **task.facts, "progress": {"completion_percentage": task.percentage(world.clock())}}


def normalization_configs(asked: Asked) -> dict[str, Any]:
    """``GET /normalizations/configs``."""
    return asked.page("configs", [{"id": config, "name": config} for config in NORMALIZATIONS])


def normalization_config(asked: Asked) -> dict[str, Any]:
    """``GET /normalizations/configs/{id}``, in the newer form."""
    inputs = NORMALIZATIONS.get(asked.path("config"))
    if inputs is None:
        raise Refusal(404, "NORMALIZATIONS_CONFIG_NOT_FOUND", "there is no such normalization config")
    keys = [{"input_column": each.input_column} for each in inputs if each.kind in {"email", "phone"}]
    custom = [{"input_column": each.input_column} for each in inputs if each.kind == "custom_key"]
    categories = [
        {"input_column": each.input_column, "output_column": each.input_column, "data_type": "STRING"}
        for each in inputs
        if each.kind == "category"
    ]
    config = {"keys": keys, "custom_keys": custom, "categories": categories, "export_columns": [], "enrichments": []}
    name = asked.path("config")
    return {"config": {"id": name, "name": name, "normalization_config": config}}


# Prepare and publish


def prepare(asked: Asked) -> dict[str, Any]:
    """``POST /prepares/execute``."""
    found = _recordset_of(asked, asked.text("cloud_vault_id"), asked.text("recordset_id"))
    dataset: Dataset = asked.own(asked.world.datasets, asked.text("dataset_id"), "DATASET_NOT_FOUND")
    config_id = asked.body.get("config_id")
    if config_id is None and not isinstance(asked.body.get("config_embedded"), Mapping):
        raise Refusal(400, "MISSING_REQUIRED_FIELD", "config_id or config_embedded is required")
    if config_id is not None and config_id not in PREPARE_CONFIGS:
        raise Refusal(400, "INVALID_ARGUMENT", "there is no such prepare config")
    if found.cells is None:
        raise Refusal(400, "INVALID_ARGUMENT", "the recordset is not normalized")
    vault = asked.world.vaults[found.vault]
    if vault.region != dataset.region and asked.world.behaviour.region_check == "execute":
        raise Refusal(400, "FILE_INVALID_REGION", "vault and dataset are in two regions")
    for task in asked.world.of_kind("prepare"):
        same = task.facts["recordset_id"] == found.id and task.facts["dataset_id"] == dataset.id
        if same and task.status not in _FRUITLESS:
            raise Refusal(409, "API_MALFORMED_INPUT", "this is being prepared already")
    task = asked.world.begin_prepare(vault.id, asked.key.user, found, dataset, config_id or "")
    return {"execution_id": task.id}


def prepares(asked: Asked) -> dict[str, Any]:
    """``GET /prepares/executions``."""
    return asked.page("prepares", [_prepare(asked.world, task) for task in asked.world.of_kind("prepare")])


def prepare_execution(asked: Asked) -> dict[str, Any]:
    """``GET /prepares/executions/{id}``, for the publish too."""
    task = task_of(asked, "prepare")
    return {"prepare_details": {"prepare": _prepare(asked.world, task), "history": task.history}}


def _prepare(world: World, task: Task) -> dict[str, Any]:
    progress = {"completion_percentage": task.percentage(world.clock())}
    expires = moment(task.created + 30 * 86_400)
    return {**told(task), **task.facts, "progress": progress, "expiration_date_time": expires}


def publish(asked: Asked) -> dict[str, Any]:
    """``POST /prepares/{id}/publish``."""
    task = task_of(asked, "prepare")
    if task.status != "COMPLETED" or task.facts["prepare_status"] != "NO_STATUS":
        raise Refusal(400, "INVALID_ARGUMENT", "it is not prepared, or published already")
    asked.world.begin_publish(task, asked.key.user)
    return {"execution_id": task.id}


def prepare_configs(asked: Asked) -> dict[str, Any]:
    """``GET /dataset-prepare-configs``."""
    return asked.page("configs", [{"id": config, "name": config} for config in PREPARE_CONFIGS])


# Datasets


def datasets(asked: Asked) -> dict[str, Any]:
    """``GET /datasets``."""
    own = [_dataset(each) for each in asked.world.datasets.values() if each.company == asked.key.company]
    return asked.page("datasets", own)


def dataset(asked: Asked) -> dict[str, Any]:
    """``GET /datasets/{id}``."""
    return {"dataset": _dataset(asked.own(asked.world.datasets, asked.path("dataset"), "DATASET_NOT_FOUND"))}


def _dataset(dataset: Dataset) -> dict[str, Any]:
    shown = dataset.publications[-1] if dataset.publications else None
    details = (
        {}
        if shown is None
        else {
            "execution_id": shown.execution_id,
            "publish_date_time": moment(shown.at),
            "recordset_id": shown.recordset_id,
        }
    )
    return {
        "dataset_id": dataset.id,
        "private_id": dataset.id[-17:],
        "public_name": f"dataset {dataset.id}",
        "region": dataset.region,
        "dataset_type": f"DATASET_TYPE_{dataset.kind}",
        "owner_id": dataset.company,
        "publish_details": details,
        "published_by": "u-1" if shown else "",
        "expiration": {"do_not_expire": True},
    }


def lineage(asked: Asked) -> dict[str, Any]:
    """``GET /lineage/publish/{dataset}``."""
    dataset: Dataset = asked.own(asked.world.datasets, asked.path("dataset"), "DATASET_NOT_FOUND")
    if dataset.lineage is None:
        raise Refusal(404, "DATASET_NOT_FOUND", "the dataset was never published")
    return {"lineage": {step: {"config_id": config} for step, config in dataset.lineage.items()}}


# Automations


def automation_config(asked: Asked) -> dict[str, Any]:
    """``GET /automations/configs/{id}``."""
    found: Automation = asked.own(asked.world.automations, asked.path("config"), "TASK_NOT_FOUND")
    steps = [
        {"import": {"config_id": found.importer}},
        {"recordset_creation": {"config_id": found.recordset}},
        {"normalization": {"config_id": found.normalization}},
        {"publish": {"config_id": found.prepare, "dataset_id": found.dataset}},
    ]
    return {
        "config": {
            "id": found.id,
            "name": "nightly",
            "cloud_vault_id": found.vault,
            "automation_steps": steps,
            "cron_timer": "0 3 * * *",
            "timezone_identifier": "Europe/Berlin",
            "enabled": True,
        }
    }


def execute_automation(asked: Asked) -> dict[str, Any]:
    """``POST /automations/configs/{id}/execute``."""
    found: Automation = asked.own(asked.world.automations, asked.path("config"), "TASK_NOT_FOUND")
    return {"execution_id": asked.world.begin_automation(found, asked.key.user).id}


def automation_executions(asked: Asked) -> dict[str, Any]:
    """``GET /automations/executions``."""
    return asked.page("executions", [_automation(task) for task in asked.world.of_kind("automation")])


def automation_execution(asked: Asked) -> dict[str, Any]:
    """``GET /automations/executions/{id}``."""
    task = task_of(asked, "automation")
    return {"execution": _automation(task), "execution_steps": [_step(task, step) for step in task.facts["steps"]]}


_TASK_TYPES = {
    "import": "TASK_TYPE_IMPORT",
    "recordset": "TASK_TYPE_RECORDSET",
    "normalization": "TASK_TYPE_NORMALIZATION",
    "prepare": "TASK_TYPE_PREPARE",
    "publish": "TASK_TYPE_PUBLISH",
}


def _automation(task: Task) -> dict[str, Any]:
    last: Task | None = task.facts["steps"][-1] if task.facts["steps"] else None
    return {
        "id": task.id,
        "config_id": task.facts["config"].id,
        "cloud_vault_id": task.facts["cloud_vault_id"],
        "executed_by": task.user,
        "current_automation_step": _TASK_TYPES[last.kind] if last else "TASK_TYPE_INVALID",
        "current_step_status": last.status if last else "WAITING",
        "started_date_time": moment(task.created),
    }


def _step(execution: Task, step: Task) -> dict[str, Any]:
    told = {
        "automation_execution_id": execution.id,
        "task_type": _TASK_TYPES[step.kind],
        "task_id": step.facts.get("prepare_id", step.id),
        "current_task_status": step.status,
        "started_date_time": moment(step.created),
    }
    errors = [entry["error"] for entry in step.history if "error" in entry]
    return {**told, "error": errors[-1]} if errors else told


# Records in the body of a request. This stands in no published file of the API.


def take_records(asked: Asked) -> dict[str, Any]:
    """``POST /import/executions/execute``: kept as an import of one file."""
    world = asked.world
    importer = asked.own(world.importers, asked.text("importer_id"), "IMPORTS_NOT_FOUND")
    dataset: Dataset = asked.own(world.datasets, asked.text("dataset_id"), "DATASET_NOT_FOUND")
    if asked.body.get("region") not in {None, *_WORDS.get(dataset.region, ())}:
        raise Refusal(400, "FILE_INVALID_REGION", "the dataset is in another region")
    records = asked.body.get("records")
    if not isinstance(records, list) or not records or not all(isinstance(each, Mapping) for each in records):
        raise Refusal(400, "EMPTY_PAYLOAD", "records must be a list of objects")
    expected = [
        each for each in NORMALIZATIONS[(dataset.lineage or {}).get("normalization", "NMC.11")] if each.required
    ]
    missing = sorted({each.input_column for each in expected for record in records if each.input_column not in record})
    if missing:
        raise Refusal(400, "INVALID_ARGUMENT", f"columns are missing: {', '.join(missing)}")
    task = world.begin_import(importer, asked.key.user, "records")
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, list(records[0]), extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows(records)
    place, size, _ = world.keep([text.getvalue().encode()])
    file = VaultFile(place, size, world.clock(), task.id, "TASK_TYPE_IMPORT")
    world.files[importer.vault, f"records/{task.id}.csv"] = file
    return {"execution_id": task.id}


_WORDS = {"AWS_EU_CENTRAL_1": ("eu",), "AWS_EU_WEST_2": ("uk",), "AWS_US_EAST_1": ("us",)}
