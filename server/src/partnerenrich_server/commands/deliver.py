"""``partnerenrich deliver``: records of files, staged and sealed for one destination."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs
import click
from rich.console import Console
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table as Grid

from partnerenrich import ConfigError
from partnerenrich.configuration import BatchDelivery, Integration, bind, located_in
from partnerenrich.suppression import SuppressionList
from partnerenrich_server import options
from partnerenrich_server.delivery.query import Connection, connected
from partnerenrich_server.delivery.records import Records
from partnerenrich_server.delivery.rehearsal import rehearse
from partnerenrich_server.delivery.rejects import Rejects, TooManyRejected
from partnerenrich_server.delivery.scratch import scratch_folder
from partnerenrich_server.delivery.stage import Stage
from partnerenrich_server.delivery.tables import find, opened, rows
from partnerenrich_server.engine import read_configuration, read_suppression_list
from partnerenrich_server.failures import Failure, Misuse
from partnerenrich_server.streams import drop_unwritten

if TYPE_CHECKING:
    from collections.abc import Iterator

    from partnerenrich.configuration import Configuration


@click.command()
@options.config
@click.option("--integration", "name", required=True, metavar="NAME", help="The destination.")
@click.option(
    "--column",
    "columns",
    multiple=True,
    metavar="SOURCE=TARGET",
    help="A column of the files, and the one of the records that it feeds; where its name does not tell. Repeatable.",
)
@click.option("--dry-run", is_flag=True, help="Stage nothing: count, say what would be set aside, show the form.")
@options.as_json
@click.option("--org", metavar="SLUG", help="Organisation of the destination; by default the only one.")
@options.store
@options.plugins_dir
@click.argument("inputs", nargs=-1, required=True, metavar="INPUT...")
def command(
    *,
    config: Path,
    name: str,
    columns: tuple[str, ...],
    dry_run: bool,
    as_json: bool,
    org: str | None,
    store: str | None,
    plugins_dir: Path | None,
    inputs: tuple[str, ...],
) -> None:
    """
    Stage records of files for one destination, as one sealed batch.

    An INPUT is a path or the URL of an object (s3://, az://, gs://), with
    wildcards if need be: .csv, .tsv, .ndjson, .jsonl, each also as .gz or .zst,
    or .parquet. Identifiers are normalised and hashed as the blueprint says;
    digests are recognised, and not hashed again. Who is on the suppression list
    is left out.

    What is sealed is submitted by "partnerenrich ship".
    """
    configuration = read_configuration(config, store=store, plugins_dir=plugins_dir, org=org)
    integration = _destination(configuration, config, org, name)
    assert integration.delivery is not None
    chosen = {**integration.delivery.settings.columns, **dict(map(_chosen, columns))}
    with scratch_folder() as scratch:
        suppressed = asyncio.run(read_suppression_list(configuration, integration.org))
        work = _Work(integration, integration.delivery, inputs, chosen, suppressed or None, scratch)
        told = work.rehearsed() if dry_run else asyncio.run(work.sealed())
    _tell(told["batch_id"], json.dumps(told) if as_json else "\n".join(_lines(told)))
    sys.exit(Failure.exit_code if told.get("refused") else 0)


def _destination(configuration: Configuration, config: Path, org: str | None, name: str) -> Integration:
    try:
        bound, plugins = bind(configuration)
    except ConfigError as error:
        raise located_in(config, error) from None
    if org is None and len(bound) > 1:
        raise Misuse(f"--org says which organisation is meant: {', '.join(sorted(bound))}")
    slug = org or next(iter(bound))
    for integration in bound[slug]:
        if integration.name == name:
            if integration.delivery is None:
                raise Misuse(f"{name} does not deliver: its integration has no deliver section")
            return integration
    for written in configuration.organisations()[slug].integrations:
        if written.name == name and written.enabled:
            plugins.partner(written.provider)
    delivering = ", ".join(each.name for each in bound[slug] if each.delivery) or "none"
    raise Misuse(f"--integration {name}: no such integration in {slug}; those that deliver: {delivering}")


def _chosen(written: str) -> tuple[str, str]:
    source, separator, target = written.rpartition("=")
    if not (separator and source and target):
        raise Misuse("--column wants SOURCE=TARGET, such as --column Mail=email")
    return source, target


@attrs.frozen
class _Work:
    integration: Integration
    delivery: BatchDelivery
    inputs: Sequence[str]
    chosen: Mapping[str, str]
    suppressed: SuppressionList | None
    scratch: Path

    async def sealed(self) -> dict[str, Any]:
        """Stage and seal."""
        started = time.monotonic()
        stage = Stage.open(self.integration, self.delivery.settings, local=self.scratch)
        files = await asyncio.to_thread(self._find)
        running: list[Connection] = []
        rejects = Rejects()

        def source(connection: Connection, counts: Rejects) -> str:
            nonlocal rejects
            rejects = counts
            running[:] = [connection]
            return self._query(connection, files, counts)[0]

        with _progress(running):
            try:
                manifest = await stage.seal(source, [place for place, _ in files])
            except asyncio.CancelledError:
                for connection in running:
                    connection.interrupt()
                raise
        seconds = time.monotonic() - started
        return self._told(rejects, files) | {
            "batch_id": manifest.batch_id,
            "records": manifest.rows,
            "files": len(manifest.files),
            "bytes": sum(file.bytes for file in manifest.files),
            "seconds": round(seconds, 3),
            "records_per_second": round(manifest.rows / seconds, 1),
        }

    def rehearsed(self) -> dict[str, Any]:
        """Do all but stage."""
        files = self._find()
        rejects, running = Rejects(), list[Connection]()
        with connected(self.scratch) as connection, _progress(running):
            running.append(connection)
            query, columns = self._query(connection, files, rejects)
            found = rehearse(connection, query, Records.of(self.integration), rejects)
        refused = None
        try:
            rejects.check(found.records, self.delivery.settings.max_rejected)
        except TooManyRejected as error:
            refused = str(error)
        return self._told(rejects, files) | {
            "records": found.records,
            "refused": refused,
            "columns": columns,
            "filled": found.filled,
            "preview": found.forms,
        }

    def _find(self) -> list[tuple[str, Path]]:
        return find(self.inputs, self.delivery.settings.options, self.scratch)

    def _query(
        self, connection: Connection, files: Sequence[tuple[str, Path]], rejects: Rejects
    ) -> tuple[str, list[dict[str, str]]]:
        tables = [opened(connection, place, file) for place, file in files]
        records = Records.of(self.integration)
        is_suppressed = self.suppressed.contains if self.suppressed else None
        return rows(connection, tables, self.delivery, records, self.chosen, rejects, is_suppressed)

    def _told(self, rejects: Rejects, files: Sequence[tuple[str, Path]]) -> dict[str, Any]:
        return {
            "org": self.integration.org,
            "integration": self.integration.name,
            "inputs": [place for place, _ in files],
            "batch_id": None,
            "rejected": dict(rejects.records),
            "unusable": dict(rejects.cells),
        }


@contextlib.contextmanager
def _progress(running: Sequence[Connection]) -> Iterator[None]:
    """One living line on stderr, when that is a terminal."""
    if not sys.stderr.isatty():
        yield
        return

    def line() -> Grid:
        done = running[0].progress if running else 0.0
        row = Grid.grid(padding=(0, 2))
        row.add_row(ProgressBar(total=100, completed=done, width=30), f"{done:.0f} %")
        return row

    with Live(get_renderable=line, console=Console(stderr=True), refresh_per_second=4, transient=True):
        yield


def _tell(batch_id: str | None, report: str) -> None:
    """Print the report. What is sealed is sealed: a failure now would have it sealed again."""
    try:
        click.echo(report)
    except OSError as error:
        if batch_id is None:
            raise
        drop_unwritten()
        with contextlib.suppress(OSError):
            click.echo(f"Warning: batch {batch_id} is sealed; its report cannot be written: {error.strerror}", err=True)


def _lines(told: Mapping[str, Any]) -> Iterator[str]:
    of_what = " in the batch, those of files included:" if told["batch_id"] else ", of files:"
    yield f"{told['records']:,} records for {told['integration']}{of_what} {', '.join(told['inputs'])}"
    yield f"set aside: {sum(told['rejected'].values()):,}"
    yield from (f"  {reason}: {count:,}" for reason, count in told["rejected"].items())
    for column, count in told["unusable"].items():
        yield f"values of {column} that cannot be used: {count:,}"
    if told["batch_id"]:
        yield f"sealed: batch {told['batch_id']}, {told['files']:,} files, {told['bytes']:,} bytes"
        yield f"{told['seconds']:.1f} s, {told['records_per_second']:,.0f} records/s"
        yield "submit it: partnerenrich ship --once, unless a partnerenrich ship is running"
        return
    for place, columns in zip(told["inputs"], told["columns"]):
        yield f"{place}: " + ", ".join(f"{source} is {target}" for target, source in columns.items())
    yield "filled: " + ", ".join(f"{column} {count:,}" for column, count in told["filled"].items())
    for row in told["preview"]:
        yield "  " + ", ".join(f"{column} ({form})" for column, form in row.items())
    yield f"nothing was staged; it would be refused: {told['refused']}" if told["refused"] else "nothing was staged"
