"""``partnerenrich demo``: enrichment at work, with nothing but what is installed."""

from __future__ import annotations

import asyncio
import sys
import time
from typing import TYPE_CHECKING

import click
from rich.console import Console
from rich.panel import Panel
from rich.text import Text

from partnerenrich_server import options
from partnerenrich_server.catalog import NO_SANDBOX, installed
from partnerenrich_server.commands.sandbox import settings_text
from partnerenrich_server.failures import Failure, Misuse
from partnerenrich_server.sandboxes import Served, serve
from partnerenrich_server.showcase import knows_somebody, show
from partnerenrich_server.showcase_delivery import show_deliveries
from partnerenrich_server.signals import ended_by_signals

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from partnerenrich.plugins import BoundPartner
    from partnerenrich_server.demo_shop.feed import Told
    from partnerenrich_server.showcase import Event


@click.command()
@click.option("--once", is_flag=True, help="End when all is shown, instead of serving the page until Ctrl-C.")
@click.option("--port", type=click.IntRange(0, 65535), default=0, help="Of the page. Default: a free one.")
@options.plugins_dir
def command(*, once: bool, port: int, plugins_dir: Path | None) -> None:
    """
    Show enrichment at work, in the terminal and on the page of a shop.

    Starts the sandboxes of the installed partners and a private store, sends
    sample events through, and shows what became of them. Then serves a page that
    uses the identity hub and datafly.js. No partner is reached.
    """
    partners = [partner for partner in installed(plugins_dir).with_sandbox if partner.resolves or _delivers(partner)]
    if not any(partner.resolves for partner in partners):
        raise Misuse(NO_SANDBOX)
    with serve(partners) as sandboxes:
        sys.exit(asyncio.run(_demo(list(sandboxes.values()), plugins_dir, None if once else port)))


def _delivers(partner: BoundPartner) -> bool:
    return partner.supports("deliver_batch")


async def _demo(served: Sequence[Served], plugins_dir: Path | None, port: int | None) -> int:
    console = Console(highlight=False)
    sandboxes = [each for each in served if each.partner.resolves]
    enriched = await show(console, sandboxes, plugins_dir)
    if destinations := [each for each in served if _delivers(each.partner)]:
        await show_deliveries(console, destinations, enriched, plugins_dir)
    if port is not None:
        await _serve_page(console, sandboxes, enriched, plugins_dir, port)
    return 0 if knows_somebody(enriched) else Failure.exit_code


async def _serve_page(
    console: Console, sandboxes: Sequence[Served], enriched: Sequence[Event], plugins_dir: Path | None, port: int
) -> None:
    """Serve the page, and tell of each event that comes from it, until a signal comes."""
    from partnerenrich_server.demo_shop.serving import open_shop  # noqa: PLC0415  the hub is not needed with --once

    def tell(told: Told) -> None:
        outcomes = ", ".join(f"{provider} {reply['outcome']}" for provider, reply in told.partners.items())
        console.print(Text(f"{time.strftime('%H:%M:%S', time.localtime(told.at))}  {told.name:<16}  {outcomes}"))

    ended = asyncio.Event()
    async with open_shop(sandboxes, enriched, port=port, plugins_dir=plugins_dir, listener=tell) as url:
        console.print("\nAn integration of your own works with these settings, until Ctrl-C:\n")
        console.print(Text(settings_text(sandboxes)), soft_wrap=True)
        console.print()
        console.print(Panel.fit(f"Open [bold]{url}[/bold]\na shop that uses all of this", padding=(1, 4)))
        console.print("\nEvents of the page:\n")
        with ended_by_signals(lambda _: ended.set()):
            await ended.wait()
