"""``partnerenrich forget``: delete what is remembered of a person or a device, and never look it up again."""

from __future__ import annotations

import asyncio
import json
import re
import time
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import attrs
import click

from partnerenrich.forgetting import Forgetting
from partnerenrich.suppression import EVER
from partnerenrich_server import options
from partnerenrich_server.engine import has_private_store, read_configuration, running_store
from partnerenrich_server.failures import Failure, Misuse
from partnerenrich_server.streams import standard_input

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from partnerenrich.configuration import Configuration
    from partnerenrich.forgetting import Forgotten
    from partnerenrich_server.delivery.withdrawing import Withdrawn

DAY: Final = 86_400
STDIN: Final = "-"
LONGEST_VALUE: Final = 4096

_days = re.compile(r"([1-9][0-9]{0,4})d").fullmatch


def _seconds(_context: click.Context, _parameter: click.Parameter, value: str | None) -> float | None:
    if value is None or value == "ever":
        return None if value is None else EVER
    match = _days(value)
    if match is None:
        raise click.BadParameter("must be a number of days, such as 30d, or ever")
    return int(match[1]) * DAY


@click.command()
@options.config
@click.option("--canonical-id", metavar="ID", help="The device with this id: the cookie _dfdid. - reads it from stdin.")
@click.option("--email", metavar="-", help="The person with the e-mail address on standard input.")
@click.option("--phone", metavar="-", help="The person with the phone number on standard input.")
@click.option("--user-id", metavar="-", help="The person with the user id on standard input.")
@click.option("--for", "seconds", metavar="DAYSd|ever", callback=_seconds, help="For how long. Default: ever.")
@click.option("--lift", is_flag=True, help="Take off the list again. Nothing is brought back.")
@options.as_json
@click.option("--org", metavar="SLUG", help="Organisation; by default the only one.")
@options.store
@options.plugins_dir
@click.argument("stray", nargs=-1, metavar="")
def command(
    *,
    config: Path,
    canonical_id: str | None,
    email: str | None,
    phone: str | None,
    user_id: str | None,
    seconds: float | None,
    lift: bool,
    as_json: bool,
    org: str | None,
    store: str | None,
    plugins_dir: Path | None,
    stray: tuple[str, ...],
) -> None:
    """
    Forget a person or a device, for all partners of an organisation.

    Deletes what partners said of it and what pages could read, and puts it on
    the suppression list: it is not looked up again, and its events leave as
    opted_out. Records that are staged for destinations of batches do not go to
    them any more. An address, a number or a user id is read from standard input,
    for what stands on a command line is seen by others.
    """
    if stray:
        raise Misuse("no arguments are taken; a value belongs on standard input: partnerenrich forget --email -")
    if lift and seconds is not None:
        raise Misuse("--lift and --for exclude each other")
    given = {"canonical_id": canonical_id, "email": email, "phone": phone, "user_id": user_id}
    source, value = _named({name: text for name, text in given.items() if text is not None})
    configuration = read_configuration(config, store=store, plugins_dir=plugins_dir, org=org)
    if has_private_store(configuration):
        raise Misuse(
            "the store is embedded:, which is private to one process and gone with it: there is nothing to forget; "
            "name the store of your other processes by store: or --store"
        )
    slug = org or _only_one(configuration)
    until = time.time() if lift else time.time() + (EVER if seconds is None else seconds)
    done = asyncio.run(_forget(configuration, slug, source, value, until, lift=lift))
    if done is None:
        raise Misuse(f"{_place(given[source])} is no {_NAMES[source]}")
    forgotten, staged = done
    told = _told(slug, source, forgotten, staged)
    click.echo(json.dumps(told) if as_json else _as_text(told))
    _check(staged, "what is staged there stays as it is, and is delivered; do it again")


_NAMES: Final = {
    "canonical_id": "canonical id",
    "email": "e-mail address",
    "phone": "phone number",
    "user_id": "user id",
}


def _named(given: dict[str, str]) -> tuple[str, str]:
    """Whom the command line names: the kind of identifier, and its value. Never shows the value."""
    if len(given) != 1:
        raise Misuse("name one of --canonical-id ID, --email -, --phone - and --user-id -")
    [(source, text)] = given.items()
    if text != STDIN:
        if source == "canonical_id":
            return source, text
        option = f"--{source.replace('_', '-')}"
        raise Misuse(
            f"{option} takes only -, and reads the {_NAMES[source]} from standard input: a command line can be read "
            "by others on this machine and is kept in histories"
        )
    value = standard_input().buffer.read(LONGEST_VALUE + 1).strip()
    if not value or len(value) > LONGEST_VALUE or b"\n" in value:
        raise Misuse(f"standard input must hold one {_NAMES[source]} on one line")
    try:
        return source, value.decode()
    except UnicodeDecodeError:
        raise Misuse("standard input is not UTF-8") from None


