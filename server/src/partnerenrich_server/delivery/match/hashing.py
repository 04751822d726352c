"""What may be done to a text to make a digest of it: another product of independent steps."""

from __future__ import annotations

import base64
import contextlib
import functools
import hashlib
import hmac
import itertools
from collections.abc import Callable
from enum import StrEnum
from typing import TYPE_CHECKING, Final

import attrs

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping

    from partnerenrich import Secret
    from partnerenrich_server.delivery.match.normalising import Kind

Digest = Callable[[bytes], bytes]

_UNUSUAL_AT_MOST: Final = 2

_HASHES: Final[Mapping[str, str]] = {"MD5": "md5", "SHA-1": "sha1", "SHA-256": "sha256"}


class Characters(StrEnum):
    """How text becomes bytes."""

    UTF_8 = "utf-8"
    UTF_16 = "utf-16-le"


class Around(StrEnum):
    """What got hashed along with the identifier; the value tells it."""

    NOTHING = ""
    LINE_FEED = "a line feed behind"
    LINE_END = "a carriage return and a line feed behind"
    QUOTES = "quotes around"
    MARK = "a byte-order mark before"
    MAILTO = "mailto: before"
    TEL = "tel: before"


_AROUND: Final[Mapping[Around, tuple[str, str]]] = {
    Around.NOTHING: ("", ""),
    Around.LINE_FEED: ("", "\n"),
    Around.LINE_END: ("", "\r\n"),
    Around.QUOTES: ('"', '"'),
    Around.MARK: ("\ufeff", ""),
    Around.MAILTO: ("mailto:", ""),
    Around.TEL: ("tel:", ""),
}


class Between(StrEnum):
    """What of a digest is hashed once more; the value tells it."""

    HEX = "lower-case hexadecimal text"
    HEX_UPPER = "upper-case hexadecimal text"
    BASE64 = "base64 text"
    BYTES = "bytes"


_BETWEEN: Final[Mapping[Between, Callable[[bytes], bytes]]] = {
    Between.HEX: lambda digest: digest.hex().encode(),
    Between.HEX_UPPER: lambda digest: digest.hex().upper().encode(),
    Between.BASE64: base64.b64encode,
    Between.BYTES: bytes,
}


class Place(StrEnum):
    """Where a salt goes; the value tells it."""

    BEFORE = "before it"
    BEHIND = "behind it"
    KEY = "as the key (HMAC)"


@attrs.frozen
class Salting:
    """
    One use of a salt.

    Attributes:
        place: Where it goes.
        reading: How the salt became bytes: as ``text``, from ``hexadecimal`` or from ``base64``.
        salt: These bytes.
    """

    place: Place
    reading: str
    salt: bytes = attrs.field(repr=False)

    def __str__(self) -> str:
        """Behind the name of a hash, such as ``with the salt before it``."""
        reading = "" if self.reading == "text" else f" (read as {self.reading})"
        return f"with the salt{reading} {self.place}"


