"""What the hits say: which form the other side uses, what the match rate is under each, and what stays uncertain."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Final

import attrs

from partnerenrich_server.delivery.match.doctor import Found
from partnerenrich_server.delivery.match.hashing import Hashing
from partnerenrich_server.delivery.match.normalising import members

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from partnerenrich_server.delivery.match.normalising import Normalising
    from partnerenrich_server.delivery.match.sending import Sent

_NORMAL: Final = 1.959964  # of a normal distribution, 95 % is within so many deviations
_CHANCE: Final = 0.05
_LARGE: Final = 1000  # from here on the normal distribution is as good as the binomial one

MOST_FORMS: Final = 50
"""So many forms are told; the best ones."""


def interval(hits: int, size: int) -> tuple[float, float]:
    """
    Where a share of everything lies, at 95 %, when so many of a random sample hit: Wilson's score interval.

    Args:
        hits: How many hit.
        size: Of how many; at least one.
    """
    share, weight = hits / size, _NORMAL**2 / size
    middle = (share + weight / 2) / (1 + weight)
    reach = _NORMAL / (1 + weight) * math.sqrt(share * (1 - share) / size + weight / (4 * size))
    return max(0.0, middle - reach), min(1.0, middle + reach)


def chance(more: int, fewer: int) -> float:
    """
    How probable it is that two equally good forms part as far as this by chance: the sign test, two-sided.

    Args:
        more: Digests that only the better form hits.
        fewer: Digests that only the other one hits.
    """
    size = more + fewer
    if size > _LARGE:
        return math.erfc(abs(more - fewer) / math.sqrt(2 * size))
    extreme = sum(math.comb(size, count) for count in range(min(more, fewer) + 1))
    return float(min(1.0, 2 * extreme / 2**size))


@attrs.frozen
class Form:
    """
    One explanation: a way to hash, and the ways to normalise that this sample does not tell apart.

    Attributes:
        hashing: How they hash.
        ways: How they normalise.
        count: How many digests come out.
    """

    hashing: Hashing
    ways: int = attrs.field(repr=False)
    count: int


def forms(found: Found) -> list[Form]:
    """Every form that hits, the best one first; of equals, the most usual."""
    explanations = [form for hashing, hits in found.hits.items() for form in _forms(hashing, Counter(hits.values()))]
    rank = found.normalising.rank
    return sorted(
        explanations, key=lambda form: (-form.count, form.hashing.unusual, min(map(rank, members(form.ways))))
    )


def _forms(hashing: Hashing, counts: Counter[int]) -> Iterator[Form]:
    """Ways to normalise belong to one form when they hit the same digests."""
    hit_by: dict[int, int] = defaultdict(int)
    for position, ways in enumerate(counts):
        for way in members(ways):
            hit_by[way] |= 1 << position
    alike: dict[int, int] = defaultdict(int)
    for way, positions in hit_by.items():
        alike[positions] |= 1 << way
    sizes = list(counts.values())
    for positions, ways in alike.items():
        yield Form(hashing, ways, sum(sizes[position] for position in members(positions)))


@attrs.frozen
class Row:
    """
    One line of the table.

    Attributes:
        form: The form.
        way: Of its ways to normalise the one to tell: ours, or else the nearest to ours or to the best form's.
        adds: How many of its digests the best form does not give.
    """

    form: Form
    way: int
    adds: int


@attrs.frozen
class Diagnosis:
    """
    The findings, in numbers of digests.

    Attributes:
        found: What they are made from.
        rows: The best forms, the very best one first.
        today: What today's recipe gives, written as theirs.
        only_best: What the best form gives and today's recipe does not.
        only_today: The other way round.
        ours: Of the ways to normalise that are today's recipe's, the one that is nearest to the best form's.
        recipes: What each recipe gives that writes as they do, and today's; the most first.
    """

    found: Found
    rows: Sequence[Row]
    today: int
    only_best: int
    only_today: int
    ours: int | None
    recipes: Mapping[str, int]

    @property
    def size(self) -> int:
        """How many digests the sample has."""
        return self.found.sample.size

    @property
    def best(self) -> Row | None:
        """The best explanation."""
        return self.rows[0] if self.rows else None

    def is_ours(self, form: Form) -> bool:
        """Whether it is how we normalise and hash, whatever we write then."""
        return form.hashing == self.found.today.hashing and form.ways & self.found.today.ways != 0

    def same_digests(self) -> list[Sent]:
        """The recipes that give the digests of the best form, however they write them."""
        best = self.rows[0].form
        return [sent for sent in self.found.recipes if sent.hashing == best.hashing and sent.ways & best.ways]

    @property
    def may_be_chance(self) -> bool:
        """Whether today's recipe might do as well as the best form on all that they have."""
        return chance(self.only_best, self.only_today) > _CHANCE


def diagnose(found: Found) -> Diagnosis:
    """Weigh what was found."""
    ranked = forms(found)[:MOST_FORMS]
    today = set(found.recipe_hits[found.today.recipe])
    best = _digests(found, ranked[0]) if ranked else set()
    normalising, our_ways = found.normalising, found.today.ways
    theirs, ours = _nearest(normalising, ranked[0].ways, our_ways) if ranked else (0, None)
    return Diagnosis(
        found=found,
        rows=[
            Row(
                form,
                _nearest(normalising, form.ways & our_ways or form.ways, 1 << theirs)[0],
                len(_digests(found, form) - best),
            )
            for form in ranked
        ],
        today=len(today),
        only_best=len(best - today),
        only_today=len(today - best),
        ours=ours,
        recipes=dict(Counter({name: len(hits) for name, hits in found.recipe_hits.items()}).most_common()),
    )


def _digests(found: Found, form: Form) -> set[int]:
    return {number for number, ways in found.hits[form.hashing].items() if ways & form.ways}


def _nearest(normalising: Normalising, theirs: int, ours: int) -> tuple[int, int | None]:
    """Of two sets of ways to normalise the two that differ least; of such the most usual ones."""
    if not ours:
        return min(members(theirs), key=normalising.rank), None
    if both := theirs & ours:
        way = min(members(both), key=normalising.rank)
        return way, way
    their_way = min(members(theirs), key=normalising.rank)

    def from_(way: int) -> Callable[[int], tuple[int, int]]:
        return lambda other: (len(normalising.differing(way, other)), normalising.rank(other))

    our_way = min(members(ours), key=from_(their_way))
    return min(members(theirs), key=from_(our_way)), our_way
