"""
The browser copy: what the page of one device may read, as one Redis hash.

Fields: ``who``, the stamp of the person that the device belongs to;
``consent``, the last seen decisions; and for each partner an `Extract` with
the stamp under which it was made. A reader serves an extract only when its
stamp equals ``who`` and it has not expired.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

import msgspec

from partnerenrich.memory import encode

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from partnerenrich.memory import Answer
    from partnerenrich.store import Command

is_device_cookie = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}").fullmatch
"""Whether a canonical id can be one that a hub has issued: no other has a browser copy."""

UNMISTAKABLE: Final = 16
"""Bytes from which the JSON of an id is not found by chance."""

_read = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode


class Extract(msgspec.Struct, array_like=True):
    """
    The allowlisted part of one partner's attributes.

    Attributes:
        stamp: Of the person for whom it was made.
        expires_at: Unix time in seconds.
        attributes: JSON object.
    """

    stamp: str
    expires_at: float
    attributes: msgspec.Raw


def belongs(key: str, stamp: str, seconds: int) -> list[Command]:
    """
    Tell whom the device belongs to: extracts of anyone else are no longer served.

    The person before is taken out first, which even a full store does.
    """
    return [("HDEL", key, "who"), ("HSET", key, "who", stamp), ("EXPIRE", key, seconds)]


def publish(
    key: str,
    provider: str,
    answer: Answer,
    allowlist: Collection[str],
    consent: Mapping[str, bool],
    seconds: int,
) -> list[Command]:
    """
    Put the allowlisted attributes of an answer, and the decisions seen with it, into the copy.

    A partner's own id of the visitor is not for a page, under whatever name the
    partner gives it. A copy that belongs to another person by now stays theirs,
    and does not serve these.
    """
    attributes = _read(answer.attributes) if answer.attributes else {}
    allowed = {
        name: value for name, value in attributes.items() if name in allowlist and not holds_id(bytes(value), answer)
    }
    extract = Extract(answer.stamp, answer.usable_until, msgspec.Raw(encode(allowed)))
    return [
        ("HSETNX", key, "who", answer.stamp),
        ("HSET", key, "consent", encode(consent), f"p:{provider}", encode(extract)),
        ("EXPIRE", key, seconds),
    ]


def holds_id(value: bytes, answer: Answer) -> bool:
    """Whether the JSON of an attribute is or holds the partner's id of the visitor, the present or the previous one."""
    return any(_needle(raw) in value for raw in (answer.partner_id, answer.previous_id) if raw)


def _needle(raw: bytes) -> bytes:
    """A short id may be a part of anything, so it is looked for with its quotes."""
    return raw if len(raw) < UNMISTAKABLE else raw[1:-1]


def withdraw(key: str, provider: str) -> list[Command]:
    """Take one partner's extract out of the copy."""
    return [("HDEL", key, f"p:{provider}")]
