"""Sample events: a few people in a shop, made from the sample visitors of the sandboxes. The same at every run."""

from __future__ import annotations

import itertools
import random
import uuid
import zlib
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import attrs

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

_OPENING = datetime(2026, 8, 1, 9, tzinfo=UTC)
_PRODUCTS = (("Rain coat", 129.0), ("Walking boots", 159.5), ("Wool socks", 14.9), ("Head torch", 34.0))


@attrs.frozen
class Cast:
    """
    Who visits the shop; each person is linking-key source to value.

    Attributes:
        known: The partners know them.
        unknown: They do not.
        opted_out: They know them, and must not tell.
    """

    known: Sequence[Mapping[str, str]]
    unknown: Sequence[Mapping[str, str]]
    opted_out: Sequence[Mapping[str, str]]

    @classmethod
    def of(cls, samples: Iterable[Mapping[str, Sequence[Mapping[str, str]]]]) -> Cast:
        """A few of the sample visitors of each sandbox."""
        few = list(samples)
        return cls(*([v for sample in few for v in sample.get(k, ())[:4]] for k in ("known", "unknown", "opted_out")))


def days(cast: Cast) -> Iterator[list[dict[str, Any]]]:
    """
    The events of one day in the shop after the other, without end.

    Every day the same people come on new devices, look around, log in and look
    on: the first two known ones share a device; one known person refuses
    consent; one visitor never says who they are.
    """
    shop = _Shop(random.Random(11))  # noqa: S311  a story, no secret
    while True:
        device = shop.new_id()
        together = [event for person in cast.known[:2] for event in shop.visit(device, person)]
        alone = [shop.visit(shop.new_id(), person) for person in (*cast.known[2:], *cast.unknown, *cast.opted_out)]
        refusing = [shop.visit(shop.new_id(), person, consent=False) for person in cast.known[-1:]]
        nameless = shop.visit(shop.new_id(), {})
        rounds = itertools.zip_longest(together, *alone, *refusing, nameless)
        yield [event for moment in rounds for event in moment if event]


class _Shop:
    def __init__(self, dice: random.Random) -> None:
        self._dice = dice
        self._seconds = itertools.count()

    def new_id(self) -> str:
        return str(uuid.UUID(int=self._dice.getrandbits(128), version=4))

    def visit(self, device: str, person: Mapping[str, str], *, consent: bool = True) -> list[dict[str, Any]]:
        def event(kind: str, **fields: Any) -> dict[str, Any]:
            return {
                "type": kind,
                "messageId": self.new_id(),
                "timestamp": (_OPENING + timedelta(seconds=next(self._seconds))).isoformat(),
                "anonymousId": device,
                **fields,
                "context": {"canonical_id": device, "consent": {"marketing": consent}},
            }

        def looked_at() -> dict[str, Any]:
            name, price = self._dice.choice(_PRODUCTS)
            return event("track", event="Product Viewed", properties={"name": name, "price": price})

        if not person:
            return [event("page", name="Home"), looked_at(), looked_at()]
        return [
            event("page", name="Home"),
            _identified(event("identify", traits={}), person),
            looked_at(),
            looked_at(),
            looked_at(),
            _identified(event("track", event="Order Completed", properties={"currency": "EUR"}), person),
        ]


def _identified(event: dict[str, Any], person: Mapping[str, str]) -> dict[str, Any]:
    """Put a person's identifiers where events have them, and the shop's own number of the person."""
    personal = "traits" if event["type"] == "identify" else "properties"
    places = {
        "canonical_id": ("context", "canonical_id"),
        "anonymous_id": ("anonymousId",),
        "user_id": ("userId",),
        "email": (personal, "email"),
        "phone": (personal, "phone"),
    }
    for source, value in person.items():
        *above, name = places.get(source) or source.removeprefix("$").split(".")
        holder = event
        for step in above:
            holder = holder.setdefault(step, {})
        holder[name] = value
    event.setdefault("userId", f"customer-{zlib.crc32(repr(sorted(person.items())).encode()):010}")
    return event
