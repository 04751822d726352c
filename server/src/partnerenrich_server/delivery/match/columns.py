"""
One column of a file: plain lines, CSV, NDJSON or Parquet, plain or compressed.

What a file is shows in its first bytes. Values are read as they are asked for, so the size of the file does not matter.
"""

from __future__ import annotations

import codecs
import csv
import glob
import io
import re
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from itertools import islice
from typing import TYPE_CHECKING, Any, Final, Literal, TypeVar

import msgspec

from partnerenrich import ConfigError, recipes
from partnerenrich.errors import Problem
from partnerenrich_server.delivery.match import written
from partnerenrich_server.source import Content, InputError, Source

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable
    from pathlib import Path

    from _typeshed import WriteableBuffer

    from partnerenrich_server.delivery.match.normalising import Kind

T = TypeVar("T")
Sort = Literal["email", "phone", "digest"]
ANY: Final[tuple[Sort, ...]] = ("email", "phone", "digest")
DIGESTS: Final[tuple[Sort, ...]] = ("digest",)
SWAP: Final = "if they are plain values and the digests are in the other file, swap the two"
Watch = Callable[[float], None]
"""Is told which share of a file was read, from 0 to 1."""

_HEAD: Final = 1000
_TOLD_EVERY: Final = 5000
_LONGEST_LINE: Final = 1 << 20
_DELIMITERS: Final = ",;\t|"
_PARQUET: Final = b"PAR1"


def _ignore(_: float) -> None:
    pass


class Table(ABC):
    """
    A file with columns.

    Args:
        head: The first values of each column, by its name.
    """

    def __init__(self, head: Mapping[str, list[str]]) -> None:
        self._head = head

    @property
    def names(self) -> list[str]:
        """The columns. Where the file has no names for them, their numbers from 1."""
        return list(self._head)

    def head(self, name: str) -> list[str]:
        """Those of the first thousand values of a column that are not blank."""
        return [value for value in self._head[name] if value.strip()]

    @abstractmethod
    def values(self, name: str, watch: Watch = _ignore) -> Iterator[str]:
        """
        Every value of a column in its order, untouched. What is missing is an empty text.

        Raises:
            InputError: The file is damaged.
        """


def open_table(path: Path) -> Table:
    """
    Find out what a file is, and which columns it has.

    Args:
        path: A regular file; it is read more than once.

    Raises:
        ConfigError: It is a pipe, or empty, or a Parquet file that needs another package to be read.
        InputError: It is damaged, or no text.
    """
    if not path.is_file():
        raise ConfigError([Problem(str(path), "must be a file, which can be read more than once, not a pipe")])
    with path.open("rb") as file:
        if file.read(len(_PARQUET)) == _PARQUET:
            return _Parquet(path)
    with _lines(path) as (lines, _):
        first = next((line for line in lines if line.strip()), "")
    if not first:
        raise ConfigError([Problem(str(path), "is empty")])
    return _Objects(path) if first.lstrip().startswith("{") else _Cells(path, _delimiter(first))


class _Cells(Table):
    """
    CSV, or lines that are one value each.

    Args:
        path: The file.
        delimiter: Between cells; None where a line is one value.
    """

    def __init__(self, path: Path, delimiter: str | None) -> None:
        self._path = path
        self._delimiter = delimiter
        with _lines(path) as (lines, _):
            rows = list(islice(self._rows(lines), _HEAD + 1))
        self._has_header = not any(map(_is_data, rows[0]))
        names = [cell.strip() for cell in rows[0]] if self._has_header else [str(n + 1) for n in range(len(rows[0]))]
        self._index = {name: index for index, name in reversed(list(enumerate(names)))}
        super().__init__({name: [_cell(row, self._index[name]) for row in rows[self._has_header :]] for name in names})

    def values(self, name: str, watch: Watch = _ignore) -> Iterator[str]:
        index = self._index[name]
        with _lines(self._path) as (lines, share):
            for row in _told(islice(self._rows(lines), self._has_header, None), watch, share):
                yield _cell(row, index)

    def _rows(self, lines: Iterable[str]) -> Iterator[list[str]]:
        if self._delimiter is None:
            yield from ([line.rstrip("\r\n")] for line in lines if line.strip())
            return
        try:
            yield from filter(None, csv.reader(lines, delimiter=self._delimiter))
        except csv.Error as error:  # its texts are fixed ones
            raise InputError(f"{self._path}: cannot be read as CSV: {error}") from None


