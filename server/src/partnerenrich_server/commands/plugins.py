"""``partnerenrich plugins``: what is installed, what each supports, what failed to load and why."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import attrs
import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from partnerenrich_server import options
from partnerenrich_server.catalog import Catalog, installed

if TYPE_CHECKING:
    from pathlib import Path


@click.command()
@options.as_json
@options.plugins_dir
def command(*, as_json: bool, plugins_dir: Path | None) -> None:
    """List the installed partners and extensions, what each supports, and what does not load."""
    catalog = installed(plugins_dir)
    if as_json:
        click.echo(json.dumps(_plain(catalog), indent=2))
    else:
        _show(catalog)


def _plain(catalog: Catalog) -> dict[str, Any]:
    return {
        "partners": {
            key: {
                "origin": partner.origin,
                "title": partner.facts.title,
                "category": partner.facts.category,
                "supports": list(partner.hooks),
                "linking_keys": [attrs.asdict(linking_key) for linking_key in partner.facts.linking_keys],
                "docs": partner.facts.docs,
            }
            for key, partner in catalog.partners.items()
        },
        "extensions": {key: {"origin": origin} for key, origin in catalog.extensions.items()},
        "failures": {key: str(error) for key, error in catalog.failures.items()},
    }


def _show(catalog: Catalog) -> None:
    console = Console(soft_wrap=True)
    if catalog == Catalog({}, {}, {}):
        console.print("No plugin is installed. Each partner is a package of its own.")
    if catalog.partners:
        table = Table("partner", "title", "supports", "linking keys", "from", box=None, pad_edge=False)
        for key, partner in catalog.partners.items():
            linking_keys = ", ".join(linking_key.source for linking_key in partner.facts.linking_keys)
            cells = (key, partner.facts.title, ", ".join(partner.hooks), linking_keys, partner.origin)
            table.add_row(*map(Text, cells))
        console.print(table)
    for key, origin in catalog.extensions.items():
        console.print(Text(f"{key}: an extension, from {origin}"))
    for error in catalog.failures.values():
        console.print(Text(f"FAILED  {error}"))
