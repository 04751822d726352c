"""The last act of the demo: the visitors of the events are delivered to every destination that is imitated."""

from __future__ import annotations

import itertools
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import msgspec
from rich.text import Text

from partnerenrich.configuration import bind, load_mapping
from partnerenrich.events import Event
from partnerenrich_server.failures import Failure

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import Console

    from partnerenrich_server.delivery.entries import Entry
    from partnerenrich_server.sandboxes import Served

ORG = "demo"


async def show_deliveries(
    console: Console, sandboxes: Sequence[Served], enriched: Sequence[dict[str, Any]], plugins_dir: Path | None
) -> None:
    """
    Stage the people of some events, ship them, and tell what was published.

    Args:
        console: Where it is shown.
        sandboxes: The destinations. Each says at ``GET /_sandbox/connector`` where it reads staged files.
        enriched: The events.
        plugins_dir: Folder of one-file plugins.
    """
    try:
        from partnerenrich_server.delivery.collector import Collector  # noqa: PLC0415  heavy, and an extra
        from partnerenrich_server.delivery.ledger import Ledger  # noqa: PLC0415
        from partnerenrich_server.delivery.pace import Pace  # noqa: PLC0415
        from partnerenrich_server.delivery.shipping import Shipper, open_destinations  # noqa: PLC0415
    except Failure as missing:
        console.print(f"\nNothing is delivered: {missing.message}", markup=False)
        return
    with tempfile.TemporaryDirectory(prefix="partnerenrich-demo-") as scratch:
        raw: dict[str, Any] = {"org": ORG, "ledger": f"sqlite:///{scratch}/ledger.db"}
        raw["integrations"] = [_integration(served) for served in sandboxes]
        configuration = load_mapping(raw | ({"plugins_dir": str(plugins_dir)} if plugins_dir else {}), environment={})
        integrations, _ = bind(configuration)
        collector = Collector(integrations[ORG])
        async with collector.open():
            await collector.collect([Event.parse(msgspec.json.encode(event), ORG) for event in enriched])
        async with (
            open_destinations(itertools.chain(*integrations.values()), Path(scratch)) as destinations,
            Ledger.open(configuration.ledger) as ledger,
        ):
            shipper = Shipper(ledger, destinations, pace=Pace(first_poll=0.2, longest_poll=0.5))
            report = await shipper.once(flush=True)
    console.print(Text("\nDelivered to those who take batches\n", "bold"))
    titles = {served.partner.key: served.partner.facts.title for served in sandboxes}
    for entry in report.settled:
        console.print(_told(entry, titles[entry.integration], len(enriched)))
    for problem in report.problems:
        console.print(problem)


def _integration(served: Served) -> dict[str, Any]:
    connector = httpx.get(f"{served.settings['base_url']}/_sandbox/connector").raise_for_status().json()
    return {
        "provider": served.partner.key,
        "settings": dict(served.settings),
        "consent": ["marketing"],
        "deliver": {"staging": connector["url"]},
    }


def _told(entry: Entry, title: str, events: int) -> str:
    accepted = (entry.receipt or {}).get("accepted")
    told = f"{title}: {entry.rows:,} people of {events:,} events, hashed, staged and sealed as one batch: {entry.state}"
    return told if accepted is None else f"{told}, {accepted:,} records"