class _Objects(Table):
    """NDJSON. A column is the path of a member, such as ``traits.email``."""

    def __init__(self, path: Path) -> None:
        self._path = path
        with _lines(path) as (lines, _):
            rows = list(islice(self._rows(lines), _HEAD))
        names = dict.fromkeys(name for row in rows for name in row)
        super().__init__({name: [row.get(name, "") for row in rows] for name in names})

    def values(self, name: str, watch: Watch = _ignore) -> Iterator[str]:
        with _lines(self._path) as (lines, share):
            for row in _told(self._rows(lines), watch, share):
                yield row.get(name, "")

    def _rows(self, lines: Iterable[str]) -> Iterator[dict[str, str]]:
        decode = msgspec.json.Decoder(dict[str, Any]).decode
        for number, line in enumerate(lines, 1):
            try:
                if line.strip():
                    yield dict(_members(decode(line)))
            except (msgspec.DecodeError, UnicodeEncodeError):
                raise InputError(f"{self._path}: line {number} is no JSON object") from None


class _Parquet(Table):
    """Parquet. Digests may be kept as bytes in it."""

    def __init__(self, path: Path) -> None:
        self._path = path
        with self._queried("*", f"LIMIT {_HEAD}") as rows:
            head = list(zip(*map(_texts_of, rows.fetchall())))
            names = [column[0] for column in rows.description]
        super().__init__({name: list(head[index]) if head else [] for index, name in enumerate(names)})

    def values(self, name: str, watch: Watch = _ignore) -> Iterator[str]:
        with self._queried("count(*)") as counted:
            [(size,)] = counted.fetchall()
        quoted = name.replace('"', '""')
        with self._queried(f'"{quoted}"') as rows:
            for number, [value] in enumerate(iter(rows.fetchone, None)):
                if number % _TOLD_EVERY == 0:
                    watch(number / size)
                yield _text_of(value)

    @contextmanager
    def _queried(self, columns: str, limit: str = "") -> Iterator[Any]:
        try:
            import duckdb  # noqa: PLC0415  heavy, and needed for Parquet alone
        except ImportError:
            missing = "is Parquet, which needs more: pip install 'partnerenrich-server[deliver]'"
            raise ConfigError([Problem(str(self._path), missing)]) from None
        query = f"SELECT {columns} FROM read_parquet(?) {limit}"  # noqa: S608  a name is quoted, and of the file itself
        try:
            with duckdb.connect(config={"memory_limit": "200MB", "threads": "2", "temp_directory": ""}) as connection:
                yield connection.execute(query, [glob.escape(str(self._path))])
        except duckdb.Error:
            raise InputError(f"{self._path}: is Parquet, and damaged or cut") from None


def _texts_of(row: Iterable[Any]) -> list[str]:
    return list(map(_text_of, row))


def _text_of(value: Any) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, bytes):
        return value.hex() if len(value) in written.SIZES else value.decode(errors="surrogateescape")
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else ""


def _cell(row: list[str], index: int) -> str:
    return row[index] if index < len(row) else ""


def _members(value: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, str]]:
    for key, member in value.items():
        if isinstance(member, dict):
            yield from _members(member, f"{path}{key}.")
        else:
            yield f"{path}{key}", _text_of(member)


def _told(rows: Iterator[T], watch: Watch, share: Callable[[], float]) -> Iterator[T]:
    for number, row in enumerate(rows):
        if number % _TOLD_EVERY == 0:
            watch(share())
        yield row


def _delimiter(line: str) -> str | None:
    unquoted = Counter(re.sub(r'"[^"]*"', "", line))
    if any(unquoted[delimiter] for delimiter in _DELIMITERS):
        return max(_DELIMITERS, key=lambda delimiter: unquoted[delimiter])
    return "," if line.startswith('"') else None


# Text


@contextmanager
def _lines(path: Path) -> Iterator[tuple[Iterator[str], Callable[[], float]]]:
    """The lines of a file with their ends, and a function that tells which share of it was read."""
    with _Decompressed(path) as raw, io.BufferedReader(raw) as content:
        utf_16 = content.peek(2)[:2] in {codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE}
        # What is no UTF-8 in some other column must not end the reading; where it is in ours, `doctor` counts it.
        text = io.TextIOWrapper(content, "utf-16" if utf_16 else "utf-8-sig", errors="surrogateescape", newline="")
        yield _bounded(text, path), raw.share


def _bounded(text: io.TextIOWrapper, path: Path) -> Iterator[str]:
    while line := text.readline(_LONGEST_LINE):
        if len(line) == _LONGEST_LINE:
            raise InputError(f"{path}: has a line of over a million characters, so it is no table")
        yield line


