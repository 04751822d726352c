"""
Trying every way to make a digest of our identifiers, and seeing which digests of the other side come out.

Digests do not meet by chance: one hit proves that a way is in use. So no way has to be tried long
to be excluded, and time goes where something hits:

1. The usual ways to hash are tried on every value of ours.
2. The unusual ones are tried on a part of our values, which is picked by checksums, so that the order of the file is of
   no account.
3. Those that hit are tried on every value, too.

All is kept bounded: a sample of their digests, that part of our values, and which ways hit which digest.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Final

import attrs

from partnerenrich_server.delivery.match import written
from partnerenrich_server.delivery.match.hashing import Digest, Hashing, hashings
from partnerenrich_server.delivery.match.normalising import Kind, Normalising, steps_for
from partnerenrich_server.delivery.match.sample import Sample, Thinned
from partnerenrich_server.delivery.match.sending import Sending, Sent
from partnerenrich_server.delivery.match.written import SIZES

if TYPE_CHECKING:
    from partnerenrich import Secret
    from partnerenrich_server.delivery.match.columns import Watch

Hits = Mapping[Hashing, Mapping[int, int]]
"""For each way to hash that hit: the numbers of the digests it hit, each with the ways to normalise that led there."""

TRIES: Final = 8_000_000
"""So many digests are made in trying unusual ways, which takes some ten seconds."""

_MOST_VALUES: Final = 1 << 17
_TOLD_EVERY: Final = 200


@attrs.define
class Ours:
    """
    What our file holds: counts of values.

    Attributes:
        rows: Those that are not blank.
        hashes: Those that are digests already, by their hash.
        unreadable: Not UTF-8; they are left out.
        refused: Those for which today's recipe gives nothing.
    """

    rows: int = 0
    hashes: Counter[str] = attrs.Factory(Counter)
    unreadable: int = 0
    refused: int = 0

    @property
    def hashed(self) -> int:
        """How many are digests already."""
        return self.hashes.total()


@attrs.frozen
class Found:
    """
    What was found out.

    Attributes:
        kind: What the identifiers are.
        ours: Our values.
        sample: Their digests.
        today: What we do.
        recipes: What it and other recipes do that hash as they may.
        recipe_hits: The digests that today's recipe gives, and those of each other that writes as they do.
        normalising: Tells what the ways to normalise are.
        hits: See `Hits`.
        tried: How many ways to hash were tried on every value.
        tried_on_part: How many on a part only, without a hit.
        part: How many values that part had.
    """

    kind: Kind
    ours: Ours
    sample: Sample
    today: Sent
    recipes: Collection[Sent]
    recipe_hits: Mapping[str, Collection[int]] = attrs.field(repr=False)
    normalising: Normalising = attrs.field(repr=False)
    hits: Hits = attrs.field(repr=False)
    tried: int
    tried_on_part: int
    part: int


def search(
    values: Callable[[Watch], Iterable[str]],
    sample: Sample,
    *,
    kind: Kind,
    recipe: str,
    default_region: str | None = None,
    salt: Secret | None = None,
    tries: int | None = TRIES,
    watch: Callable[[str, float], None] = lambda _, __: None,
) -> Found:
    """
    Try every way on our values.

    Args:
        values: Reads our values; is called once or twice.
        sample: Their digests, at least one.
        kind: What the identifiers are.
        recipe: What is sent today, one of `sending.digesting`.
        default_region: ISO 3166 country of phones without a country code.
        salt: Tried in every place, beside none.
        tries: How many digests may be made in trying unusual ways on a part; None tries all ways on every value.
        watch: Is told what is being done, and which share of it is done.
    """
    normalising = Normalising(steps_for(kind, default_region))
    ways = hashings(sample.hashes, kind, salt)
    usual = [way for way in ways if tries is None or not way.unusual]
    unusual = ways[len(usual) :]
    trial = _Trial(sample, normalising, usual)
    sending = Sending(sample, kind, recipe, default_region, normalising)
    part = Thinned(_MOST_VALUES)
    ours = Ours()
    for value in values(partial(watch, "usual ways")):
        if not value.strip():
            continue
        ours.rows += 1
        if not _is_readable(value):
            ours.unreadable += 1
            continue
        texts, hashed_by = trial.take(value)
        if hashed_by:
            ours.hashes[hashed_by] += 1
        ours.refused += not sending.take(value, texts)
        if unusual:
            part.add(value, value.encode())
    trial_on_part = _Trial(sample, normalising, unusual)
    tried_values = trial_on_part.take_some(part.in_random_order(), tries or 0, partial(watch, "unusual ways"))
    found = trial_on_part.hits()
    is_whole = tried_values == len(part.items) and part.share == 1
    if found and not is_whole:
        again = _Trial(sample, normalising, list(found))
        for value in values(partial(watch, "unusual ways that hit")):
            if value.strip() and _is_readable(value):
                again.take(value)
        found = again.hits()
    recipes = sending.told()
    on_part = [] if is_whole else [way for way in unusual if way not in found]
    return Found(
        kind=kind,
        ours=ours,
        sample=sample,
        today=recipes[recipe],
        recipes=recipes.values(),
        recipe_hits=sending.hits,
        normalising=normalising,
        hits=trial.hits() | found,
        tried=len(ways) - len(on_part),
        tried_on_part=len(on_part),
        part=tried_values,
    )


class _Trial:
    """
    Ways to hash, tried on one value after the other with all ways to normalise.

    Args:
        sample: What to hit.
        normalising: The ways to normalise.
        ways: The ways to hash.
    """

    def __init__(self, sample: Sample, normalising: Normalising, ways: Sequence[Hashing]) -> None:
        self._number_of = sample.numbers.get
        self._normalising = normalising
        self._hits: dict[Hashing, dict[int, int]] = {way: {} for way in ways}
        self._sets: dict[int, int] = {}  # of ways, each held once
        ends: dict[Hashing, list[tuple[Digest, dict[int, int]]]] = defaultdict(list)
        for way, hits in self._hits.items():
            ends[way.start].append((way.last_digest(), hits))
        self._ways = [(start.first_digest(), endings) for start, endings in ends.items()]
        self._again = [(start.first_size, endings) for start, endings in ends.items() if start.starts_plainly]

    def take(self, value: str) -> tuple[Mapping[str, int], str | None]:
        """
        Try one value.

        Returns:
            What the ways to normalise make of it, see `Normalising.texts`. Of what is a digest already nothing,
            and the name of its hash.
        """
        if hashed := written.read(value.strip()):
            self._take_digest(hashed[0])
            return {}, SIZES[len(hashed[0])]
        texts = self._normalising.texts(value)
        for first_digest, endings in self._ways:
            for text, ways in texts.items():
                digest = first_digest(text)
                for last_digest, hits in endings:
                    number = self._number_of(last_digest(digest))
                    if number is not None:
                        led = hits.get(number, 0) | ways
                        hits[number] = self._sets.setdefault(led, led)
        return texts, None

    def _take_digest(self, digest: bytes) -> None:
        """However it was normalised, it is the same digest: all ways lead to it."""
        for size, endings in self._again:
            for last_digest, hits in endings if len(digest) == size else ():
                number = self._number_of(last_digest(digest))
                if number is not None:
                    hits[number] = self._normalising.all

    def take_some(self, values: Sequence[str], tries: int, watch: Watch) -> int:
        """
        Try one value after the other, until so many digests were made.

        Returns:
            How many values were tried.
        """
        left = tries
        for number, value in enumerate(values):
            if left <= 0:
                return number
            if number % _TOLD_EVERY == 0:
                watch(max(number / len(values), 1 - left / tries))
            texts, _ = self.take(value)
            left -= max(1, len(texts)) * len(self._hits)
        return len(values)

    def hits(self) -> dict[Hashing, dict[int, int]]:
        """See `Hits`."""
        return {way: hits for way, hits in self._hits.items() if hits}


def _is_readable(value: str) -> bool:
    """Whether it was UTF-8 in the file."""
    if value.isascii():
        return True
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True
