"""An ASGI application on a real socket of this machine, and a witness of what reaches it."""

from __future__ import annotations

import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

import attrs
import uvicorn

from partnerenrich.testing.faults import ASGIApp

if TYPE_CHECKING:
    from collections.abc import Iterator

    from partnerenrich.testing.faults import Receive, Scope, Send


@contextmanager
def served(app: ASGIApp) -> Iterator[int]:
    """
    Serve an application from a thread of its own, so that a client that blocks its loop does not block it.

    Yields:
        The port on 127.0.0.1.
    """
    server = uvicorn.Server(
        uvicorn.Config(app, port=0, loop="asyncio", http="h11", ws="none", log_config=None, log_level="critical")
    )
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    try:
        while not server.started:
            if not thread.is_alive():
                raise RuntimeError("the application does not start")
            time.sleep(0.002)
        yield server.servers[0].sockets[0].getsockname()[1]
    finally:
        server.should_exit = server.force_exit = True
        thread.join()


@attrs.frozen
class SeenRequest:
    """One request that reached the socket. Header names are in lower case."""

    path: str
    headers: dict[str, str]


@attrs.define(eq=False)
class Witness:
    """
    Mounts an application below a prefix, as the server does, and remembers what reaches the socket.

    Attributes:
        app: The application.
        prefix: Such as ``/loyalty``.
        seen: All requests so far.
        under_way: Requests that are not answered yet.
    """

    app: ASGIApp
    prefix: str
    seen: list[SeenRequest] = attrs.Factory(list)
    under_way: int = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one connection."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        self.seen.append(SeenRequest(scope["path"], headers))
        if not scope["path"].startswith(f"{self.prefix}/"):
            await send({"type": "http.response.start", "status": 404, "headers": [(b"content-length", b"0")]})
            await send({"type": "http.response.body", "body": b""})
            return
        self.under_way += 1
        try:
            await self.app({**scope, "root_path": self.prefix}, receive, send)
        finally:
            self.under_way -= 1
