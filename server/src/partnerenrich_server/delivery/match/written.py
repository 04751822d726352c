"""How a digest is written: hexadecimal or base64, and which kind of it."""

from __future__ import annotations

import base64
import hashlib
import re
from collections import Counter
from enum import StrEnum
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

_HEX: Final = re.compile(r"(0[xX]|\\x)?([0-9a-fA-F]{32}|[0-9a-fA-F]{40}|[0-9a-fA-F]{64})")
_BASE64: Final = re.compile(r"([0-9A-Za-z+/]+|[0-9A-Za-z_-]+)(={0,2})")
_BASE64_LENGTHS: Final = frozenset({22, 27, 43, 54, 86})
_SHORTEST: Final = 22
_LONGEST: Final = 88

SIZES: Final[Mapping[int, str]] = {16: "MD5", 20: "SHA-1", 32: "SHA-256"}
"""The hash that gives a digest of so many bytes."""


class Writing(StrEnum):
    """A way to write a digest."""

    HEX = "lower-case hexadecimal"
    HEX_UPPER = "upper-case hexadecimal"
    HEX_MIXED = "hexadecimal of mixed case"
    HEX_PREFIXED = "hexadecimal behind 0x"
    BASE64 = "base64"
    BASE64_BARE = "base64 without padding"
    URL_SAFE = "URL-safe base64"
    URL_SAFE_BARE = "URL-safe base64 without padding"
    BASE64_OF_HEX = "base64 of the hexadecimal text"
    EITHER = "base64 in either alphabet"
    EITHER_BARE = "base64 without padding in either alphabet"


def read(text: str) -> tuple[bytes, Writing] | None:
    """
    The digest that a text is, and how it is written.

    Returns:
        None for what is no digest of one of `SIZES`.
    """
    if not _SHORTEST <= len(text) <= _LONGEST:
        return None
    if hexadecimal := _HEX.fullmatch(text):
        return bytes.fromhex(hexadecimal[2]), _case(hexadecimal[2]) if hexadecimal[1] is None else Writing.HEX_PREFIXED
    encoded = _BASE64.fullmatch(text)
    return _decoded(encoded[1], encoded[2]) if encoded and len(encoded[1]) in _BASE64_LENGTHS else None


def _decoded(text: str, written_padding: str) -> tuple[bytes, Writing] | None:
    padding = "=" * (-len(text) % 4)
    if written_padding not in {"", padding}:
        return None
    content = base64.b64decode(text.translate(_STANDARD) + padding)
    if len(content) in _HEX_LENGTHS and (hexadecimal := _HEX.fullmatch(content.decode("latin-1"))):
        return bytes.fromhex(hexadecimal[2]), Writing.BASE64_OF_HEX
    return (content, _alphabet(text, padded=written_padding != "")) if len(content) in SIZES else None


_STANDARD: Final = str.maketrans("-_", "+/")
_HEX_LENGTHS: Final = frozenset(2 * size for size in SIZES)


def _case(digits: str) -> Writing:
    if digits == digits.lower():
        return Writing.HEX
    return Writing.HEX_UPPER if digits == digits.upper() else Writing.HEX_MIXED


def _alphabet(text: str, *, padded: bool) -> Writing:
    if "-" in text or "_" in text:
        return Writing.URL_SAFE if padded else Writing.URL_SAFE_BARE
    if "+" in text or "/" in text:
        return Writing.BASE64 if padded else Writing.BASE64_BARE
    return Writing.EITHER if padded else Writing.EITHER_BARE


def tally(counts: Mapping[Writing, int]) -> dict[Writing, int]:
    """
    How many digests are written in each way, the most first.

    A quarter of all SHA-256 digests has no character in which the alphabets of base64 differ. They count with the
    others of their sample; where there are none, or both, as the standard alphabet.

    Args:
        counts: As `read` told.
    """
    told = Counter(counts)
    for either, standard, url_safe in (
        (Writing.EITHER, Writing.BASE64, Writing.URL_SAFE),
        (Writing.EITHER_BARE, Writing.BASE64_BARE, Writing.URL_SAFE_BARE),
    ):
        told[url_safe if told[url_safe] and not told[standard] else standard] += told.pop(either, 0)
    return {writing: count for writing, count in told.most_common() if count}


def _digests_of_nothing() -> frozenset[bytes]:
    words = ("", " ", "null", "NULL", "Null", "none", "None", "undefined", "nan", "NaN", "n/a", "N/A", "-", "0")
    return frozenset(
        hashlib.new(name, word.encode(), usedforsecurity=False).digest()
        for word in words
        for name in ("md5", "sha1", "sha256")
    )


OF_NOTHING: Final = _digests_of_nothing()
"""Digests of an empty text and of words that mean "no value": they stand for nobody."""
