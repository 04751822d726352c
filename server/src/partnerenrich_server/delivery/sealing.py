"""From what has collected, and from tables, to the files of one batch: duplicates and withdrawn people taken out."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Final

import attrs

from partnerenrich.models import StagedFile
from partnerenrich_server.delivery.hashing import name, text
from partnerenrich_server.delivery.query import NO_DIGEST

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from partnerenrich import recipes
    from partnerenrich.configuration import DeliverSettings
    from partnerenrich_server.delivery.query import Connection
    from partnerenrich_server.delivery.records import Records
    from partnerenrich_server.delivery.rejects import Rejects

PRIVATE: Final = {
    "_time": "DOUBLE",
    "_seen": "DOUBLE",
    "_withdrawn": "BOOLEAN",
    "_forgotten": "BOOLEAN",
    "_sealed": "DOUBLE",
    "_reject": "VARCHAR",
    "_origin": "VARCHAR",
    "_line": "BIGINT",
}
"""
Columns that no partner sees: when it happened, when it collected, what it is, and where it comes from.

A withdrawal takes out the records of its person up to its ``_time``. That of one that is ``_forgotten`` is the end of
the suppression; of several of the same identifiers the one seen last counts. ``_sealed`` is when a withdrawal was first
heeded in a batch.
"""

_GROUP_ROWS: Final = 50_000
_SUFFIXES: Final = {"none": "", "gzip": ".gz", "zstd": ".zst"}


def csv_dialect(columns: Sequence[str]) -> str:
    """How CSV is written here, as arguments of ``read_csv``."""
    types = ", ".join(f"{text(column)}: 'VARCHAR'" for column in columns)
    return f"auto_detect=false, delim=',', quote='\"', escape='\"', header=true, columns={{{types}}}"


@attrs.frozen
class Part:
    """
    One file of a batch, still on this machine.

    Attributes:
        file: It.
        rows: Its records.
        bytes: Its size.
        sha256: Its digest, hexadecimal.
    """

    file: Path
    rows: int
    bytes: int
    sha256: str

    def staged(self, url: str) -> StagedFile:
        """The same when it lies elsewhere."""
        return StagedFile(url, self.rows, self.bytes, self.sha256)


class Sealing:
    """
    Makes the files of one batch.

    Args:
        connection: A database for this batch alone.
        records: What the records are.
        settings: How files are written.
        folder: Where they are written.
        now: Unix time in seconds.

    Attributes:
        fresh: Records so far that were not set aside, without those of earlier batches.
    """

    def __init__(
        self, connection: Connection, records: Records, settings: DeliverSettings, folder: Path, now: float
    ) -> None:
        self._connection = connection
        self._records = records
        self._settings = settings
        self._folder = folder
        self._now = now
        self.fresh = 0

    def collected(self, files: Sequence[Path], rejects: Rejects) -> str:
        """
        What has collected, each line of an input once, as a query; what was set aside before is counted.

        Args:
            files: Of the folder ``incoming``.
            rejects: Counts.
        """
        types = {**dict.fromkeys(self._records.columns, "VARCHAR"), **PRIVATE}
        columns = ", ".join(f"{text(column)}: {text(kind)}" for column, kind in types.items())
        paths = ", ".join(text(str(file)) for file in files)
        self._connection.run(
            f"CREATE TEMP TABLE collected AS SELECT * FROM read_json([{paths}], format='newline_delimited',"
            f" compression='zstd', columns={{{columns}}})"
            " QUALIFY row_number() OVER (PARTITION BY _origin, _line ORDER BY _seen) = 1"
        )
        reasons = "SELECT _reject, count(*) FROM collected WHERE _reject IS NOT NULL GROUP BY 1"
        for reason, count in self._connection.run(reasons):
            rejects.add(reason, count)
        self.fresh += self._connection.value("SELECT count(*) FROM collected WHERE _reject IS NULL")
        return "SELECT * FROM collected WHERE _reject IS NULL"

    def of_table(self, query: str) -> str:
        """What a query over files gives, once, with the private columns that it lacks."""
        file = text(str(self._folder / "table.parquet"))
        private = f"{self._now!r}::DOUBLE AS _time, {self._now!r}::DOUBLE AS _seen, false AS _withdrawn"
        self.fresh += self._connection.value(f"COPY (SELECT *, {private} FROM ({query})) TO {file} (FORMAT parquet)")
        return f"SELECT * FROM read_parquet({file})"

    def state_of(self, file: Path) -> str:
        """What an earlier batch left for this one, as a query. Columns that it did not have are empty."""
        there = [row[0] for row in self._connection.run(f"DESCRIBE SELECT * FROM read_parquet({text(str(file))})")]
        values = [name(column) for column in self._records.columns if column in there]
        values += [f"NULL::VARCHAR AS {name(column)}" for column in self._records.columns if column not in there]
        values += [name(column) for column in PRIVATE if column in there]
        return f"SELECT {', '.join(values)} FROM read_parquet({text(str(file))})"

    def merged(self, queries: Sequence[str]) -> tuple[str, Path]:
        """
        All records of the batch, as a query, and a file for the next batch.

        A snapshot has the latest record of each key. Records that are not younger than a withdrawal of the same person
        are left out. The file has the withdrawals, and of a snapshot all records.
        """
        together = self._together(queries)
        self.withdrawn(queries)
        remaining = self.without_withdrawn(f"SELECT * FROM ({together}) WHERE _withdrawn IS NOT true")
        state = self._folder / "state.parquet"
        kept = f"SELECT * REPLACE (coalesce(_sealed, {self._now!r}) AS _sealed) FROM withdrawn"
        if self._settings.collect == "snapshot":
            order = "_time DESC, _seen DESC, _origin DESC, _line DESC"
            key = name(self._settings.key or "")
            latest = f"{remaining} QUALIFY row_number() OVER (PARTITION BY {key} ORDER BY {order}) = 1"
            kept = f"{latest} UNION ALL BY NAME {kept}"
            remaining = f"SELECT * FROM read_parquet({text(str(state))}) WHERE _withdrawn IS NOT true"
        self._connection.run(f"COPY ({kept}) TO {text(str(state))} (FORMAT parquet, ROW_GROUP_SIZE {_GROUP_ROWS})")
        return remaining, state

    def withdrawn(self, queries: Sequence[str]) -> int:
        """Note who has withdrawn or was forgotten, of all records; returns how many."""
        same = ", ".join(map(name, self._records.identifying))
        self._connection.run(
            f"CREATE TEMP TABLE withdrawn AS SELECT * FROM ({self._together(queries)}) WHERE _withdrawn"
            " QUALIFY _forgotten IS NOT true"
            f" OR row_number() OVER (PARTITION BY _forgotten, {same} ORDER BY _seen DESC) = 1"
        )
        count: int = self._connection.value("SELECT count(*) FROM withdrawn")
        return count

    def without_withdrawn(self, query: str, *, ever: bool = False) -> str:
        """
        The records of those who have not withdrawn.

        Args:
            query: Has ``_time``, unless `ever`.
            ever: Whether it does not matter which came first.
        """
        if not self._connection.value("SELECT count(*) FROM withdrawn"):
            return query
        for kind in set(self._records.spelled.values()):
            self._connection.function(f"normal_{kind}", self._normal(kind), "VARCHAR")
        later = "" if ever else " AND w._time >= r._time"
        tests = [
            f"NOT EXISTS (SELECT 1 FROM withdrawn w WHERE {self._compared(column, 'w')} ="
            f" {self._compared(column, 'r')}{later})"
            for column in self._records.identifying
        ]
        return f"SELECT * FROM ({query}) r WHERE {' AND '.join(tests)}"

    def _normal(self, kind: recipes.Kind) -> Callable[[str | None], str | None]:
        return lambda value: None if value is None else self._records.normal(kind, value)

    def _compared(self, column: str, table: str) -> str:
        """A column as it is compared: what is no digest may be written in several ways."""
        value, kind = f"{table}.{name(column)}", self._records.spelled.get(column)
        if column in self._records.hashed:
            return value
        return f"normal_{kind}({value})" if kind else f"trim({value})"

    def parts(self, query: str) -> Iterator[Part]:
        """
        Write the files that the partner reads.

        Raises:
            QueryError: A hashed column holds something that is no digest; or the disk is full.
        """
        folder = self._folder / "parts"
        self._connection.run(f"COPY ({self._checked(query)}) TO {text(str(folder))} ({self._format()})")
        for file in sorted(folder.rglob("*.*")) if folder.is_dir() else ():
            rows = self._count(file)
            if rows:
                with file.open("rb") as content:
                    digest = hashlib.file_digest(content, "sha256").hexdigest()
                yield Part(file, rows, file.stat().st_size, digest)

    @property
    def suffix(self) -> str:
        """How the name of a file ends."""
        settings = self._settings
        return ".parquet" if settings.format == "parquet" else f".csv{_SUFFIXES[settings.compression or 'none']}"

    def _together(self, queries: Sequence[str]) -> str:
        """The rows of all queries, each with all columns that any row may have."""
        types = {**dict.fromkeys(self._records.columns, "VARCHAR"), **PRIVATE}
        none = f"SELECT {', '.join(f'NULL::{kind} AS {name(column)}' for column, kind in types.items())} WHERE false"
        return " UNION ALL BY NAME ".join([none, *queries])

    def _checked(self, query: str) -> str:
        """The columns of the records alone, and an error for a plain value where a digest has to be."""
        values = []
        for column in self._records.columns:
            digest, quoted = self._records.hashed.get(column), name(column)
            if digest:
                sign = f"contains({quoted}, '@')"  # an e-mail has one, and no phone is as long as a digest
                if digest.kind == "other":
                    sign = f"regexp_matches({quoted}, '[^0-9A-Za-z+/=]')"
                plain = f"strlen({quoted}) <> {digest.length} OR {sign}"
                quoted = f"CASE WHEN {plain} THEN error('{NO_DIGEST}') ELSE {quoted} END AS {quoted}"
            values.append(quoted)
        return f"SELECT {', '.join(values)} FROM ({query})"

    def _format(self) -> str:
        settings = self._settings
        many = f"FILE_EXTENSION {text(self.suffix[1:])}, PER_THREAD_OUTPUT true"
        if settings.format == "csv":
            size = f"FILE_SIZE_BYTES {settings.part_bytes}"
            return f"FORMAT csv, HEADER true, COMPRESSION {settings.compression}, {size}, {many}"
        group = min(_GROUP_ROWS, settings.part_rows)
        groups = max(1, settings.part_rows // group)
        size = (
            f"ROW_GROUPS_PER_FILE {groups}, ROW_GROUP_SIZE_BYTES '{max(64, settings.part_bytes // groups // 1000)}KB'"
        )
        compression = "uncompressed" if settings.compression == "none" else settings.compression
        plain = "WRITE_BLOOM_FILTER false"  # nobody looks up a single digest
        return f"FORMAT parquet, COMPRESSION {compression}, ROW_GROUP_SIZE {group}, {size}, {plain}, {many}"

    def _count(self, file: Path) -> int:
        scan = f"read_parquet({text(str(file))})"
        if self._settings.format == "csv":
            scan = f"read_csv({text(str(file))}, {csv_dialect(self._records.columns)})"
        count: int = self._connection.value(f"SELECT count(*) FROM {scan}")
        return count
