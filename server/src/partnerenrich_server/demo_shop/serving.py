"""Serve the shop: a hub over the sandboxes, with the page and the shop's backend beside it."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from typing import TYPE_CHECKING, Any, Final

from partnerenrich.configuration import load_mapping
from partnerenrich_server.demo_shop.backend import Backend
from partnerenrich_server.demo_shop.feed import Feed
from partnerenrich_server.demo_shop.pages import Pages
from partnerenrich_server.demo_shop.playbill import Playbill
from partnerenrich_server.engine import running_store
from partnerenrich_server.hub.app import open_hub
from partnerenrich_server.hub.serving import Server, listen

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
    from pathlib import Path

    from partnerenrich_server.demo_shop.feed import Listener
    from partnerenrich_server.sandboxes import Served

HOST: Final = "127.0.0.1"
PUBLIC_KEY: Final = "pk-demo"
PURPOSE: Final = "marketing"
READS_PER_MINUTE: Final = 60
"""More than a hub grants by default: who shows the page clicks faster than a visitor."""
BUDGET_MS: Final = 4_000
"""More than by default: a store that a busy machine lets wait for a moment is not down."""
RECOVERY: Final = {"ttl": {"failed": 2}, "limits": {"pause": 2}}
"""Less than by default: nobody wants to wait half a minute for a partner that is back."""


@contextlib.asynccontextmanager
async def open_shop(
    sandboxes: Sequence[Served],
    enriched: Iterable[Mapping[str, Any]],
    *,
    port: int = 0,
    plugins_dir: Path | None = None,
    listener: Listener = lambda _: None,
    limits: Mapping[str, int] | None = None,
) -> AsyncIterator[str]:
    """
    Serve the shop, with a private store.

    Args:
        sandboxes: The partners. They accept connections.
        enriched: Sample events as the same partners enrich them.
        port: On 127.0.0.1; 0 takes a free one.
        plugins_dir: Folder of one-file plugins.
        listener: Is told what became of each event.
        limits: Of the hub, in place of the shop's.

    Yields:
        The URL of the page.

    Raises:
        ServingError: The port is taken.
        ConfigError: The sandboxes do not accept their own settings.
        StoreError: The store does not start.
    """
    bill = Playbill.of(enriched)
    feed = Feed(listener)
    secret = secrets.token_urlsafe(32)
    with listen(HOST, port) as socket:
        origin = f"http://{HOST}:{socket.getsockname()[1]}"
        configuration = load_mapping(
            {
                "org": "demo",
                "budget_ms": BUDGET_MS,
                "integrations": [_integration(served, bill) for served in sandboxes],
                "hub": {
                    "hosts": [HOST],
                    "origins": [origin],
                    "public_key": PUBLIC_KEY,
                    "identity_secret": secret,
                    "limits": dict(limits or {"visitor_per_minute": READS_PER_MINUTE}),
                },
                **({"plugins_dir": str(plugins_dir)} if plugins_dir else {}),
            },
            environment={},
        )
        base_urls = {served.partner.key: served.base_url for served in sandboxes}
        backend = Backend(bill.people, secret, origin, base_urls, feed)
        facts = _facts(bill, sandboxes)
        pages = Pages(origin, lambda request: {**facts, "session": backend.session(request)})
        routes = [*backend.routes, *pages.routes]
        with running_store(configuration) as store:
            async with open_hub(configuration, store, pages=routes, output=feed.write) as app:
                server = Server(app)
                serving = asyncio.create_task(server.serve([socket]))
                try:
                    yield f"{origin}/"
                finally:
                    server.should_exit = True
                    await serving


def _integration(served: Served, bill: Playbill) -> dict[str, Any]:
    key = served.partner.key
    return {
        "provider": key,
        "settings": dict(served.settings),
        "consent": [PURPOSE],
        "browser_attribute_allowlist": list(bill.allowlists.get(key, ())),
        **RECOVERY,
    }


def _facts(bill: Playbill, sandboxes: Iterable[Served]) -> dict[str, Any]:
    """What the page is told: who may log in, and which value is which picture. No attribute of anybody."""
    hero = bill.hero
    return {
        "purpose": PURPOSE,
        "people": [
            {"name": person.name, "contact": person.traits.get("email"), "note": person.note} for person in bill.people
        ],
        "partners": [{"key": each.partner.key, "title": each.partner.facts.title} for each in sandboxes],
        "hero": hero and {"provider": hero.provider, "attribute": hero.attribute, "variants": hero.variants},
    }
