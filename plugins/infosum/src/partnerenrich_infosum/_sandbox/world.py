"""What InfoSum holds: vaults, datasets, importers and configs, and all executions so far."""

from __future__ import annotations

import hashlib
import shutil
import tempfile
import weakref
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs

from partnerenrich_infosum._sandbox.connectors import CannotRead, Connector, Folder, passes
from partnerenrich_infosum._sandbox.machine import FINAL, End, Task
from partnerenrich_infosum._sandbox.tables import Input, Reading, Table, Unreadable, counted, normalize

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from partnerenrich_infosum._sandbox.behaviour import Behaviour

ACME, OTHER = "acme", "other"
EU, UK = "AWS_EU_CENTRAL_1", "AWS_EU_WEST_2"
FAR = float("inf")


@attrs.frozen
class Key:
    """
    A V2 key, which acts as its user.

    Attributes:
        company: Whose data it sees.
        user: Whom it acts as.
        may_operate: Whether the user has the right Bunker Operations.
        expires_at: Unix time in seconds.
    """

    company: str
    user: str
    may_operate: bool = True
    expires_at: float = FAR


KEYS = {
    "sandbox-v2-key-of-acme": Key(ACME, "u-1"),
    "sandbox-v2-key-without-rights": Key(ACME, "u-2", may_operate=False),
    "sandbox-v2-key-expired": Key(ACME, "u-1", expires_at=0.0),
    "sandbox-v2-key-of-other": Key(OTHER, "u-9"),
}
V1_KEY = "sandbox-public/sandbox-private"


@attrs.frozen
class Vault:
    """A Cloud Vault."""

    id: str
    region: str
    company: str = ACME


@attrs.define
class Importer:
    """An importer: which connector, which vault, which files."""

    id: str
    vault: str
    connector: str = "ICC.11"
    target_folder: str = "incoming"
    data_filter: list[str] | None = None
    company: str = ACME


@attrs.frozen
class Publication:
    """What a dataset shows from some moment on."""

    execution_id: str
    recordset_id: str
    records: int
    at: float


@attrs.define
class Dataset:
    """
    A dataset.

    Attributes:
        id: Its id.
        region: Where it is.
        lineage: Config ids that it was published with.
        kind: ``INSIGHT``, ``IDENTITY`` or ``UNIFIED``.
        company: Whose it is.
        publications: All of them; the last one is shown.
    """

    id: str
    region: str
    lineage: dict[str, str] | None = None
    kind: str = "INSIGHT"
    company: str = ACME
    publications: list[Publication] = attrs.Factory(list)


@attrs.frozen
class Automation:
    """An automation of four steps."""

    id: str
    vault: str
    importer: str
    recordset: str
    normalization: str
    prepare: str
    dataset: str
    company: str = ACME


@attrs.frozen
class VaultFile:
    """A file in a vault, and the execution that brought it."""

    path: Path
    size: int
    created: float
    task_id: str
    task_type: str


@attrs.frozen
class Recordset:
    """
    A table in a vault.

    Attributes:
        id: Its id.
        vault: Where it is.
        name: Unique in the vault.
        table: Its files.
        records: How many it has.
        task_id: The execution that made it.
        cells: Column to counters; None for a raw recordset.
    """

    id: str
    vault: str
    name: str
    table: Table
    records: int
    task_id: str
    created: float
    cells: dict[str, dict[str, str]] | None = None


NORMALIZATIONS = {
    "NMC.11": (
        Input("customer_id", "custom_key"),
        Input("email", "email"),
        Input("phone", "phone"),
        Input("first_name", "category", required=False),
        Input("last_name", "category", required=False),
    ),
    "NMC.12": (Input("customer_id", "custom_key"), Input("email_address", "email")),
}
READINGS = {"RSC.11": Reading(), "RSC.12": Reading("CSV", ";")}
PREPARE_CONFIGS = ("DPC.11",)
LINEAGE = {"import": "IMP.11", "recordset_creation": "RSC.11", "normalization": "NMC.11", "publish": "DPC.11"}