class _Decompressed(io.RawIOBase):
    """The content of a file, read as `run` reads its input."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = path.open("rb", buffering=0)
        self._source = Source(self._file.fileno())
        self._content = Content(self._source)
        self._rest = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: WriteableBuffer) -> int:
        if not self._rest:
            self._rest = memoryview(self._more())
        view = memoryview(buffer).cast("B")
        size = min(len(view), len(self._rest))
        view[:size], self._rest = self._rest[:size], self._rest[size:]
        return size

    def _more(self) -> bytes:
        try:
            return self._content.read(None) or b""
        except InputError as error:
            raise InputError(f"{self._path}: {error}") from None

    def share(self) -> float:
        return self._source.position / (self._source.size or 1)

    def close(self) -> None:
        if not self.closed:
            self._source.close()
            self._file.close()
        super().close()


# Choosing


def sort_of(values: Collection[str]) -> Sort | None:
    """What most of these values are."""
    sorts = Counter(_sort(value.strip()) for value in values)
    return next((sort for sort, count in sorts.items() if 2 * count > len(values)), None)


def said_by(name: str) -> set[Sort]:
    """What the name of a column says that it holds."""
    return {sort for sort, words in _WORDS.items() if words.search(name)}


def kind_in(table: Table, name: str) -> Kind | None:
    """What the identifiers in a column are, by their look or else by the name of the column."""
    told = {sort_of(table.head(name))} & {"email", "phone"} or said_by(name)
    return "email" if "email" in told else "phone" if "phone" in told else None


def find(table: Table, option: str, name: str | None, sorts: Collection[Sort], kind: Kind | None) -> str:
    """
    The column that holds what is looked for.

    Args:
        table: The file.
        option: Of the command line, by which the column can be named.
        name: What it named: a column, or the number of one from 1.
        sorts: What may be in the column. Plain values are preferred to digests.
        kind: What the identifiers are, where that is known.

    Raises:
        ConfigError: There is no such column, or it is not clear which.
    """
    if name is None:
        return _choose(table, option, sorts, kind)
    if name in table.names:
        return name
    if name.isdecimal() and 0 < int(name) <= len(table.names):
        return table.names[int(name) - 1]
    raise ConfigError([Problem(option, f"there is no column {name!r}")])


def _choose(table: Table, option: str, sorts: Collection[Sort], kind: Kind | None) -> str:
    found = {name: sort for name in table.names if (sort := sort_of(table.head(name))) in sorts}
    if not found:
        wanted = " or ".join(_NOUNS[sort] for sort in sorts)
        raise ConfigError([Problem(option, f"no column holds {wanted}{'' if len(sorts) > 1 else f'; {SWAP}'}")])
    for preferred in (
        [name for name, sort in found.items() if kind in {sort, *said_by(name)}],
        [name for name, sort in found.items() if sort != "phone" or sort in said_by(name)],  # any number looks like one
        [name for name, sort in found.items() if sort != "digest"],
        [name for name, sort in found.items() if sort in said_by(name)],
    ):
        found = {name: found[name] for name in preferred if name in found} or found
    if len(found) > 1:
        labels = ", ".join(_label(table, name) for name in found)
        raise ConfigError([Problem(option, f"say which column is meant: {labels}; --kind may settle it, too")])
    return next(iter(found))


_NOUNS: Final[Mapping[Sort, str]] = {"email": "e-mails", "phone": "phones", "digest": "digests"}
_WORDS: Final[Mapping[Sort, re.Pattern[str]]] = {
    "email": re.compile(r"(?i)mail|(^|_)hem($|_)"),
    "phone": re.compile(r"(?i)phone|mobile|msisdn|(^|_)tel($|_)"),
    "digest": re.compile(r"(?i)sha|md5|hash|digest"),
}

_looks_dialled = re.compile(r"(?=(?:\D*\d){7,15}\D*$)\+?[\d\s().\-/]+").fullmatch
_looks_named = re.compile(r"[A-Za-z_$][\w.$ -]{0,60}").fullmatch
_looks_numeric = re.compile(r"[\d.,+-]+").fullmatch


def _sort(text: str) -> Sort | None:
    if written.read(text):
        return "digest"
    if recipes.normalise_email(text):
        return "email"
    return "phone" if _looks_dialled(text) else None


def _is_data(cell: str) -> bool:
    """Whether a cell cannot be the name of a column."""
    text = cell.strip()
    return "@" in text or _sort(text) is not None or _looks_numeric(text) is not None


def _label(table: Table, name: str) -> str:
    """
    What to call a column.

    Where a file has no header, what is taken for a name may be a value. So a name is shown only when it says what the
    column holds; else the number is.
    """
    return repr(name) if said_by(name) and _looks_named(name) else str(table.names.index(name) + 1)
