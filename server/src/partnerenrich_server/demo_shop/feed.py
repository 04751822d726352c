"""What became of the last events, without a word about whose they were."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

import attrs

from partnerenrich.events import value_of

if TYPE_CHECKING:
    from partnerenrich.events import Event

KEPT: Final = 12
NAME_LENGTH: Final = 40


@attrs.frozen
class Told:
    """
    What became of one event.

    Attributes:
        number: From 1, in the order in which the events were done.
        at: Unix time in seconds.
        name: The event's name, or its type.
        partners: Provider to what is told of the lookup, with the number of ``attributes`` that the event was given.
    """

    number: int
    at: float
    name: str
    partners: Mapping[str, Mapping[str, Any]]


Listener = Callable[[Told], None]


class Feed:
    """
    The last events.

    Args:
        listener: Is told each one.
    """

    def __init__(self, listener: Listener) -> None:
        self._listener = listener
        self._number = 0
        self.last: deque[Told] = deque(maxlen=KEPT)

    async def write(self, events: Sequence[Event]) -> None:
        """Take enriched events; an output of the hub."""
        for event in events:
            self._number += 1
            told = Told(self._number, time.time(), _name(event), _partners(event))
            self.last.append(told)
            self._listener(told)


def _name(event: Event) -> str:
    name = value_of(event.fields.get("event"))
    return str(name if isinstance(name, str) else value_of(event.fields.get("type")))[:NAME_LENGTH]


def _partners(event: Event) -> dict[str, dict[str, Any]]:
    context = event.context or {}
    outcomes = value_of(context.get("enrichment")) or {}
    attributes = value_of(context.get("partner_attrs")) or {}
    return {
        provider: {**outcome, "attributes": len(attributes.get(provider, ()))} for provider, outcome in outcomes.items()
    }
