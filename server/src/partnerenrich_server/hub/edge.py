"""Around every request: its id, its line in the log, its numbers; and no failure of ours that shows."""

from __future__ import annotations

import logging
import re
import secrets
import time
from typing import TYPE_CHECKING, Final

from partnerenrich_server.hub.bodies import ClientGone
from partnerenrich_server.hub.logs import request_id
from partnerenrich_server.hub.replies import json_reply

if TYPE_CHECKING:
    from collections.abc import Collection

    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from partnerenrich_server.hub.metrics import Metrics

log = logging.getLogger(__name__)

CLIENT_GONE: Final = 499
"""Stands in the numbers for a request whose client left before it was answered."""

_FAILED: Final = json_reply({"error": {"code": "internal", "message": "the hub failed; its log tells where"}}, 500)
_sane = re.compile(rb"[A-Za-z0-9._-]{1,64}").fullmatch


class Edge:
    """
    ASGI middleware.

    Args:
        app: What is inside.
        metrics: Counts the requests.
        routes: Paths that may be named in numbers and log; any other is ``other``.
    """

    def __init__(self, app: ASGIApp, metrics: Metrics, routes: Collection[str]) -> None:
        self._app = app
        self._metrics = metrics
        self._routes = frozenset(routes)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = time.perf_counter()
        status = CLIENT_GONE
        given = next((value for name, value in scope["headers"] if name == b"x-request-id"), b"")
        name = given if _sane(given) else secrets.token_hex(8).encode()
        request_id.set(name.decode())

        async def send_named(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"].append((b"x-request-id", name))
            await send(message)

        try:
            await self._app(scope, receive, send_named)
        except ClientGone:
            pass
        except Exception:
            log.exception("a request failed")
            if status == CLIENT_GONE:
                await _FAILED.send(send_named)
        finally:
            seconds = time.perf_counter() - started
            route = scope["path"] if scope["path"] in self._routes else "other"
            self._metrics.request(route, status, seconds)
            level = _level(scope["method"], status)
            if log.isEnabledFor(level):
                fields = {"route": route, "method": _method(scope), "status": status, "ms": round(seconds * 1000, 1)}
                log.log(level, "request", extra={"fields": fields})


def _level(method: str, status: int) -> int:
    """What succeeds and changes nothing is for the numbers; a line for each is there when one looks for it."""
    if status >= 500:
        return logging.WARNING
    return logging.DEBUG if status < 400 and method != "POST" else logging.INFO


def _method(scope: Scope) -> str:
    return scope["method"] if scope["method"] in {"GET", "HEAD", "POST", "OPTIONS"} else "other"
