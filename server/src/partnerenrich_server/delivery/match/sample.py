"""The digests of the other side, and how they are written."""

from __future__ import annotations

import zlib
from collections import Counter
from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

import attrs

from partnerenrich_server.delivery.match import written
from partnerenrich_server.delivery.match.written import SIZES, Writing

if TYPE_CHECKING:
    from collections.abc import Iterable

MOST_DIGESTS: Final = 1 << 18
"""So many digests are used; of more, a random part."""


@attrs.frozen
class Sample:
    """
    The digests of the other side.

    Attributes:
        rows: Values that are not blank.
        unread: Those that are no digest.
        of_nothing: Those that are the digest of an empty text, or of a word such as ``null``. They are left out.
        writings: How many of the others are written in which way, the most first.
        share: Which part of the digests is used.
        numbers: The number of each digest.
        texts: The number of the digest that is written so.
    """

    rows: int
    unread: int
    of_nothing: int
    writings: Mapping[Writing, int]
    share: float
    numbers: Mapping[bytes, int] = attrs.field(repr=False)
    texts: Mapping[str, int] = attrs.field(repr=False)

    @property
    def size(self) -> int:
        """How many digests there are, each counted once."""
        return len(self.numbers)

    @property
    def hashes(self) -> dict[str, int]:
        """How many there are of each hash, the most first."""
        return {SIZES[size]: count for size, count in Counter(map(len, self.numbers)).most_common()}


def read_sample(values: Iterable[str], limit: int = MOST_DIGESTS) -> Sample:
    """
    Read the digests of the other side.

    Args:
        values: As they are written.
        limit: Of more digests a random part of this size is used.
    """
    rows = unread = of_nothing = 0
    writings: Counter[Writing] = Counter()
    kept = Thinned(limit)
    for value in values:
        text = value.strip()
        if not text:
            continue
        rows += 1
        found = written.read(text)
        if found is None:
            unread += 1
        elif found[0] in written.OF_NOTHING:
            of_nothing += 1
        else:
            writings[found[1]] += 1
            kept.add(text, found[0])
    numbers = {digest: number for number, digest in enumerate(dict.fromkeys(kept.items.values()))}
    texts = {text: numbers[digest] for text, digest in kept.items.items()}
    return Sample(rows, unread, of_nothing, written.tally(writings), kept.share, numbers, texts)


class Thinned:
    """
    A random part of all that is added, of bounded size.

    What is in it depends on the items' keys: not on their order, nor on how often each is added.

    Args:
        limit: Most items.

    Attributes:
        items: Each item, with its key.
        share: Which part of all items is in it, about.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self.items: dict[str, bytes] = {}
        self.share = 1.0

    def add(self, item: str, key: bytes) -> None:
        """Add an item, or not."""
        if not self._takes(key):
            return
        self.items[item] = key
        while len(self.items) > self._limit:
            self.share /= 2
            self.items = {item: key for item, key in self.items.items() if self._takes(key)}

    def in_random_order(self) -> list[str]:
        """The items, so that any first part of them is a random part, too."""
        return sorted(self.items, key=lambda item: zlib.crc32(self.items[item]))

    def _takes(self, key: bytes) -> bool:
        return zlib.crc32(key) < self.share * (1 << 32)
