"""The diagnosis in words: what they do, what to do about it, and what is not certain."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from partnerenrich_server.delivery.match.diagnosis import interval
from partnerenrich_server.delivery.match.normalising import members

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from partnerenrich_server.delivery.match.diagnosis import Diagnosis, Row

_SHOWN: Final = 10
_WORTH_TELLING: Final = 0.01
_WIDE: Final = 0.1
_SAME: Final = 0.99
_SEEN: Final = 3  # on average so many hits, and there is one at 95 %


def as_dict(diagnosis: Diagnosis) -> dict[str, Any]:
    """Everything, ready for JSON. Shares are from 0 to 1."""
    found, size = diagnosis.found, diagnosis.size
    return {
        "sentence": sentence(diagnosis),
        "advice": list(advice(diagnosis)),
        "kind": found.kind,
        "today": {"recipe": found.today.recipe, "writing": found.today.writing, **_share(diagnosis.today, size)},
        "forms": [_row(diagnosis, row) for row in diagnosis.rows],
        "recipes": {name: _share(hits, size) for name, hits in diagnosis.recipes.items()},
        "ours": {
            "values": found.ours.rows,
            "hashed": found.ours.hashed,
            "unreadable": found.ours.unreadable,
            "refused": found.ours.refused,
        },
        "theirs": {
            "values": found.sample.rows,
            "digests": size,
            "part": found.sample.share,
            "hashes": found.sample.hashes,
            "writings": dict(found.sample.writings),
            "no_digests": found.sample.unread,
            "of_nothing": found.sample.of_nothing,
        },
        "tried": {
            "normalising": found.normalising.count,
            "hashing": found.tried,
            "hashing_on_part": found.tried_on_part,
            "part": found.part,
        },
    }


def as_text(diagnosis: Diagnosis) -> str:
    """For people: what it is, what to do, and a table of the best forms."""
    return "\n".join([sentence(diagnosis), *advice(diagnosis), *_table(diagnosis)])


def _share(hits: int, size: int) -> dict[str, Any]:
    low, high = interval(hits, size)
    return {"hits": hits, "share": round(hits / size, 6), "low": round(low, 6), "high": round(high, 6)}


def _row(diagnosis: Diagnosis, row: Row) -> dict[str, Any]:
    normalising = diagnosis.found.normalising
    told = zip(normalising.steps, normalising.options(row.way))
    return {
        **_share(row.form.count, diagnosis.size),
        "adds": row.adds,
        "hashing": str(row.form.hashing),
        "normalising": {} if _unknown(diagnosis, row) else {step.name: option.words for step, option in told},
        "words": _description(diagnosis, row),
        "not_settled": _not_settled(diagnosis, row),
    }


# What they do


def sentence(diagnosis: Diagnosis) -> str:
    """The best explanation and what it is worth, in a few sentences."""
    best = diagnosis.best
    if best is None:
        found, theirs = diagnosis.found, _count(diagnosis.size, "digest")
        return (
            f"None of their {theirs} comes out of ours, by {found.tried + found.tried_on_part:,} ways to hash and"
            f" {found.normalising.count:,} ways to normalise."
        )
    share, today = _percent(best.form.count, diagnosis.size), _percent(diagnosis.today, diagnosis.size)
    return f"{_they(diagnosis, best)} Under their form {share} of their sample is ours, today {today}."


def _they(diagnosis: Diagnosis, best: Row) -> str:
    noun, writing = _noun(diagnosis), _writing(diagnosis)
    if diagnosis.is_ours(best.form):
        return f"They hash {noun} as we do{f', but write {writing[0]}; we {writing[1]}' if writing else ''}."
    theirs, ours = _differences(diagnosis, best)
    we = f"; we {_listed(ours)}" if ours else ""
    also = f" They write {writing[0]}; we {writing[1]}." if writing else ""
    return f"They hash {noun} {_listed(theirs)}{we}.{also}"


def _differences(diagnosis: Diagnosis, best: Row) -> tuple[list[str], list[str]]:
    """What they do and we do not, and what we do instead."""
    found = diagnosis.found
    if diagnosis.ours is None:
        return [_description(diagnosis, best)], []
    steps = zip(found.normalising.options(best.way), found.normalising.options(diagnosis.ours))
    differing = [(theirs.words, ours.words) for theirs, ours in steps if theirs != ours]
    if best.form.hashing != found.today.hashing:
        differing.append((f"by {best.form.hashing}", f"by {found.today.hashing}"))
    return [theirs for theirs, _ in differing], [ours for _, ours in differing]


def _writing(diagnosis: Diagnosis) -> tuple[str, str] | None:
    """How they write digests and how we do, where that differs."""
    theirs, ours = next(iter(diagnosis.found.sample.writings)), diagnosis.found.today.writing
    return None if theirs == ours else (theirs, ours)


def _description(diagnosis: Diagnosis, row: Row) -> str:
    """A form, such as ``trimmed, in lower case; SHA-256``."""
    normalising = diagnosis.found.normalising
    told = [
        option.words
        for step, option in zip(normalising.steps, normalising.options(row.way))
        if step.told or option.rank
    ]
    return str(row.form.hashing) if _unknown(diagnosis, row) else f"{', '.join(told)}; {row.form.hashing}"


def _unknown(diagnosis: Diagnosis, row: Row) -> bool:
    """Whether nothing can be said of how they normalise: our values that hit are digests already."""
    return row.form.ways == diagnosis.found.normalising.all


# What to do about it


def advice(diagnosis: Diagnosis) -> Iterator[str]:
    """Sentences, the most important first."""
    if diagnosis.best:
        yield from _on_recipes(diagnosis)
        yield from _on_chance(diagnosis, diagnosis.best)
        yield from _on_other_forms(diagnosis)
    else:
        yield from _on_nothing(diagnosis)
    yield from _on_ours(diagnosis)
    yield from _on_theirs(diagnosis)
    yield from _on_trying(diagnosis)


def _on_recipes(diagnosis: Diagnosis) -> Iterator[str]:
    today, hits = diagnosis.found.today.recipe, max(diagnosis.recipes.values())
    recipe = today if hits == diagnosis.today else max(diagnosis.recipes, key=lambda name: diagnosis.recipes[name])
    if hits >= _SAME * diagnosis.rows[0].form.count:
        yield (
            f"Nothing to change: that is what {today} gives."
            if recipe == today
            else f"There is a recipe for it: hash: {recipe} in a linking key, transform: {recipe} in a blueprint."
        )
        return
    nearest = f"; the nearest is {recipe}, with {_percent(hits, diagnosis.size)}" if hits > diagnosis.today else ""
    yield f"No recipe gives exactly this{nearest}."
    if same := diagnosis.same_digests():
        otherwise = _listed([f"{sent.recipe} in {sent.writing}" for sent in same])
        yield f"The same digests, only written otherwise, are given by {otherwise}: ask whether they take that."
    else:
        yield "Agree with them on a form that both sides can make."


def _on_chance(diagnosis: Diagnosis, best: Row) -> Iterator[str]:
    low, high = interval(best.form.count, diagnosis.size)
    if high - low > _WIDE:
        yield (
            f"The sample is small: of all that they have, {_percent(low)} to {_percent(high)} may be ours"
            " under their form (95 %)."
        )
    if best.form.count != diagnosis.today and diagnosis.may_be_chance:
        parted = _count(diagnosis.only_best + diagnosis.only_today, "digest")
        yield f"The difference to today is {parted}: it could be chance. Ask for a larger sample."
    if undecided := _not_settled(diagnosis, best):
        yield f"Not settled, for it makes no difference in this sample: {', '.join(undecided)}."


def _on_other_forms(diagnosis: Diagnosis) -> Iterator[str]:
    other = max(diagnosis.rows, key=lambda row: row.adds)
    if other.adds >= _WORTH_TELLING * diagnosis.size:
        share = _percent(other.adds, diagnosis.size)
        yield f"They mix forms: a further {share} of their sample comes out as: {_description(diagnosis, other)}."


def _on_nothing(diagnosis: Diagnosis) -> Iterator[str]:
    found = diagnosis.found
    _, high = interval(0, diagnosis.size)
    yield f"So at most {_percent(high)} of all that they have is ours in one of these forms (95 %)."
    if found.ours.hashed == found.ours.rows and not found.ours.hashes.keys() & found.sample.hashes.keys():
        ours, theirs = (" and ".join(hashes) for hashes in (found.ours.hashes, found.sample.hashes))
        yield f"Ours are digests by {ours}, theirs by {theirs}: one cannot be made of the other. Take our plain values."
    else:
        yield (
            "Either the two files have nobody in common, or they use a salt that was not given (--salt), or they hash"
            f" something else than {_noun(diagnosis)}."
        )


def _on_ours(diagnosis: Diagnosis) -> Iterator[str]:
    found, ours = diagnosis.found, diagnosis.found.ours
    if ours.hashed:
        which = "Our values are" if ours.hashed == ours.rows else f"{_count(ours.hashed, 'value')} of ours are"
        yield f"{which} hashed already: only other ways to write them, and to hash them once more, could be tried."
    if ours.refused:
        why = (
            "they are no addresses"
            if found.kind == "email"
            else "it does not take them as phones; those without a country code need --default-region"
        )
        yield f"{found.today.recipe} gives nothing for {ours.refused:,} of our {_count(ours.rows, 'value')}: {why}."
    if ours.unreadable:
        yield f"{_count(ours.unreadable, 'value')} of ours were left out: they are not UTF-8."


def _on_theirs(diagnosis: Diagnosis) -> Iterator[str]:
    sample = diagnosis.found.sample
    if sample.of_nothing:
        which = _count(sample.of_nothing, "value")
        yield f"{which} of theirs were left out: digests of an empty text or of a word such as null, thus of nobody."
    if sample.unread:
        yield f"{_count(sample.unread, 'value')} of theirs were left out: they are no digests."
    if len(sample.hashes) > 1:
        yield f"Their digests are by several hashes: {_shares(sample.hashes)}."
    if len(sample.writings) > 1:
        yield f"Their digests are written in several ways: {_shares(sample.writings)}. Compared as text, some are lost."
    if sample.share < 1:
        yield f"A random part of their digests was used: {diagnosis.size:,}, about {_percent(sample.share)}."


def _on_trying(diagnosis: Diagnosis) -> Iterator[str]:
    found = diagnosis.found
    if found.tried_on_part:
        least = max(0.001, _SEEN * found.ours.rows / (found.part * diagnosis.size))
        likely = f" (one that explains {_percent(least)} of their sample would have)" if least < 1 else ""
        yield (
            f"{found.tried_on_part} unusual ways to hash were tried on {found.part:,} of our {found.ours.rows:,} values"
            f" only, and hit nothing{likely}; --thorough tries them on all."
        )


def _not_settled(diagnosis: Diagnosis, row: Row) -> list[str]:
    """The steps at which a form has several options: they give the same digests here."""
    if _unknown(diagnosis, row):
        return []
    normalising = diagnosis.found.normalising
    differing = [normalising.differing(row.way, way) for way in members(row.form.ways)]
    alone = {steps[0].name for steps in differing if len(steps) == 1}
    return [step.name.replace("_", " ") for step in normalising.steps if step.name in alone]


# The table


def _table(diagnosis: Diagnosis) -> list[str]:
    size, today = diagnosis.size, diagnosis.found.today
    shown = [row for number, row in enumerate(diagnosis.rows) if number < _SHOWN or diagnosis.is_ours(row.form)]
    lines = [
        (_percent(row.form.count, size), _range(row.form.count, size), _beside(row, size), _in_table(diagnosis, row))
        for row in shown
    ]
    written = f"{today.recipe}, written in {today.writing} (today)"
    lines.append((_percent(diagnosis.today, size), _range(diagnosis.today, size), "", written))
    heads = ("of their sample", "95 %", "beside the best", "form")
    widths = [max(len(line[column]) for line in (heads, *lines)) for column in range(len(heads) - 1)]
    return ["", *("  ".join((*map(str.rjust, line, widths), line[-1])) for line in (heads, *lines))]


def _in_table(diagnosis: Diagnosis, row: Row) -> str:
    """The best form in full, the others by where they differ from it."""
    ours = " (as we hash)" if diagnosis.is_ours(row.form) else ""
    best = diagnosis.rows[0]
    if row is best or row.form.hashing != best.form.hashing:
        return f"{_description(diagnosis, row)}{ours}"
    normalising = diagnosis.found.normalising
    pairs = zip(normalising.options(row.way), normalising.options(best.way))
    return f"but {_listed([option.words for option, of_best in pairs if option != of_best])}{ours}"


def _range(hits: int, size: int) -> str:
    low, high = interval(hits, size)
    return f"{100 * low:.1f} to {100 * high:.1f}"


def _beside(row: Row, size: int) -> str:
    return f"+{_percent(row.adds, size)}" if row.adds else ""


# Words


def _noun(diagnosis: Diagnosis) -> str:
    ours = diagnosis.found.ours
    if ours.hashed == ours.rows:
        return "identifiers"
    return {"email": "e-mails", "phone": "phones"}[diagnosis.found.kind]


def _percent(part: float, whole: float = 1) -> str:
    return f"{100 * part / whole:.1f} %"


def _count(count: int, noun: str) -> str:
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def _shares(counts: Mapping[Any, int]) -> str:
    whole = sum(counts.values())
    return ", ".join(f"{name} {_percent(count, whole)}" for name, count in counts.items())


def _listed(words: Sequence[str]) -> str:
    *most, last = words
    return f"{', '.join(most)} and {last}" if most else last
