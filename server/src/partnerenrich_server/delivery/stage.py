"""One integration's folder in object storage: what has collected, and the batches that were sealed of it."""

from __future__ import annotations

import asyncio
import contextlib
import re
import secrets
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Final, TypeAlias, cast

import attrs

from partnerenrich import ConfigError
from partnerenrich.errors import Problem
from partnerenrich_server.delivery.hashing import text
from partnerenrich_server.delivery.incoming import FOLDER, Incoming
from partnerenrich_server.delivery.manifest import RECIPE_VERSION, Manifest, is_id, new_id, time_of
from partnerenrich_server.delivery.query import connected
from partnerenrich_server.delivery.records import Records
from partnerenrich_server.delivery.rejects import Rejects
from partnerenrich_server.delivery.sealing import Sealing, csv_dialect
from partnerenrich_server.delivery.storage import NotThere, Storage, StorageError
from partnerenrich_server.delivery.tables import unreadable
from partnerenrich_server.failures import Failure

try:
    from cronsim import CronSim, CronSimError
except ImportError:
    raise Failure("batches need more: pip install 'partnerenrich-server[deliver]'") from None

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping, Sequence

    from partnerenrich.configuration import DeliverSettings, Integration
    from partnerenrich.models import StagedFile
    from partnerenrich_server.delivery.query import Connection

DAY: Final = 86_400
_FIRST: Final = "first.json"
_SEALED: Final = re.compile(r"batches/(?P<id>[^/]+)/(?P<file>manifest|superseded)\.json")

Source: TypeAlias = "Callable[[Connection, Rejects], str]"
"""Makes a query of records that have not collected, such as those of files, and counts what it sets aside."""


class SealedByAnother(StorageError):
    """Another worker sealed a batch meanwhile: nothing is lost, try again."""