class World:
    """
    Everything that lasts from one request to the next.

    Attributes:
        behaviour: How it behaves.
        clock: Unix time in seconds.
        connectors: Id to place. ``ICC.11`` is the one that ``PUT /_sandbox/connector`` changes.
        tasks: Id to execution, oldest first.
    """

    def __init__(self, behaviour: Behaviour, clock: Callable[[], float]) -> None:
        self.behaviour = behaviour
        self.clock = clock
        self._home = Path(tempfile.mkdtemp(prefix="partnerenrich-sandbox-"))
        weakref.finalize(self, shutil.rmtree, self._home, ignore_errors=True)
        self._bucket = self._home / "bucket"
        self._bucket.mkdir()
        self._count = 0
        self.connectors: dict[str, Connector] = {"ICC.11": Folder(self._bucket)}
        self.vaults = {
            vault.id: vault for vault in (Vault(f"CLV.{EU}.1", EU), Vault(f"CLV.{UK}.2", UK), Vault("CLV.9", EU, OTHER))
        }
        self.importers = {
            importer.id: importer
            for importer in (
                Importer("IMP.11", f"CLV.{EU}.1"),
                Importer("IMP.12", f"CLV.{UK}.2"),
                Importer("IMP.91", "CLV.9", company=OTHER),
            )
        }
        self.datasets = {
            dataset.id: dataset
            for dataset in (
                Dataset(f"{EU}.11", EU, LINEAGE),
                Dataset(f"{UK}.12", UK, LINEAGE | {"import": "IMP.12"}),
                Dataset(f"{EU}.13", EU),
                Dataset(f"{EU}.14", EU, LINEAGE | {"normalization": "NMC.12"}),
                Dataset(f"{EU}.91", EU, company=OTHER),
            )
        }
        automation = Automation("ATM.11", f"CLV.{EU}.1", "IMP.11", "RSC.11", "NMC.11", "DPC.11", f"{EU}.11")
        self.automations = {automation.id: automation}
        self.tasks: dict[str, Task] = {}
        self.files: dict[tuple[str, str], VaultFile] = {}
        self.recordsets: dict[str, Recordset] = {}
        self.upload_keys: dict[str, str] = {}

    @property
    def bucket_url(self) -> str:
        """Where the connector reads until it is told otherwise."""
        return self._bucket.as_uri()

    def advance(self) -> None:
        """Be where the clock says. The end of one execution may be the beginning of another."""
        now = self.clock()
        known = -1
        while known != len(self.tasks):
            known = len(self.tasks)
            for task in list(self.tasks.values()):
                task.advance(now)
                if task.kind == "automation":
                    self._go_on(task)

    def of_kind(self, kind: str) -> Iterator[Task]:
        """All executions of a stage."""
        return (task for task in self.tasks.values() if task.kind == kind)

    def _begin(
        self,
        prefix: str,
        kind: str,
        user: str,
        work: Callable[[str], End],
        *,
        at: float | None = None,
        lasts: float | None = None,
        **facts: Any,
    ) -> Task:
        self._count += 1
        identifier = f"{prefix}.{self._count:04x}"
        task = Task(
            id=identifier,
            kind=kind,
            user=user,
            created=self.clock() if at is None else at,
            lasts=self.behaviour.lasts(kind) if lasts is None else lasts,
            work=lambda: work(identifier),
            facts=facts,
            is_stuck=self.behaviour.stuck == kind,
        )
        self.tasks[identifier] = task
        return task

    # Files

    def keep(self, chunks: Iterable[bytes]) -> tuple[Path, int, str]:
        """Copy a file into the vaults' own storage. Returns its place, size and SHA-256."""
        self._count += 1
        path, size, digest = self._home / f"file-{self._count:06}", 0, hashlib.sha256()
        with path.open("wb") as file:
            for chunk in chunks:
                file.write(chunk)
                digest.update(chunk)
                size += len(chunk)
        return path, size, digest.hexdigest()

    def below(self, vault: str, folder: str) -> dict[str, VaultFile]:
        """Files of a vault whose path is, or begins with, a folder."""
        return {
            path: file
            for (where, path), file in sorted(self.files.items(), key=lambda item: item[0])
            if where == vault and (not folder or path == folder or path.startswith(f"{folder}/"))
        }

    # Stages

    def begin_import(self, importer: Importer, user: str, folder: str, at: float | None = None) -> Task:
        """Copy what the connector and the importer let through."""
        patterns = importer.data_filter and list(importer.data_filter)
        task: Task

        def work(identifier: str) -> End:
            if self.behaviour.connector_refused:
                return End("FAILED", "ICC_PERMISSION_DENIED", "the connector is not let in")
            connector = self.connectors[importer.connector]
            try:
                found = [
                    path
                    for path in connector.files()
                    if passes(path, ["*.csv", "*.parquet"]) and passes(path, patterns)
                ]
                copied = found[: len(found) - self.behaviour.uncopied_files] if self.behaviour.uncopied_files else found
                for path in copied:
                    name = path.rpartition("/")[2] if self.behaviour.flat_import else path
                    place, size, _ = self.keep(connector.chunks(path))
                    file = VaultFile(place, size, self.clock(), identifier, "TASK_TYPE_IMPORT")
                    self.files[importer.vault, f"{folder}/{name}"] = file
                    task.facts["bytes"] += size
            except CannotRead:
                return End("FAILED", "ICC_PERMISSION_DENIED", "the bucket cannot be read")
            if not found and self.behaviour.empty_import == "failed":
                return End("FAILED", "FILE_NOT_FOUND", "no file passes the filter")
            if len(copied) < len(found):
                return End("PARTIALLY_COMPLETED", message="some files were not copied")
            return End()

        task = self._begin(
            "IMT", "import", user, work, at=at, import_id=importer.id, cloud_vault_id=importer.vault, bytes=0
        )
        return task

    def begin_upload(self, vault: Vault, user: str, path: str, sha256: str) -> Task:
        """Wait for the file to be put."""
        return self._begin(
            "LFU",
            "upload",
            user,
            lambda _: End(),
            lasts=FAR,
            cloud_vault_id=vault.id,
            target_filepath=path,
            sha256=sha256,
        )

    def received(self, task: Task, place: Path, size: int) -> None:
        """The file was put: the upload ends as others do."""
        vault, path = task.facts["cloud_vault_id"], task.facts["target_filepath"]
        self.files[vault, path] = VaultFile(place, size, self.clock(), task.id, "TASK_TYPE_LOCAL_UPLOAD")
        task.created, task.lasts = self.clock(), self.behaviour.lasts("upload")

    def begin_recordset(
        self,
        vault: str,
        user: str,
        name: str,
        filepaths: Sequence[str],
        reading: Reading,
        config_id: str | None = None,
        at: float | None = None,
    ) -> Task:
        """Parse files into a table."""
        task: Task

        def work(identifier: str) -> End:
            files = [(path, self.files.get((vault, path))) for path in filepaths]
            if not files or any(file is None for _, file in files):
                return End("FAILED", "FILE_NOT_FOUND" if files else "NORMALIZATIONS_NO_INPUT_FILES", "no such files")
            try:
                table = Table.of([(path, file.path) for path, file in files if file is not None], reading)
                total, malformed = counted(table)
            except Unreadable as error:
                return End("FAILED", "API_MALFORMED_INPUT", str(error))
            task.facts |= {"total_lines": total, "malformed_lines": malformed}
            task.facts["recordset_id"] = self._add_recordset(vault, name, table, total - malformed, identifier)
            return End()

        task = self._begin(
            "MRC",
            "recordset",
            user,
            work,
            at=at,
            cloud_vault_id=vault,
            recordset_name=name,
            recordset_id="",
            config_id=config_id or "",
            filepaths=list(filepaths),
            total_lines=0,
            malformed_lines=0,
        )
        return task

    def _add_recordset(
        self,
        vault: str,
        name: str,
        table: Table,
        records: int,
        task_id: str,
        cells: dict[str, dict[str, str]] | None = None,
    ) -> str:
        self._count += 1
        identifier = f"RCS.{self._count:04x}"
        recordset = Recordset(identifier, vault, name, table, records, task_id, self.clock(), cells)
        self.recordsets[identifier] = recordset
        return identifier

    def begin_normalization(
        self, vault: str, user: str, recordset: Recordset, config_id: str, output: str, at: float | None = None
    ) -> Task:
        """Look at every row."""
        inputs = NORMALIZATIONS[config_id]
        task: Task

        def work(identifier: str) -> End:
            columns = recordset.table.columns
            missing = [each.input_column for each in inputs if each.required and each.input_column not in columns]
            if missing:
                return End("FAILED", "INVALID_ARGUMENT", f"columns are missing: {', '.join(missing)}")
            made = normalize(recordset.table, [each for each in inputs if each.input_column in columns])
            if made.faulty > self.behaviour.most_row_errors * recordset.records:
                return End("FAILED", "TRANSFORM_EXCEEDED_ROW_ERRORS", "too many rows cannot be used")
            cells = {column: counters.told() for column, counters in made.cells.items()}
            task.facts["output_recordset_id"] = self._add_recordset(
                vault, output, recordset.table, made.kept, identifier, cells
            )
            return End()

        task = self._begin(
            "NMZ",
            "normalization",
            user,
            work,
            at=at,
            cloud_vault_id=vault,
            config_id=config_id,
            input_recordset_id=recordset.id,
            output_recordset_id="",
            output_recordset_name=output,
            processing_speed=1,
        )
        return task

    def begin_prepare(
        self, vault: str, user: str, recordset: Recordset, dataset: Dataset, config_id: str, at: float | None = None
    ) -> Task:
        """Make what can be published."""

        def work(_: str) -> End:
            if self.vaults[vault].region != dataset.region:
                return End("FAILED", "FILE_INVALID_REGION", "the dataset is in another region")
            return End()

        return self._begin(
            "PUB",
            "prepare",
            user,
            work,
            at=at,
            cloud_vault_id=vault,
            recordset_id=recordset.id,
            dataset_id=dataset.id,
            config_id=config_id,
            prepare_status="NO_STATUS",
        )

    def begin_publish(self, prepare: Task, user: str, at: float | None = None) -> Task:
        """Put what was prepared in the place of what the dataset has."""
        dataset = self.datasets[prepare.facts["dataset_id"]]
        recordset = self.recordsets[prepare.facts["recordset_id"]]
        prepare.facts["prepare_status"] = "PUBLISHING"

        def work(_: str) -> End:
            prepare.facts["prepare_status"] = "PUBLISHED"
            dataset.publications.append(Publication(prepare.id, recordset.id, recordset.records, self.clock()))
            dataset.lineage = dataset.lineage or LINEAGE
            return End()

        return self._begin("PSH", "publish", user, work, at=at, prepare_id=prepare.id)

    # Automations

    def begin_automation(self, automation: Automation, user: str) -> Task:
        """All stages, one after the other."""
        return self._begin(
            "AEX",
            "automation",
            user,
            lambda _: End(),
            lasts=FAR,
            config=automation,
            steps=[],
            cloud_vault_id=automation.vault,
        )

    def _go_on(self, execution: Task) -> None:
        """Begin the next step when the one before it is complete."""
        steps: list[Task] = execution.facts["steps"]
        if execution.ended is not None:
            return
        last = steps[-1] if steps else None
        if last is None or last.status == "COMPLETED":
            if last is not None and last.kind == "publish":
                execution.status, execution.ended = "COMPLETED", last.ended
            else:
                steps.append(self._next_step(execution, last))
                steps[-1].advance(self.clock())
        elif last.status in FINAL:
            execution.status, execution.ended = last.status, last.ended

    def _next_step(self, execution: Task, last: Task | None) -> Task:
        automation: Automation = execution.facts["config"]
        user, vault = execution.user, automation.vault
        at = execution.created if last is None else last.ended
        match last:
            case None:
                importer = self.importers[automation.importer]
                return self.begin_import(importer, user, importer.target_folder, at)
            case Task(kind="import"):
                brought = [path for path, file in self.below(vault, "").items() if file.task_id == last.id]
                reading = READINGS[automation.recordset]
                return self.begin_recordset(vault, user, execution.id, brought, reading, automation.recordset, at)
            case Task(kind="recordset"):
                recordset = self.recordsets[last.facts["recordset_id"]]
                output = f"{execution.id}-normalized"
                return self.begin_normalization(vault, user, recordset, automation.normalization, output, at)
            case Task(kind="normalization"):
                recordset = self.recordsets[last.facts["output_recordset_id"]]
                dataset = self.datasets[automation.dataset]
                return self.begin_prepare(vault, user, recordset, dataset, automation.prepare, at)
            case _:
                return self.begin_publish(last, user, at)
