"""``partnerenrich match``: why so few of a partner's digests are ours."""

from __future__ import annotations

import contextlib
import json
import os
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click
import phonenumbers
from rich.console import Console
from rich.progress import Progress

from partnerenrich import ConfigError, Secret
from partnerenrich.errors import Problem
from partnerenrich_server import options
from partnerenrich_server.delivery.match import columns, wording
from partnerenrich_server.delivery.match.diagnosis import diagnose
from partnerenrich_server.delivery.match.doctor import TRIES, search
from partnerenrich_server.delivery.match.sample import read_sample
from partnerenrich_server.delivery.match.sending import digesting
from partnerenrich_server.streams import standard_input

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from partnerenrich_server.delivery.match.normalising import Kind

_FILE = click.Path(path_type=Path, exists=True, dir_okay=False)


@click.command()
@click.argument("ours", type=_FILE)
@click.argument("theirs", type=_FILE)
@click.option("--our-column", metavar="NAME", help="Column of OURS. Default: the one that holds identifiers.")
@click.option("--their-column", metavar="NAME", help="Column of THEIRS. Default: the one that holds digests.")
@click.option("--kind", type=click.Choice(["email", "phone"]), help="What the identifiers are. Default: as they look.")
@click.option("--default-region", metavar="COUNTRY", help="Of phones without a country code: two letters, such as GB.")
@click.option("--recipe", metavar="NAME", default="sha256", show_default=True, help="What is sent today.")
@click.option("--salt", metavar="VARIABLE", help="Environment variable with a salt to try; - reads it from stdin.")
@click.option("--thorough", is_flag=True, help="Try unusual ways on every value, too. May take hours.")
@options.as_json
def command(
    *,
    ours: Path,
    theirs: Path,
    our_column: str | None,
    their_column: str | None,
    kind: Kind | None,
    default_region: str | None,
    recipe: str,
    salt: str | None,
    thorough: bool,
    as_json: bool,
) -> None:
    """
    Find out how a partner makes its digests, and what the match rate would be.

    OURS holds our e-mails or phones, plain or hashed; THEIRS a sample of the
    partner's digests. Both are CSV, NDJSON, Parquet or one value a line, plain,
    gzip or zstd. No value is printed.
    """
    _check_region(default_region)
    secret = _read_salt(salt)
    our_table, their_table = columns.open_table(ours), columns.open_table(theirs)
    our_name = columns.find(our_table, "--our-column", our_column, columns.ANY, kind)
    kind = kind or columns.kind_in(our_table, our_name)
    their_name = columns.find(their_table, "--their-column", their_column, columns.DIGESTS, kind)
    kind = kind or columns.kind_in(their_table, their_name)
    if kind is None:
        raise ConfigError([Problem("--kind", "say what the identifiers are: email or phone")])
    _check_recipe(recipe, kind)
    with _progress() as watch:
        sample = read_sample(their_table.values(their_name, partial(watch, "reading theirs")))
        if not sample.size:
            raise ConfigError([Problem(str(theirs), f"no value of the column is a digest; {columns.SWAP}")])
        found = search(
            partial(our_table.values, our_name),
            sample,
            kind=kind,
            recipe=recipe,
            default_region=default_region,
            salt=secret,
            tries=None if thorough else TRIES,
            watch=watch,
        )
    if not found.ours.rows:
        raise ConfigError([Problem(str(ours), "the column holds no value")])
    diagnosis = diagnose(found)
    click.echo(json.dumps(wording.as_dict(diagnosis), indent=2) if as_json else wording.as_text(diagnosis))


def _check_region(region: str | None) -> None:
    if region is not None and region not in phonenumbers.SUPPORTED_REGIONS:
        raise ConfigError([Problem("--default-region", "must be a country in two capital letters, such as GB")])


def _check_recipe(recipe: str, kind: Kind) -> None:
    known = digesting(kind)
    if recipe not in known:
        raise ConfigError([Problem("--recipe", f"must be one of {', '.join(known)}")])


def _read_salt(variable: str | None) -> Secret | None:
    """What was given may be the salt itself, by mistake, so it is not repeated."""
    if variable is None:
        return None
    if variable == "-":
        stdin = standard_input()
        salt = click.prompt("Salt", hide_input=True, err=True) if stdin.isatty() else stdin.readline()
        salt = salt.rstrip("\r\n")
    else:
        salt = os.environ.get(variable, "")
    if not salt:
        raise ConfigError([Problem("--salt", "must name an environment variable that is set, or be - for stdin")])
    return Secret(salt)


@contextlib.contextmanager
def _progress() -> Iterator[Callable[[str, float], None]]:
    """A function that shows what is being done, and which share of it is done, when stderr is a terminal."""
    if not sys.stderr.isatty():
        yield lambda _, __: None
        return
    with Progress(console=Console(stderr=True), transient=True) as display:
        task = display.add_task("", total=1)
        yield lambda doing, share: display.update(task, description=doing, completed=share)