class Stage:
    """
    One integration's folder. Open it with `Stage.open`.

    Batches stand in a row: each manifest says which id comes next, so that of
    two workers that seal at once only one can write the next manifest, and no
    batch but the newest has anything left to tidy up.

    Attributes:
        records: What its records are.
        folder: Its place below the staging folder.
    """

    def __init__(self, integration: Integration, settings: DeliverSettings, storage: Storage, local: Path) -> None:
        self.records = Records.of(integration)
        self.folder = f"{integration.org}/{integration.name}"
        self._integration = integration
        self._settings = settings
        self._storage = storage
        self._local = local

    @classmethod
    def open(cls, integration: Integration, settings: DeliverSettings, *, local: Path) -> Stage:
        """
        Open the folder; nothing is read yet.

        Args:
            integration: With `Integration.delivery`.
            settings: `integration.delivery.settings`.
            local: Folder for scratch files, which may hold personal data; each operation removes its own.

        Raises:
            ConfigError: The staging URL, its options or the schedule are wrong.
        """
        if settings.schedule:
            try:
                CronSim(settings.schedule, datetime.now(UTC))
            except CronSimError as error:
                raise ConfigError([Problem(f"{integration.name}: deliver.schedule", str(error))]) from None
        return cls(integration, settings, Storage.open(settings.staging, settings.options), local)

    # What others ask

    async def flush(self, *, now: float, force: bool = False) -> Manifest | None:
        """
        Seal what has collected, when it is due by rows, bytes, age or schedule.

        Args:
            now: Unix time in seconds.
            force: Seal whatever there is.

        Returns:
            The new batch; None when nothing is due, or another worker sealed it first.

        Raises:
            TooManyRejected: See there. What has collected stays.
            StorageError: The storage failed.
            QueryError: The records cannot be made, or the disk is full.
        """
        with contextlib.suppress(SealedByAnother):
            return await asyncio.to_thread(self._flush, now, force=force)
        return None

    async def seal(self, source: Source, inputs: Sequence[str]) -> Manifest:
        """
        Seal a batch of records that come from elsewhere, together with what has collected.

        Args:
            source: Makes a query of the records, and counts what it sets aside.
            inputs: What they are, for the manifest.

        Raises:
            PartnerEnrichError: As `flush`; `SealedByAnother`, too.
        """
        return await asyncio.to_thread(self._seal_source, source, inputs)

    async def batches(self) -> list[str]:
        """
        Ids of the sealed batches, oldest first, without those that another one supersedes.

        Raises:
            StorageError: The storage failed.
        """
        return await asyncio.to_thread(self._batches)

    async def manifest(self, batch_id: str) -> Manifest:
        """
        What is in one sealed batch.

        Raises:
            StorageError: The storage failed, or has no such batch.
        """
        return await asyncio.to_thread(self._manifest, batch_id)

    async def recheck(self, manifest: Manifest) -> Manifest:
        """
        Take out who has withdrawn or was forgotten since: to be called right before a batch is submitted.

        Returns:
            The same manifest when nobody has; else that of a new batch, which supersedes it.

        Raises:
            StorageError: The storage failed, or another worker is at it: try again later.
        """
        return await asyncio.to_thread(self._recheck, manifest)

    async def begin(self, batch_id: str, mark: str) -> str:
        """
        Note beside a batch that its submission begins, once for all time.

        Args:
            batch_id: The batch.
            mark: Whose submission it is.

        Returns:
            The mark that stands there: this one, or an earlier one.

        Raises:
            StorageError: The storage failed.
        """

        def note() -> str:
            path = self._path(f"batches/{batch_id}/begun")
            self._storage.create(path, mark.encode())
            return (self._storage.read(path) or b"").decode()

        return await asyncio.to_thread(note)

    async def delete(self, batch_ids: Collection[str]) -> None:
        """
        Delete all files of batches, such as those whose delivery is over; what is gone already does not matter.

        The newest batch must not be among them, for the next one follows from it.

        Raises:
            StorageError: The storage failed. Some may be left: ask again.
        """
        await asyncio.to_thread(self._delete, frozenset(batch_ids))

    def open_file(self, file: StagedFile) -> BinaryIO:
        """
        Read one staged file. Blocks; its end raises when the content is not what was sealed.

        Raises:
            StorageError: The storage failed, or the content has another digest.
        """
        return cast("BinaryIO", self._storage.reader(self._storage.path_of(file.url), file.sha256))

    def rows(self, manifest: Manifest) -> Iterator[Mapping[str, str]]:
        """
        All records, column to text; an empty cell is left out. Blocks.

        Raises:
            StorageError: See `open_file`.
        """
        for file in manifest.files:
            with self._scratch() as scratch, connected(scratch) as connection:
                scan = self._scan(scratch, manifest, file)
                for values in connection.stream(f"SELECT * FROM {scan}"):
                    yield {column: value for column, value in zip(manifest.columns, values) if value is not None}

    # Sealing

    def _flush(self, now: float, *, force: bool) -> Manifest | None:
        head = self._head()
        self._tidy(head)
        waiting = self._incoming()
        if not waiting or not (force or self._is_due(waiting, head, now)):
            return None
        return self._seal(head, waiting, None, ())

    def _seal_source(self, source: Source, inputs: Sequence[str]) -> Manifest:
        head = self._head()
        self._tidy(head)
        return self._seal(head, self._incoming(), source, inputs)

    def _is_due(self, waiting: Sequence[Incoming], head: Manifest | None, now: float) -> bool:
        settings = self._settings
        oldest = min(file.seen for file in waiting)
        age = settings.flush_seconds or (None if settings.schedule else DAY)
        if settings.schedule:
            latest = next(CronSim(settings.schedule, datetime.fromtimestamp(now, UTC), reverse=True)).timestamp()
            if latest > max(oldest, head.created if head else 0):
                return True
        return (
            sum(file.rows for file in waiting) >= settings.flush_rows
            or sum(file.bytes for file in waiting) >= settings.flush_bytes
            or (age is not None and now - oldest >= age)
        )

    def _seal(
        self,
        head: Manifest | None,
        waiting: Sequence[Incoming],
        source: Source | None,
        inputs: Sequence[str],
    ) -> Manifest:
        now = time.time()
        rejects = Rejects()
        with self._scratch() as scratch, connected(scratch) as connection:
            sealing = Sealing(connection, self.records, self._settings, scratch, now)
            queries = []
            if waiting:
                queries.append(
                    sealing.collected([self._download(self._below(file.path), scratch) for file in waiting], rejects)
                )
            if head and head.state:
                queries.append(sealing.state_of(self._download(f"snapshots/{head.state}.state", scratch)))
            table = source(connection, rejects) if source else None
            state: Path | None = None
            if table and not queries and self._settings.collect == "append":
                parts = list(sealing.parts(table))
                sealing.fresh = sum(part.rows for part in parts)
            else:
                query, state = sealing.merged([*queries, *([sealing.of_table(table)] if table else [])])
                parts = list(sealing.parts(query))
            unreadable(connection, rejects)
            rejects.check(sealing.fresh, self._settings.max_rejected)
            made = self._new(head, parts=[part.staged("") for part in parts], rejected=dict(rejects.records))
            made = attrs.evolve(
                made,
                inputs=(*(self._below(file.path) for file in waiting), *inputs),
                state=made.batch_id if state else None,
                created=now,
            )
            if state:
                self._storage.upload(self._path(f"snapshots/{made.batch_id}.state"), state)
            return self._publish(made, [part.file for part in parts], sealing.suffix)

    def _recheck(self, manifest: Manifest) -> Manifest:
        head = self._head()
        self._tidy(head)
        assert head is not None
        if successor := self._storage.read(self._path(f"batches/{manifest.batch_id}/superseded.json")):
            return self._recheck(self._manifest(successor.decode()))
        waiting = self._incoming()
        with self._scratch() as scratch, connected(scratch) as connection:
            sealing = Sealing(connection, self.records, self._settings, scratch, time.time())
            queries = []
            if waiting:
                queries.append(
                    sealing.collected([self._download(self._below(file.path), scratch) for file in waiting], Rejects())
                )
            if head.state:
                state = sealing.state_of(self._download(f"snapshots/{head.state}.state", scratch))
                queries.append(f"SELECT * FROM ({state}) WHERE _sealed > {manifest.created!r}")
            if not sealing.withdrawn(queries):
                return manifest
            staged = " UNION ALL ".join(
                f"SELECT * FROM {self._scan(scratch, manifest, file)}" for file in manifest.files
            )
            remaining = sealing.without_withdrawn(staged, ever=True)
            if connection.value(f"SELECT count(*) FROM ({remaining})") == manifest.rows:
                return manifest
            parts = list(sealing.parts(remaining))
            made = self._new(head, parts=[part.staged("") for part in parts], rejected=dict(manifest.rejected))
            made = attrs.evolve(made, state=head.state, supersedes=manifest.batch_id, created=manifest.created)
            return self._publish(made, [part.file for part in parts], sealing.suffix)

    def _new(self, head: Manifest | None, *, parts: Sequence[StagedFile], rejected: Mapping[str, int]) -> Manifest:
        batch_id = self._first_id() if head is None else head.next_id or new_id()
        return Manifest(
            batch_id=batch_id,
            org=self._integration.org,
            integration=self._integration.name,
            mode=self._settings.mode or "",
            columns=self.records.columns,
            files=tuple(parts),
            rows=sum(part.rows for part in parts),
            rejected=rejected,
            recipe_version=RECIPE_VERSION,
            created=time.time(),
            next_id=new_id(max(time.time(), time_of(batch_id) + 0.001)),
        )

    def _publish(self, made: Manifest, files: Sequence[Path], suffix: str) -> Manifest:
        """Upload the parts, then the manifest: it exists from then on."""
        attempt = secrets.token_hex(2)
        paths = [
            self._path(f"batches/{made.batch_id}/part-{number:05}-{attempt}{suffix}")
            for number, _ in enumerate(files, 1)
        ]
        for path, file in zip(paths, files):
            self._storage.upload(path, file)
        staged = (attrs.evolve(part, url=self._storage.url_of(path)) for part, path in zip(made.files, paths))
        made = attrs.evolve(made, files=tuple(staged))
        if not self._storage.create(self._path(f"batches/{made.batch_id}/manifest.json"), made.as_json()):
            self._storage.delete(paths)
            raise SealedByAnother("another worker has sealed a batch meanwhile; try again")
        with contextlib.suppress(StorageError):  # it is sealed: what is left is done next time
            self._tidy(made)
        return made

    # The row of batches

    def _head(self) -> Manifest | None:
        """The newest batch."""
        sealed, _ = self._sealed()
        return self._manifest(max(sealed)) if sealed else None

    def _sealed(self) -> tuple[set[str], set[str]]:
        """Ids of all sealed batches, and of those of them that are superseded."""
        sealed: set[str] = set()
        superseded: set[str] = set()
        for entry in self._storage.list(self._path("batches")):
            if found := _SEALED.fullmatch(self._below(entry.path)):
                (sealed if found["file"] == "manifest" else superseded).add(found["id"])
        return sealed, superseded

    def _batches(self) -> list[str]:
        sealed, superseded = self._sealed()
        if sealed and (supersedes := self._manifest(max(sealed)).supersedes):
            superseded.add(supersedes)
        return sorted(sealed - superseded)

    def _manifest(self, batch_id: str) -> Manifest:
        content = self._storage.read(self._path(f"batches/{batch_id}/manifest.json"))
        if content is None:
            raise StorageError(f"there is no sealed batch {batch_id}")
        try:
            return Manifest.from_json(content)
        except ValueError:
            raise StorageError(f"the manifest of batch {batch_id} cannot be read") from None

    def _first_id(self) -> str:
        """The id of the first batch, which all workers agree on."""
        path = self._path(_FIRST)
        self._storage.create(path, new_id(time.time()).encode())
        first = (self._storage.read(path) or b"").decode()
        if not is_id(first):
            raise StorageError(f"{_FIRST} in the staging folder is damaged")
        return first

    def _delete(self, batch_ids: frozenset[str]) -> None:
        paths = [entry.path for entry in self._storage.list(self._path("batches"))]
        theirs = [path for path in paths if self._below(path).split("/")[1] in batch_ids]
        self._storage.delete(sorted(theirs, key=lambda path: not path.endswith("/manifest.json")))

    def _incoming(self) -> list[Incoming]:
        found = map(Incoming.of, self._storage.list(self._path(FOLDER)))
        return sorted((file for file in found if file), key=lambda file: file.path)

    def _tidy(self, head: Manifest | None) -> None:
        """Finish what the sealing of the newest batch leaves to do, however it was interrupted."""
        if head is None:
            return
        self._storage.delete(file.path for file in self._incoming() if self._below(file.path) in head.inputs)
        if head.supersedes:
            self._storage.create(self._path(f"batches/{head.supersedes}/superseded.json"), head.batch_id.encode())
        kept = {self._storage.path_of(file.url) for file in head.files}
        left = [
            entry.path
            for entry in self._storage.list(self._path(f"batches/{head.batch_id}"))
            if "/part-" in entry.path and entry.path not in kept
        ]
        left += [
            entry.path
            for entry in self._storage.list(self._path("snapshots"))
            if head.state is None or not entry.path.endswith(f"/{head.state}.state")
        ]
        self._storage.delete(left)

    # Places

    def _path(self, below: str) -> str:
        return f"{self.folder}/{below}"

    def _below(self, path: str) -> str:
        return path.removeprefix(f"{self.folder}/")

    @contextlib.contextmanager
    def _scratch(self) -> Iterator[Path]:
        self._local.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix="partnerenrich-", dir=self._local) as folder:
            yield Path(folder)

    def _download(self, below: str, scratch: Path) -> Path:
        file = scratch / below.replace("/", "-")
        try:
            self._storage.download(self._path(below), file)
        except NotThere:
            raise SealedByAnother("another worker has sealed meanwhile what was to be read; try again") from None
        return file

    def _scan(self, scratch: Path, manifest: Manifest, file: StagedFile) -> str:
        """A staged file as SQL, once its content is known to be what was sealed."""
        copy = scratch / file.url.rpartition("/")[2]
        with self.open_file(file) as content, copy.open("wb") as out:
            while chunk := content.read(1 << 20):
                out.write(chunk)
        if copy.suffix == ".parquet":
            return f"read_parquet({text(str(copy))})"
        packed = {".gz": "gzip", ".zst": "zstd"}.get(copy.suffix, "none")
        return f"read_csv({text(str(copy))}, {csv_dialect(manifest.columns)}, compression={text(packed)})"
