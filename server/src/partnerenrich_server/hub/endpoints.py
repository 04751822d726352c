"""What all calls of the API begin with: whose site, which page, which method; and the one shape of a refusal."""

from __future__ import annotations

import functools
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl

import attrs
from starlette.types import Receive

from partnerenrich_server.hub import cookies
from partnerenrich_server.hub.cookies import Cookies
from partnerenrich_server.hub.replies import Refused, Reply
from partnerenrich_server.hub.sites import PREFLIGHT, Site

if TYPE_CHECKING:
    from starlette.types import Scope, Send

    from partnerenrich_server.hub.replies import Header
    from partnerenrich_server.hub.sites import Sites


@attrs.frozen
class Call:
    """
    One request to one organisation.

    Attributes:
        site: The organisation.
        origin: Of the page that calls; None for a page of the hub's own host, and for what is no browser.
        headers: Name to value; of a name that came twice, the last.
        query: Parameters of the URL.
        cookies: By which the device is known.
        address: IP address of the caller.
        receive: Gives the body.
    """

    site: Site
    origin: bytes | None
    headers: Mapping[bytes, bytes] = attrs.field(repr=False)
    query: Mapping[str, str] = attrs.field(repr=False)
    cookies: Cookies = attrs.field(repr=False)
    address: str | None = attrs.field(repr=False)
    receive: Receive = attrs.field(repr=False)


Answer = Callable[[Call], Awaitable[Reply]]


class Endpoint:
    """
    One path of the API, as an ASGI application.

    Args:
        sites: Who may be called.
        method: The one that is answered, beside preflights.
        answer: Answers a call.
    """

    def __init__(self, sites: Sites, method: str, answer: Answer) -> None:
        self._sites = sites
        self._method = method
        self._answer = answer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        cors: tuple[Header, ...] = ()
        try:
            headers = dict(scope["headers"])
            query = _query(scope["query_string"])
            site = self._sites.find(headers.get(b"host", b""), query.get("key"))
            origin = headers.get(b"origin")
            cors = site.cors(origin)
            if scope["method"] == self._method:
                client = scope.get("client")
                found = cookies.read(scope["headers"])
                call = Call(site, origin, headers, query, found, client[0] if client else None, receive)
                reply = await self._answer(call)
            else:
                reply = self._preflight(scope["method"], origin)
        except Refused as refused:
            reply = refused.reply
        await reply.send(send, cors)

    def _preflight(self, method: str, origin: bytes | None) -> Reply:
        if method == "OPTIONS" and origin is not None:
            return Reply(204, b"", PREFLIGHT)
        return Refused(405, "method_not_allowed", f"use {self._method}", [(b"allow", self._method.encode())]).reply


@functools.lru_cache(256)  # pages of one shop ask the same over and over
def _query(text: bytes) -> Mapping[str, str]:
    try:
        pairs = parse_qsl(text.decode("ascii"), keep_blank_values=True, max_num_fields=16, errors="strict")
    except ValueError:
        raise Refused(400, "invalid_query", "the query is not readable, or has over 16 parameters") from None
    query = dict(pairs)
    if len(query) < len(pairs):
        raise Refused(400, "invalid_query", "a parameter is given twice")
    return query
