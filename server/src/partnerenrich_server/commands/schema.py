"""``partnerenrich schema``: the JSON Schema of the configuration, for editors and forms."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import click

from partnerenrich.schema import config_schema
from partnerenrich_server import options
from partnerenrich_server.catalog import installed

if TYPE_CHECKING:
    from pathlib import Path


@click.command()
@options.plugins_dir
def command(*, plugins_dir: Path | None) -> None:
    """
    Print the JSON Schema of the configuration, with the settings of each installed partner.

    Saved as partnerenrich.schema.json, it lets an editor complete and check a
    configuration that begins with:

    # yaml-language-server: $schema=partnerenrich.schema.json
    """
    catalog = installed(plugins_dir)
    for error in catalog.failures.values():
        click.echo(f"Warning: {error}", err=True)
    click.echo(json.dumps(config_schema(catalog.partners.values()), indent=2))
