"""Files of records, wherever they lie: CSV, NDJSON and Parquet, as queries that give what a destination is sent."""

from __future__ import annotations

import contextlib
import csv
import fnmatch
import functools
import glob
import gzip
import io
import re
import zlib
from collections.abc import Callable, Collection
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Final

import attrs
import zstandard

from partnerenrich import ConfigError, recipes
from partnerenrich.settings import suggestion
from partnerenrich_server.delivery.hashing import NO_IDENTIFIER, Column, changer, name, text
from partnerenrich_server.delivery.query import DAMAGED, QueryError
from partnerenrich_server.delivery.records import PERSON
from partnerenrich_server.delivery.rejects import SUPPRESSED
from partnerenrich_server.delivery.storage import Storage
from partnerenrich_server.failures import Misuse

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from partnerenrich.blueprint import Field
    from partnerenrich.configuration import BatchDelivery
    from partnerenrich.secret import Secret
    from partnerenrich_server.delivery.query import Connection
    from partnerenrich_server.delivery.records import Records
    from partnerenrich_server.delivery.rejects import Rejects

_KINDS: Final = {".csv": "csv", ".tsv": "csv", ".ndjson": "ndjson", ".jsonl": "ndjson", ".parquet": "parquet"}
_COMPRESSED: Final = {".gz": "gzip", ".zst": "zstd"}
_DELIMITERS: Final = ",;\t|"
_WILD: Final = re.compile(r"[*?\[]")
_LONGEST: Final = 1 << 20
"""Most bytes of a line that are looked at."""
_OF_IDENTIFIERS: Final = re.compile(
    r"VARCHAR|BLOB|UUID|ENUM\(.*\)|U?(TINY|SMALL|BIG|HUGE)INT|U?INTEGER|DECIMAL\([0-9]+,0\)"
)
"""Types of Parquet, as DuckDB calls them, that may hold identifiers."""
_BLOCK: Final = 1 << 16
_REMEMBERED: Final = 10_000
"""Identifiers of each kind that are looked up once, however often they come."""

_BREAK: Final = "chr(10)"
_LOST: Final = "lost_lines"
_QUOTES: Final = "quotes that do not match"

_SPELLINGS: Final = (
    ("customerid", "userid", "customer", "user", "id", "uid", "clientid", "memberid", "externalid"),
    ("firstname", "givenname", "forename", "fname"),
    ("lastname", "surname", "familyname", "lname"),
)
"""Names that mean the same, without case and punctuation, best first."""
_OF_HASHES: Final = re.compile(r"(^|_)(sha_?256|hashed|hash|hex|normali[sz]ed)(?=_|$)")

_UNREADABLE: Final = {
    "MISSING COLUMNS": "too few cells in a line",
    "TOO MANY COLUMNS": "too many cells in a line",
    "INVALID ENCODING": "text that is not UTF-8",
    "UNQUOTED VALUE": _QUOTES,
    "LINE SIZE OVER MAXIMUM": "a line that is too long",
}


@attrs.frozen
class Table:
    """
    One file of records.

    Attributes:
        place: Where it lies, as it is told.
        columns: Its column names.
        scan: From the columns that hold identifiers to it as SQL: something to select from, all columns being text.
            What can be no identifier, because it is no text and no integer, is `hashing.NO_IDENTIFIER` in them.
        delimiter: Of a CSV, between its cells.
        lost: Of a CSV, as SQL: how many of its lines are in no row of it, whatever was noted of them.
    """

    place: str
    columns: tuple[str, ...]
    scan: Callable[[Collection[str]], str]
    delimiter: str | None = None
    lost: str | None = None

    def covered(self, used: Collection[str]) -> str:
        """
        How many lines a row of a CSV covers, as SQL, where a stray quote may have made one row of them; else NULL.

        A column that is used holds no line break. Another one, such as of notes, may, but not along with as many
        delimiters as whole lines have.
        """
        if self.delimiter is None:
            return "NULL::BIGINT"
        whole = f"* {len(self.columns) - 1} <= "
        tests = (
            f"{_holds(column)}"
            + ("" if column in used else f" AND {_count(column, _BREAK)} {whole}{_count(column, text(self.delimiter))}")
            for column in self.columns
        )
        return f"CASE WHEN {' OR '.join(tests)} THEN {_lines(self.columns)} END"


# Finding and opening


