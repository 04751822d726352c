"""What a run did, as text for people and as JSON for programs."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Final

import attrs

from partnerenrich_server.pipeline import Reject

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping


_SHOWN_REJECTS: Final = 5


@attrs.define
class Summary:
    """
    Counts of one run.

    Attributes:
        events: Events that were processed.
        dropped: Events of which the blueprint made no payload.
        rejected: Lines that were no events.
        first_rejects: The first few of them.
        stopped_by: Name of the signal that ended the input early.
    """

    events: int = 0
    dropped: int = 0
    rejected: int = 0
    first_rejects: list[Reject] = attrs.Factory(list)
    stopped_by: str | None = None
    _started: float = attrs.field(factory=time.monotonic, init=False)

    def count(self, *, events: int, dropped: int, rejects: list[Reject]) -> None:
        """Add one batch."""
        self.events += events
        self.dropped += dropped
        self.rejected += len(rejects)
        self.first_rejects += rejects[: _SHOWN_REJECTS - len(self.first_rejects)]

    def as_dict(self, partners: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
        """
        Everything, ready for JSON.

        Args:
            partners: Label to ``outcomes``, ``calls`` and ``call_seconds``, as in the enricher's statistics.
        """
        seconds = time.monotonic() - self._started
        return {
            "events": self.events,
            "dropped": self.dropped,
            "rejected": self.rejected,
            "first_rejects": [reject._asdict() for reject in self.first_rejects],
            "stopped_by": self.stopped_by,
            "seconds": round(seconds, 3),
            "events_per_second": round(self.events / seconds, 1),
            "calls": sum(partner["calls"] for partner in partners.values()),
            "partners": dict(partners),
        }


def as_text(summary: Mapping[str, Any], kept: object = None) -> str:
    """
    The summary for people, a few lines.

    Args:
        summary: See `Summary.as_dict`.
        kept: Where all rejects were written, to be shown; None when nowhere.
    """
    return "\n".join(_lines(summary, kept))


def _lines(summary: Mapping[str, Any], kept: object) -> Iterable[str]:
    rate = f"{summary['seconds']:.1f} s, {summary['events_per_second']:,.0f}/s"
    yield f"{_number(summary['events'], 'event')} in {rate}; {_number(summary['calls'], 'partner call')}"
    width = max(map(len, summary["partners"]), default=0)
    for label, partner in summary["partners"].items():
        outcomes = ", ".join(f"{outcome} {count:,}" for outcome, count in partner["outcomes"].items())
        calls = _number(partner["calls"], "call")
        if partner["calls"]:
            calls += f" of {1000 * partner['call_seconds'] / partner['calls']:.0f} ms"
        yield f"  {label:<{width}}  {outcomes or 'no event'}; {calls}"
    for destination, count in summary.get("collected", {}).items():
        yield f"{_number(count, 'record')} collected for {destination}"
    if summary["dropped"]:
        yield f"{_number(summary['dropped'], 'event')} without a payload"
    if summary["rejected"] and kept:
        yield f"{_number(summary['rejected'], 'line')} rejected; see {kept}"
    elif summary["rejected"]:
        yield f"{_number(summary['rejected'], 'line')} rejected"
        yield from (f"  line {reject['line']}: {reject['reason']}" for reject in summary["first_rejects"])
        if summary["rejected"] > len(summary["first_rejects"]):
            yield "  ... (--rejects FILE keeps all)"
    if summary["stopped_by"]:
        yield f"stopped by {summary['stopped_by']}; what was read by then was finished"


def _number(count: int, noun: str) -> str:
    return f"{count:,} {noun}{'' if count == 1 else 's'}"
