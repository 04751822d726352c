"""
What may be done to an identifier before it is hashed: a product of independent steps.

For e-mails there are over a thousand ways through the steps, and nearly all end in the same few texts. So all are
walked at once: a text goes along with the set of the ways that lead to it, and ways that meet go on as one.

A way is a number; a set of ways is an integer with those bits set.
"""

from __future__ import annotations

import functools
import re
import unicodedata
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final, Literal

import attrs
import phonenumbers

from partnerenrich import recipes

if TYPE_CHECKING:
    from collections.abc import Iterator

Kind = Literal["email", "phone"]


@attrs.frozen
class Option:
    """
    One way to take a step.

    Attributes:
        words: What becomes of the identifier, fit to stand behind "They hash e-mails".
        rank: How unusual it is; 0 for what most partners ask for.
    """

    words: str
    rank: int


@attrs.frozen
class Step:
    """
    One thing that one party does and another does not.

    Attributes:
        name: For programs.
        options: All ways to take it.
        vary: The text under each option, in their order; None when all leave it as it is.
        concerns: Tells of most identifiers at once that no option changes any text that is made of them.
        told: Whether a description names even the usual option.
    """

    name: str
    options: tuple[Option, ...]
    vary: Callable[[str], Sequence[str] | None]
    concerns: Callable[[str], object] = bool
    told: bool = False


