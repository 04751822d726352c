"""A plain function from request to response in the place of a partner, reached over a real socket."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import attrs
import httpx

from partnerenrich.testing.faults import body_of

if TYPE_CHECKING:
    from partnerenrich.testing.faults import Receive, Scope, Send

Handler = Callable[[httpx.Request], httpx.Response]

_ASKED_URL = "x-partnerenrich-url"
_HOP_BY_HOP = {"connection", "transfer-encoding", "content-length"}


@attrs.define(eq=False)
class HandlerApp:
    """
    An ASGI application that lets one of two functions answer.

    Each sees the request with the URL that the plugin asked for.

    Attributes:
        found: Answers for visitors that the partner knows, and `check`.
        unknown: Answers for visitors that it does not know.
        knows: Which of them is asked.
    """

    found: Handler
    unknown: Handler
    knows: bool = True

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] != "http":
            raise NotImplementedError(scope["type"])
        headers = httpx.Headers(scope["headers"])
        url = headers.pop(_ASKED_URL)
        request = httpx.Request(scope["method"], url, headers=headers, content=await body_of(receive))
        response = (self.found if self.knows else self.unknown)(request)
        body = response.read()
        kept = [
            (name.lower(), value) for name, value in response.headers.raw if name.lower().decode() not in _HOP_BY_HOP
        ]
        kept.append((b"content-length", str(len(body)).encode()))
        await send({"type": "http.response.start", "status": response.status_code, "headers": kept})
        await send({"type": "http.response.body", "body": body})


class LoopbackTransport(httpx.AsyncBaseTransport):
    """Sends every request to one server of this machine, whatever host it is meant for."""

    def __init__(self, base_url: str) -> None:
        self._base_url = base_url
        self._network = httpx.AsyncHTTPTransport(verify=False)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Keep all of the request but its address."""
        url = self._base_url + request.url.raw_path.decode("ascii")
        headers = request.headers.copy()
        headers[_ASKED_URL] = str(request.url)
        redirected = httpx.Request(
            request.method, url, headers=headers, stream=request.stream, extensions=request.extensions
        )
        return await self._network.handle_async_request(redirected)

    async def aclose(self) -> None:
        """Disconnect."""
        await self._network.aclose()
