"""
Requests to InfoSum's API, and the meaning of a refusal.

Wire facts: the OpenAPI file of InfoSum's Developer API 2.0, public repository infosum/infosum-docs.
A key is the whole value of the header, without the word Bearer. 64-bit integers are JSON strings.
Errors come in an envelope of texts; no text of it is shown, for it may repeat what was sent.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Iterator, Mapping
from typing import Any
from urllib.parse import quote

import attrs
import httpx

from partnerenrich import AuthError, BadResponse, RequestRefused
from partnerenrich.http import json_object, raise_for_status
from partnerenrich_infosum import _advice
from partnerenrich_infosum.config import Config

ANSWERED_WITHIN = 30.0
"""Seconds for one answer. The client's own timeout is longer, for uploads."""

PER_PAGE = 100
MOST_PAGES = 50
"""Of one list."""

_is_code = re.compile("[A-Z][A-Z0-9_]{2,63}").fullmatch

Document = Mapping[str, Any]


class Refused(RequestRefused):
    """
    A definite no (400, 404, 409 and other 4xx): nothing was begun.

    Attributes:
        status: HTTP status.
    """

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


@attrs.frozen(eq=False)
class Api:
    """
    InfoSum, as one integration reaches it.

    Attributes:
        config: Settings of the integration.
        http: The core's client.
    """

    config: Config
    http: httpx.AsyncClient

    async def get(self, wish: str, *path: str, **query: str | int) -> Document:
        """Ask. `wish` completes the sentence "InfoSum refuses to ...". Raises what `request` raises."""
        return await self.request(wish, "GET", path, params=query)

    async def post(self, wish: str, *path: str, json: Document | None = None, **query: str) -> Document:
        """Have something done. See `get`."""
        return await self.request(wish, "POST", path, params=query, **({} if json is None else {"json": json}))

    async def patch(self, wish: str, *path: str, json: Document) -> Document:
        """Change fields. See `get`."""
        return await self.request(wish, "PATCH", path, json=json)

    async def pages(self, wish: str, *path: str, of: str, **query: str) -> AsyncIterator[Document]:
        """
        The entries of a list, page by page.

        Args:
            wish: See `get`.
            path: Its segments.
            of: The field of the answer that holds the entries.
            query: ``filter`` and ``order_by``.
        """
        for page in range(1, MOST_PAGES + 1):
            asked: dict[str, str | int] = {**query, "pagination.page": page, "pagination.per_page": PER_PAGE}
            answer = await self.request(wish, "GET", path, params=asked)
            if not isinstance(answer.get(of), (list, type(None))):
                raise BadResponse(f"InfoSum was asked to {wish}, and {of} is no list")
            for entry in entries(answer, of):
                yield entry
            if (number(answer, "pagination", "next_page") or 0) <= page:
                return

    async def request(self, wish: str, method: str, path: tuple[str, ...], **content: Any) -> Document:
        """
        Make one request.

        Raises:
            AuthError: 401 or 403.
            Refused: Any other 4xx but 408 and 429.
            partnerenrich.PartnerError: See `partnerenrich.http`.
        """
        url = "/".join([self.config.root, *(quote(segment, safe="/") for segment in path)])
        headers = {"Authorization": self.config.api_key.reveal(), "Accept": "application/json"}
        response = await self.http.request(method, url, headers=headers, timeout=ANSWERED_WITHIN, **content)
        self._raise_for_refusal(wish, response)
        return json_object(response)

    def _raise_for_refusal(self, wish: str, response: httpx.Response) -> None:
        status = response.status_code
        match status:
            case 401:
                seen = f"{_advice.V1}; " if self.config.looks_like_v1 else ""
                raise AuthError(f"InfoSum refuses api_key (401): {seen}{_advice.KEY}")
            case 403:
                raise AuthError(
                    f"InfoSum refuses to {wish} (403): the user of api_key lacks a right such as Bunker Operations; "
                    f"{_advice.KEY}"
                )
            case 408 | 429:
                pass
            case _ if 400 <= status < 500:
                raise Refused(f"InfoSum refuses to {wish} ({status}{_told(error_code(_envelope(response)))})", status)
        raise_for_status(response)


def text(document: Document, *path: str) -> str | None:
    """A text inside of an answer, or None."""
    value = inside(document, *path)
    return value if isinstance(value, str) and value else None


def needed(wish: str, document: Document, *path: str) -> str:
    """
    A text that an answer has to have.

    Raises:
        BadResponse: It has not. Nothing of the answer is in the message.
    """
    value = text(document, *path)
    if value is None:
        raise BadResponse(f"InfoSum was asked to {wish}, and its answer has no {'.'.join(path)}")
    return value


def number(document: Document, *path: str) -> int | None:
    """A whole number inside of an answer, written as a number or as a text; or None."""
    value = inside(document, *path)
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) <= 19:
        return int(value)
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def inside(document: Any, *path: str) -> Any:
    """What lies at a path of nested objects, or None."""
    for name in path:
        document = document.get(name) if isinstance(document, dict) else None
    return document


def entries(document: Document, *path: str) -> Iterator[Document]:
    """The objects of a list inside of an answer."""
    found = inside(document, *path)
    yield from (entry for entry in found if isinstance(entry, dict)) if isinstance(found, list) else ()


def error_code(envelope: Any) -> str | None:
    """InfoSum's code of an error, in the envelope of today or in the flat one of 2022; never its free text."""
    codes = (inside(envelope, *path) for path in (("details", "code"), ("error", "code"), ("error_code",)))
    return next((code for code in codes if isinstance(code, str) and _is_code(code)), None)


def _envelope(response: httpx.Response) -> Document | None:
    try:
        return json_object(response)
    except BadResponse:
        return None


def _told(code: str | None) -> str:
    return f" {code}" if code else ""
