"""From a configuration file to a running `Enricher`: what all commands that enrich begin with."""

from __future__ import annotations

import contextlib
import gc
from pathlib import Path
from typing import TYPE_CHECKING

import attrs
import click

from partnerenrich import ConfigError, FieldError
from partnerenrich.configuration import decode_key, load_file, located_in
from partnerenrich.errors import Problem
from partnerenrich.forgetting import Forgetting
from partnerenrich.store import StoreFailed
from partnerenrich_server.embedded import SCHEME, Store, open_store
from partnerenrich_server.failures import Failure

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from partnerenrich.configuration import Configuration
    from partnerenrich.enrichment import Enricher
    from partnerenrich.suppression import SuppressionList
    from partnerenrich_server.delivery.collector import Collector


def relax_garbage_collector() -> None:
    """
    Look for garbage less often, and not among what is there from the start.

    Thousands of events are alive at once and are no garbage before they leave: with the defaults of Python a
    third of the time of a large batch goes into looking at them in vain.
    """
    gc.freeze()
    gc.set_threshold(50_000, 10, 10)


def read_configuration(
    file: Path, *, store: str | None = None, plugins_dir: Path | None = None, org: str | None = None
) -> Configuration:
    """
    Read the configuration, and put what the command line says above it.

    Args:
        file: YAML. A relative ``embedded:PATH`` in it is meant from its folder.
        store: URL of the memory instead of the file's. A relative PATH is meant from the working directory.
        plugins_dir: Folder of one-file plugins instead of the file's.
        org: An organisation that must be there.

    Raises:
        ConfigError: Something in the file or on the command line is wrong. A problem of no field names the file.
    """
    try:
        configuration = load_file(file)
    except ConfigError as error:
        raise ConfigError([attrs.evolve(each, where=each.where or str(file)) for each in error.problems]) from None
    if configuration.store:
        configuration = attrs.evolve(configuration, store=_anchored(configuration.store, file.parent))
    if store:
        try:
            configuration = attrs.evolve(configuration, store=store)
        except FieldError as error:
            raise ConfigError([Problem("--store", error.expected)]) from None
    if plugins_dir:
        configuration = attrs.evolve(configuration, plugins_dir=str(plugins_dir))
    known = configuration.organisations()
    if org and org not in known:
        raise ConfigError([Problem("--org", f"{org!r} is not configured; configured: {', '.join(sorted(known))}")])
    return configuration


def check_owner(configuration: Configuration, org: str | None) -> None:
    """
    Make sure that events can be told to belong to an organisation.

    Raises:
        ConfigError: There are several, and neither `org` nor the configuration says whose events they are.
    """
    known = sorted(configuration.organisations())
    if org is None and configuration.org_from is None and len(known) > 1:
        what = f"say whose events these are: one of {', '.join(known)}; or let org_from in the configuration find it"
        raise ConfigError([Problem("--org", what)])


@contextlib.asynccontextmanager
async def open_enricher(configuration: Configuration, file: Path | None = None) -> AsyncIterator[Enricher]:
    """
    Open the enricher, with an embedded store where no other is named.

    Says on stderr which plugins did not load.

    Args:
        configuration: See `read_configuration`.
        file: Where it was read from, so that a problem can name its line.

    Raises:
        ConfigError: Settings are wrong, or a store of one's own comes without a key.
        StoreError: The embedded store does not start.
    """
    with running_store(configuration) as store:
        async with enricher_over(store, configuration, file) as enricher:
            yield enricher


@contextlib.contextmanager
def running_store(configuration: Configuration) -> Iterator[Store]:
    """
    The store that a configuration names, else an embedded one; and the key of the fingerprints in it.

    Raises:
        ConfigError: A store of one's own comes without a key, or the key is wrong.
        StoreError: The embedded store does not start.
    """
    url = configuration.store or SCHEME
    key = decode_key(configuration.key) if configuration.key else None
    if url.startswith(SCHEME):
        with open_store(url, key) as store:
            yield store
    elif key is None:
        raise ConfigError(
            [Problem("key", "is required with a store of your own; make one: partnerenrich secrets generate-key")]
        )
    else:
        yield Store(url, key)


@contextlib.asynccontextmanager
async def enricher_over(
    store: Store, configuration: Configuration, file: Path | None = None
) -> AsyncIterator[Enricher]:
    """
    Open the enricher over a running store.

    Says on stderr which plugins did not load. Arguments and errors are those of `open_enricher`.
    """
    from partnerenrich.enrichment import Enricher  # noqa: PLC0415 - slow to import; to deliver needs none

    async with contextlib.AsyncExitStack() as stack:
        try:
            enricher = await stack.enter_async_context(Enricher.open(configuration, store=store.url, key=store.key))
        except ConfigError as error:
            raise located_in(file, error) if file else error from None
        relax_garbage_collector()
        for failure in enricher.plugins.failures.values():
            click.echo(f"Warning: {failure}; its integrations are left out", err=True)
        yield enricher


def has_private_store(configuration: Configuration) -> bool:
    """Whether each process has a store of its own, which is gone with it: nothing in it was left by another one."""
    return (configuration.store or SCHEME) == SCHEME


async def read_suppression_list(configuration: Configuration, org: str) -> SuppressionList | None:
    """
    The suppression list of an organisation as it is now; None where the store is private, and nobody can be on it.

    Raises:
        ConfigError: A store of one's own comes without a key, or its URL is none.
        Failure: The store does not tell.
    """
    if has_private_store(configuration):
        return None
    with running_store(configuration) as store:
        try:
            async with Forgetting.open(configuration, org, store=store.url, key=store.key) as forgetting:
                return forgetting.suppressed
        except StoreFailed:
            pass
    raise Failure(
        "the store does not answer, so nobody can tell who is on the suppression list, and nothing is delivered; "
        "bring it back, or name another one that holds the list by --store, and do it again"
    )


def _anchored(url: str, folder: Path) -> str:
    path = url.removeprefix(SCHEME)
    return url if path in {url, ""} else f"{SCHEME}{folder / Path(path).expanduser()}"


def collector_of(enricher: Enricher) -> Collector | None:
    """What gathers records for the integrations that deliver; None when there are none."""
    integrations = [each for of_org in enricher.integrations.values() for each in of_org if each.delivery]
    if not integrations:
        return None
    from partnerenrich_server.delivery.collector import Collector  # noqa: PLC0415 - object storage is an extra

    return Collector(integrations, enricher.is_suppressed)
