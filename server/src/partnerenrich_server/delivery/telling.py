"""Deliveries in words, and as JSON."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import attrs

from partnerenrich_server.delivery.entries import OPEN

if TYPE_CHECKING:
    from partnerenrich_server.delivery.entries import Entry, Transition


def line(entry: Entry) -> str:
    """One delivery in one line."""
    told = f"{entry.org}/{entry.integration} {entry.id}: {entry.state}"
    numbers = counts(entry)
    if numbers:
        told += f" ({numbers})"
    return f"{told}: {entry.error}" if entry.error else told


def counts(entry: Entry) -> str:
    """Records, and what the partner said of them."""
    said = [(entry.receipt.get(name), name) for name in ("accepted", "rejected", "malformed")]
    told = [f"{entry.rows:,} rows", *(f"{count:,} {name}" for count, name in said if count is not None)]
    set_aside = sum(entry.rejected.values())
    return ", ".join([*told, *([f"{set_aside:,} set aside before"] if set_aside else [])])


def as_dict(entry: Entry, history: list[Transition] | None = None) -> dict[str, Any]:
    """One delivery as JSON has it; times are ISO 8601."""
    told = attrs.asdict(entry, filter=lambda field, _: field.name not in _INSIDE)
    for name in ("next_attempt", "deadline", "lease_until", "created", "updated", "files_deleted"):
        told[name] = moment(told[name])
    if entry.state not in OPEN:
        told["next_attempt"] = None
    if history is not None:
        told["history"] = [{**attrs.asdict(change), "at": moment(change.at)} for change in history]
    return told


_INSIDE = frozenset({"mark", "turn", "recheck", "polls"})


def moment(seconds: float | None) -> str | None:
    """Unix seconds in ISO 8601, UTC."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds") if seconds else None