def find(inputs: Iterable[str], options: Mapping[str, Secret], scratch: Path) -> list[tuple[str, Path]]:
    """
    The files that are meant, each with what it is called; those in object storage are copied first.

    Args:
        inputs: Paths, URLs, both with wildcards.
        options: For object storage.
        scratch: Folder for the copies.

    Raises:
        Misuse: Nothing is there, or the kind of a file cannot be told.
        StorageError: The object storage fails.
    """
    found: dict[str, Path] = {}
    for written in inputs:
        here = list(_copied(written, options, scratch) if "://" in written else _local(written))
        if not here and Path(written).is_dir():
            raise Misuse(f"{written}: is a folder; name its files, such as {written.rstrip('/')}/*.csv")
        if not here:
            raise Misuse(f"{written}: no such file")
        found |= here
    for place in found:
        _kind(place)
    return list(found.items())


def opened(connection: Connection, place: str, file: Path) -> Table:
    """
    Find out the columns of a file.

    Raises:
        Misuse: It has none, or they are not what they should be.
        QueryError: It is damaged.
        OSError: It cannot be opened.
    """
    kind, compression = _kind(place)
    file.open("rb").close()  # an OSError says why it cannot be
    connection.reads(file, place)
    if compression == "zstd" and not _is_whole(file):
        raise QueryError(f"{place}: {DAMAGED}")
    made = {"parquet": _parquet, "ndjson": _ndjson, "csv": _csv}[kind](connection, place, file, compression or "none")
    columns = made.columns
    if not columns or "" in columns or len({column.lower() for column in columns}) != len(columns):
        raise Misuse(f"{place}: its columns must have names, each another one; the first line of a CSV names them")
    return made


def _parquet(connection: Connection, place: str, file: Path, _: str) -> Table:
    source = f"read_parquet({text(str(file))})"
    kinds = {row[0]: row[1] for row in connection.run(f"DESCRIBE SELECT * FROM {source}")}

    def scan(identifiers: Collection[str]) -> str:
        def cell(column: str) -> str:
            if column in identifiers and not _OF_IDENTIFIERS.fullmatch(kinds[column]):
                return f"CASE WHEN {name(column)} IS NOT NULL THEN {NO_IDENTIFIER} END"
            return f"CAST({name(column)} AS VARCHAR)"

        return f"(SELECT {', '.join(f'{cell(column)} AS {name(column)}' for column in kinds)} FROM {source})"

    return Table(place, tuple(kinds), scan)


def _ndjson(connection: Connection, place: str, file: Path, compression: str) -> Table:
    reading = f"{text(str(file))}, compression={text(compression)}, ignore_errors=true"
    lines = f"read_ndjson_objects({reading})"
    keys = f"SELECT DISTINCT unnest(json_keys(json)) AS key FROM {lines} WHERE json_type(json) = 'OBJECT'"
    columns = tuple(row[0] for row in connection.run(f"{keys} ORDER BY key"))
    if not columns:
        raise Misuse(
            f"{place}: no line of it is a JSON object; NDJSON has one in each line:"
            " jq -c '.[]' makes them of a JSON array"
        )
    if len({column.lower() for column in columns}) != len(columns):
        raise Misuse(f"{place}: two of its keys differ in case alone, such as email and EMAIL; write one of them")
    if {"type", "traits"} <= set(columns):
        raise Misuse(f"{place}: these are events; partnerenrich run takes them, and feeds the destination")

    def scan(identifiers: Collection[str]) -> str:
        types = ", ".join(f"{text(c)}: '{'JSON' if c in identifiers else 'VARCHAR'}'" for c in columns)

        def cell(column: str) -> str:
            quoted = name(column)
            written = f"{quoted}::VARCHAR"
            is_one = f"starts_with({written}, '\"') OR regexp_full_match({written}, '-?[0-9]+')"
            return f"CASE WHEN {is_one} THEN {quoted} ->> '$' WHEN {quoted} IS NOT NULL THEN {NO_IDENTIFIER} END"

        replaced = ", ".join(f"{cell(column)} AS {name(column)}" for column in columns if column in identifiers)
        cells = f"* REPLACE ({replaced})" if replaced else "*"
        return f"(SELECT {cells} FROM read_json({reading}, format='newline_delimited', columns={{{types}}}))"

    return Table(place, columns, scan)


def _csv(_: Connection, place: str, file: Path, compression: str) -> Table:
    path = text(str(file))
    header = _first_line(place, file, compression)
    delimiter = max(_DELIMITERS, key=header.count)
    columns = tuple(column.strip() for column in next(csv.reader([header], delimiter=delimiter), []))
    types = ", ".join(f"{text(column)}: 'VARCHAR'" for column in columns)
    dialect = f"delim={text(delimiter)}, quote='\"', escape='\"', header=true, auto_detect=false"
    packed = f"compression={text(compression)}, ignore_errors=true, store_rejects=true, rejects_limit=0"
    reading = f"{path}, {dialect}, {packed}, columns={{{types}}}"
    apart = "rejects_table='again_errors', rejects_scan='again_scans'"  # or what is noted would be counted twice
    there = f"SELECT coalesce(sum({_lines(columns)}), 0) FROM read_csv({reading}, {apart})"
    lost = f"SELECT greatest(lines_of({path}) - 1 - ({there}), 0) AS lines"
    return Table(place, columns, lambda _: f"read_csv({reading})", delimiter, lost)


