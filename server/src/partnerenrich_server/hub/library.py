"""datafly.js, as pages load it from the hub."""

from __future__ import annotations

import gzip
import hashlib
from importlib import resources
from typing import TYPE_CHECKING

from partnerenrich_server.hub.replies import Header, Reply

if TYPE_CHECKING:
    from starlette.types import Receive, Scope, Send

CACHED = b"public, max-age=300, stale-while-revalidate=86400"


class Library:
    """The script, packed once, as an ASGI application. Any page may load it; a new version shows within minutes."""

    def __init__(self, script: bytes) -> None:
        tag = b'W/"%b"' % hashlib.sha256(script).hexdigest()[:20].encode()
        common: tuple[Header, ...] = (
            (b"content-type", b"text/javascript; charset=utf-8"),
            (b"cache-control", CACHED),
            (b"etag", tag),
            (b"vary", b"accept-encoding"),
            (b"x-content-type-options", b"nosniff"),
            (b"cross-origin-resource-policy", b"cross-origin"),
        )
        self._tag = tag
        self._plain = Reply(200, script, common)
        self._packed = Reply(200, gzip.compress(script, 9, mtime=0), (*common, (b"content-encoding", b"gzip")))
        self._unchanged = Reply(304, b"", common[1:])

    @classmethod
    def installed(cls) -> Library:
        """The script of this distribution."""
        return cls(resources.files("partnerenrich_server").joinpath("datafly_js/datafly.js").read_bytes())

    async def __call__(self, scope: Scope, _: Receive, send: Send) -> None:
        """Answer one request."""
        headers = dict(scope["headers"])
        if self._tag in headers.get(b"if-none-match", b""):
            reply = self._unchanged
        elif b"gzip" in headers.get(b"accept-encoding", b""):
            reply = self._packed
        else:
            reply = self._plain
        await reply.send(send)
