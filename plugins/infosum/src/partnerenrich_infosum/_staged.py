"""
Staged files: the importer's connector copies them from your bucket into a folder of the Cloud Vault.

An importer takes all that its connector and its ``data_filter`` let through, which may be more than the batch. The
recordset is therefore made of the files of the batch by name, after each was found in the vault with its size.
"""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

import attrs

from partnerenrich import AuthError, RequestRefused
from partnerenrich_infosum import _advice
from partnerenrich_infosum._api import Document, inside, needed, number, text
from partnerenrich_infosum._run import (
    COMPLETED,
    FRUITLESS,
    PARTLY,
    Mark,
    Run,
    Seen,
    Unclear,
    last_code,
    status_of,
)
from partnerenrich_infosum._stages import quoted
from partnerenrich_infosum._startup import Plan

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from partnerenrich.models import StagedFile

REMEMBERED = 100
"""Executions before ours that are told apart from it, newest first."""

_CONNECTORS = {"s3": "s3_connector", "gs": "gcs_connector", "file": "sftp_connector", "": "sftp_connector"}


def refuse_azure(files: Sequence[StagedFile]) -> None:
    """
    InfoSum has connectors for S3, Google Cloud Storage and SFTP.

    Raises:
        RequestRefused: The files are in Azure.
    """
    schemes = {urlsplit(file.url).scheme for file in files}
    if schemes & {"az", "azure", "abfs", "abfss", "adl"}:
        raise RequestRefused(
            "deliver.staging is Azure Blob Storage, for which InfoSum has no connector: "
            "set deliver.mode to local_upload, or stage in S3 or Google Cloud Storage"
        )


@attrs.frozen
class Reach:
    """
    What the importer's connector is seen to reach.

    Attributes:
        prefix: Of its bucket; None where it is not known.
    """

    prefix: str | None

    @classmethod
    async def of(cls, run: Run, plan: Plan) -> Reach:
        """
        Compare the connector with where the files are.

        Raises:
            RequestRefused: It reaches another bucket or prefix.
        """
        refuse_azure(run.batch.files)
        if plan.connector is None:
            return cls(None)
        try:
            connector = await run.api.get("read the connector", "imports", "connector-configs", plan.connector)
        except AuthError:  # a key may import through a connector that it may not see
            return cls(None)
        return cls(_compared(inside(connector, "config") or {}, run.batch.files))

    def names(self, run: Run) -> list[str]:
        """The files of the batch, as a ``data_filter`` names them. That it takes paths and patterns is assumed."""
        if self.prefix is None:
            return [f"*{run.batch.id}/*"]
        return [_key(file.url).removeprefix(self.prefix).lstrip("/") for file in run.batch.files]


def _compared(connector: Document, files: Sequence[StagedFile]) -> str | None:
    kinds = [kind for kind in _CONNECTORS.values() if isinstance(connector.get(kind), dict)]
    if not kinds:
        return None
    expected = {_CONNECTORS.get(urlsplit(file.url).scheme) for file in files}
    bucket = text(connector, kinds[0], "bucket")
    buckets = {urlsplit(file.url).netloc for file in files}
    prefix = text(connector, kinds[0], "prefix") or ""
    if expected != {kinds[0]} or (bucket is not None and buckets != {bucket}):
        raise RequestRefused(f"the importer's connector reads from another place than deliver.staging; {_advice.REACH}")
    if bucket is None:
        return None
    if not all(_key(file.url).startswith(prefix.lstrip("/")) for file in files):
        raise RequestRefused(f"the importer's connector has a prefix without deliver.staging; {_advice.REACH}")
    return prefix.lstrip("/")


def _key(url: str) -> str:
    return unquote(urlsplit(url).path).lstrip("/")


async def narrow(run: Run, reach: Reach) -> None:
    """Let the importer take the files of this batch alone. Done twice it is the same."""
    await run.api.patch(
        "change the importer's data_filter",
        "imports",
        "importers",
        run.api.config.importer_id,
        json={"data_filter": {"filter": reach.names(run)}},
    )


