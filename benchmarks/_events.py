"""
Visitors of a shop and their events, about 600 bytes of JSON each.

Of ten events two are an ``identify`` with the e-mail in its traits, four are a ``track``
with a product and the user id, and four are a ``page`` that knows the anonymous id alone.
"""

from __future__ import annotations

import hashlib
import random
import uuid
from typing import TYPE_CHECKING, Any

import msgspec

if TYPE_CHECKING:
    from collections.abc import Iterator

MIX = "20 % identify with e-mail, 40 % track with user id, 40 % page with anonymous id"

_USER_AGENT = "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/139.0 Safari/537.36"
_KINDS = ("identify", "track", "track", "track", "track", "page", "page", "page", "page", "identify")


class Visitor(msgspec.Struct, frozen=True):
    """
    One visitor.

    Attributes:
        anonymous_id: Of the device.
        user_id: Of the account.
        email: Of the account.
    """

    anonymous_id: str
    user_id: str
    email: str

    @classmethod
    def of(cls, number: int) -> Visitor:
        """The same number gives the same visitor."""
        digest = hashlib.blake2b(number.to_bytes(8), digest_size=16).digest()
        return cls(str(uuid.UUID(bytes=digest, version=4)), f"user-{number:07}", f"visitor-{number:07}@example.test")


def identify(visitor: Visitor, number: int = 0) -> bytes:
    """The event that names a visitor."""
    return _event("identify", visitor, number)


def mixed(count: int, visitors: int, *, seed: int = 1) -> Iterator[bytes]:
    """
    Events in the mix above, of visitors drawn at random.

    Args:
        count: How many.
        visitors: Of how many visitors.
        seed: The same one gives the same events.
    """
    draw = random.Random(seed)
    for number in range(count):
        yield _event(draw.choice(_KINDS), Visitor.of(draw.randrange(visitors)), number)


def _event(kind: str, visitor: Visitor, number: int) -> bytes:
    path = f"/shop/shoes/{number % 5000}"
    event: dict[str, Any] = {
        "type": kind,
        "messageId": f"ajs-next-{number:012}-4b1f7a520a7c",
        "anonymousId": visitor.anonymous_id,
        "timestamp": "2026-01-05T10:00:00.000Z",
        "context": {
            "ip": "203.0.113.9",
            "userAgent": _USER_AGENT,
            "locale": "en-GB",
            "library": {"name": "analytics.js", "version": "2.11.1"},
            "page": {"url": f"https://shop.example.test{path}", "path": path, "title": "Running shoes", "referrer": ""},
        },
    }
    if kind == "identify":
        event |= {"userId": visitor.user_id, "traits": {"email": visitor.email, "plan": "gold", "newsletter": True}}
    elif kind == "track":
        properties = {"product_id": f"sku-{number % 5000}", "price": 79.9, "currency": "GBP", "quantity": 1}
        event |= {"userId": visitor.user_id, "event": "Product Added", "properties": properties}
    else:
        event |= {"properties": {"category": "shoes", "search": "", "referring_domain": "search.example.test"}}
    return msgspec.json.encode(event)
