"""``partnerenrich check``: ask every partner whether its settings work."""

from __future__ import annotations

import asyncio
import json
import sys
from typing import TYPE_CHECKING

import attrs
import click

from partnerenrich.enrichment import CheckResult
from partnerenrich_server import options
from partnerenrich_server.engine import open_enricher, read_configuration
from partnerenrich_server.failures import Failure

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from partnerenrich import PluginError
    from partnerenrich.configuration import Configuration


@click.command()
@options.config
@options.plugins_dir
@options.as_json
def command(*, config: Path, plugins_dir: Path | None, as_json: bool) -> None:
    """
    Ask every partner whether its settings work.

    Exit code 0 when all do, 1 when some do not. The memory is left alone.
    """
    configuration = read_configuration(config, store="embedded:", plugins_dir=plugins_dir)
    sys.exit(asyncio.run(_check(configuration, config, as_json=as_json)))


async def _check(configuration: Configuration, config: Path, *, as_json: bool) -> int:
    async with open_enricher(configuration, config) as enricher:
        results = await enricher.check() + _not_loaded(configuration, enricher.plugins.failures)
    if as_json:
        click.echo(json.dumps([attrs.asdict(result) for result in results]))
    else:
        for result in results:
            click.echo(f"{'ok    ' if result.ok else 'FAILED'}  {result.org}/{result.integration}: {result.message}")
    return 0 if all(result.ok for result in results) else Failure.exit_code


def _not_loaded(configuration: Configuration, failures: Mapping[str, PluginError]) -> list[CheckResult]:
    """What is to be said of the integrations whose partner is not there to be asked."""
    return [
        CheckResult(slug, each.name, ok=False, message=str(failures[each.provider]))
        for slug, org in configuration.organisations().items()
        for each in org.integrations
        if each.enabled and each.provider in failures
    ]
