"""
The recipes of `partnerenrich.recipes` for whole columns, as SQL.

A value takes the quick way when it is certain that a recipe would do no more
than trim it, change its case or drop its separators, and hash it; every other
value goes to the recipe itself, once for each distinct one.
"""

from __future__ import annotations

import functools
from collections import defaultdict
from typing import TYPE_CHECKING, Final

import attrs
import phonenumbers

from partnerenrich import recipes
from partnerenrich.blueprint import Field
from partnerenrich.transforms import text_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

_DISTINCT: Final = 100_000
"""How many values are remembered for each column, so that one that comes again is not worked out again."""

_SHA256: Final[Mapping[str, str]] = {
    "sha256": "sha256({})",
    "sha256_lower_trim": "sha256({})",
    "sha256_b64": "to_base64(unhex(sha256({})))",
    "sha256_digits_hex": "sha256(substr({}, 2))",
}
"""Recipe to SQL that makes its digest of a normal form."""
_REWRITTEN: Final[Mapping[str, str]] = {**dict.fromkeys(_SHA256, "lower({})"), "sha256_b64": "to_base64(unhex({}))"}
"""Recipe to SQL that writes a hexadecimal digest as the recipe does."""

NO_IDENTIFIER: Final = "chr(65533)"
"""U+FFFD, as SQL: stands for what could not be read, so that two different ones could become the same person."""

_EMAIL: Final = r"[!-?A-~]+@[!-\-/-?A-~]+\.[!-?A-~]+"
_WRITTEN_PHONE: Final = r" *(?:\+|00)[0-9 ().-]+ *"
_LONGEST_PHONE: Final = 32
_SEPARATORS: Final = " -.()"
_OTHER: Final = r"[!-~](?:[ -~]*[!-~])?"
_DIGEST: Final = "[0-9a-fA-F]{64}"
_BASE64_LENGTH: Final = 44


@attrs.frozen
class Column:
    """
    One column of records, made in three steps, so that none is worked out twice.

    Attributes:
        field: What is done to a value.
        source: Name of the column that it is made of.
        slow: Name of a function of one text that does what `Field.change` does; see `changer`.
        identifies: Whether people are told apart by it.
    """

    field: Field
    source: str
    slow: str
    identifies: bool = False

    @property
    def stripped(self) -> str:
        """First step, of the source: for a phone, without separators."""
        column = name(self.source)
        if not self._quick or self._kind != "phone":
            return column
        spaced = " OR ".join(f"contains({column}, {text(separator)})" for separator in _SEPARATORS)
        digits = functools.reduce(lambda sql, separator: f"replace({sql}, {text(separator)}, '')", _SEPARATORS, column)
        written = f"strlen({column}) <= {_LONGEST_PHONE} AND {_is(column, _WRITTEN_PHONE)}"
        international = f"CASE WHEN starts_with({digits}, '00') THEN concat('+', substr({digits}, 3)) ELSE {digits} END"
        plain = f"starts_with({column}, '+') AND NOT ({spaced})"
        return f"CASE WHEN {plain} THEN {column} WHEN {written} THEN {international} END"

    def normal(self, stripped: str) -> str:
        """Second step, of the first: the normal form; NULL for what does not take the quick way."""
        if not self._quick:
            return "NULL::VARCHAR"
        if self._kind == "phone":
            plan, rewritten = _plans()
            allowed = f"{_is(stripped, plan)} AND NOT regexp_matches({stripped}, {text(rewritten)})"
            return f"CASE WHEN {allowed} THEN {stripped} END"
        trimmed = f"trim({stripped})"
        if self._kind == "email":
            return (
                f"CASE WHEN {_is(stripped, _EMAIL)} THEN lower({stripped})"
                f" WHEN {_is(trimmed, _EMAIL)} THEN lower({trimmed}) END"
            )
        words = ", ".join(map(text, sorted(recipes.NO_VALUES)))
        allowed = f"{_is(trimmed, _OTHER)} AND lower({trimmed}) NOT IN ({words})"
        if self._recipe == "none":
            return f"CASE WHEN {allowed} THEN {trimmed} END"
        digest = f"{_is(trimmed, _DIGEST)} OR strlen({trimmed}) = {_BASE64_LENGTH}"
        return f"CASE WHEN {allowed} AND NOT ({digest}) THEN lower({trimmed}) END"

    def value(self, normal: str) -> str:
        """Last step, of the second and the source: what the destination is sent."""
        column = name(self.source)
        if self.field.transforms == () and not self.field.mapped:
            plain = f"nullif({column}, '')"
            if not self.identifies:
                return plain
            return f"CASE WHEN contains({column}, {NO_IDENTIFIER}) THEN {self.slow}({column}) ELSE {plain} END"
        quick = ""
        if self._quick:
            quick = f"WHEN {normal} IS NOT NULL THEN {_SHA256.get(self._recipe, '{}').format(normal)}"
            if self._recipe in _REWRITTEN:
                quick += f" WHEN {_is(column, _DIGEST)} THEN {_REWRITTEN[self._recipe].format(column)}"
        return f"CASE {quick} WHEN {column} IS NULL OR {column} = '' THEN NULL ELSE {self.slow}({column}) END"

    @property
    def _recipe(self) -> str:
        return self.field.transforms[0]

    @property
    def _kind(self) -> recipes.Kind:
        return recipes.kind_of(self.field.source)

    @property
    def _quick(self) -> bool:
        """Whether there is a quick way at all."""
        return len(self.field.transforms) == 1 and not self.field.mapped and self._recipe in {"none", *_SHA256}


def changer(
    field: Field, default_region: str | None, unusable: Callable[[], None], *, identifies: bool = False
) -> Callable[[str], str | None]:
    """
    What a destination is sent for one text, as `Field.change` makes it.

    Args:
        field: What is done to a value.
        default_region: Country of phone numbers without a country code.
        unusable: Called for every text that gives nothing.
        identifies: Whether people are told apart by it, so that one with U+FFFD gives nothing.
    """

    @functools.lru_cache(_DISTINCT)
    def changed(value: str) -> str | None:
        if identifies and "\ufffd" in value:
            return None
        return text_of(field.change(value, default_region)) or None

    def change(value: str) -> str | None:
        made = changed(value)
        if made is None:
            unusable()
        return made

    return change


def text(value: str) -> str:
    """A text as SQL writes it."""
    return "'" + value.replace("'", "''") + "'"


def name(identifier: str) -> str:
    """The name of a column as SQL writes it."""
    return '"' + identifier.replace('"', '""') + '"'


def _is(column: str, regex: str) -> str:
    return f"regexp_full_match({column}, {text(regex)})"


@functools.cache
def _plans() -> tuple[str, str]:
    """
    Two expressions that together say which digits after a plus need nothing from the library.

    The first matches country code and length, the second what the library would take off or rewrite.
    """
    by_lengths: dict[str, list[str]] = defaultdict(list)
    rewritten = []
    for code in map(str, phonenumbers.COUNTRY_CODE_TO_REGION_CODE):
        plan = recipes.numbering_plan(code)
        if plan is None:
            continue
        by_lengths["|".join(f"[0-9]{{{length}}}" for length in sorted(plan.lengths))].append(code)
        if plan.rewritten:
            rewritten.append(f"{code}(?:{plan.rewritten.pattern})")
    allowed = (f"(?:{'|'.join(codes)})(?:{lengths})" for lengths, codes in by_lengths.items() if lengths)
    return rf"\+(?:{'|'.join(allowed)})", rf"^\+(?:{'|'.join(rewritten)})"