def _holds(column: str) -> str:
    return f"contains({name(column)}, {_BREAK})"


def _count(column: str, character: str) -> str:
    """How often a character is in a cell, as SQL."""
    return f"(length({name(column)}) - length(replace({name(column)}, {character}, '')))"


def _lines(columns: Iterable[str]) -> str:
    """How many lines a row covers, as SQL."""
    return " + ".join(["1", *(f"CASE WHEN {_holds(c)} THEN {_count(c, _BREAK)} ELSE 0 END" for c in columns)])


def _kind(place: str) -> tuple[str, str | None]:
    path = PurePosixPath(place)
    compression = _COMPRESSED.get(path.suffix.lower())
    kind = _KINDS.get((path.with_suffix("") if compression else path).suffix.lower())
    if kind is None:
        raise Misuse(f"{place}: must end in {', '.join(_KINDS)}; CSV and NDJSON also in .gz or .zst after that")
    return kind, compression


def _first_line(place: str, file: Path, compression: str) -> str:
    try:
        with _unpacked(file, compression) as stream:
            line = stream.readline(_LONGEST).decode("utf-8-sig").rstrip("\r\n")
    except UnicodeDecodeError:
        raise Misuse(f"{place}: its first line is not UTF-8; convert it, such as with iconv -t UTF-8") from None
    except (gzip.BadGzipFile, EOFError, zlib.error, zstandard.ZstdError):
        raise QueryError(f"{place}: {DAMAGED}") from None
    if "\r" in line:
        raise Misuse(f"{place}: its lines end in a carriage return alone; make them end in line feeds: tr '\\r' '\\n'")
    return line


def _is_whole(file: Path) -> bool:
    """Whether a Zstandard file ends where one of its frames does: DuckDB takes one that was cut off for whole."""
    frame = zstandard.ZstdDecompressor().decompressobj()
    begun = False
    try:
        with file.open("rb") as raw:
            for block in iter(functools.partial(raw.read, _BLOCK), b""):
                rest = block
                while rest:
                    frame.decompress(rest)
                    begun, rest = not frame.eof, frame.unused_data
                    if frame.eof:
                        frame = zstandard.ZstdDecompressor().decompressobj()
    except zstandard.ZstdError:
        return False
    return not begun


def _lines_of(path: str) -> int:
    """How many lines of a CSV have something in them."""
    with _unpacked(Path(path), _COMPRESSED.get(PurePosixPath(path).suffix.lower())) as stream:
        return sum(not line.isspace() for line in iter(functools.partial(stream.readline, _LONGEST), b""))


@contextlib.contextmanager
def _unpacked(file: Path, compression: str | None) -> Iterator[io.BufferedIOBase]:
    with file.open("rb") as raw:
        if compression == "gzip":
            yield gzip.GzipFile(fileobj=raw)
        elif compression == "zstd":
            yield io.BufferedReader(zstandard.ZstdDecompressor().stream_reader(raw, read_across_frames=True))
        else:
            yield raw


def _local(written: str) -> Iterator[tuple[str, Path]]:
    paths = [written] if Path(written).exists() else sorted(glob.glob(written, recursive=True))  # noqa: PTH207  a pattern from anywhere
    for path in map(Path, paths):
        if path.is_file():
            yield str(path), path


def _copied(url: str, options: Mapping[str, Secret], scratch: Path) -> Iterator[tuple[str, Path]]:
    wild = _WILD.search(url)
    cut = url.rfind("/", 0, wild.start() if wild else len(url))
    folder, pattern = url[:cut], url[cut + 1 :]
    try:
        storage = Storage.open(folder, options, make=False)
    except ConfigError:
        raise Misuse(f"{url}: cannot be opened; it is read with the options of deliver") from None
    paths = sorted(entry.path for entry in storage.list("")) if wild else [pattern]
    for path in fnmatch.filter(paths, pattern) if wild else paths:
        copy = scratch / f"input-{len(list(scratch.iterdir())):05}{''.join(PurePosixPath(path).suffixes)}"
        storage.download(path, copy)
        yield f"{folder}/{path}", copy


