"""
The contract between the core and its plugins.

A **partner** is a module (or an object) that implements some of these hooks
with the `partnerenrich.hookimpl` marker and is named by an entry point of the
group ``partnerenrich``; the entry point's name is the partner's key. A hook
that a partner leaves out *is* "not supported". An **extension** implements the
same hooks as wrappers, ``@hookimpl(wrapper=True)``, and so runs around every
partner.

pluggy passes only the parameters that an implementation names, in any order:
``async def resolve_id(config, link)`` is a complete implementation.

A wrapper of an async hook runs around the *making* of the awaitable. To time,
cache or deny a call it returns an awaitable of its own::

    @hookimpl(wrapper=True)
    def resolve_id(call):
        pending = yield            # the partner's awaitable, not yet started
        return timed(pending, call)

    async def timed(pending, call):
        started = time.perf_counter()
        try:
            return await pending
        finally:
            log(call.provider, time.perf_counter() - started)

One that denies raises before its ``yield``, so that nothing is made. One that
decides later closes what it does not use, ``pending.close()``, and stands before
other extensions in the list.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pluggy

if TYPE_CHECKING:
    from collections.abc import Awaitable, Mapping, Sequence

    import httpx

    from partnerenrich.errors import PartnerError
    from partnerenrich.models import Batch, Call, Link, Partner, Receipt, Resolution, Sandbox, Visitor

PROJECT = "partnerenrich"

hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)


# What a partner is


@hookspec(firstresult=True)
def partner() -> Partner:
    """
    State what this partner is and what its settings are.

    Called once, when the plugin is loaded, before any other hook. The one hook
    that every partner has. Plain ``def``.

    Returns:
        Title, category, the attrs class of the settings, default linking keys,
        times to live and limits.
    """
    raise NotImplementedError


@hookspec(firstresult=True)
def sandbox() -> Sandbox:
    """
    Build a faithful local imitation of the partner.

    Called by ``partnerenrich sandbox``, ``partnerenrich demo`` and the
    conformance kit, never while events are enriched. Plain ``def``; import what
    the imitation needs inside the function, so that it costs nothing otherwise.

    Returns:
        An ASGI application, settings that work with it, and sample visitors.
        The caller serves the application and adds ``base_url`` to the settings.
    """
    raise NotImplementedError


@hookspec(firstresult=True)
def check(config: Any, http: httpx.AsyncClient, call: Call) -> Awaitable[None]:
    """
    Find out whether the settings work: is the credential accepted, is the region right?

    Called by ``partnerenrich check`` and by a "test connection" button. ``async def``.

    Args:
        config: The settings, an instance of the class given by `partner`.
        http: See `resolve_id`.
        call: Org, provider, integration and deadline of this call.

    Returns:
        None when all is well.

    Raises:
        partnerenrich.PartnerError: What is wrong and the way out, without a secret.
    """
    raise NotImplementedError


# Flow A: whom does the partner know?


@hookspec(firstresult=True)
def resolve_id(config: Any, http: httpx.AsyncClient, link: Link, visitor: Visitor, call: Call) -> Awaitable[Resolution]:
    """
    Map one link of the visitor to the partner's own identifier.

    Called when no remembered answer is left, for one linking key after the
    other: ``absent`` and ``invalid`` go on to the next link, ``found`` and
    ``opted_out`` end the search. ``async def``.

    Args:
        config: The settings, an instance of the class given by `partner`.
        http: A client whose timeout, size limit and connection pool the core
            owns. It follows no redirect. Leave its errors alone: the core turns
            them into `partnerenrich.Unavailable`.
        link: One identifier, normalised and hashed as the integration asks.
        visitor: All links that consent permits, ip, user agent and page URL:
            for partners that need several at once.
        call: Org, provider, integration and deadline of this call.

    Returns:
        What the partner answered: found, absent, invalid or opted out. A
        partner whose answer already holds the profile hands it over in
        ``attributes`` and saves the call to `fetch_attributes`.

    Raises:
        partnerenrich.PartnerError: See `partnerenrich.errors` for what each
            class makes the core do. Messages never hold a value of the visitor.
    """
    raise NotImplementedError


@hookspec(firstresult=True)
def resolve_ids(
    config: Any, http: httpx.AsyncClient, links: Sequence[Link], call: Call
) -> Awaitable[Sequence[Resolution | PartnerError]]:
    """
    Map many links in one call: for a partner that has a bulk endpoint.

    Optional, and then used instead of `resolve_id`. What is missed within a few
    milliseconds goes out together; a link stands in one call at a time. For all
    limits a call counts once. ``async def``.

    Args:
        config: The settings, an instance of the class given by `partner`.
        http: See `resolve_id`.
        links: At most `Limits.bulk` links of `Limits.bulk_bytes`, of several visitors.
        call: As in `resolve_id`; the event is named only when there is one link.

    Returns:
        One answer for each link, in the order of the links. A link that failed
        alone is a `partnerenrich.PartnerError` in its place. Another number of
        answers is none at all.

    Raises:
        partnerenrich.PartnerError: When the whole call failed.
    """
    raise NotImplementedError


# Flow B: what does the partner know?


@hookspec(firstresult=True)
def fetch_attributes(config: Any, http: httpx.AsyncClient, partner_id: str, call: Call) -> Awaitable[Mapping[str, Any]]:
    """
    Fetch the profile of one visitor.

    Called after a resolution without ``attributes``, and to refresh a visitor
    whose identifiers are no longer at hand. ``async def``.

    Args:
        config: The settings, an instance of the class given by `partner`.
        http: See `resolve_id`.
        partner_id: What a resolution gave. Opaque: quote it in a URL.
        call: Org, provider, integration and deadline of this call.

    Returns:
        Attribute name to JSON value. Empty when the profile has none.

    Raises:
        partnerenrich.UnknownPartnerId: The partner no longer knows this id.
        partnerenrich.PartnerError: Anything else that went wrong.
    """
    raise NotImplementedError


# Flow C: what should the page show?


@hookspec(firstresult=True)
def personalize(
    config: Any, http: httpx.AsyncClient, partner_id: str, context: Mapping[str, Any], call: Call
) -> Awaitable[Mapping[str, Any]]:
    """
    Answer for one visitor in one context, such as a page or a placement.

    ``async def``.

    Args:
        config: The settings, an instance of the class given by `partner`.
        http: See `resolve_id`.
        partner_id: What a resolution gave.
        context: What the page says of itself. Untrusted.
        call: Org, provider, integration and deadline of this call.

    Returns:
        Attribute name to JSON value. The integration's browser allowlist is
        applied by the core.

    Raises:
        partnerenrich.PartnerError: See `partnerenrich.errors`.
    """
    raise NotImplementedError


# Delivery


@hookspec(firstresult=True)
def deliver_batch(config: Any, http: httpx.AsyncClient, batch: Batch, call: Call) -> Awaitable[Receipt]:
    """
    Hand one sealed batch of hashed records to the partner, or ask how it fares.

    Called again with the same batch until the receipt is final; `Batch.progress`
    is what the last call saved. A batch that failed is handed over again, with its
    progress, only when a person asked for it. ``async def``.

    A worker may die in the middle of a call. With ``Delivery(resumes=True)`` the
    plugin promises to save its progress before each request that must not be made
    twice, and to find out, when it is called again, what became of that request.
    Without the promise a batch whose call was cut off is left to a person.

    Args:
        config: The settings, an instance of the class given by `partner`.
        http: A client with the longer deadline of deliveries.
        batch: The staged files and what was saved about them.
        call: Org, provider, integration and deadline of this call.

    Returns:
        How far the batch has come, and how many records were taken.

    Raises:
        partnerenrich.PartnerError: See `partnerenrich.errors`. `AuthError`,
            `RateLimited`, `RequestRefused` and `NotSupported` say that this call
            has handed nothing over; a plugin that makes several requests and
            cannot say so resumes.
    """
    raise NotImplementedError
