"""The hub as an ASGI application, put together from a configuration."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

import attrs
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.routing import Route

from partnerenrich import ConfigError
from partnerenrich.budget import daily_budget
from partnerenrich.configuration import located_in
from partnerenrich.identity import Fingerprints
from partnerenrich.personalization import Personalizer
from partnerenrich.store import Store
from partnerenrich_server.engine import collector_of, enricher_over
from partnerenrich_server.hub.api import LONGEST_WAIT_MS, Api
from partnerenrich_server.hub.copies import BrowserCopies
from partnerenrich_server.hub.edge import Edge
from partnerenrich_server.hub.endpoints import Endpoint
from partnerenrich_server.hub.inbox import Inbox
from partnerenrich_server.hub.library import Library
from partnerenrich_server.hub.metrics import Metrics
from partnerenrich_server.hub.openapi import DOCUMENT
from partnerenrich_server.hub.replies import Refused, Reply, json_reply
from partnerenrich_server.hub.sites import Site, Sites, Window, problems
from partnerenrich_server.hub.steps import Step, steps
from partnerenrich_server.stream.writer import ACKNOWLEDGE_SECONDS, Writer, open_writer

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
    from pathlib import Path

    from starlette.requests import Request
    from starlette.responses import Response
    from starlette.routing import BaseRoute
    from starlette.types import ASGIApp, Receive, Scope, Send

    from partnerenrich.configuration import Configuration
    from partnerenrich.enrichment import Enricher
    from partnerenrich.governor import CallStatistics
    from partnerenrich_server.embedded import Store as RunningStore

DRAIN_SECONDS = 5.0
"""For how long the hub works at the end on the events that it has accepted."""


@contextlib.asynccontextmanager
async def open_hub(
    configuration: Configuration,
    store: RunningStore,
    file: Path | None = None,
    *,
    pages: Sequence[BaseRoute] = (),
    output: Step | None = None,
) -> AsyncIterator[ASGIApp]:
    """
    Open a hub over a running store; at the end, finish what it has accepted.

    Args:
        configuration: Where it sets no ``budget_ms``, a lookup may take as long as a page may wait.
        store: See `partnerenrich_server.engine.running_store`.
        file: Where the configuration was read from, so that a problem can name its line.
        pages: Routes to serve beside those of the hub.
        output: Takes each batch of events once it is enriched, and written where there is a stream.

    Yields:
        The ASGI application.

    Raises:
        ConfigError: Something is missing or wrong in the configuration.
    """
    if found := problems(configuration):
        raise ConfigError(found)
    if configuration.budget_ms is None:
        configuration = attrs.evolve(configuration, budget_ms=LONGEST_WAIT_MS)
    budget = (configuration.budget_ms or LONGEST_WAIT_MS) / 1000
    async with contextlib.AsyncExitStack() as stack:
        enricher = await stack.enter_async_context(enricher_over(store, configuration, file))
        memory = Store(store.url, command_seconds=budget / 4)
        stack.push_async_callback(memory.close)
        sites = Sites([_site(slug, configuration, enricher, store.key, memory) for slug in enricher.integrations])
        personalizers = [each for site in sites.all for each in site.personalizers.values()]
        for personalizer in personalizers:
            stack.push_async_callback(personalizer.close)
        copies = BrowserCopies(store.url, command_seconds=budget / 4)
        stack.push_async_callback(copies.close)
        collect = await _collecting(stack, enricher)
        writer = await _writer(stack, configuration, enricher, file)
        metrics = Metrics()
        process = steps(enricher.process, writer=writer, collect=collect, output=output, metrics=metrics)
        inbox = Inbox(process, configuration.batch, configuration.hub.limits.queue)
        await stack.enter_async_context(inbox.open(drain_seconds=DRAIN_SECONDS))
        store_failures = {
            "enrich": lambda: copies.failures,
            "events": lambda: enricher.store_failures,
            "personalize": lambda: memory.failures,
        }
        metrics.watch(enricher.statistics, _contextual(personalizers, len(sites.all)), inbox, store_failures)
        page_seconds = min(budget, LONGEST_WAIT_MS / 1000)
        patience = None if writer is None else budget + 2 * ACKNOWLEDGE_SECONDS
        api = Api(copies, inbox, metrics, lambda: enricher.is_behind, enricher.retire, page_seconds, patience)
        yield _application(sites, api, writer, pages)


async def _collecting(stack: contextlib.AsyncExitStack, enricher: Enricher) -> Step | None:
    """What gathers records for destinations of batches, until the inbox has drained; None where there are none."""
    collector = collector_of(enricher)
    return None if collector is None else (await stack.enter_async_context(collector.open())).collect


async def _writer(
    stack: contextlib.AsyncExitStack, configuration: Configuration, enricher: Enricher, file: Path | None
) -> Writer | None:
    """What writes into the stream; None where there is none."""
    if configuration.stream is None:
        return None
    try:
        return await stack.enter_async_context(open_writer(configuration.stream, enricher.visitor_of))
    except ConfigError as error:
        raise located_in(file, error) if file else error from None


def _site(slug: str, configuration: Configuration, enricher: Enricher, key: bytes, memory: Store) -> Site:
    org = configuration.organisations()[slug]
    integrations = enricher.integrations[slug]
    fingerprint = Fingerprints.of(key, slug)
    exposing = [integration for integration in integrations if integration.allowlist]
    return Site(
        slug=slug,
        settings=org.hub,
        limits=configuration.hub.limits,
        fingerprint=fingerprint,
        providers=frozenset(written.provider for written in org.integrations if written.enabled),
        windows={integration.provider: Window(integration) for integration in exposing},
        personalizers={
            integration.provider: Personalizer(integration, fingerprint, memory, daily_budget(integration, memory))
            for integration in integrations
            if integration.partner.supports("personalize")
        },
        remember_seconds=int(max((each.ttl.remember_visitor for each in integrations), default=1)),
    )


def _contextual(personalizers: Sequence[Personalizer], organisations: int) -> dict[str, CallStatistics]:
    """The numbers of contextual calls, under the labels that the enricher gives its integrations."""
    return {
        f"{each.integration.org}/{each.integration.name}" if organisations > 1 else each.integration.name: (
            each.governor.statistics
        )
        for each in personalizers
    }


def _application(sites: Sites, api: Api, writer: Writer | None, pages: Sequence[BaseRoute]) -> ASGIApp:
    async def health() -> Reply:
        return json_reply({"status": "ok"})

    async def readiness() -> Reply:
        probes = [api.copies.answers()] if writer is None else [api.copies.answers(), writer.answers()]
        return json_reply({"ready": True, "degraded": not all(await asyncio.gather(*probes))})

    async def numbers() -> Reply:
        return Reply(200, api.metrics.exposition(), ((b"content-type", CONTENT_TYPE_LATEST.encode()),))

    async def description() -> Reply:
        return json_reply(DOCUMENT)

    routes = [
        Route("/v1/enrich", Endpoint(sites, "GET", api.enrich)),
        Route("/v1/events", Endpoint(sites, "POST", api.event)),
        Route("/v1/batch", Endpoint(sites, "POST", api.batch)),
        Route("/v1/personalize", Endpoint(sites, "POST", api.personalize)),
        Route("/v1/reset", Endpoint(sites, "POST", api.reset)),
        Route("/datafly.js", Library.installed(), methods=["GET"]),
        Route("/healthz", _Plain(health), methods=["GET"]),
        Route("/readyz", _Plain(readiness), methods=["GET"]),
        Route("/metrics", _Plain(numbers), methods=["GET"]),
        Route("/openapi.json", _Plain(description), methods=["GET"]),
    ]
    app = Starlette(
        routes=[*routes, *pages],
        middleware=[Middleware(Edge, metrics=api.metrics, routes=[route.path for route in routes])],
        exception_handlers={404: _not_found, 405: _wrong_method},
    )
    app.router.redirect_slashes = False
    return app


class _Plain:
    """An answer that depends on no part of the request, as an ASGI application."""

    def __init__(self, answer: Callable[[], Awaitable[Reply]]) -> None:
        self._answer = answer

    async def __call__(self, _scope: Scope, _receive: Receive, send: Send) -> None:
        await (await self._answer()).send(send)


async def _not_found(_: Request, __: Exception) -> Response:
    return Refused(
        404, "not_found", "the hub has no such path; GET /openapi.json lists those it has"
    ).reply.as_response()


async def _wrong_method(_: Request, error: Exception) -> Response:
    allowed = (getattr(error, "headers", None) or {}).get("Allow", "GET")
    headers = [(b"allow", allowed.encode("latin-1"))]
    return Refused(405, "method_not_allowed", f"use {allowed}", headers).reply.as_response()
