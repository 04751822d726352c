"""
HTTP as the hub lets it in: uvicorn's protocol, with a limit on the size of a head and on the time of a request.

uvicorn and its parser have neither: they listen for ever to a client that sends for ever. What is left of a body that
was refused is read and thrown away, for a client sees the answer only when it could send all.
"""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING, Final

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from partnerenrich_server.hub.bodies import BODY_SECONDS
from partnerenrich_server.hub.replies import Refused

if TYPE_CHECKING:
    import asyncio

HEAD_BYTES: Final = 32 * 1024
"""Longest head of a request: its first line and all header lines."""
HEAD_SECONDS: Final = 10.0
"""How long a head may take; likewise the silence after a connection was made."""

MESSAGE_SECONDS: Final = 2 * BODY_SECONDS
"""How long a body may take that nobody reads, or that was refused."""

_NOT_HTTP: Final = Refused(400, "bad_request", "this is no HTTP request")
_TOO_LONG: Final = Refused(431, "too_large", f"the head of a request has at most {HEAD_BYTES} bytes")
_TOO_SLOW: Final = Refused(408, "too_slow", f"the head of the request did not arrive within {HEAD_SECONDS:g} s")


class HubProtocol(HttpToolsProtocol):
    """One connection."""

    _in_head = True
    _head_bytes = 0
    _timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as in the base class
        """Give the first request its time."""
        super().connection_made(transport)
        self._start_timer()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the timer."""
        self._stop_timer()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Watch over a request that does not come in one piece."""
        if self._in_head:
            self._head_bytes += len(data)
        super().data_received(data)
        if self.transport.is_closing() or self._is_between_requests:
            return
        if self._in_head and self._head_bytes > HEAD_BYTES:
            self._refuse(_TOO_LONG)
        elif self._timer is None:
            self._start_timer()

    @property
    def _is_between_requests(self) -> bool:
        return self._in_head and not self._head_bytes

    def on_headers_complete(self) -> None:
        """End the head; an error here makes the base class call `send_400_response`."""
        if self._head_bytes > HEAD_BYTES and self._head_length() > HEAD_BYTES:
            raise _TOO_LONG
        self._in_head = False
        self._head_bytes = 0
        self._stop_timer()
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        """Expect another head."""
        self._in_head = True
        self._stop_timer()
        super().on_message_complete()

    def send_400_response(self, msg: str) -> None:  # noqa: ARG002  the parser's own words are for the log
        """Refuse what is no HTTP."""
        self._refuse(_TOO_LONG if self._head_bytes > HEAD_BYTES else _NOT_HTTP)

    def _unsupported_upgrade_warning(self) -> None:
        """Say nothing: anybody may ask for another protocol, and is answered in this one."""

    def _head_length(self) -> int:
        return len(self.url) + sum(len(name) + len(value) for name, value in self.headers)

    def _start_timer(self) -> None:
        if self._in_head:
            self._timer = self.loop.call_later(HEAD_SECONDS, self._refuse, _TOO_SLOW)
        else:
            self._timer = self.loop.call_later(MESSAGE_SECONDS, self.transport.close)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _refuse(self, refused: Refused) -> None:
        """Answer without the application, and hang up."""
        self._stop_timer()
        if self.transport.is_closing():
            return
        reply = refused.reply
        phrase = HTTPStatus(reply.status).phrase.encode()
        headers = (*reply.headers, (b"content-length", b"%d" % len(reply.body)), (b"connection", b"close"))
        lines = [
            b"HTTP/1.1 %d %b" % (reply.status, phrase),
            *(b": ".join(header) for header in headers),
            b"",
            reply.body,
        ]
        self.transport.write(b"\r\n".join(lines))
        self.transport.close()
