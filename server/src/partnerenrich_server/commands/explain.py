"""``partnerenrich explain``: every decision that is made for one event."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

import click

from partnerenrich.events import Event, EventError
from partnerenrich_server import options
from partnerenrich_server.engine import check_owner, open_enricher, read_configuration
from partnerenrich_server.failures import Misuse
from partnerenrich_server.source import BYTE_ORDER_MARK
from partnerenrich_server.streams import standard_input, standard_output

if TYPE_CHECKING:
    from pathlib import Path

    from partnerenrich.configuration import Configuration


@click.command()
@options.config
@click.argument("event", type=options.READ)
@options.org
@options.store
@options.plugins_dir
def command(*, config: Path, event: Path, org: str | None, store: str | None, plugins_dir: Path | None) -> None:
    """
    Tell every decision made for one EVENT, a file of JSON or - for stdin.

    Nothing personal is in the answer. Partners are called and the memory is
    used as for any event.
    """
    standard_output()
    line = standard_input().buffer.read() if event == options.STREAM else event.read_bytes()
    configuration = read_configuration(config, store=store, plugins_dir=plugins_dir, org=org)
    check_owner(configuration, org)
    told = asyncio.run(_explain(configuration, config, line.removeprefix(BYTE_ORDER_MARK), org))
    click.echo(json.dumps(told, indent=2))


async def _explain(configuration: Configuration, config: Path, line: bytes, org: str | None) -> dict[str, Any]:
    async with open_enricher(configuration, config) as enricher:
        try:
            Event.parse(line, "")
        except EventError as error:
            raise Misuse(f"the event {error}") from None
        try:
            event = enricher.parse(line, org=org)
        except EventError as error:
            known = ", ".join(sorted(configuration.organisations()))
            raise Misuse(
                f"the event {error} ({known}): org_from looks at {configuration.org_from} in it; "
                "mend that, or name one by --org"
            ) from None
        return await enricher.explain(event)
