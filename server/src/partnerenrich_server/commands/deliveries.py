"""``partnerenrich deliveries``: what became of each batch, and what a person decides about it."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any, TypeVar

import click

from partnerenrich_server import options
from partnerenrich_server.delivery.entries import DEAD, OPEN, Entry, State
from partnerenrich_server.delivery.ledger import Ledger
from partnerenrich_server.delivery.telling import as_dict, counts, line, moment
from partnerenrich_server.engine import read_configuration
from partnerenrich_server.failures import Failure

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

    from partnerenrich_server.delivery.entries import Transition

T = TypeVar("T")

_ids = click.argument("ids", metavar="ID...", nargs=-1, required=True)
_note = click.option("--note", default="", metavar="TEXT", help="A word for the history. No personal data.")


@click.group()
def command() -> None:
    """
    Tell what became of each batch, and decide where a person has to.

    Only the ledger is read and written. Exit code 1 when something was refused.
    """


@command.command("list")
@options.config
@click.option("--org", metavar="SLUG", help="Only this organisation's.")
@click.option("--integration", metavar="NAME", help="Only this integration's.")
@click.option(
    "--state",
    "states",
    type=click.Choice([state.value for state in State]),
    multiple=True,
    help="Only in this state; repeatable.",
)
@click.option("--dead", is_flag=True, help="Only the dead letters: rejected, failed and uncertain.")
@click.option("--limit", type=click.IntRange(1), default=50, show_default=True, help="The newest so many.")
@options.as_json
def list_(
    *,
    config: Path,
    org: str | None,
    integration: str | None,
    states: tuple[str, ...],
    dead: bool,
    limit: int,
    as_json: bool,
) -> None:
    """List deliveries, oldest first, and the integrations that are left alone for now."""
    wanted = [State(state) for state in states] + [state for state in DEAD if dead]

    async def look(ledger: Ledger) -> tuple[list[Entry], list[Any]]:
        entries = await ledger.entries(org=org, integration=integration, states=wanted, limit=limit)
        return entries, await ledger.pauses()

    entries, pauses = _with_ledger(config, look)
    if as_json:
        click.echo(json.dumps([as_dict(entry) for entry in entries]))
        return
    _show_table(
        [
            (entry.id, f"{entry.org}/{entry.integration}", entry.state.value, counts(entry), _next(entry))
            for entry in entries
        ]
    )
    for pause in pauses:
        click.echo(f"{pause.org}/{pause.integration} is left alone until {moment(pause.until)}: {pause.why}")


@command.command()
@options.config
@click.argument("batch_id", metavar="ID")
@options.as_json
def show(*, config: Path, batch_id: str, as_json: bool) -> None:
    """Show all that is known of one delivery: counts, receipt, what the plugin saved, history."""

    async def look(ledger: Ledger) -> tuple[Entry, list[Transition]]:
        return await _known(ledger, batch_id), await ledger.history(batch_id)

    entry, history = _with_ledger(config, look)
    told = as_dict(entry, history)
    if as_json:
        click.echo(json.dumps(told))
        return
    changes = told.pop("history")
    for name, value in told.items():
        if value not in (None, {}):
            shown = json.dumps(value) if isinstance(value, dict) else value
            click.echo(f"{name.replace('_', ' '):14} {shown}")
    for change in changes:
        by = change["owner"] or "a person"
        click.echo(f"  {change['at']}  {change['state']:11} {by}{': ' if change['why'] else ''}{change['why']}")


@command.command()
@options.config
@_ids
@_note
@options.as_json
def retry(*, config: Path, ids: tuple[str, ...], note: str, as_json: bool) -> None:
    """
    Try again, at once.

    What failed or was rejected is handed over again; what is uncertain is asked
    about again. The integration is no longer left alone.
    """

    async def decide(ledger: Ledger, entry: Entry) -> Entry | None:
        if entry.state not in OPEN | DEAD:
            raise Failure(f"{entry.id} is {entry.state}: there is nothing to try again")
        if entry.files_deleted:
            raise Failure(
                f"{entry.id}: its files were deleted on {moment(entry.files_deleted)} (deliver.keep_seconds); "
                "deliver the records again"
            )
        state, recheck = entry.state, entry.recheck
        if state in {State.FAILED, State.REJECTED}:
            state, recheck = State.STAGED, True
        elif state is State.UNCERTAIN:
            state = State.SUBMITTING
        fresh = {"recheck": recheck, "failures": 0, "polls": 0, "error": None, "next_attempt": 0.0, "deadline": None}
        why = f"retry{': ' if note else ''}{note}"
        return await ledger.decide(entry, state, why, only_if_latest=entry.state in DEAD, **fresh)

    _decide(config, ids, decide, as_json=as_json)


@command.command()
@options.config
@_ids
@_note
@options.as_json
def cancel(*, config: Path, ids: tuple[str, ...], note: str, as_json: bool) -> None:
    """
    Take back what the partner does not have.

    What is with the partner has to be cancelled there. The records of a
    cancelled batch are in the next snapshot; where batches add to each other
    they are not sent.
    """

    async def decide(ledger: Ledger, entry: Entry) -> Entry | None:
        untouched = entry.state is State.STAGED and entry.recheck
        if not untouched and entry.state not in {State.FAILED, State.REJECTED}:
            raise Failure(f"{entry.id} is {entry.state}: only what is staged, failed or rejected can be taken back")
        return await ledger.decide(entry, State.CANCELLED, note)

    _decide(config, ids, decide, as_json=as_json)


@command.command()
@options.config
@_ids
@click.option(
    "--as", "verdict", type=click.Choice(["published", "failed"]), required=True, help="What was found at the partner."
)
@_note
@options.as_json
def resolve(*, config: Path, ids: tuple[str, ...], verdict: str, note: str, as_json: bool) -> None:
    """
    Say what became of an uncertain delivery.

    Look at the partner first. What failed may then be tried again.
    """

    async def decide(ledger: Ledger, entry: Entry) -> Entry | None:
        if entry.state is not State.UNCERTAIN:
            raise Failure(f"{entry.id} is {entry.state}, not uncertain")
        return await ledger.decide(entry, State(verdict), note, error=None)

    _decide(config, ids, decide, as_json=as_json)


def _decide(
    config: Path,
    ids: tuple[str, ...],
    decide: Callable[[Ledger, Entry], Awaitable[Entry | None]],
    *,
    as_json: bool,
) -> None:
    """Decide on each batch; the refusals are told at the end, and stop none of the others."""

    async def work(ledger: Ledger) -> tuple[list[Entry], list[str]]:
        decided, refused = [], []
        for batch_id in ids:
            try:
                entry = await decide(ledger, await _known(ledger, batch_id))
            except Failure as failure:
                refused.append(failure.message)
            else:
                if entry is None:
                    refused.append(f"{batch_id} is being worked on, or a later batch has taken its place; look again")
                else:
                    decided.append(entry)
        return decided, refused

    decided, refused = _with_ledger(config, work)
    if as_json:
        click.echo(json.dumps([as_dict(entry) for entry in decided]))
    else:
        for entry in decided:
            click.echo(line(entry))
    if refused:
        raise Failure(*refused)


def _with_ledger(config: Path, work: Callable[[Ledger], Awaitable[T]]) -> T:
    url = read_configuration(config).ledger

    async def run() -> T:
        async with Ledger.open(url, create=False) as ledger:
            return await work(ledger)

    return asyncio.run(run())


async def _known(ledger: Ledger, batch_id: str) -> Entry:
    entry = await ledger.entry(batch_id)
    if entry is None:
        raise Failure(f"the ledger knows no {batch_id}")
    return entry


def _show_table(rows: list[tuple[str, ...]]) -> None:
    """Lines as long as they are, so that other tools can read them."""
    lines = [("id", "integration", "state", "records", "next"), *rows]
    widths = [max(map(len, column)) for column in zip(*lines)]
    for row in lines:
        click.echo("  ".join(map(str.ljust, row, widths)).rstrip())


def _next(entry: Entry) -> str:
    if entry.state not in OPEN:
        return entry.error or ""
    if entry.owner:
        return f"{entry.owner} is at it"
    return " ".join(filter(None, [moment(entry.next_attempt) or "now", entry.error]))
