"""What our own recipes send: compared with the other side's digests as text, for that is how a partner compares."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import attrs

from partnerenrich import recipes
from partnerenrich_server.delivery.match import written
from partnerenrich_server.delivery.match.hashing import Hashing
from partnerenrich_server.delivery.match.normalising import Kind, phone_number
from partnerenrich_server.delivery.match.written import Writing

if TYPE_CHECKING:
    from collections.abc import Mapping

    from partnerenrich_server.delivery.match.normalising import Normalising
    from partnerenrich_server.delivery.match.sample import Sample

_SPECIMENS: Final[Mapping[Kind, tuple[str, ...]]] = {
    "email": ("pat@example.test", " P.At+news@GMail.com", "P.At+news@GoogleMail.com", "ÉVA.A+news@example.test"),
    "phone": ("+1 202 555 0123", "+44 20 7946 0123"),
}


def digesting(kind: Kind) -> list[str]:
    """The recipes that give digests of a kind of identifier."""
    return [name for name in recipes.HASHES if any(map(written.read, _gives(name, kind)))]


@attrs.frozen
class Sent:
    """
    What a recipe does, as it turned out.

    Attributes:
        recipe: Its name.
        hashing: How it hashes.
        writing: How it writes digests.
        ways: The most usual ways to normalise that do the same to all of our values; an empty set when there is none.
    """

    recipe: str
    hashing: Hashing
    writing: Writing
    ways: int


class Sending:
    """
    Our recipes, tried on one value after the other.

    Those that write as the other side does are tried as they are, and so is today's. Of the others it is only found
    out how they normalise: what tells no more than values before it did is left out.

    Args:
        sample: Their digests.
        kind: What the identifiers are.
        today: The recipe that is in use, one of `digesting`.
        default_region: ISO 3166 country of phones without a country code.
        normalising: The ways to normalise.

    Attributes:
        hits: For each recipe that is tried as it is: the numbers of the digests that it gives, written as theirs.
    """

    def __init__(
        self, sample: Sample, kind: Kind, today: str, default_region: str | None, normalising: Normalising
    ) -> None:
        self._numbers = sample.texts
        self._kind = kind
        self._today = today
        self._region = default_region
        self._normalising = normalising
        self._lessons = [_Lesson(name, *_manner(name, kind), normalising.all) for name in _telling(sample, kind, today)]
        self.hits: dict[str, set[int]] = {
            lesson.recipe: set()
            for lesson in self._lessons
            if lesson.recipe == today or lesson.writing in sample.writings
        }

    def take(self, value: str, texts: Mapping[str, int]) -> bool:
        """
        Try one value.

        Args:
            value: The value.
            texts: What the ways to normalise make of it; nothing for what is a digest already.

        Returns:
            Whether today's recipe gives anything.
        """
        is_plain_phone = self._kind == "phone" and texts
        identifier = phone_number(value, self._region) if is_plain_phone else value
        parted = tuple(texts.values())
        gives = False
        for lesson in self._lessons:
            if lesson.recipe not in self.hits and parted in lesson.learnt:
                continue
            sent = recipes.apply(lesson.recipe, self._kind, identifier, self._region)
            if sent is None:
                continue
            gives |= lesson.recipe == self._today
            if parted not in lesson.learnt:
                lesson.learn(sent, texts)
            if sent in self._numbers and lesson.recipe in self.hits:
                self.hits[lesson.recipe].add(self._numbers[sent])
        return gives

    def told(self) -> dict[str, Sent]:
        """What the recipes do, by their names."""
        return {
            lesson.recipe: Sent(
                lesson.recipe, lesson.hashing, lesson.writing, self._normalising.most_usual(lesson.ways)
            )
            for lesson in self._lessons
        }


@attrs.define
class _Lesson:
    """
    What is learnt of a recipe.

    Attributes:
        recipe: Its name.
        hashing: How it hashes.
        writing: How it writes digests.
        ways: Ways to normalise that did the same to all values so far.
        learnt: How the ways parted over the texts of these values.
    """

    recipe: str
    hashing: Hashing
    writing: Writing
    ways: int
    learnt: set[tuple[int, ...]] = attrs.Factory(set)

    def learn(self, sent: str, texts: Mapping[str, int]) -> None:
        """Learn from what is sent for one value."""
        self.learnt.add(tuple(texts.values()))
        digest, make = written.read(sent), self.hashing.first_digest()
        if digest and texts:
            self.ways &= next((ways for text, ways in texts.items() if make(text) == digest[0]), 0)


def _gives(name: str, kind: Kind) -> list[str]:
    return [recipes.apply(name, kind, specimen) or "" for specimen in _SPECIMENS[kind]]


def _manner(name: str, kind: Kind) -> tuple[Hashing, Writing]:
    [(digest, writing), *_] = filter(None, map(written.read, _gives(name, kind)))
    [writing] = written.tally({writing: 1})
    return Hashing(written.SIZES[len(digest)]), writing


def _telling(sample: Sample, kind: Kind, today: str) -> list[str]:
    """Today's recipe, and all that hash as some of the sample may be hashed; of those that do the same, one."""
    telling = {tuple(_gives(today, kind)): today}
    for name in digesting(kind):
        hashing, _ = _manner(name, kind)
        if hashing.last in sample.hashes:
            telling.setdefault(tuple(_gives(name, kind)), name)
    return list(telling.values())
