"""Who may log in to the shop, and what its hero goes by: found in sample events that were enriched."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import attrs

from partnerenrich import Outcome

if TYPE_CHECKING:
    from collections.abc import Iterable

MOST_KNOWN = 4
SHOWN = 3
"""Attributes of one partner that the page may read."""

Attributes = Mapping[str, Any]


@attrs.frozen
class Person:
    """
    A customer of the shop.

    Attributes:
        name: As the page greets them.
        user_id: The shop's own id.
        traits: E-mail and phone, as far as they are known, and what else a partner goes by.
        profile: Provider to all attributes that it has.
        outcomes: Provider to what came of asking it.
    """

    name: str
    user_id: str
    traits: Mapping[str, str] = attrs.field(repr=False)
    profile: Mapping[str, Attributes] = attrs.field(repr=False)
    outcomes: Mapping[str, str]

    @property
    def note(self) -> str:
        """What is special about them."""
        if self.profile or Outcome.FRESH in self.outcomes.values() or Outcome.HIT in self.outcomes.values():
            return ""
        return "has opted out" if Outcome.OPTED_OUT in self.outcomes.values() else "not known to any partner"


@attrs.frozen
class Hero:
    """
    What decides the hero.

    Attributes:
        provider: Whose attribute.
        attribute: Its name.
        variants: Value to the number of the picture, from 1.
    """

    provider: str
    attribute: str
    variants: Mapping[str, int]

    def picture_of(self, profile: Mapping[str, Attributes]) -> int | None:
        """The picture for a person with this profile; None where the attribute is no known text."""
        value = profile.get(self.provider, {}).get(self.attribute)
        return self.variants.get(value) if isinstance(value, str) else None


@attrs.frozen
class Playbill:
    """
    What the page is made of.

    Attributes:
        people: Who may log in; those who are known, and differ most, come first.
        allowlists: Provider to the attributes that the page may read.
        hero: None where no partner has a text to tell people apart.
    """

    people: Sequence[Person]
    allowlists: Mapping[str, Sequence[str]]
    hero: Hero | None

    @classmethod
    def of(cls, enriched: Iterable[Mapping[str, Any]]) -> Playbill:
        """
        Read the bill from the log-ins among enriched events.

        Args:
            enriched: Those of people who refused consent are left out.
        """
        people = _people(enriched)
        allowlists = _allowlists(people)
        hero = _hero(people, allowlists)
        known = [person for person in people if not person.note]
        others = {person.note: person for person in people if person.note}
        return cls([*_contrasting(known, hero)[:MOST_KNOWN], *others.values()], allowlists, hero)


def _people(enriched: Iterable[Mapping[str, Any]]) -> list[Person]:
    found: dict[str, Person] = {}
    for event in enriched:
        context = event["context"]
        outcomes = {provider: told["outcome"] for provider, told in context.get("enrichment", {}).items()}
        if event["type"] != "identify" or Outcome.DENIED in outcomes.values():
            continue
        traits, user_id = event.get("traits", {}), event.get("userId")
        identity = user_id or traits.get("email") or traits.get("phone")
        if identity is None or identity in found:
            continue
        name = traits["email"].partition("@")[0].capitalize() if "email" in traits else f"Visitor {len(found) + 1}"
        found[identity] = Person(
            name, user_id or f"customer-{len(found) + 1}", traits, context.get("partner_attrs", {}), outcomes
        )
    return list(found.values())


def _allowlists(people: Iterable[Person]) -> dict[str, list[str]]:
    """Of each partner a few attributes that fit on a page; texts first."""
    seen: dict[str, dict[str, Any]] = {}
    for person in people:
        for provider, attributes in person.profile.items():
            seen[provider] = {**attributes, **seen.get(provider, {})}
    return {provider: [*_of_type(each, str), *_of_type(each, (int, float))][:SHOWN] for provider, each in seen.items()}


def _of_type(attributes: Attributes, types: type | tuple[type, ...]) -> list[str]:
    return [name for name, value in attributes.items() if isinstance(value, types)]


def _hero(people: Sequence[Person], allowlists: Mapping[str, Sequence[str]]) -> Hero | None:
    """The first text by which people differ, else the first text."""
    heroes = []
    for provider, names in allowlists.items():
        for name in names:
            values = [person.profile.get(provider, {}).get(name) for person in people]
            texts = dict.fromkeys(value for value in values if isinstance(value, str) and value.strip())
            heroes.append(Hero(provider, name, {text: place for place, text in enumerate(texts, 1)}))
    heroes = [hero for hero in heroes if hero.variants]
    return next((hero for hero in heroes if len(hero.variants) > 1), heroes[0] if heroes else None)


def _contrasting(people: Sequence[Person], hero: Hero | None) -> list[Person]:
    """One person for each picture first, then those who share one; last, those without."""
    if hero is None:
        return list(people)
    pictures = [hero.picture_of(person.profile) for person in people]
    ranks = [(picture is None, picture in pictures[:place]) for place, picture in enumerate(pictures)]
    return [person for _, person in sorted(zip(ranks, people), key=lambda each: each[0])]
