"""``partnerenrich run``: events from a file or a stream in, enriched events out."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import stat
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import attrs
import click

from partnerenrich import ConfigError, PartnerEnrichError
from partnerenrich.blueprint import Blueprint
from partnerenrich.events import Event
from partnerenrich_server import options
from partnerenrich_server.engine import check_owner, collector_of, open_enricher, read_configuration
from partnerenrich_server.failures import Failure
from partnerenrich_server.files import File, keep_apart
from partnerenrich_server.pipeline import pump
from partnerenrich_server.progress import progress
from partnerenrich_server.signals import ended_by_signals
from partnerenrich_server.sink import Output, Sink, payloads
from partnerenrich_server.source import Source
from partnerenrich_server.summary import Summary, as_text

if TYPE_CHECKING:
    from collections.abc import Callable

    from partnerenrich.configuration import Configuration
    from partnerenrich_server.delivery.collector import Collector
    from partnerenrich_server.pipeline import Batch

BUDGET_MS = 30_000.0
"""For how long an event may be held back when the configuration does not say: nobody waits for a file."""

_BLUEPRINT = click.Path(path_type=Path, dir_okay=False, exists=True)


@attrs.frozen(kw_only=True)
class Files:
    """
    What is read and written.

    Attributes:
        config: The configuration.
        input: NDJSON.
        output: Enriched NDJSON, or payloads.
        blueprint: Makes payloads of events.
        rejects: For the lines that are no events.
        summary: For the summary.
    """

    config: File
    input: File
    output: File
    blueprint: File | None
    rejects: File | None
    summary: File | None


@click.command()
@options.config
@click.option("--input", "input_", type=options.READ, default="-", help="NDJSON, plain, gzip or zstd. Default: stdin.")
@click.option("--output", type=options.WRITTEN, default="-", help="NDJSON, in the order of the input. Default: stdout.")
@click.option("--blueprint", type=_BLUEPRINT, help="YAML: write the payloads that it makes of the events.")
@click.option("--rejects", type=options.WRITTEN, help="NDJSON of line and reason. Default: the first few, on stderr.")
@click.option("--summary-json", type=options.WRITTEN, help="Write the summary to this file, too.")
@click.option("--json", "as_json", is_flag=True, help="Print the summary as one line of JSON.")
@options.org
@options.store
@options.plugins_dir
def command(
    *,
    config: Path,
    input_: Path,
    output: Path,
    blueprint: Path | None,
    rejects: Path | None,
    summary_json: Path | None,
    as_json: bool,
    org: str | None,
    store: str | None,
    plugins_dir: Path | None,
) -> None:
    """
    Enrich events from a file or a stream.

    Records for destinations of batches collect on the way; they are durable
    before a run reports success.

    The summary goes to stderr. SIGINT or SIGTERM ends the input: what was read
    is finished and written; a second signal aborts. The exit code is then 0 for
    a stream, which has no other end, and 1 for a file that was not read to its
    end.
    """
    files = Files(
        config=File("--config", config, "r"),
        input=File("--input", input_, "r"),
        output=File("--output", output, "w"),
        blueprint=File("--blueprint", blueprint, "r") if blueprint else None,
        rejects=File("--rejects", rejects, "w") if rejects else None,
        summary=File("--summary-json", summary_json, "w") if summary_json else None,
    )
    keep_apart(filter(None, attrs.astuple(files, recurse=False)))
    configuration = read_configuration(config, store=store, plugins_dir=plugins_dir, org=org)
    check_owner(configuration, org)
    if configuration.budget_ms is None:
        configuration = attrs.evolve(configuration, budget_ms=BUDGET_MS)
    sys.exit(asyncio.run(_run(configuration, files, org, as_json=as_json)))


async def _run(configuration: Configuration, files: Files, org: str | None, *, as_json: bool) -> int:
    render: Callable[[Event], bytes | None] = Event.encode
    if files.blueprint:
        regions = {slug: settings.default_region for slug, settings in configuration.organisations().items()}
        render = payloads(_read_blueprint(files.blueprint.path), regions)
    summary = Summary()
    failure: Exception | None = None
    async with open_enricher(configuration, files.config.path) as enricher:
        collector = collector_of(enricher)
        with contextlib.ExitStack() as stack:  # files are opened when all else is known to be right
            descriptor = stack.enter_context(files.input.open()).fileno()
            source = stack.enter_context(contextlib.closing(Source(descriptor)))
            output = _written(files.output, stack)
            rejects = _written(files.rejects, stack) if files.rejects else None
            summary_file = _written(files.summary, stack) if files.summary else None
            sink = Sink(output, rejects, render, summary)
            origin = _origin(files.input.path, descriptor)
            display = stack.enter_context(contextlib.ExitStack())

            def end(signal_name: str) -> None:
                display.close()
                click.echo(f"{signal_name}: finishing what was read; again to abort", err=True)
                summary.stopped_by = signal_name
                source.stop()

            try:
                with ended_by_signals(end):
                    display.enter_context(progress(source, summary, enricher.statistics))
                    async with collector.open() if collector else contextlib.nullcontext():
                        write = _collecting(sink, collector, origin)
                        await pump(source, enricher, write, batching=configuration.batch, org=org)
            except BrokenPipeError:
                return Failure.exit_code  # nobody reads the output any more, so there is nothing to say
            except (PartnerEnrichError, OSError) as error:
                failure = error
            display.close()
            if not source.stopped:
                summary.stopped_by = None
            told = summary.as_dict(enricher.statistics.as_dict()["partners"])
            if collector:
                told["collected"] = collector.collected
            click.echo(json.dumps(told) if as_json else as_text(told, kept=files.rejects), err=True)
            if summary_file:
                try:
                    summary_file.write([json.dumps(told, indent=2).encode()])
                except OSError as error:
                    failure = failure or error
            if failure:
                raise failure
            return Failure.exit_code if source.stopped and source.size is not None else 0


def _read_blueprint(path: Path) -> Blueprint:
    """
    Read a blueprint.

    Raises:
        ConfigError: As `Blueprint.from_file`, and each problem names the file: the configuration has fields, too.
    """
    name = str(path)
    try:
        return Blueprint.from_file(path)
    except ConfigError as error:
        whole = {"", name}  # not a field
        problems = [
            attrs.evolve(each, where=name if each.where in whole else f"{name}: {each.where}")
            for each in error.problems
        ]
        raise ConfigError(problems) from None


def _written(file: File, stack: contextlib.ExitStack) -> Output:
    return Output(stack.enter_context(file.open()), str(file))


def _collecting(sink: Sink, collector: Collector | None, origin: str | None) -> Callable[[Batch], None]:
    """Write a batch and, when it is written, gather its records."""
    if collector is None:
        return sink.write

    def write(batch: Batch) -> None:
        sink.write(batch)
        collector.add(batch.events, origin, batch.lines)

    return write


def _origin(path: Path, descriptor: int) -> str | None:
    """The name of an input under which its lines are known again; None for a stream, which does not come again."""
    status = os.fstat(descriptor)
    return f"{path.resolve()}@{status.st_mtime_ns}" if stat.S_ISREG(status.st_mode) else None
