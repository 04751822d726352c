"""
The people of the sandbox: a few dozen by name, and any number of ``visitor-<number>@example.test``.

All attributes follow from a person's number, so that every run sees the same people.
Names of attributes and tiers: https://docs.amperity.com/reference (predicted value tier, lifecycle status).
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from typing import Any
from uuid import NAMESPACE_DNS, UUID, uuid5

import attrs

KEYCHAIN = ("email", "phone", "loyalty_id", "customer_id", "hashed_email")

# fmt: off
_NAMES = (
    "pat", "sam", "alex", "kim", "lee", "robin", "jo", "max", "chris", "dana", "eli", "fran", "gale", "hayden", "indy",
    "jules", "kai", "logan", "morgan", "nico", "ollie", "parker", "quinn", "reese", "sasha", "taylor", "uli", "val",
    "wren", "yuri",
)
# fmt: on
_PERSONAS = ("Value Hunter", "Brand Loyalist", "Trend Seeker", "Gift Giver", "Seasonal Shopper", "New Parent")
_BRANDS = ("Northwind", "Brightwater", "Maison Élan", "Oak & Pine", "Halden", "Solstice+")
_TAGS = ("newsletter", "app", "store", "returns", "early-access")
_TIERS = ((1, "Platinum"), (5, "Gold"), (10, "Silver"), (25, "Bronze"), (50, "Medium"), (100, "Low"))
_LIFECYCLE = ((60, "active"), (120, "cooling down"), (240, "at risk"), (365, "highly at risk"))
_VISITOR = re.compile(r"visitor-(0|[1-9][0-9]{0,14})@example\.test")


@attrs.frozen
class Person:
    """
    One person.

    Attributes:
        name: Tells people apart.
        number: What the attributes follow from.
        keys: Key of the keychain to the stored value, which matches exactly or not at all.
        scenario: ``merging`` (each lookup gives a new id, and older ids are gone), ``bare`` (required
            fields only), ``array`` (links as an array), or None.
        visitor: One of the endless visitors.
    """

    name: str
    number: int
    keys: Mapping[str, str]
    scenario: str | None = None
    visitor: bool = False


def _ordinary(number: int, name: str) -> Person:
    email = f"{name}@example.test"
    return Person(
        name,
        number,
        {
            "email": email,
            "phone": f"+1202555{100 + number:04d}",
            "loyalty_id": f"L-{1001 + number}",
            "customer_id": f"c-{7001 + 13 * number}",
            "hashed_email": hashlib.sha256(email.encode()).hexdigest(),
        },
    )


ORDINARY = tuple(_ordinary(number, name) for number, name in enumerate(_NAMES))

NAMED = (
    *ORDINARY,
    Person("plus", 101, {"email": "pat+news@example.test", "loyalty_id": "Gold+ 7/42"}),
    Person("accent", 102, {"email": "zoë@example.test", "loyalty_id": "Älteste Karte №1"}),
    Person("upper", 103, {"email": "Mixed.Case@example.test", "loyalty_id": "UPPER lower"}),
    Person("merging", 104, {"email": "merging@example.test"}, scenario="merging"),
    Person("bare", 105, {"email": "bare@example.test"}, scenario="bare"),
    Person("array", 106, {"email": "array@example.test"}, scenario="array"),
)
"""Everyone but the endless visitors."""

_BY_KEY = {pair: person for person in NAMED for pair in person.keys.items()}


def find(key: str, value: str) -> Person | None:
    """Whoever has exactly this value under this key."""
    return _BY_KEY.get((key, value)) or (visitor(value) if key == "email" else None)


def visitor(email: str) -> Person | None:
    """The endless visitor of this address."""
    match = _VISITOR.fullmatch(email)
    return Person(email, 1000 + int(match[1]), {"email": email}, visitor=True) if match else None


def profile_id(scope: str, person: Person, generation: int = 0) -> str:
    """
    The id of a person's profile.

    Args:
        scope: Tenant and collection.
        person: Whose.
        generation: How often the profile was merged.
    """
    if person.visitor:
        return str(UUID(int=_first_half(scope) << 64 | 1 << 63 | (person.number - 1000)))
    return str(uuid5(NAMESPACE_DNS, f"{scope} {person.name} {generation}"))


def visitor_of(scope: str, text: str) -> Person | None:
    """The endless visitor whose profile has this id."""
    try:
        number = UUID(text).int
    except ValueError:
        return None
    second_half = number & ((1 << 64) - 1)
    if number >> 64 != _first_half(scope) or not second_half >> 63:
        return None
    found = visitor(f"visitor-{second_half ^ 1 << 63}@example.test")
    return found if found and profile_id(scope, found) == text else None


def attributes(number: int) -> dict[str, Any]:
    """What is known of a person: text, numbers, a truth value, a list and one null."""
    mixed = number * 2_654_435_761 % 2**32
    percentile = (mixed // 7 + 30) % 1000 / 10
    days = (mixed // 11 + 12) % 500
    return {
        "Persona": _PERSONAS[mixed % len(_PERSONAS)],
        "LifetimeTier": next(tier for top, tier in _TIERS if percentile < top),
        "FavoriteBrand": _BRANDS[mixed // 5 % len(_BRANDS)],
        "PredictedCLV": round(1500 * (percentile + 1) ** -0.93, 2),
        "LifecycleStatus": next((status for limit, status in _LIFECYCLE if days <= limit), "lost"),
        "DaysSinceLatestOrder": days,
        "OptIn": mixed // 3 % 4 != 3,
        "Tags": [tag for place, tag in enumerate(_TAGS) if mixed >> (20 + place) & 1],
        "AssignedStore": None,
    }


def links(person: Person) -> dict[str, list[str]]:
    """The raw identifiers that the vendor adds to a profile."""
    return {kind: [person.keys[kind]] for kind in ("email", "phone") if kind in person.keys}


def _first_half(scope: str) -> int:
    return uuid5(NAMESPACE_DNS, scope).int >> 64