@attrs.frozen
class Import:
    """Copies the files of the batch into a folder of their own; its name carries the batch's."""

    plan: Plan
    reach: Reach
    name: str = "import"

    async def before(self, run: Run) -> Mark:
        """Names the folder, and tells older executions apart, for an execution names no folder."""
        config = run.api.config
        if config.narrow_importer:
            await narrow(run, self.reach)
        known = [execution async for execution in self._executions(run)]
        return {
            "folder": f"{config.target_folder}/{run.name}",
            "known": [identifier for execution in known if (identifier := text(execution, "id"))][:REMEMBERED],
        }

    async def start(self, run: Run, mark: Mark) -> str:
        """``POST /imports/importers/{id}/execute``, with a folder that overrides the importer's."""
        wish = "start the import"
        path = ("imports", "importers", run.api.config.importer_id, "execute")
        return needed(wish, await run.api.post(wish, *path, target_folder=mark["folder"]), "execution_id")

    async def find(self, run: Run, mark: Mark) -> str | None:
        """The new execution that put files into the folder. One that is not over may yet do so."""
        new = {
            identifier: status_of(execution)
            async for execution in self._executions(run)
            if (identifier := text(execution, "id")) and identifier not in mark["known"]
        }
        makers = {
            text(file, "metadata", "origin", "task_id") for file in await files_below(run, self.plan, mark["folder"])
        }
        for identifier in new:
            if identifier in makers:
                return identifier
        if any(status not in FRUITLESS | {COMPLETED, PARTLY} for status in new.values()):
            raise Unclear
        return None

    async def poll(self, run: Run, mark: Mark) -> Seen:
        """``GET /imports/executions/{id}``; complete when every file of the batch is in the vault."""
        wish = "tell of the import"
        answer = await run.api.get(wish, "imports", "executions", mark["id"])
        details = inside(answer, "execution_details") or {}
        seen = Seen(status_of(inside(details, "execution") or {}), last_code(details))
        if seen.status == PARTLY:
            return attrs.evolve(seen, trouble="some files were not copied, so nothing of the batch is published")
        if seen.status in FRUITLESS:
            return attrs.evolve(seen, trouble=f"the connector must be let into the bucket; {_advice.REACH}")
        if seen.status == COMPLETED:
            there = await files_below(run, self.plan, mark["folder"])
            paths = _matched(run, mark["folder"], there)
            if paths is None:
                if not await run.is_settled(mark):
                    return Seen("RUNNING")
                told = f"{len(there)} files were imported and not those of the batch, or not whole; {_advice.REACH}"
                return Seen("FAILED", "FILE_NOT_FOUND", told)
            mark["filepaths"] = paths
        return seen

    async def _executions(self, run: Run) -> AsyncIterator[Document]:
        importer = run.api.config.importer_id
        listed = run.api.pages(
            "list imports",
            "imports",
            "executions",
            of="executions",
            filter=f"import_id eq {quoted(importer)}",
            order_by="created_date_time DESC",
        )
        count = 0
        async for execution in listed:
            if text(execution, "import_id") == importer:
                yield execution
                count += 1
            if count >= REMEMBERED:
                return


async def files_below(run: Run, plan: Plan, folder: str) -> list[Document]:
    """All files in a folder of the vault, each with its whole path as ``name``."""
    found: dict[str, Document] = {}
    waiting, seen = [folder], {folder}
    while waiting:
        current = waiting.pop()
        async for entry in run.api.pages("list the files of the Cloud Vault", "files", plan.vault, current, of="files"):
            name = text(entry, "name") or ""
            path = name if name.startswith(f"{folder}/") or name == folder else f"{current}/{name}"
            if text(entry, "metadata", "resource_type") == "FOLDER":
                if path not in seen:
                    seen.add(path)
                    waiting.append(path)
            else:
                found[path] = {**entry, "name": path}
    return list(found.values())


def _matched(run: Run, folder: str, there: Sequence[Document]) -> list[str] | None:
    """
    Where each staged file is in the vault, in the order of the batch; None unless each is there, and whole.

    A path that still holds the batch's own folder is certain. Where the connector leaves folders out, the imported
    files must be just those of the batch.
    """
    sizes = {str(file["name"]).removeprefix(f"{folder}/"): number(file, "size") for file in there}
    paths: list[str] = []
    for file in run.batch.files:
        name = PurePosixPath(_key(file.url)).name
        own = f"/{run.batch.id}/{name}"
        certain = [path for path in sizes if f"/{path}".endswith(own)]
        likely = [path for path in sizes if PurePosixPath(path).name == name and len(sizes) == len(run.batch.files)]
        right = [path for path in certain or likely if sizes[path] == file.bytes]
        if len(right) != 1:
            return None
        paths.append(f"{folder}/{right[0]}")
    return paths
