"""``partnerenrich ship``: seal what has collected, hand batches to their partners, see them through."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import sys
from typing import TYPE_CHECKING, Any, Final

import click

from partnerenrich import ConfigError
from partnerenrich.budget import daily_budget
from partnerenrich.configuration import bind, located_in
from partnerenrich.errors import Problem
from partnerenrich.store import Store
from partnerenrich_server import options
from partnerenrich_server.delivery.ledger import LEASE_SECONDS, Ledger
from partnerenrich_server.delivery.scratch import scratch_folder
from partnerenrich_server.delivery.shipping import Shipper, open_destinations
from partnerenrich_server.delivery.telling import as_dict, line
from partnerenrich_server.engine import read_configuration, running_store
from partnerenrich_server.failures import Failure
from partnerenrich_server.signals import ended_by_signals

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence
    from pathlib import Path

    from partnerenrich.configuration import Configuration, Integration
    from partnerenrich.governor import DailyBudget
    from partnerenrich_server.delivery.entries import Entry
    from partnerenrich_server.delivery.shipping import Report

STORE_SECONDS: Final = 2.0
"""How long one round trip to the store may take: nobody waits for an event."""


@click.command()
@options.config
@click.option("--once", is_flag=True, help="End when every batch that is there is settled. Default: go on.")
@click.option("--flush", is_flag=True, help="With --once: seal what has collected, due or not.")
@click.option(
    "--lease",
    type=click.FloatRange(1, 3600),
    default=LEASE_SECONDS,
    show_default=True,
    metavar="SECONDS",
    help="After so long without a word from a worker, others go on with what it held.",
)
@options.as_json
@options.plugins_dir
def command(*, config: Path, once: bool, flush: bool, lease: float, as_json: bool, plugins_dir: Path | None) -> None:
    """
    Seal what has collected, hand batches to their partners, see them through.

    Any number of these may run on one ledger. SIGINT or SIGTERM lets the step
    that is under way finish; a second signal aborts, and the next run goes on
    from what was written down.

    With --once the exit code is 1 when a delivery failed, is uncertain or had
    to be left; "partnerenrich deliveries" tells more.
    """
    if flush and not once:
        raise click.UsageError("--flush goes with --once")
    configuration = read_configuration(config, plugins_dir=plugins_dir)
    sys.exit(asyncio.run(_ship(configuration, config, once=once, flush=flush, lease=lease, as_json=as_json)))


async def _ship(
    configuration: Configuration, config: Path, *, once: bool, flush: bool, lease: float, as_json: bool
) -> int:
    def tell(entry: Entry) -> None:
        click.echo(json.dumps(as_dict(entry)) if as_json else line(entry), err=once)

    def warn(problem: str) -> None:
        click.echo(f"Warning: {problem}", err=True)

    try:
        bound, plugins = bind(configuration)
    except ConfigError as error:
        raise located_in(config, error) from None
    for failure in plugins.failures.values():
        warn(f"{failure}; its integrations are left out")
    integrations = [each for each in itertools.chain(*bound.values()) if each.delivery]
    with scratch_folder() as local:
        async with (
            _daily_budgets(configuration, integrations) as budget_of,
            open_destinations(integrations, local, budget_of) as destinations,
            Ledger.open(configuration.ledger, lease_seconds=lease) as ledger,
        ):
            if not destinations:
                raise ConfigError([Problem("integrations", "none of them delivers: one needs deliver, with staging")])
            shipper = Shipper(ledger, destinations, tell=tell, warn=warn)

            def end(signal_name: str) -> None:
                click.echo(f"{signal_name}: finishing the step that is under way; again to abort", err=True)
                shipper.stop()

            with ended_by_signals(end):
                if not once:
                    await shipper.forever()
                    return 0
                report = await shipper.once(flush=flush)
    click.echo(json.dumps(_as_dict(report)) if as_json else _as_text(report))
    return 0 if report.ok and not plugins.failures else Failure.exit_code


@contextlib.asynccontextmanager
async def _daily_budgets(
    configuration: Configuration, integrations: Sequence[Integration]
) -> AsyncIterator[Callable[[Integration], DailyBudget | None]]:
    """The budgets that all processes share through the store, which is opened only where there is one to share."""
    if all(integration.limits.calls_per_day is None for integration in integrations):
        yield lambda _: None
        return
    with running_store(configuration) as running:
        store = Store(running.url, command_seconds=STORE_SECONDS)
        try:
            yield lambda integration: daily_budget(integration, store)
        finally:
            await store.close()


def _as_dict(report: Report) -> dict[str, Any]:
    return {
        "ok": report.ok,
        "sealed": list(report.sealed),
        "settled": [as_dict(entry) for entry in report.settled],
        "left": [{**as_dict(left.entry), "why": left.why} for left in report.left],
        "problems": list(report.problems),
    }


def _as_text(report: Report) -> str:
    lines = [line(entry) for entry in report.settled]
    lines += [f"{left.entry.org}/{left.entry.integration} {left.entry.id}: left: {left.why}" for left in report.left]
    lines += report.problems
    return "\n".join(lines) or "nothing to ship"