@attrs.frozen
class Hashing:
    """
    One way to make a digest of a text.

    Attributes:
        first: Name of the hash, one of the values of `written.SIZES`.
        around: What is hashed along with the text.
        characters: How the text becomes bytes.
        again: What of the first digest is hashed once more, and by which hash.
        salting: The use of the salt, where there is one.
        salted_again: Whether the salt goes into the second hash instead of the first.
    """

    first: str
    around: Around = Around.NOTHING
    characters: Characters = Characters.UTF_8
    again: tuple[Between, str] | None = None
    salting: Salting | None = None
    salted_again: bool = False

    @property
    def first_size(self) -> int:
        """Bytes of the first digest."""
        return hashlib.new(_HASHES[self.first], usedforsecurity=False).digest_size

    @property
    def last(self) -> str:
        """Name of the hash that gives the digest."""
        return self.again[1] if self.again else self.first

    @property
    def unusual(self) -> int:
        """How many of its choices are unusual. A salt is not: it is tried because it was given."""
        choices = (self.around != Around.NOTHING, self.characters != Characters.UTF_8, self.again is not None)
        return sum(choices)

    @property
    def start(self) -> Hashing:
        """The first of the two hashes alone."""
        return attrs.evolve(self, again=None, salting=None if self.salted_again else self.salting, salted_again=False)

    @property
    def starts_plainly(self) -> bool:
        """Whether the first hash takes nothing but the text."""
        return self.start == Hashing(self.first)

    def first_digest(self) -> Callable[[str], bytes]:
        """The function from a text to the first digest."""
        before, behind = _AROUND[self.around]
        characters = self.characters.value
        first = _hash(self.first, None if self.salted_again else self.salting)
        if before or behind:
            return lambda text: first(f"{before}{text}{behind}".encode(characters))
        return lambda text: first(text.encode(characters))

    def last_digest(self) -> Digest:
        """The function from the first digest to the last, which may be the same."""
        if self.again is None:
            return bytes
        between, name = self.again
        written = _BETWEEN[between]
        second = _hash(name, self.salting if self.salted_again else None)
        return lambda digest: second(written(digest))

    def __str__(self) -> str:
        """In words, such as ``SHA-256 of the bytes of SHA-1 with the salt before it``."""
        salt = f" {self.salting}" if self.salting else ""
        characters = " in UTF-16" if self.characters == Characters.UTF_16 else ""
        around = f" with {self.around}" if self.around else ""
        text = f" of the text{characters}{around}" if characters or around else ""
        if self.again is None:
            return f"{self.first}{salt}{text}"
        between, second = self.again
        if self.salted_again:
            return f"{second}{salt} of the {between} of {self.first}{text}"
        return f"{second} of the {between} of {self.first}{salt}{text}"


def hashings(last: Collection[str], kind: Kind, salt: Secret | None = None) -> list[Hashing]:
    """
    All ways that end in one of these hashes, the usual ones first.

    At most two choices of one way are unusual.

    Args:
        last: Names of the hashes.
        kind: What is hashed.
        salt: Tried in every place, beside none.
    """
    pointless = Around.TEL if kind == "email" else Around.MAILTO
    arounds = [around for around in Around if around != pointless]
    chains: list[tuple[str, tuple[Between, str] | None]] = [(name, None) for name in last]
    chains += [(first, (between, name)) for first, between, name in itertools.product(_HASHES, Between, last)]
    saltings = [None, *_saltings(salt)] if salt else [None]
    ways = [
        Hashing(first, around, characters, again, salting, salted_again)
        for (first, again), around, characters, salting in itertools.product(chains, arounds, Characters, saltings)
        for salted_again in ((False, True) if salting and again else (False,))
    ]
    return sorted((way for way in ways if _likely_enough(way)), key=lambda way: (way.unusual, way.salting is not None))


def _likely_enough(way: Hashing) -> bool:
    return way.unusual + (way.unusual > 1 and way.salting is not None) <= _UNUSUAL_AT_MOST


def _saltings(salt: Secret) -> Iterator[Salting]:
    for reading, content in _readings(salt.reveal()).items():
        for place in Place:
            yield Salting(place, reading, content)


def _readings(text: str) -> dict[str, bytes]:
    readings = {"text": text.encode()}
    with contextlib.suppress(ValueError):
        readings["hexadecimal"] = bytes.fromhex(text)
    with contextlib.suppress(ValueError):
        readings["base64"] = base64.b64decode(text, validate=True)
    return readings


def _hash(name: str, salting: Salting | None) -> Digest:
    new = functools.partial(getattr(hashlib, _HASHES[name]), usedforsecurity=False)
    if salting is None:
        return lambda data: new(data).digest()
    salt = salting.salt
    if salting.place == Place.KEY:
        return lambda data: hmac.digest(salt, data, _HASHES[name])
    if salting.place == Place.BEFORE:
        return lambda data: new(salt + data).digest()
    return lambda data: new(data + salt).digest()
