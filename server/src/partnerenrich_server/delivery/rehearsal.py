"""What a delivery of files would be: counts and forms, without a value."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Final

import attrs

from partnerenrich_server.delivery.hashing import name
from partnerenrich_server.delivery.tables import unreadable

if TYPE_CHECKING:
    from partnerenrich_server.delivery.query import Connection
    from partnerenrich_server.delivery.records import Digest, Records
    from partnerenrich_server.delivery.rejects import Rejects

_SHOWN: Final = 3


@attrs.frozen
class Rehearsal:
    """
    What a query over files gives.

    Attributes:
        records: How many.
        filled: Column to how many of them have a value in it.
        forms: The first few, each as column to the form of its value.
    """

    records: int
    filled: Mapping[str, int]
    forms: Sequence[Mapping[str, str]]


def rehearse(connection: Connection, query: str, records: Records, rejects: Rejects) -> Rehearsal:
    """
    Run a query of `tables.rows`, once for all records and once more for the first few.

    Raises:
        QueryError: It fails.
    """
    columns = ", ".join(map(name, records.columns))
    counts = ", ".join(f"count({name(column)})" for column in records.columns)
    total, *filled = connection.run(f"SELECT count(*), {counts} FROM ({query})")[0]
    unreadable(connection, rejects)
    rejects.close()
    shown = connection.run(f"SELECT {columns} FROM ({query}) LIMIT {_SHOWN}")
    forms = [{column: _form(v, records.hashed.get(column)) for column, v in zip(records.columns, row)} for row in shown]
    return Rehearsal(total, dict(zip(records.columns, filled)), forms)


def _form(value: str | None, digest: Digest | None) -> str:
    if value is None:
        return "empty"
    return f"digest of {digest.length}" if digest else f"text of {len(value)}"
