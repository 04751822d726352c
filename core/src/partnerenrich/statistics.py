"""What was done, in numbers. Nothing here names a visitor."""

from __future__ import annotations

from collections import Counter
from typing import Any

import attrs

from partnerenrich.governor import CallStatistics
from partnerenrich.models import Outcome


@attrs.define
class PartnerStatistics:
    """
    One integration's numbers.

    Attributes:
        calls: What was asked of the partner.
        outcomes: Events by outcome.
    """

    calls: CallStatistics
    outcomes: Counter[Outcome] = attrs.field(factory=Counter)


@attrs.define
class Statistics:
    """
    All numbers since the start.

    Attributes:
        events: Events that went through.
        partners: Integration to its numbers; ``org/integration`` where there are several organisations.
    """

    events: int = 0
    partners: dict[str, PartnerStatistics] = attrs.field(factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """The numbers as plain data."""
        return {
            "events": self.events,
            "partners": {
                label: {
                    "outcomes": {outcome.value: count for outcome, count in sorted(numbers.outcomes.items())},
                    "calls": numbers.calls.calls,
                    "call_seconds": round(numbers.calls.seconds, 3),
                    "call_failures": dict(numbers.calls.failures),
                }
                for label, numbers in self.partners.items()
            },
        }
