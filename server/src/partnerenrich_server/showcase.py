"""What the demo shows in the terminal, act by act: one event before and after, and what became of all."""

from __future__ import annotations

import difflib
import itertools
import json
from typing import TYPE_CHECKING, Any

import msgspec
from rich.table import Table
from rich.text import Text

from partnerenrich import Outcome
from partnerenrich.configuration import load_mapping
from partnerenrich_server.engine import open_enricher
from partnerenrich_server.story import Cast, days

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from rich.console import Console

    from partnerenrich.configuration import Configuration
    from partnerenrich.enrichment import Enricher
    from partnerenrich.statistics import Statistics
    from partnerenrich_server.sandboxes import Served

Event = dict[str, Any]

DAYS = 5
BATCH = 8
BUDGET_MS = 5_000

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


async def show(console: Console, sandboxes: Sequence[Served], plugins_dir: Path | None) -> list[Event]:
    """
    Send sample events through, and show what became of them.

    Args:
        console: Where it is shown.
        sandboxes: The partners.
        plugins_dir: Folder of one-file plugins.

    Returns:
        The enriched events, in the order of the story.
    """
    titles = ", ".join(served.partner.facts.title for served in sandboxes)
    console.print(f"Imitated on this machine: {titles}. Nothing leaves it.\n")
    story = days(Cast.of(served.sample for served in sandboxes))
    events = [event for day in itertools.islice(story, DAYS) for event in day]
    async with open_enricher(_configuration(sandboxes, plugins_dir)) as enricher:
        enriched = [event for batch in _batches(events) for event in await _enriched(enricher, batch)]
        _show_change(console, events, enriched)
        _show_outcomes(console, enricher.statistics)
    return enriched


def knows_somebody(enriched: Iterable[Event]) -> bool:
    """Whether any partner knew anybody."""
    return any(_gain(event) for event in enriched)


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


def _gain(event: Event) -> int:
    """How much an event was given: attributes are worth more to look at than ids."""
    return 2 * ("partner_attrs" in event["context"]) + ("vendor_ids" in event["context"])


def _show_change(console: Console, before: Sequence[Event], after: Sequence[Event]) -> None:
    if not knows_somebody(after):
        console.print("No event was enriched: the sandboxes did not know their own samples.")
        return
    richest = max(range(len(after)), key=lambda index: _gain(after[index]))
    console.print(Text("One event, and what the partners added to it (+):\n", "bold"))
    was, now = (json.dumps(events[richest], indent=2, ensure_ascii=False).splitlines() for events in (before, after))
    for line in difflib.ndiff(was, now):
        if not line.startswith("?"):
            console.print(Text(line, "green" if line.startswith("+") else "dim"))


def _show_outcomes(console: Console, statistics: Statistics) -> None:
    numbers = statistics.as_dict()
    table = Table(title="\nWhat became of all events", title_style="bold", title_justify="left", box=None)
    for heading in ("partner", "outcome", "events", ""):
        table.add_column(heading, justify="right" if heading == "events" else "left")
    for label, partner in numbers["partners"].items():
        for outcome, count in sorted(partner["outcomes"].items(), key=lambda pair: -pair[1]):
            table.add_row(label, outcome, f"{count:,}", MEANINGS[Outcome(outcome)])
    console.print(table)
    calls = sum(partner["calls"] for partner in numbers["partners"].values())
    console.print(Text(f"\n{numbers['events']:,} events made {calls:,} partner calls.", "bold"))
