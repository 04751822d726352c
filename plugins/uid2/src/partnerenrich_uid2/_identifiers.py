"""What the operator is asked for one link."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import TYPE_CHECKING, Literal

import msgspec

from partnerenrich import PartnerError, RequestRefused, Resolution, recipes

if TYPE_CHECKING:
    from partnerenrich import Link

Kind = Literal["email", "email_hash", "phone", "phone_hash"]

_KINDS: dict[tuple[str, str], Kind] = {
    ("email", "uid2"): "email_hash",
    ("email", "none"): "email",
    ("email_hash", "uid2"): "email_hash",
    ("email_hash", "sha256_b64"): "email_hash",
    ("email_hash", "none"): "email_hash",
    ("phone", "uid2"): "phone_hash",
    ("phone", "none"): "phone",
    ("phone_hash", "uid2"): "phone_hash",
    ("phone_hash", "sha256_b64"): "phone_hash",
    ("phone_hash", "none"): "phone_hash",
}
"""Name of the identifier and recipe to what is sent. Any other recipe would give another person's id, or nobody's."""

_NAMES = {name for name, _ in _KINDS}

_HASH = re.compile("[A-Za-z0-9+/]{43}=").fullmatch

LONGEST = 320
"""Characters of the longest e-mail address (RFC 5321: 64 before the at sign, 255 after it)."""


class Identifier(msgspec.Struct, frozen=True, gc=False):
    """
    One entry of a request.

    Attributes:
        kind: The partner's word for what it is.
        value: As it is sent.
    """

    kind: Kind
    value: str

    def __repr__(self) -> str:
        return f"Identifier({self.kind!r}, ***)"


def identifier_of(link: Link) -> Identifier | Resolution | PartnerError:
    """
    What to ask for a link, or its answer where there is nothing to ask.

    The linking key's ``key`` says what it is; where that is none of the
    partner's words, its ``source`` does.
    """
    kind = _kind_of(link.key, link.source, link.hash)
    if kind is None:
        return RequestRefused(
            f"linking key {link.key}: key must be email, phone, email_hash or phone_hash, "
            "and hash uid2 (or none, and the operator normalises)"
        )
    can_be_one = _is_hash if kind.endswith("_hash") else _is_plain
    return Identifier(kind, link.value) if can_be_one(link.value) else Resolution.invalid()


@lru_cache(256)
def _kind_of(key: str, source: str, hash_name: str) -> Kind | None:
    return _KINDS.get((key if key in _NAMES else recipes.kind_of(source), hash_name))


def _is_hash(value: str) -> bool:
    """32 bytes in base64, as documented. Operators take hexadecimal digits too, but do not promise to."""
    return _HASH(value) is not None


def _is_plain(value: str) -> bool:
    """Without white space and control characters, from which operators and clients make different hashes."""
    return 0 < len(value) <= LONGEST and value.isprintable() and " " not in value
