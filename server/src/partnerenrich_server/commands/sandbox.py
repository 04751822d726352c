"""``partnerenrich sandbox``: serve local imitations of the partners."""

from __future__ import annotations

import json
import signal
from typing import TYPE_CHECKING, Any

import click
import yaml

from partnerenrich_server import options
from partnerenrich_server.catalog import NO_SANDBOX, Catalog, installed
from partnerenrich_server.failures import Misuse
from partnerenrich_server.sandboxes import Served, serve

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from partnerenrich.plugins import BoundPartner


@click.command()
@click.argument("providers", metavar="[PROVIDER]...", nargs=-1)
@click.option("--port", type=click.IntRange(0, 65535), default=0, help="On 127.0.0.1. Default: a free one.")
@options.as_json
@options.plugins_dir
def command(*, providers: tuple[str, ...], port: int, as_json: bool, plugins_dir: Path | None) -> None:
    """
    Serve local imitations of the partners, by default of all that have one, until Ctrl-C.

    Prints settings that work with them. POST {"mode": "server_error", "times": 3}
    to <base_url>/_faults makes an imitation fail; GET tells the modes.
    """
    partners = _chosen(installed(plugins_dir), providers)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
    with serve(partners, port) as sandboxes:
        if as_json:
            click.echo(json.dumps({key: _plain(served) for key, served in sandboxes.items()}))
        else:
            click.echo(settings_text(sandboxes.values()))
            click.echo("# Serving. Ctrl-C ends it.", err=True)
        try:
            signal.pause()
        except KeyboardInterrupt:
            return


def settings_text(sandboxes: Iterable[Served]) -> str:
    """The integrations as YAML, ready to be pasted into a configuration."""
    blocks = [{"provider": served.partner.key, "settings": dict(served.settings)} for served in sandboxes]
    text: str = yaml.safe_dump({"integrations": blocks}, sort_keys=False, allow_unicode=True)
    return text.rstrip()


def _plain(served: Served) -> Mapping[str, Any]:
    sample = {"known": [], "unknown": [], "opted_out": [], **served.sample}
    return {"base_url": served.base_url, "settings": dict(served.settings), "sample": sample}


def _chosen(catalog: Catalog, providers: tuple[str, ...]) -> list[BoundPartner]:
    able = {partner.key: partner for partner in catalog.with_sandbox}
    for provider in providers:
        if provider in catalog.failures:
            raise catalog.failures[provider]
        if provider not in able:
            raise Misuse(f"no sandbox {provider!r}; there are: {', '.join(able) or 'none'}")
    if not able:
        raise Misuse(NO_SANDBOX)
    return [able[provider] for provider in providers or able]
