"""``partnerenrich demo``: enrichment at work, with nothing but what is installed."""

from __future__ import annotations

import asyncio
import difflib
import itertools
import json
import sys
from typing import TYPE_CHECKING, Any

import click
import msgspec
from rich.console import Console
from rich.table import Table
from rich.text import Text

from partnerenrich import Outcome
from partnerenrich.configuration import load_mapping
from partnerenrich_server import options
from partnerenrich_server.catalog import NO_SANDBOX, installed
from partnerenrich_server.commands.sandbox import settings_text
from partnerenrich_server.engine import open_enricher
from partnerenrich_server.failures import Failure, Misuse
from partnerenrich_server.sandboxes import Served, serve
from partnerenrich_server.signals import ended_by_signals
from partnerenrich_server.story import Cast, days

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from partnerenrich.configuration import Configuration
    from partnerenrich.enrichment import Enricher
    from partnerenrich.plugins import BoundPartner

Event = dict[str, Any]

DAYS = 5
BATCH = 8
BUDGET_MS = 5_000
SECONDS_BETWEEN_EVENTS = 0.4

MEANINGS = {
    Outcome.FRESH: "the partner was asked and knows the visitor",
    Outcome.HIT: "known from memory: no call",
    Outcome.STALE: "an older memory, since the partner failed",
    Outcome.ABSENT: "the partner does not know the visitor, and that is remembered",
    Outcome.OPTED_OUT: "the visitor has opted out",
    Outcome.DENIED: "no consent: no call",
    Outcome.LIMITED: "held back by a limit: no call",
    Outcome.LATE: "the partner was too slow, so the event went on without",
    Outcome.ERROR: "the partner failed, so the event went on without",
    Outcome.SKIPPED: "the event does not say who the visitor is",
}


@click.command()
@click.option("--once", is_flag=True, help="End when all is shown, instead of going on until Ctrl-C.")
@click.option("--port", type=click.IntRange(0, 65535), default=0, help="Of the sandboxes. Default: a free one.")
@options.plugins_dir
def command(*, once: bool, port: int, plugins_dir: Path | None) -> None:
    """
    Show enrichment at work.

    Starts the sandboxes of the installed partners and a private store, sends
    sample events through, and shows what became of them. No partner is reached.
    """
    partners = [partner for partner in installed(plugins_dir).with_sandbox if _resolves(partner)]
    if not partners:
        raise Misuse(NO_SANDBOX)
    with serve(partners, port) as sandboxes:
        sys.exit(asyncio.run(_demo(list(sandboxes.values()), plugins_dir, once=once)))


def _resolves(partner: BoundPartner) -> bool:
    return partner.resolves


async def _demo(sandboxes: Sequence[Served], plugins_dir: Path | None, *, once: bool) -> int:
    console = Console(highlight=False)
    titles = ", ".join(served.partner.facts.title for served in sandboxes)
    console.print(f"Imitated on this machine: {titles}. Nothing leaves it.\n")
    story = days(Cast.of(served.sample for served in sandboxes))
    events = [event for day in itertools.islice(story, DAYS) for event in day]
    async with open_enricher(_configuration(sandboxes, plugins_dir)) as enricher:
        enriched = [event for batch in _batches(events) for event in await _enriched(enricher, batch)]
        changed = next((index for index, event in enumerate(enriched) if "partner_attrs" in event["context"]), None)
        if changed is None:
            console.print("No event was enriched: the sandboxes did not know their own samples.")
        else:
            _show_change(console, events[changed], enriched[changed])
        _show_outcomes(console, enricher)
        if not once:
            await _go_on(console, enricher, story, sandboxes)
    return 0 if changed is not None else Failure.exit_code


def _configuration(sandboxes: Sequence[Served], plugins_dir: Path | None) -> Configuration:
    integrations = [
        {"provider": served.partner.key, "settings": dict(served.settings), "consent": ["marketing"]}
        for served in sandboxes
    ]
    raw = {"org": "demo", "budget_ms": BUDGET_MS, "integrations": integrations}
    return load_mapping(raw | ({"plugins_dir": str(plugins_dir)} if plugins_dir else {}), environment={})


def _batches(events: Sequence[Event]) -> Iterable[Sequence[Event]]:
    return (events[start : start + BATCH] for start in range(0, len(events), BATCH))


async def _enriched(enricher: Enricher, batch: Sequence[Event]) -> list[Event]:
    events = [enricher.parse(msgspec.json.encode(event)) for event in batch]
    await enricher.process(events)
    return [msgspec.json.decode(event.encode()) for event in events]


def _show_change(console: Console, before: Event, after: Event) -> None:
    console.print(Text("One event, and what the partners added to it (+):\n", "bold"))
    was, now = (json.dumps(event, indent=2, ensure_ascii=False).splitlines() for event in (before, after))
    for line in difflib.ndiff(was, now):
        if not line.startswith("?"):
            console.print(Text(line, "green" if line.startswith("+") else "dim"))


def _show_outcomes(console: Console, enricher: Enricher) -> None:
    numbers = enricher.statistics.as_dict()
    table = Table(title="\nWhat became of all events", title_style="bold", title_justify="left", box=None)
    for heading in ("partner", "outcome", "events", ""):
        table.add_column(heading, justify="right" if heading == "events" else "left")
    for label, partner in numbers["partners"].items():
        for outcome, count in sorted(partner["outcomes"].items(), key=lambda pair: -pair[1]):
            table.add_row(label, outcome, f"{count:,}", MEANINGS[Outcome(outcome)])
    console.print(table)
    calls = sum(partner["calls"] for partner in numbers["partners"].values())
    console.print(Text(f"\n{numbers['events']:,} events made {calls:,} partner calls.", "bold"))


async def _go_on(
    console: Console, enricher: Enricher, story: Iterable[list[Event]], sandboxes: Sequence[Served]
) -> None:
    """Serve the sandboxes, and stream a few events a second, until a signal comes."""
    console.print("\nThe sandboxes stay until Ctrl-C. An integration of your own works with these settings:\n")
    console.print(Text(settings_text(sandboxes)), soft_wrap=True)
    console.print()
    ended = asyncio.Event()
    with ended_by_signals(lambda _: ended.set()):
        for event in itertools.chain.from_iterable(story):
            (enriched,) = await _enriched(enricher, [event])
            outcomes = {key: result["outcome"] for key, result in enriched["context"]["enrichment"].items()}
            told = ", ".join(f"{key} {outcome}" for key, outcome in outcomes.items())
            console.print(f"{event['anonymousId'][:8]}  {event.get('event', event['type']):<16}  {told}")
            try:
                await asyncio.wait_for(ended.wait(), SECONDS_BETWEEN_EVENTS)
            except TimeoutError:
                continue
            return
