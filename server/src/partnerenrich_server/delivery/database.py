"""The tables of the ledger, made and checked by itself, in SQLite or PostgreSQL."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

from partnerenrich import ConfigError, PartnerEnrichError
from partnerenrich.errors import Problem
from partnerenrich_server.failures import Failure

try:
    import sqlalchemy as sa
    from sqlalchemy import JSON, Boolean, Column, Float, Integer, MetaData, Table, Text
    from sqlalchemy.exc import ArgumentError, SQLAlchemyError
except ImportError:
    raise Failure("the ledger needs more: pip install 'partnerenrich-server[deliver]'") from None

if TYPE_CHECKING:
    from sqlalchemy.engine import URL

SCHEMA_VERSION = 2
BUSY_SECONDS = 10.0
"""For how long a write waits for another one to end."""

_CREATION_LOCK = 0x7061_7274_6E65_7265  # any number, as long as nobody else in the database takes it

metadata = MetaData()

about = Table(
    "partnerenrich_ledger",
    metadata,
    Column("version", Integer, nullable=False),
)

deliveries = Table(
    "partnerenrich_deliveries",
    metadata,
    Column("id", Text, primary_key=True),
    Column("org", Text, nullable=False),
    Column("integration", Text, nullable=False),
    Column("provider", Text, nullable=False),
    Column("mode", Text, nullable=False),
    Column("replaces", Boolean, nullable=False),
    Column("state", Text, nullable=False),
    Column("rows", Integer, nullable=False),
    Column("bytes", sa.BigInteger, nullable=False),
    Column("files", Integer, nullable=False),
    Column("rejected", JSON, nullable=False),
    Column("progress", JSON, nullable=False),
    Column("receipt", JSON, nullable=False),
    Column("recheck", Boolean, nullable=False),
    Column("mark", Text),
    Column("calls", Integer, nullable=False),
    Column("polls", Integer, nullable=False),
    Column("failures", Integer, nullable=False),
    Column("error", Text),
    Column("next_attempt", Float, nullable=False),
    Column("deadline", Float),
    Column("owner", Text),
    Column("lease_until", Float, nullable=False),
    Column("superseded_by", Text),
    Column("turn", Integer, nullable=False),
    Column("created", Float, nullable=False),
    Column("updated", Float, nullable=False),
    Column("files_deleted", Float),
    sa.Index("partnerenrich_deliveries_by_place", "org", "integration", "state"),
)

transitions = Table(
    "partnerenrich_transitions",
    metadata,
    Column("number", Integer, primary_key=True, autoincrement=True),
    Column("delivery", Text, nullable=False, index=True),
    Column("at", Float, nullable=False),
    Column("state", Text, nullable=False),
    Column("why", Text, nullable=False),
    Column("owner", Text),
)

leases = Table(
    "partnerenrich_leases",
    metadata,
    Column("name", Text, primary_key=True),
    Column("owner", Text, nullable=False),
    Column("until", Float, nullable=False),
)

pauses = Table(
    "partnerenrich_pauses",
    metadata,
    Column("org", Text, primary_key=True),
    Column("integration", Text, primary_key=True),
    Column("until", Float, nullable=False),
    Column("why", Text, nullable=False),
)


class LedgerError(PartnerEnrichError):
    """The ledger cannot be read or written. What it held is as it was."""


class LeaseLost(LedgerError):
    """Somebody else has taken over: whoever gets this stops at once."""


def connect(url: str, *, create: bool) -> sa.Engine:
    """
    Open the database and see that its tables are those of this version.

    Args:
        url: ``sqlite:///FILE`` or ``postgresql://...``.
        create: Whether to make what is missing.

    Raises:
        ConfigError: The URL is none, or names another kind of database.
        LedgerError: The database does not open, or is of another version.
    """
    parsed = _parsed(url)
    engine = _sqlite(parsed, create=create) if parsed.get_backend_name() == "sqlite" else _postgresql(parsed)
    try:
        with engine.begin() as connection:
            if create:
                _create(connection)
            _check_version(connection)
    except (SQLAlchemyError, LedgerError) as error:
        engine.dispose()
        problem = explained(error) if isinstance(error, SQLAlchemyError) else str(error)
        raise LedgerError(problem) from None
    return engine


def explained(error: SQLAlchemyError) -> str:
    """An error of the database in one line, without any value that was to be written."""
    cause = getattr(error, "orig", None)
    told = type(error).__name__
    if isinstance(error, sa.exc.OperationalError) and cause is not None:
        told = str(cause).strip().partition("\n")[0]
    return f"the ledger cannot be used: {told}"


def _parsed(url: str) -> URL:
    try:
        parsed = sa.make_url(url)
    except ArgumentError:
        parsed = None
    if parsed is None or parsed.get_backend_name() not in {"sqlite", "postgresql"}:
        raise ConfigError([Problem("ledger", "must be sqlite:///FILE or postgresql://USER:PASSWORD@HOST/DATABASE")])
    return parsed


def _sqlite(url: URL, *, create: bool) -> sa.Engine:
    """
    An engine that opens the file anew for every transaction, and never makes it.

    So a file that was taken away is an error, and not an empty ledger or one that nobody else sees.
    """
    if not url.database or url.database == ":memory:":
        raise ConfigError([Problem("ledger", "must name a file: sqlite:///FILE")])
    path = Path(url.database).absolute()
    if not path.exists():
        if not create:
            raise LedgerError(f"there is no ledger at {path}; partnerenrich ship makes it")
        try:
            path.touch(mode=0o600)
        except OSError as error:
            raise LedgerError(f"the ledger {path} cannot be made: {error.strerror}") from None

    def opened() -> sqlite3.Connection:
        connection = sqlite3.connect(
            f"file:{quote(str(path))}?mode=rw", uri=True, timeout=BUSY_SECONDS, check_same_thread=False
        )
        connection.execute("PRAGMA synchronous = FULL")  # what is committed survives a power cut
        return connection

    engine = sa.create_engine("sqlite://", creator=opened, poolclass=sa.NullPool, hide_parameters=True)
    if create:
        try:
            with engine.connect() as connection:
                connection.exec_driver_sql("PRAGMA journal_mode = WAL")
        except SQLAlchemyError as error:
            raise LedgerError(explained(error)) from None
    return engine


def _postgresql(url: URL) -> sa.Engine:
    try:
        return sa.create_engine(
            url.set(drivername="postgresql+psycopg"), pool_pre_ping=True, pool_size=2, hide_parameters=True
        )
    except ModuleNotFoundError:
        raise LedgerError("a ledger in PostgreSQL needs psycopg: pip install 'partnerenrich-server[deliver]'") from None


def _create(connection: sa.Connection) -> None:
    """Make the tables, one process at a time."""
    if connection.dialect.name == "sqlite":
        connection.exec_driver_sql("BEGIN IMMEDIATE")
    else:
        connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_CREATION_LOCK)))
    if not sa.inspect(connection).has_table(about.name):
        metadata.create_all(connection)
        connection.execute(about.insert().values(version=SCHEMA_VERSION))


def _check_version(connection: sa.Connection) -> None:
    if not sa.inspect(connection).has_table(about.name):
        raise LedgerError("there is no ledger in this database yet; partnerenrich ship makes it")
    version = connection.execute(sa.select(about.c.version)).scalar_one()
    if version != SCHEMA_VERSION:
        raise LedgerError(
            f"the ledger has tables of version {version}, this program knows version {SCHEMA_VERSION}; use the "
            "partnerenrich that made it, or a newer one"
        )