# Columns


def matched(table: Table, records: Records, fields: Sequence[Field], chosen: Mapping[str, str]) -> dict[str, str]:
    """
    Which column of a file feeds which column of the records.

    Args:
        table: The file.
        records: What is wanted.
        fields: What makes the records.
        chosen: Column of a file to column of the records; what is not in it is told by its spelling.

    Returns:
        Column of the records to column of the file.

    Raises:
        Misuse: Two columns might be meant, none is, or a chosen one is not there.
    """
    found: dict[str, str] = {}
    for source, target in chosen.items():
        if target not in records.columns:
            raise Misuse(f"--column {source}={target}: {suggestion(target, list(records.columns))}")
        if source not in table.columns:
            raise Misuse(f"{table.place} has no column {source!r}")
        found[target] = source
    for field in fields:
        if field.name in found:
            continue
        best = _best(field, [column for column in table.columns if column not in chosen])
        if len(best) > 1:
            raise Misuse(
                f"{table.place}: {' and '.join(best)} may be {field.name}; choose one: --column {best[0]}={field.name}"
            )
        if best:
            found[field.name] = best[0]
    if not found.keys() & set(records.contacts):
        wanted = " or ".join(records.contacts)
        raise Misuse(
            f"{table.place}: none of its {len(table.columns)} columns is known as {wanted};"
            f" name it: --column THE_COLUMN={records.contacts[0]}"
        )
    if records.key and records.key not in found:
        raise Misuse(
            f"{table.place}: no column is known as {records.key}, which tells people apart;"
            f" name it: --column THE_COLUMN={records.key}"
        )
    return found


def _best(field: Field, columns: Sequence[str]) -> list[str]:
    """The columns that are most likely meant."""
    kind = recipes.kind_of(field.source)
    wanted = _spelling(field.name)
    alike = next((names for names in _SPELLINGS if wanted in names), ())
    exact = [column for column in columns if column == field.name]
    tries = [exact, *([c for c in columns if _spelling(c) == known] for known in (wanted, _last_step(field), *alike))]
    if kind != "other":
        tries.append([column for column in columns if recipes.kind_of(_without_hash(column)) == kind])
    return next(filter(None, tries), [])


def _last_step(field: Field) -> str:
    return _spelling(field.source.rpartition(".")[2])


def _spelling(column: str) -> str:
    return re.sub(r"[^a-z0-9]", "", _without_hash(column))


def _without_hash(column: str) -> str:
    snake = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", column.strip()).lower()
    return re.sub(r"[^a-z0-9]+", "_", _OF_HASHES.sub("", re.sub(r"[^a-z0-9]+", "_", snake))).strip("_")


# Rows


def rows(
    connection: Connection,
    tables: Sequence[Table],
    delivery: BatchDelivery,
    records: Records,
    chosen: Mapping[str, str],
    rejects: Rejects,
    is_suppressed: Callable[[str, str], bool] | None = None,
) -> tuple[str, list[dict[str, str]]]:
    """
    The records of all tables, as a query; and for each table, which of its columns feeds which column.

    The query has the columns of the records, with `records.key` also ``_line``, the
    number of the record in its file, and ``_origin``. To run it counts what is set
    aside in `rejects`.

    Args:
        connection: Where the query will run.
        tables: The files.
        delivery: What makes the records.
        records: What they are.
        chosen: See `matched`.
        rejects: Counts.
        is_suppressed: Of a kind of identifier, such as ``email``, and one as it is written; None when nobody is.

    Raises:
        Misuse: See `matched`.
    """
    fields = delivery.blueprint.fields(PERSON)
    for index, field in enumerate(fields):
        change = changer(
            field, delivery.default_region, rejects.unusable(field.name), identifies=field.name in records.identifying
        )
        connection.function(f"slow_{index}", change, "VARCHAR")
    connection.function("set_aside", rejects.set_aside, "BOOLEAN")
    connection.function("set_aside_lines", rejects.set_aside_lines, "BOOLEAN")
    if lost := [table.lost for table in tables if table.lost]:
        connection.function("lines_of", _lines_of, "BIGINT")
        connection.run(f"CREATE TEMP VIEW {_LOST} AS {' UNION ALL '.join(lost)}")
    if is_suppressed:
        for source in set(records.listed.values()):
            connection.function(f"suppressed_{source}", _remembering(is_suppressed, source), "BOOLEAN")
    constants = {column: str(value) for column, value in (delivery.blueprint.payload({"type": PERSON}) or {}).items()}
    sources = [matched(table, records, fields, chosen) for table in tables]
    checked = records.listed if is_suppressed else {}
    selects = (_select(table, found, records, fields, constants, checked) for table, found in zip(tables, sources))
    return " UNION ALL ".join(selects), sources


