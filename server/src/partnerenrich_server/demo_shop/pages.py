"""The page and its files, under a policy that allows nothing from elsewhere."""

from __future__ import annotations

import hashlib
import json
from importlib import resources
from typing import TYPE_CHECKING, Any, Final

from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from starlette.requests import Request

POLICY: Final = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self'",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
        "require-trusted-types-for 'script'",
    )
)
HEADERS: Final = {
    "Content-Security-Policy": POLICY,
    "Cross-Origin-Opener-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
MEDIA_TYPES: Final = {"css": "text/css", "js": "text/javascript", "svg": "image/svg+xml"}

_FACTS: Final = "{{facts}}"


class Pages:
    """
    The page of the shop.

    Args:
        origin: Where it is: under another name of this machine it would not be the hub's own page.
        facts: What the page is told: about all visitors, and, given a request, about this one.
    """

    def __init__(self, origin: str, facts: Callable[[Request], Mapping[str, Any]]) -> None:
        folder = resources.files(__package__).joinpath("page")
        files = {file.name: file.read_bytes() for file in folder.iterdir()}
        self._page = files.pop("index.html").decode()
        self._files = files
        self._tags = {name: f'"{hashlib.sha256(content).hexdigest()[:20]}"' for name, content in files.items()}
        self._origin = origin
        self._facts = facts

    @property
    def routes(self) -> list[Route]:
        """What is served."""
        return [Route("/", self._index, methods=["GET"]), Route("/shop/{name}", self._file, methods=["GET"])]

    async def _index(self, request: Request) -> Response:
        if f"{request.url.scheme}://{request.url.netloc}" != self._origin:
            return RedirectResponse(f"{self._origin}/")
        facts = json.dumps(self._facts(request)).replace("<", "\\u003c")
        headers = {**HEADERS, "Cache-Control": "no-store"}
        return Response(self._page.replace(_FACTS, facts), media_type="text/html", headers=headers)

    async def _file(self, request: Request) -> Response:
        name = request.path_params["name"]
        if name not in self._files:
            return Response("no such file\n", 404, media_type="text/plain", headers=HEADERS)
        headers = {**HEADERS, "Cache-Control": "no-cache", "ETag": self._tags[name]}
        if request.headers.get("if-none-match") == self._tags[name]:
            return Response(status_code=304, headers=headers)
        return Response(self._files[name], media_type=MEDIA_TYPES[name.rpartition(".")[2]], headers=headers)