class Normalising:
    """
    All ways through some steps.

    Args:
        steps: In the order in which they are taken. Without any there is one way, which changes nothing.
    """

    def __init__(self, steps: Sequence[Step]) -> None:
        self.steps = tuple(steps)
        self.count = 1
        """How many ways there are."""
        self._strides: list[int] = []
        for step in self.steps:
            self._strides.append(self.count)
            self.count *= len(step.options)
        self.all = (1 << self.count) - 1
        """The set of all ways."""
        self._ranks = [sum(option.rank for option in self.options(way)) for way in range(self.count)]
        self._walk = [
            (step.concerns, step.vary, [self._ways_with(index, choice) for choice in range(len(step.options))])
            for index, step in enumerate(self.steps)
        ]

    def texts(self, value: str) -> dict[str, int]:
        """Each text that some way makes of an identifier, with the set of these ways."""
        found = {value: self.all}
        for concerns, vary, ways_with in self._walk:
            if not concerns(value):
                continue
            varied: dict[str, int] = {}
            for text, ways in found.items():
                variants = vary(text)
                if variants is None:
                    varied[text] = varied.get(text, 0) | ways
                    continue
                for variant, chosen in zip(variants, ways_with):
                    varied[variant] = varied.get(variant, 0) | (ways & chosen)
            found = varied
        return found

    def options(self, way: int) -> list[Option]:
        """What a way chooses at each step."""
        return [step.options[choice] for step, choice in zip(self.steps, self._choices(way))]

    def rank(self, way: int) -> int:
        """How unusual a way is."""
        return self._ranks[way]

    def most_usual(self, ways: int) -> int:
        """Those of some ways that are the most usual."""
        least = min(map(self.rank, members(ways)), default=0)
        return sum(1 << way for way in members(ways) if self.rank(way) == least)

    def differing(self, way: int, other: int) -> list[Step]:
        """The steps at which two ways differ."""
        choices = zip(self.steps, self._choices(way), self._choices(other))
        return [step for step, choice, other_choice in choices if choice != other_choice]

    def _choices(self, way: int) -> Iterator[int]:
        return (way // stride % len(step.options) for step, stride in zip(self.steps, self._strides))

    def _ways_with(self, index: int, choice: int) -> int:
        stride, size = self._strides[index], len(self.steps[index].options)
        return sum(1 << way for way in range(self.count) if way // stride % size == choice)


def members(ways: int) -> Iterator[int]:
    """The ways in a set."""
    while ways:
        lowest = ways & -ways
        yield lowest.bit_length() - 1
        ways ^= lowest


def steps_for(kind: Kind, default_region: str | None) -> tuple[Step, ...]:
    """
    The steps for one kind of identifier.

    Args:
        kind: What the identifiers are.
        default_region: ISO 3166 country of phone numbers without a country code.
    """
    return _EMAIL if kind == "email" else _phone(default_region)


# Both


def _white_space(text: str) -> Sequence[str]:
    return text, text.strip(), "".join(text.split())


_WHITE_SPACE: Final = Step(
    "white_space",
    (
        Option("with the white space around them", 1),
        Option("trimmed", 0),
        Option("without any white space", 1),
    ),
    _white_space,
    concerns=re.compile(r"\s").search,
    told=True,
)


# E-mails


def _has_accents(text: str) -> bool:
    return not text.isascii()


def _accents(text: str) -> Sequence[str]:
    return unicodedata.normalize("NFC", text), unicodedata.normalize("NFD", text)


def _case(text: str) -> Sequence[str]:
    if text.isascii():
        return text, text.lower(), text.upper()
    content = text.encode()
    return text, content.lower().decode(), content.upper().decode()


def _case_of_accents(text: str) -> Sequence[str]:
    lower = "".join(letter if letter.isascii() else letter.lower() for letter in text)
    upper = "".join(letter if letter.isascii() else letter.upper() for letter in text)
    return text, lower, upper


def _alias(text: str) -> Sequence[str] | None:
    if text[-15:].lower() != "@googlemail.com":
        return None
    return text, text[:-14] + ("GMAIL.COM" if text.endswith("M") else "gmail.com")


def _dots(text: str) -> Sequence[str] | None:
    local, at, domain = text.rpartition("@")
    if "." not in local:
        return None
    return _where_it_holds(text, f"{local.replace('.', '')}{at}{domain}", domain)


def _suffix(text: str) -> Sequence[str] | None:
    local, at, domain = text.rpartition("@")
    if "+" not in local:
        return None
    return _where_it_holds(text, f"{local.partition('+')[0]}{at}{domain}", domain)


def _where_it_holds(text: str, changed: str, domain: str) -> Sequence[str]:
    domain = domain.strip().lower()
    at_gmail = changed if domain == "gmail.com" else text
    at_both = changed if domain in {"gmail.com", "googlemail.com"} else text
    return text, at_gmail, at_both, changed


_EMAIL: Final = (
    _WHITE_SPACE,
    Step(
        "accents",
        (Option("with composed accents (NFC)", 0), Option("with decomposed accents (NFD)", 1)),
        _accents,
        concerns=_has_accents,
    ),
    Step(
        "case",
        (Option("with capitals as typed", 1), Option("in lower case", 0), Option("in upper case", 2)),
        _case,
        told=True,
    ),
    Step(
        "case_of_accents",
        (
            Option("with accented capitals as typed", 0),
            Option("with accented letters in lower case", 0),
            Option("with accented letters in upper case", 2),
        ),
        _case_of_accents,
        concerns=_has_accents,
    ),
    Step(
        "alias",
        (Option("with googlemail.com as it is", 0), Option("with gmail.com for googlemail.com", 1)),
        _alias,
        concerns=re.compile("(?i)googlemail").search,
    ),
    Step(
        "dots",
        (
            Option("with their dots", 0),
            Option("without dots at gmail.com", 1),
            Option("without dots at gmail.com and googlemail.com", 1),
            Option("without dots at any domain", 2),
        ),
        _dots,
    ),
    Step(
        "suffix",
        (
            Option("with what follows a plus", 0),
            Option("without what follows a plus at gmail.com", 1),
            Option("without what follows a plus at gmail.com and googlemail.com", 1),
            Option("without what follows a plus at any domain", 2),
        ),
        _suffix,
        concerns=re.compile(r"\+").search,
    ),
)


# Phones


@functools.lru_cache(1024)
def phone_number(text: str, default_region: str | None) -> str | None:
    """`recipes.normalise_phone`, which may take long, for several who ask for the same one after the other."""
    return recipes.normalise_phone(text, default_region)


def _phone(default_region: str | None) -> tuple[Step, ...]:
    def e164(text: str) -> Sequence[str] | None:
        number = phone_number(text, default_region)
        return None if number is None or number == text else (text, number)

    return (
        Step(
            "reading",
            (Option("not brought to E.164", 1), Option("brought to E.164", 0)),
            e164,
            told=True,
        ),
        attrs.evolve(_WHITE_SPACE, told=False),
        Step(
            "separators",
            (Option("with separators", 1), Option("without separators", 0)),
            _separators,
            told=True,
        ),
        Step(
            "trunk_prefix",
            (Option("without a trunk prefix", 0), Option("with the trunk prefix (mostly 0)", 1)),
            _trunk_prefix,
        ),
        Step(
            "country_code",
            (
                Option("with the plus", 0),
                Option("without the plus", 1),
                Option("with 00 for the plus", 1),
                Option("without the country code", 1),
            ),
            _country_code,
            told=True,
        ),
        Step(
            "leading_zeros",
            (Option("with leading zeros", 0), Option("without leading zeros", 1)),
            _leading_zeros,
        ),
    )


_SEPARATORS: Final = str.maketrans("", "", " -.()/\u00a0\u2010\u2011\u2012\u2013\t")


def _separators(text: str) -> Sequence[str] | None:
    digits = text.translate(_SEPARATORS)
    return None if digits == text else (text, digits)


def _trunk_prefix(text: str) -> Sequence[str] | None:
    code = _code_of(text)
    prefix = _trunk_prefix_of(code) if code else None
    return (text, f"+{code}{prefix}{text[1 + len(code) :]}") if code and prefix else None


def _country_code(text: str) -> Sequence[str] | None:
    code = _code_of(text)
    return (text, text[1:], f"00{text[1:]}", text[1 + len(code) :]) if code else None


def _leading_zeros(text: str) -> Sequence[str] | None:
    return (text, text.lstrip("0")) if text.startswith("0") else None


def _code_of(text: str) -> str | None:
    """The country calling code of a plus with digits; no code begins with another one."""
    if not (text.startswith("+") and text[1:].isdecimal() and text.isascii()):
        return None
    codes = (text[1 : 1 + size] for size in (1, 2, 3))
    return next((code for code in codes if int(code) in phonenumbers.COUNTRY_CODE_TO_REGION_CODE), None)


@functools.cache
def _trunk_prefix_of(code: str) -> str | None:
    """What is dialled before a number within its country. In North America it is the country code, so nothing."""
    region = phonenumbers.region_code_for_country_code(int(code))
    metadata = phonenumbers.PhoneMetadata.metadata_for_region_or_calling_code(int(code), region)
    prefix = metadata.national_prefix if metadata else None
    return None if prefix == code else prefix