def unreadable(connection: Connection, rejects: Rejects) -> None:
    """
    Count the lines of CSV files that the queries so far could not read.

    What is noted of them is where the trouble began: a quote that is never closed loses all lines after it. So where
    anything is noted, the lines are counted.
    """
    is_there = connection.value("SELECT count(*) FROM duckdb_tables() WHERE table_name = 'reject_errors'")
    if is_there and connection.value("SELECT count(*) FROM reject_errors"):
        noted = rejects.records.total()
        lost = connection.value(f"SELECT sum(lines)::BIGINT FROM {_LOST}")
        lines = "(SELECT DISTINCT ON (scan_id, file_id, line) error_type FROM reject_errors)"
        for kind, count in connection.run(f"SELECT error_type::VARCHAR, count(*) FROM {lines} GROUP BY 1"):
            rejects.add(_UNREADABLE.get(kind, "a line that cannot be read"), count)
        swallowed = lost - (rejects.records.total() - noted)
        if swallowed > 0:
            rejects.add(_QUOTES, swallowed)


def _remembering(is_suppressed: Callable[[str, str], bool], source: str) -> Callable[[str], bool]:
    """Whether a value is suppressed, worked out once for each distinct one."""

    @functools.lru_cache(_REMEMBERED)
    def check(value: str) -> bool:
        return is_suppressed(source, value)

    return check


def _select(
    table: Table,
    sources: Mapping[str, str],
    records: Records,
    fields: Sequence[Field],
    constants: Mapping[str, str],
    checked: Mapping[str, str],
) -> str:
    columns = {
        field.name: Column(field, f"c{index}", f"slow_{index}", field.name in records.identifying)
        for index, field in enumerate(fields)
        if field.name in sources
    }
    used = ", ".join(f"{name(sources[target])} AS {column.source}" for target, column in columns.items())
    scan = table.scan({sources[target] for target in columns if target in records.identifying})
    line = ", row_number() OVER () AS _line" if records.key else ""
    line += f", {table.covered({sources[target] for target in columns})} AS _covered"
    stripped = ", ".join(f"{column.stripped} AS s{column.source}" for column in columns.values())
    normal = ", ".join(f"{column.normal(f's{column.source}')} AS n{column.source}" for column in columns.values())
    values = [
        f"{columns[target].value(f'n{columns[target].source}') if target in columns else _constant(constants, target)}"
        f" AS {name(target)}"
        for target in records.columns
    ]
    kept = [*map(name, records.columns)] + ([f"{text(table.place)} AS _origin", "_line"] if records.key else [])
    return (
        f"SELECT {', '.join(kept)} FROM (SELECT *, {', '.join(values)}"
        f" FROM (SELECT *, {normal} FROM (SELECT *, {stripped} FROM (SELECT {used}{line} FROM {scan}))))"
        f" WHERE {_is_record(columns, records, checked)}"
    )


def _constant(constants: Mapping[str, str], target: str) -> str:
    return text(constants[target]) if target in constants else "NULL::VARCHAR"


def _is_record(columns: Mapping[str, Column], records: Records, checked: Mapping[str, str]) -> str:
    contacts = [target for target in records.contacts if target in columns]
    usable = f"coalesce({', '.join(map(name, contacts))}) IS NOT NULL"
    every = f"coalesce({', '.join(column.source for column in columns.values())})"
    given = f"coalesce({', '.join(columns[target].source for target in contacts)})"
    reason = (
        f"CASE WHEN {every} IS NULL THEN 'nothing in a line' "
        f"WHEN {given} IS NULL THEN {text('no ' + ' or '.join(contacts))} "
    )
    if records.key:
        keyed = f"{name(records.key)} IS NOT NULL"
        reason += f"WHEN {usable} AND NOT {keyed} THEN {text('no ' + records.key)} "
        usable += f" AND {keyed}"
    looked_up = {columns[target].source: source for target, source in checked.items() if target in columns}
    if looked_up:
        reason += f"WHEN {usable} THEN {text(SUPPRESSED)} "
        known = (f"coalesce(suppressed_{source}({column}), false)" for column, source in looked_up.items())
        usable += f" AND NOT ({' OR '.join(known)})"
    reason += f"ELSE {text('unusable ' + ', '.join(contacts))} END"
    broken = "WHEN _covered IS NOT NULL THEN set_aside_lines(_covered::VARCHAR)"
    return f"CASE {broken} WHEN {usable} THEN true ELSE set_aside({reason}) END"
