"""Vaults, files, connectors, importers, imports and uploads."""

from __future__ import annotations

import hashlib
import re
from typing import TYPE_CHECKING, Any

from starlette.responses import Response

from partnerenrich_infosum._sandbox.gate import Asked, Gate, Refusal
from partnerenrich_infosum._sandbox.machine import Task, moment

if TYPE_CHECKING:
    from starlette.requests import Request

    from partnerenrich_infosum._sandbox.world import Importer, Vault, World

_is_folder = re.compile(r"(?!Recordsets(/|$))[A-Za-z0-9_.-]+(/[A-Za-z0-9_.-]+)*").fullmatch


def vaults(asked: Asked) -> dict[str, Any]:
    """``GET /cloud_vaults``."""
    own = [_vault(vault) for vault in asked.world.vaults.values() if vault.company == asked.key.company]
    return asked.page("cloud_vaults", own)


def vault(asked: Asked) -> dict[str, Any]:
    """``GET /cloud_vaults/{id}``."""
    return {"cloud_vault": _vault(asked.own(asked.world.vaults, asked.path("vault"), "CLOUD_VAULT_NOT_FOUND"))}


def _vault(vault: Vault) -> dict[str, Any]:
    return {"id": vault.id, "name": f"vault of {vault.company}", "region": vault.region, "owner_id": vault.company}


def files(asked: Asked) -> dict[str, Any]:
    """``GET /files/{vault}/{name}``; blank for the whole vault."""
    vault = asked.own(asked.world.vaults, asked.path("vault"), "CLOUD_VAULT_NOT_FOUND")
    entries = [
        {
            "name": path,
            "size": str(file.size),
            "created_date_time": moment(file.created),
            "metadata": {
                "resource_type": "FILE",
                "origin": {"task_id": file.task_id, "task_type": file.task_type, "properties": {}},
                "updated_date_time": moment(file.created),
            },
        }
        for path, file in asked.world.below(vault.id, asked.path("name")).items()
    ]
    return asked.page("files", entries)


def delete_files(asked: Asked) -> dict[str, Any]:
    """``DELETE /files/{vault}/{name}``; a path that ends in ``/*`` deletes a thousand of a folder at once."""
    vault = asked.own(asked.world.vaults, asked.path("vault"), "CLOUD_VAULT_NOT_FOUND")
    name = asked.path("name")
    found = list(asked.world.below(vault.id, name.removesuffix("/*")))
    doomed = found[:1000] if name.endswith("/*") else [path for path in found if path == name]
    for path in doomed:
        del asked.world.files[vault.id, path]
    return {"files_remaining": name.endswith("/*") and len(found) > len(doomed)}


def connector_config(asked: Asked) -> dict[str, Any]:
    """``GET /imports/connector-configs/{id}``. Secrets are write-only."""
    connector = asked.world.connectors.get(asked.path("config"))
    if connector is None:
        raise Refusal(404, "ICC_NOT_FOUND", "there is no such connector")
    return {"config": {"id": asked.path("config"), "name": "staging", "is_gpg": False, **connector.described()}}


def importers(asked: Asked) -> dict[str, Any]:
    """``GET /imports/importers``."""
    own = [_importer(each) for each in asked.world.importers.values() if each.company == asked.key.company]
    return asked.page("imports", own)


def importer(asked: Asked) -> dict[str, Any]:
    """``GET`` and ``PATCH /imports/importers/{id}``."""
    importer: Importer = asked.own(asked.world.importers, asked.path("importer"), "IMPORTS_NOT_FOUND")
    if asked.request.method == "PATCH":
        if (wanted := asked.body.get("data_filter")) is not None:
            patterns = wanted.get("filter") if isinstance(wanted, dict) else None
            if not isinstance(patterns, list) or not all(isinstance(each, str) for each in patterns):
                raise Refusal(400, "INVALID_ARGUMENT", "data_filter needs a list named filter")
            importer.data_filter = patterns or None
        if (folder := asked.body.get("target_folder")) is not None:
            importer.target_folder = _folder(folder)
    return {"import": _importer(importer)}


def _importer(importer: Importer) -> dict[str, Any]:
    told = {
        "id": importer.id,
        "name": f"importer {importer.id}",
        "icc_id": importer.connector,
        "cloud_vault_id": importer.vault,
        "target_folder": importer.target_folder,
        "owner_id": importer.company,
    }
    return told if importer.data_filter is None else {**told, "data_filter": {"filter": importer.data_filter}}


def _folder(name: object) -> str:
    if not isinstance(name, str) or not _is_folder(name):
        raise Refusal(400, "INVALID_ARGUMENT", "target_folder has other characters than it may, or is Recordsets")
    return name


