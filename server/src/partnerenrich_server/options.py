"""Command line options that several commands share."""

from __future__ import annotations

from pathlib import Path

import click

STREAM = Path("-")
"""A standard stream, where a file could be named."""
READ = click.Path(path_type=Path, dir_okay=False, exists=True, allow_dash=True)
WRITTEN = click.Path(path_type=Path, dir_okay=False, allow_dash=True)

config = click.option(
    "--config",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    required=True,
    help="The configuration, YAML.",
)
store = click.option(
    "--store",
    metavar="URL",
    help="Memory to use instead of the configuration's: redis://, rediss://, unix://, redis+cluster://, embedded:PATH"
    " or embedded: (private to this process; the default).",
)
plugins_dir = click.option(
    "--plugins-dir",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    help="Folder of one-file partners.",
)
org = click.option(
    "--org", metavar="SLUG", help="Organisation of the events; by default the only one, or what org_from finds."
)
as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
