"""DuckDB, kept within bounds: its memory, its threads, and what its errors say."""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING, Any, Final

from partnerenrich import PartnerEnrichError
from partnerenrich_server.cli import DEBUG_VARIABLE
from partnerenrich_server.failures import Failure

try:
    import duckdb
    import numpy as np  # noqa: F401  DuckDB needs it for functions written in Python
    from duckdb.func import SPECIAL
except ImportError:
    raise Failure("this command needs more: pip install 'partnerenrich-server[deliver]'") from None

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

NO_DIGEST: Final = "no digest"
"""What a query says of a plain value where a digest has to be."""
DAMAGED: Final = "cannot be read: it is damaged, or was cut off; fetch it or write it again"
"""What is said of such a file, after its name."""
THREADS: Final = 4
"""Most threads at work."""
MEGABYTES: Final = 400
"""Most memory for rows; what does not fit waits on the disk."""


class QueryError(PartnerEnrichError):
    """Rows cannot be read, sorted or written; never says what is in them."""


class Connection:
    """A database in memory. Open it with `connected`."""

    def __init__(self, connection: duckdb.DuckDBPyConnection) -> None:
        self._connection = connection
        self._inputs: dict[str, str] = {}

    def reads(self, path: Path, place: str) -> None:
        """Note what a file is called, so that an error can name it."""
        self._inputs[str(path)] = place

    def run(self, sql: str) -> list[tuple[Any, ...]]:
        """
        Run one statement to its end.

        Raises:
            QueryError: It fails.
        """
        with told(self._inputs):
            return self._connection.execute(sql).fetchall()

    def value(self, sql: str) -> Any:
        """The one value that a query gives."""
        return self.run(sql)[0][0]

    def stream(self, sql: str, size: int = 10_000) -> Iterator[tuple[Any, ...]]:
        """The rows of a query, so many in memory at once."""
        with told():
            cursor = self._connection.execute(sql)
            while rows := cursor.fetchmany(size):
                yield from rows

    def function(self, name: str, function: Callable[[Any], Any], returns: str) -> None:
        """Make a function of one text known, which may do more than give a value."""
        self._connection.create_function(name, function, ["VARCHAR"], returns, null_handling=SPECIAL, side_effects=True)

    def interrupt(self) -> None:
        """Let the running statement fail; may be asked by another thread."""
        self._connection.interrupt()

    @property
    def progress(self) -> float:
        """Per cent of the running statement that are done; may be asked by another thread."""
        return max(0.0, self._connection.query_progress())


@contextlib.contextmanager
def connected(scratch: Path) -> Iterator[Connection]:
    """
    Open a database for as long as the block lasts.

    Args:
        scratch: A folder for what does not fit into memory.
    """
    settings = {
        "threads": min(THREADS, len(os.sched_getaffinity(0))),
        "memory_limit": f"{MEGABYTES}MB",
        "temp_directory": str(scratch / "spilled"),
        "preserve_insertion_order": False,
        "autoinstall_known_extensions": False,
        "autoload_known_extensions": False,
    }
    with told():
        connection = duckdb.connect(config={name: str(value) for name, value in settings.items()})
        connection.execute("SET enable_progress_bar = true; SET enable_progress_bar_print = false")
    try:
        yield Connection(connection)
    finally:
        connection.close()


@contextlib.contextmanager
def told(inputs: Mapping[str, str] | None = None) -> Iterator[None]:
    """
    Tell what went wrong without the words of the database, for they may hold values.

    PARTNERENRICH_DEBUG shows them.

    Args:
        inputs: Path to what it is called, of the files that are read.
    """
    said = ""
    try:
        yield
    except duckdb.Error as error:
        said = _said(error, inputs or {})
    if said:
        raise QueryError(said)


def _said(error: duckdb.Error, inputs: Mapping[str, str]) -> str:
    words, is_io = str(error), isinstance(error, duckdb.IOException)
    if isinstance(error, duckdb.OutOfMemoryException):
        return "no room is left on the disk of the scratch folder" if "disk" in words.lower() else "out of memory"
    if is_io and "space" in words.lower():
        return "no room is left on the disk"
    if (is_io or isinstance(error, duckdb.InvalidInputException)) and (place := _damaged(words, inputs)):
        return f"{place}: {DAMAGED}"
    if is_io:
        return "a file cannot be read or written"
    if os.environ.get(DEBUG_VARIABLE):
        raise error
    if NO_DIGEST in words:
        return "a hashed column holds something that is no digest; nothing was staged"
    return f"the records cannot be made ({type(error).__name__})"


def _damaged(said: str, inputs: Mapping[str, str]) -> str | None:
    """What the file is called that an error is about; of gzip it may say no more than that."""
    named = [path for path in inputs if path in said]
    if not named and "gzip" in said:
        named = [path for path in inputs if path.lower().endswith(".gz")]
        return " or ".join(inputs[path] for path in named)
    return inputs[max(named, key=len)] if named else None