def execute(asked: Asked) -> dict[str, Any]:
    """``POST /imports/importers/{id}/execute``."""
    importer: Importer = asked.own(asked.world.importers, asked.path("importer"), "IMPORTS_NOT_FOUND")
    folder = asked.request.query_params.get("target_folder")
    task = asked.world.begin_import(
        importer, asked.key.user, importer.target_folder if folder is None else _folder(folder)
    )
    return {"execution_id": task.id}


def executions(asked: Asked) -> dict[str, Any]:
    """``GET /imports/executions``."""
    return asked.page("executions", [_import(asked.world, task) for task in asked.world.of_kind("import")])


def execution(asked: Asked) -> dict[str, Any]:
    """``GET /imports/executions/{id}``."""
    task = task_of(asked, "import", "IMPORTS_EXECUTION_TASK_NOT_FOUND")
    return {"execution_details": {"execution": _import(asked.world, task), "history": task.history}}


def _import(world: World, task: Task) -> dict[str, Any]:
    share, total = task.percentage(world.clock()), task.facts["bytes"]
    return {
        **told(task),
        "import_id": task.facts["import_id"],
        "cloud_vault_id": task.facts["cloud_vault_id"],
        "progress": {
            "completion_percentage": share,
            "speed": "1048576",
            "transferred_bytes": str(total),
            "total_bytes": str(total),
        },
    }


def told(task: Task) -> dict[str, Any]:
    """What all executions tell."""
    return {
        "id": task.id,
        "user_id": task.user,
        "current_status": task.status,
        "created_date_time": moment(task.created),
        "updated_date_time": moment(max(task.created, task.updated)),
    }


def task_of(asked: Asked, kind: str, code: str = "TASK_NOT_FOUND") -> Task:
    """The execution that the path names."""
    task = asked.world.tasks.get(asked.path("execution"))
    if task is None or task.kind != kind:
        raise Refusal(404, code, "there is no such execution")
    return task


def cancel(kind: str, code: str) -> Any:
    """``POST .../{id}/cancel`` of a stage."""

    def cancel_execution(asked: Asked) -> dict[str, Any]:
        if not task_of(asked, kind).cancel(asked.world.clock()):
            raise Refusal(400, code, "it is over")
        return {}

    return cancel_execution


# Local uploads


def create_upload(asked: Asked) -> dict[str, Any]:
    """``POST /imports/uploads``."""
    vault = asked.own(asked.world.vaults, asked.text("cloud_vault_id"), "CLOUD_VAULT_NOT_FOUND")
    digest = asked.text("contents_sha256_checksum")
    if not re.fullmatch("[0-9a-f]{64}", digest):
        raise Refusal(400, "INVALID_ARGUMENT", "contents_sha256_checksum must be 64 hexadecimal digits")
    task = asked.world.begin_upload(vault, asked.key.user, _folder(asked.text("target_filepath")), digest)
    ticket = hashlib.sha256(f"upload {task.id}".encode()).hexdigest()
    asked.world.upload_keys[ticket] = task.id
    root = asked.request.scope.get("root_path", "")  # unlike `base_url`, with the path of a mount
    return {
        "local_file_upload_id": task.id,
        "upload_url": str(asked.request.url.replace(path=f"{root}/_uploads/{ticket}", query="")),
        "upload_url_expiration_time": moment(asked.world.clock() + 3600),
        "headers": {"x-amz-meta-upload": task.id},
    }


def uploads(asked: Asked) -> dict[str, Any]:
    """``GET /imports/uploads``."""
    return asked.page("local_file_uploads", [_upload(task) for task in asked.world.of_kind("upload")])


def upload(asked: Asked) -> dict[str, Any]:
    """``GET /imports/uploads/{id}``."""
    task = task_of(asked, "upload")
    return {"local_file_upload_details": {"local_file_upload": _upload(task), "history": task.history}}


def _upload(task: Task) -> dict[str, Any]:
    facts = {name: task.facts[name] for name in ("cloud_vault_id", "target_filepath")}
    return {**told(task), **facts}


async def put_file(gate: Gate, request: Request) -> Response:
    """``PUT`` to an upload address: no key, the headers that were named, the digest that was announced."""
    world = gate.world
    task = world.tasks.get(world.upload_keys.get(request.path_params["ticket"], ""))
    if task is None or "Authorization" in request.headers:
        raise Refusal(403, "FILE_NOT_FOUND", "no such address, or a key was sent along")
    if request.headers.get("x-amz-meta-upload") != task.id or "content-length" not in request.headers:
        raise Refusal(403, "INVALID_ARGUMENT", "a header is missing")
    place, size, digest = world.keep([chunk async for chunk in request.stream()])
    if digest != task.facts["sha256"]:
        raise Refusal(400, "INVALID_ARGUMENT", "the content has another SHA-256")
    world.received(task, place, size)
    return Response(status_code=200)
