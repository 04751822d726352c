"""``partnerenrich hub``: what pages may read of their visitor, and where their events come in."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from partnerenrich_server import options
from partnerenrich_server.embedded import SCHEME
from partnerenrich_server.engine import read_configuration
from partnerenrich_server.hub import logs, serving

if TYPE_CHECKING:
    from pathlib import Path


@click.command()
@options.config
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--port", type=click.IntRange(0, 65_535), default=8083, show_default=True, help="0 takes a free one.")
@click.option(
    "--log-level", type=click.Choice(logs.LEVELS), default="info", show_default=True, help="For stderr, JSON."
)
@options.store
@options.plugins_dir
def command(*, config: Path, host: str, port: int, log_level: str, store: str | None, plugins_dir: Path | None) -> None:
    """
    Serve the identity hub to browsers and backends.

    Put a proxy that speaks TLS before it. SIGTERM or SIGINT ends it: requests
    under way are answered and accepted events are enriched, and written where
    there is a stream; a second signal aborts.
    """
    configuration = read_configuration(config, store=store, plugins_dir=plugins_dir)
    if configuration.store in {None, SCHEME}:
        click.echo("Warning: the store is private to this process and gone with it: for trying out only", err=True)
    logs.configure(log_level)
    with serving.listen(host, port) as listener:
        address = f"[{host}]" if ":" in host else host
        origin = f"http://{address}:{listener.getsockname()[1]}"
        serving.run(configuration, listener, config, lambda: click.echo(f"the hub serves {origin}"))
