"""``partnerenrich explain``: every decision that is made for one event."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

import click

from partnerenrich.events import EventError
from partnerenrich_server import options
from partnerenrich_server.engine import open_enricher, read_configuration
from partnerenrich_server.failures import Misuse

if TYPE_CHECKING:
    from pathlib import Path
    from typing import BinaryIO

    from partnerenrich.configuration import Configuration


@click.command()
@options.config
@click.argument("event", type=click.File("rb"))
@options.org
@options.store
@options.plugins_dir
def command(*, config: Path, event: BinaryIO, org: str | None, store: str | None, plugins_dir: Path | None) -> None:
    """
    Tell every decision made for one EVENT, a file of JSON or - for stdin.

    Nothing personal is in the answer. Partners are called and the memory is
    used as for any event.
    """
    configuration = read_configuration(config, store=store, plugins_dir=plugins_dir, org=org)
    told = asyncio.run(_explain(configuration, config, event.read(), org))
    click.echo(json.dumps(told, indent=2))


async def _explain(configuration: Configuration, config: Path, line: bytes, org: str | None) -> dict[str, Any]:
    async with open_enricher(configuration, config) as enricher:
        try:
            event = enricher.parse(line.strip(), org=org)
        except EventError as error:
            raise Misuse(f"the event {error}") from None
        return await enricher.explain(event)