def _only_one(configuration: Configuration) -> str:
    slugs = sorted(configuration.organisations())
    if len(slugs) > 1:
        raise Misuse(f"--org is required with several organisations: {', '.join(slugs)}")
    return slugs[0]


def _place(text: str | None) -> str:
    return "standard input" if text == STDIN else "--canonical-id"


async def _forget(
    configuration: Configuration, org: str, source: str, value: str, until: float, *, lift: bool
) -> tuple[Forgotten, Mapping[str, Withdrawn]] | None:
    withdraw = _withdrawer(configuration, org)
    with running_store(configuration) as store:
        async with Forgetting.open(configuration, org, store=store.url, key=store.key) as forgetting:
            staged: Mapping[str, Withdrawn] = {}
            if lift:
                if forgetting.suppressed.contains(source, value):
                    staged = withdraw(source, value, until)
                    _check(staged, "still on the suppression list; do it again")
                forgotten = await forgetting.lift(source, value)
            else:
                if problem := await forgetting.eviction_problem():
                    click.echo(f"Warning: {problem}", err=True)
                forgotten = await forgetting.forget(source, value, until)
                if forgotten is not None:
                    staged = withdraw(source, value, until)
    return None if forgotten is None else (forgotten, staged)


def _withdrawer(configuration: Configuration, org: str) -> Callable[[str, str, float], Mapping[str, Withdrawn]]:
    """What takes somebody out of what is staged, if anything is. Raises `Failure` when it is not installed."""
    if not any(integration.deliver for integration in configuration.organisations()[org].integrations):
        return lambda *_: {}
    from partnerenrich_server.delivery.withdrawing import withdraw  # noqa: PLC0415 - object storage is an extra

    return partial(withdraw, configuration, org)


def _check(staged: Mapping[str, Withdrawn], consequence: str) -> None:
    if problems := [f"{name}: {withdrawn.problem}" for name, withdrawn in staged.items() if withdrawn.problem]:
        raise Failure(*problems, consequence)


def _told(org: str, source: str, forgotten: Forgotten, staged: Mapping[str, Withdrawn]) -> dict[str, Any]:
    told: dict[str, Any] = {"org": org, "by": source, "was_suppressed": forgotten.was_suppressed}
    told["staged"] = {name: attrs.asdict(withdrawn) for name, withdrawn in staged.items()}
    if forgotten.until is None:
        return told | {"suppressed": False}
    removed = attrs.asdict(forgotten.erased)
    also_known_by = sorted(removed.pop("also_known_by"))
    is_for_ever = forgotten.until == EVER
    until = None if is_for_ever else datetime.fromtimestamp(forgotten.until, UTC).isoformat(timespec="seconds")
    return told | {"suppressed": True, "until": until, "removed": removed, "also_known_by": also_known_by}


def _as_text(told: dict[str, Any]) -> str:
    if not told["suppressed"]:
        return "taken off the suppression list" if told["was_suppressed"] else "was not on the suppression list"
    staged = told["staged"]
    found = [name for name, withdrawn in staged.items() if withdrawn["found_by"]]
    unknown = [name for name, withdrawn in staged.items() if not (withdrawn["found_by"] or withdrawn["problem"])]
    devices, *removed = (_counted(count, name) for name, count in told["removed"].items())
    lines = [
        f"removed from {devices}: {', '.join(removed)}",
        f"suppressed until {told['until']}" if told["until"] else "suppressed for ever",
    ]
    if found:
        lines.append(f"taken out of what is staged for {', '.join(found)}: no batch that goes from now on has it")
    if unknown:
        lines.append(f"not to be found in what is staged for {', '.join(unknown)}: it has no {_NAMES[told['by']]}")
    if others := ", ".join(told["also_known_by"]):
        lines.append(f"also seen with: {others}; not suppressed: name these as well if they should be")
    return "\n".join(lines)


def _counted(count: int, name: str) -> str:
    words = name.replace("_", " ")
    if count == 1:
        words = words.removesuffix("copies") + "copy" if words.endswith("copies") else words.removesuffix("s")
    return f"{count} {words}"
