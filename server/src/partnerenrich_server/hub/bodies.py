"""Bodies of requests, read within a size and a time."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from partnerenrich_server.hub.replies import Refused

if TYPE_CHECKING:
    from collections.abc import Mapping

    from starlette.types import Receive

BODY_SECONDS: Final = 10.0
"""How long a body may take to arrive."""

_MEDIA_TYPES: Final = frozenset({b"application/json", b"text/plain", b""})


class ClientGone(Exception):
    """The client left before its request was complete: there is nobody to answer."""


async def read(headers: Mapping[bytes, bytes], receive: Receive, limit: int) -> bytes:
    """
    The body of a request.

    Args:
        headers: Of the request.
        receive: Gives the body.
        limit: Most bytes.

    Raises:
        Refused: It is too long, too slow or of another kind than JSON.
        ClientGone: It ends too early.
    """
    if headers.get(b"content-type", b"").partition(b";")[0].strip().lower() not in _MEDIA_TYPES:
        raise Refused(415, "unsupported_media_type", "send JSON, as application/json or text/plain")
    if headers.get(b"content-encoding", b"identity").lower() != b"identity":
        raise Refused(415, "unsupported_media_type", "send the body without Content-Encoding")
    length = headers.get(b"content-length", b"0")
    if not length.isdigit() or len(length) > 15 or int(length) > limit:
        raise _too_large(limit)
    try:
        async with asyncio.timeout(BODY_SECONDS):
            return await _read(receive, limit)
    except TimeoutError:
        raise Refused(408, "too_slow", f"the body did not arrive within {BODY_SECONDS:g} s") from None


async def _read(receive: Receive, limit: int) -> bytes:
    chunks = []
    size = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientGone
        chunk = message.get("body", b"")
        size += len(chunk)
        if size > limit:
            raise _too_large(limit)
        chunks.append(chunk)
        if not message.get("more_body"):
            return b"".join(chunks)


def _too_large(limit: int) -> Refused:
    return Refused(400, "too_large", f"the body is longer than {limit} bytes")
