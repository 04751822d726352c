"""Files of the vault as tables, read row by row."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import zip_longest
from pathlib import Path

import attrs

from partnerenrich import recipes

Row = Sequence[str | None]

_is_digest = re.compile("[0-9A-Fa-f]{64}").fullmatch


class Unreadable(Exception):
    """Files of one recordset do not go together, or cannot be read."""


@attrs.frozen
class Reading:
    """
    How files are read.

    Attributes:
        file_type: ``AUTO``, ``CSV`` or ``PARQUET``.
        delimiter: Of CSV.
        header: Whether the first row of a CSV file names the columns.
        header_names: The columns, where no row does.
    """

    file_type: str = "AUTO"
    delimiter: str = ","
    header: bool = True
    header_names: tuple[str, ...] = ()

    def is_parquet(self, name: str) -> bool:
        """AUTO goes by the extension; anything that is not Parquet is CSV."""
        return self.file_type == "PARQUET" or (self.file_type == "AUTO" and name.endswith(".parquet"))


@attrs.frozen
class Table:
    """
    The files of one recordset.

    Attributes:
        files: Name and place of each.
        reading: How they are read.
        columns: Names, in order.
    """

    files: tuple[tuple[str, Path], ...]
    reading: Reading
    columns: tuple[str, ...]

    @classmethod
    def of(cls, files: Sequence[tuple[str, Path]], reading: Reading) -> Table:
        """
        Look at the head of each file.

        Raises:
            Unreadable: They differ in type or columns.
        """
        if len({reading.is_parquet(name) for name, _ in files}) > 1:
            raise Unreadable("the files are of two types")
        heads = [_head(path, reading, is_parquet=reading.is_parquet(name)) for name, path in files]
        if any(head != heads[0] for head in heads):
            raise Unreadable("the files differ in their columns")
        return cls(tuple(files), reading, heads[0])

    def rows(self) -> Iterator[Row | None]:
        """Every row; None for one that cannot be read."""
        for name, path in self.files:
            if self.reading.is_parquet(name):
                yield from _parquet_rows(path)
            else:
                yield from self._csv_rows(path)

    def _csv_rows(self, path: Path) -> Iterator[Row | None]:
        with path.open(encoding="utf-8", errors="surrogateescape", newline="") as file:
            reader = csv.reader(file, delimiter=self.reading.delimiter, strict=True)
            if self.reading.header:
                next(reader, None)
            while True:
                try:
                    row = next(reader)
                except StopIteration:
                    return
                except csv.Error:
                    yield None
                    continue
                if row:
                    yield row if len(row) == len(self.columns) and all(map(_is_text, row)) else None


def _is_text(cell: str) -> bool:
    """Whether the bytes were UTF-8."""
    return cell.isascii() or not any("\udc80" <= letter <= "\udcff" for letter in cell)


def _head(path: Path, reading: Reading, *, is_parquet: bool) -> tuple[str, ...]:
    if is_parquet:
        from pyarrow import ArrowException, parquet  # noqa: PLC0415  wanted for Parquet alone

        try:
            return tuple(parquet.read_schema(path).names)
        except (ArrowException, OSError):
            raise Unreadable("a file is no Parquet") from None
    if not reading.header:
        return reading.header_names
    with path.open(encoding="utf-8-sig", errors="replace", newline="") as file:
        try:
            return tuple(next(csv.reader(file, delimiter=reading.delimiter, strict=True), ()))
        except csv.Error:
            raise Unreadable("a file has no header row") from None


def _parquet_rows(path: Path) -> Iterator[Row]:
    from pyarrow import parquet  # noqa: PLC0415  see above

    with parquet.ParquetFile(path) as file:
        for batch in file.iter_batches():
            columns = [[None if cell is None else str(cell) for cell in column.to_pylist()] for column in batch.columns]
            yield from zip_longest(*columns)


@attrs.define
class Cells:
    """What became of the cells of one column."""

    value: int = 0
    null: int = 0
    invalid: int = 0

    def told(self) -> dict[str, str]:
        """As the API tells it: 64-bit integers are texts."""
        return {
            "cell_count": str(self.value + self.invalid),
            "value_count": str(self.value),
            "null_count": str(self.null),
            "invalid_count": str(self.invalid),
        }


@attrs.frozen
class Input:
    """
    One column that a normalization wants.

    Attributes:
        input_column: Its name.
        kind: ``email``, ``phone``, ``custom_key`` or ``category``.
        required: Whether it has to be there.
    """

    input_column: str
    kind: str
    required: bool = True

    @property
    def is_key(self) -> bool:
        """Whether people are matched by it."""
        return self.kind != "category"

    def accepts(self, cell: str) -> bool:
        """Hashed values are looked at for their length alone."""
        if self.kind == "email":
            return _is_digest(cell) is not None or recipes.normalise_email(cell) is not None
        if self.kind == "phone":
            return _is_digest(cell) is not None or recipes.normalise_phone(cell, None) is not None
        return True


@attrs.frozen
class Normalized:
    """
    What a normalization made.

    Attributes:
        kept: Rows with at least one key that can be used.
        faulty: Rows with a value that cannot be used.
        cells: Column to what became of its cells.
    """

    kept: int
    faulty: int
    cells: Mapping[str, Cells]


def normalize(table: Table, inputs: Sequence[Input]) -> Normalized:
    """Look at every cell."""
    places = [(table.columns.index(wanted.input_column), wanted, Cells()) for wanted in inputs]
    kept = faulty = 0
    for row in table.rows():
        if row is not None:
            has_key, has_fault = _judged(row, places)
            kept += has_key
            faulty += has_fault
    return Normalized(kept, faulty, {wanted.input_column: cells for _, wanted, cells in places})


def _judged(row: Row, places: Sequence[tuple[int, Input, Cells]]) -> tuple[bool, bool]:
    has_key = has_fault = False
    for index, wanted, cells in places:
        cell = row[index]
        if cell is None or not cell.strip():
            cells.null += 1
        elif wanted.accepts(cell):
            cells.value += 1
            has_key = has_key or wanted.is_key
        else:
            cells.invalid += 1
            has_fault = True
    return has_key, has_fault


def counted(table: Table) -> tuple[int, int]:
    """Rows, and those of them that cannot be read."""
    total = malformed = 0
    for row in table.rows():
        total += 1
        malformed += row is None
    return total, malformed
