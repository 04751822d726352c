"""
An imitation of InfoSum's onboarding API: vaults, imports, uploads, recordsets, normalizations, prepares, datasets.

Paths and shapes follow InfoSum's published OpenAPI file (Developer API 2.0); how it behaves where that is silent is
assumed. Staged files are read from the very place that they were written to. The module is imported only where a
sandbox is wanted.
"""

from __future__ import annotations

import time
from functools import partial
from typing import TYPE_CHECKING

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.routing import Route

from partnerenrich import Sandbox
from partnerenrich_infosum._sandbox import importing, publishing
from partnerenrich_infosum._sandbox.behaviour import Behaviour
from partnerenrich_infosum._sandbox.gate import Gate, Handler, Refusal, refuse_route

if TYPE_CHECKING:
    from collections.abc import Callable

DEFAULT = Behaviour()

SETTINGS = {
    "api_key": "sandbox-v2-key-of-acme",
    "dataset_id": "AWS_EU_CENTRAL_1.11",
    "importer_id": "IMP.11",
    "region": "eu",
}

_NAMES = ("pat", "sam", "alex", "kim", "lee", "robin")


def new_sandbox() -> Sandbox:
    """The imitation, settings that work with it, and people whose records may be sent."""
    return Sandbox(
        app=new_app(),
        settings=SETTINGS,
        sample={
            "known": [
                {
                    "user_id": f"customer-{20_931 + number}",
                    "email": f"{name}@example.test",
                    "phone": f"+4420794601{number:02}",
                }
                for number, name in enumerate(_NAMES)
            ],
            "unknown": [],
            "opted_out": [],
        },
    )


def new_app(behaviour: Behaviour = DEFAULT, clock: Callable[[], float] = time.time) -> Starlette:
    """
    The imitation as an ASGI application.

    Args:
        behaviour: How it starts; ``POST /_sandbox`` changes it.
        clock: Unix time in seconds. It alone moves executions.
    """
    gate = Gate(behaviour, clock)

    def get(path: str, handler: Handler) -> Route:
        return Route(f"/api/v2{path}", gate.guarded(handler), methods=["GET"])

    def post(path: str, handler: Handler, *, begins: bool = False) -> Route:
        return Route(f"/api/v2{path}", gate.guarded(handler, begins=begins), methods=["POST"])

    return Starlette(
        routes=[
            get("/cloud_vaults", importing.vaults),
            get("/cloud_vaults/{vault}", importing.vault),
            get("/files/{vault}/{name:path}", importing.files),
            Route("/api/v2/files/{vault}/{name:path}", gate.guarded(importing.delete_files), methods=["DELETE"]),
            get("/imports/connector-configs/{config}", importing.connector_config),
            get("/imports/importers", importing.importers),
            Route("/api/v2/imports/importers/{importer}", gate.guarded(importing.importer), methods=["GET", "PATCH"]),
            post("/imports/importers/{importer}/execute", importing.execute, begins=True),
            get("/imports/executions", importing.executions),
            get("/imports/executions/{execution}", importing.execution),
            post("/imports/executions/{execution}/cancel", importing.cancel("import", "IMPORTS_CANNOT_CANCEL_TASK")),
            get("/imports/uploads", importing.uploads),
            post("/imports/uploads", importing.create_upload, begins=True),
            get("/imports/uploads/{execution}", importing.upload),
            post("/imports/uploads/{execution}/cancel", importing.cancel("upload", "TASK_CANNOT_CANCEL")),
            Route("/_uploads/{ticket}", partial(importing.put_file, gate), methods=["PUT"]),
            get("/recordset-configs/{config}", publishing.recordset_config),
            post("/recordset-creation/execute", publishing.create_recordset, begins=True),
            get("/recordset-creation/executions", publishing.recordset_executions),
            get("/recordset-creation/executions/{execution}", publishing.recordset_execution),
            post(
                "/recordset-creation/executions/{execution}/cancel", importing.cancel("recordset", "TASK_CANNOT_CANCEL")
            ),
            get("/recordsets/{vault}", publishing.recordsets),
            get("/recordsets/{vault}/{recordset}", publishing.recordset),
            get("/recordsets/{vault}/{recordset}/columns", publishing.columns),
            get("/normalizations/configs", publishing.normalization_configs),
            get("/normalizations/configs/{config}", publishing.normalization_config),
            post("/normalizations/execute", publishing.normalize, begins=True),
            get("/normalizations/executions", publishing.normalizations),
            get("/normalizations/executions/{execution}", publishing.normalization),
            post(
                "/normalizations/executions/{execution}/cancel", importing.cancel("normalization", "TASK_CANNOT_CANCEL")
            ),
            get("/dataset-prepare-configs", publishing.prepare_configs),
            post("/prepares/execute", publishing.prepare, begins=True),
            get("/prepares/executions", publishing.prepares),
            get("/prepares/executions/{execution}", publishing.prepare_execution),
            post("/prepares/executions/{execution}/cancel", importing.cancel("prepare", "TASK_CANNOT_CANCEL")),
            post("/prepares/{execution}/publish", publishing.publish, begins=True),
            get("/datasets", publishing.datasets),
            get("/datasets/{dataset}", publishing.dataset),
            get("/lineage/publish/{dataset}", publishing.lineage),
            get("/automations/configs/{config}", publishing.automation_config),
            post("/automations/configs/{config}/execute", publishing.execute_automation, begins=True),
            get("/automations/executions", publishing.automation_executions),
            get("/automations/executions/{execution}", publishing.automation_execution),
            post("/import/executions/execute", publishing.take_records, begins=True),
            Route("/_sandbox", gate.control, methods=["GET", "POST", "DELETE"]),
            Route("/_sandbox/connector", gate.connect, methods=["GET", "PUT"]),
        ],
        exception_handlers={HTTPException: refuse_route, Refusal: gate.refuse},
    )
