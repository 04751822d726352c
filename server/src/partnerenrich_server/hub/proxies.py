"""Who calls, when a proxy passes the call on."""

from __future__ import annotations

import ipaddress
from typing import TYPE_CHECKING

from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

if TYPE_CHECKING:
    from collections.abc import Iterable

    from starlette.types import ASGIApp, Receive, Scope, Send


class BehindProxies:
    """
    ASGI middleware: the caller is whom ``X-Forwarded-For`` names, if that is an IP address, else the proxy itself.

    Args:
        app: What is inside.
        proxies: Addresses and networks whose ``X-Forwarded-For`` is believed.
    """

    def __init__(self, app: ASGIApp, proxies: Iterable[str]) -> None:
        self._app = app
        self._name_caller = ProxyHeadersMiddleware(_nothing, list(proxies))  # type: ignore[arg-type]  # its own ASGI types

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        peer = scope["client"]
        await self._name_caller(scope, receive, send)  # type: ignore[arg-type]  # likewise
        if scope["client"] != peer and not _is_address(scope["client"][0]):
            scope["client"] = peer
        await self._app(scope, receive, send)


async def _nothing(_scope: Scope, _receive: Receive, _send: Send) -> None:
    """The scope is all that is wanted."""


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return "%" not in text  # the zone of an address may be any text
