"""What the hub answers: bytes and headers; every refusal has one shape."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import attrs
import msgspec
from starlette.responses import Response

if TYPE_CHECKING:
    from collections.abc import Iterable

    from starlette.types import Send

Header = tuple[bytes, bytes]

_JSON: Final[tuple[Header, ...]] = (
    (b"content-type", b"application/json"),
    (b"cache-control", b"no-store"),
    (b"x-content-type-options", b"nosniff"),
)

_WITHOUT_BODY: Final = frozenset({204, 304})

encode = msgspec.json.Encoder().encode


@attrs.frozen
class Reply:
    """
    A whole response.

    Attributes:
        status: HTTP status.
        body: What is sent.
        headers: Without the length.
    """

    status: int
    body: bytes = attrs.field(repr=False)
    headers: tuple[Header, ...] = attrs.field(repr=False)

    async def send(self, send: Send, more: Iterable[Header] = ()) -> None:
        """Send it, with more headers."""
        headers = [*self.headers, *more]
        if self.status not in _WITHOUT_BODY:
            headers.append((b"content-length", b"%d" % len(self.body)))
        await send({"type": "http.response.start", "status": self.status, "headers": headers})
        await send({"type": "http.response.body", "body": self.body})

    def as_response(self) -> Response:
        """The same for Starlette."""
        response = Response(self.body, self.status)
        response.raw_headers = [*self.headers, (b"content-length", b"%d" % len(self.body))]
        return response


class Refused(Exception):
    """
    A request that is not done. The message names what is wrong and the way out, never what was sent.

    Attributes:
        reply: The response, ``{"error": {"code": ..., "message": ...}}``.
    """

    def __init__(self, status: int, code: str, message: str, headers: Iterable[Header] = ()) -> None:
        super().__init__(code)
        self.reply = json_reply({"error": {"code": code, "message": message}}, status, headers)


def json_reply(value: Any, status: int = 200, headers: Iterable[Header] = ()) -> Reply:
    """A value as JSON that nobody may cache."""
    return Reply(status, encode(value), (*_JSON, *headers))


def raw_json_reply(body: bytes) -> Reply:
    """What is JSON already."""
    return Reply(200, body, _JSON)


def retry_after(seconds: float) -> Header:
    """When to come again, in whole seconds, at least one."""
    return (b"retry-after", b"%d" % max(1, -int(-seconds // 1)))
