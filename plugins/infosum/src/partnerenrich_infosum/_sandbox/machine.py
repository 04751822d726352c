"""Executions that are moved by a clock alone: nothing runs in the background, nobody has to sleep."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import attrs

FINAL = frozenset({"COMPLETED", "PARTIALLY_COMPLETED", "FAILED", "CANCELED"})
BEGINNING = (("WAITING", 0.0), ("INITIALIZING", 0.1), ("RUNNING", 0.2))
"""Each state on the way, and the share of the time at which it begins."""

SPELT_IN_2022 = {"INITIALIZING": "INITIALISING", "CANCELING": "CANCELLING"}
CANCELING_LASTS = 1.0


@attrs.frozen
class End:
    """How an execution ends."""

    status: str = "COMPLETED"
    code: str | None = None
    message: str = "done"


@attrs.define(eq=False)
class Task:
    """
    One execution.

    Attributes:
        id: As InfoSum gives it.
        kind: Its stage.
        user: Who asked for it.
        created: Unix time in seconds.
        lasts: Seconds from there to its end.
        work: Done once, when its time is over. Says how it ends.
        facts: What an answer tells of it, beside status and progress.
        is_stuck: It never ends by itself.
    """

    id: str
    kind: str
    user: str
    created: float
    lasts: float
    work: Callable[[], End]
    facts: dict[str, Any] = attrs.Factory(dict)
    is_stuck: bool = False
    status: str = attrs.field(default="", init=False)
    ended: float | None = attrs.field(default=None, init=False)
    updated: float = attrs.field(default=0.0, init=False)
    history: list[dict[str, Any]] = attrs.Factory(list)
    _passed: int = attrs.field(default=0, init=False)
    _canceled_at: float | None = attrs.field(default=None, init=False)

    def advance(self, now: float) -> None:
        """Be where the clock says."""
        if self.ended is not None:
            return
        if self._canceled_at is not None:
            if now >= self._canceled_at + CANCELING_LASTS:
                self._end(self._canceled_at + CANCELING_LASTS, End("CANCELED", message="canceled"))
            return
        while self._passed < len(BEGINNING) and now >= self.created + self.lasts * BEGINNING[self._passed][1]:
            status, share = BEGINNING[self._passed]
            self._enter(self.created + self.lasts * share, status, status.lower())
            self._passed += 1
        if now >= self.created + self.lasts and not self.is_stuck:
            self._end(self.created + self.lasts, self.work())

    def cancel(self, now: float) -> bool:
        """Whether it can be canceled."""
        if self.ended is not None or self._canceled_at is not None:
            return False
        self._canceled_at = now
        self._enter(now, "CANCELING", "a user asked for it")
        return True

    def percentage(self, now: float) -> float:
        """How much is done."""
        if self.ended is not None or not self.lasts:
            return 100.0
        return round(min(99.0, max(0.0, 100 * (now - self.created) / self.lasts)), 1)

    def _end(self, at: float, end: End) -> None:
        self.ended = at
        self._enter(at, end.status, end.message, end.code)

    def _enter(self, at: float, status: str, message: str, code: str | None = None) -> None:
        self.status, self.updated = status, at
        entry: dict[str, Any] = {"date_time": moment(at), "status": status, "message": message}
        if code:
            entry["error"] = envelope(code, message, at)
        self.history.append(entry)


def envelope(code: str, message: str, at: float, details: str | None = None) -> dict[str, Any]:
    """An error as InfoSum tells it."""
    return {
        "error": {"code": code, "message": message},
        "details": {"code": code, "message": details or message},
        "help_url": "https://example.test/help",
        "request_id": "req-sandbox",
        "time": moment(at),
    }


def moment(at: float) -> str:
    """RFC 3339."""
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
