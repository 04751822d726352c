"""Lists in pages: a ``limit`` and an opaque ``next_token``."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING, Any

from partnerenrich_amperity._sandbox.gate import Asked, Refusal

if TYPE_CHECKING:
    from collections.abc import Sequence


def page(asked: Asked, entries: Sequence[Any], *, default: int) -> tuple[Sequence[Any], str | None]:
    """
    The page that a request asks for.

    Args:
        asked: The request.
        entries: The whole list.
        default: The limit of a request that names none.

    Returns:
        The entries, and the token of the next page where there is one.

    Raises:
        Refusal: `limit` or `next_token` is wrong.
    """
    query = dict(asked.query)
    try:
        limit = int(query.get("limit", default))
        start = int(base64.urlsafe_b64decode(query["next_token"])) if "next_token" in query else 0
    except ValueError:
        raise Refusal(400, "limit or next_token is wrong") from None
    if limit < 1 or not 0 <= start <= len(entries):
        raise Refusal(400, "limit or next_token is wrong")
    end = start + min(limit, asked.gate.behaviour.page_size)
    next_token = base64.urlsafe_b64encode(str(end).encode()).decode() if end < len(entries) else None
    return entries[start:end], next_token
