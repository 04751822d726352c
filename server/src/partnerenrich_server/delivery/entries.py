"""What a ledger holds of one batch: how far its delivery has come."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Any

import attrs


class State(StrEnum):
    """How far a delivery has come."""

    STAGED = "staged"
    """Sealed, and not with the partner."""
    SUBMITTING = "submitting"
    """A call was begun that may hand it over. Durable before the call is made."""
    SUBMITTED = "submitted"
    """The partner has taken it."""
    RUNNING = "running"
    """The partner works on it."""
    PUBLISHED = "published"
    """In use at the partner."""
    HANDED_OVER = "handed_over"
    """With a partner that tells no more than that."""
    REJECTED = "rejected"
    """The partner refuses its records."""
    FAILED = "failed"
    """It was not taken, and is not tried again by itself."""
    UNCERTAIN = "uncertain"
    """Nobody knows whether the partner has it: a person decides."""
    CANCELLED = "cancelled"
    """A person took it back before the partner had it."""
    SUPERSEDED = "superseded"
    """Another batch stands in its place."""


OPEN = frozenset({State.STAGED, State.SUBMITTING, State.SUBMITTED, State.RUNNING})
"""There is more to do."""
WITH_PARTNER = frozenset({State.SUBMITTED, State.RUNNING})
"""The partner said that it has the batch."""
BEGUN = frozenset({State.SUBMITTING, *WITH_PARTNER})
"""On its way."""
DONE = frozenset({State.PUBLISHED, State.HANDED_OVER})
"""All went well."""
SETTLED = frozenset({*DONE, State.REJECTED, State.CANCELLED})
"""Its files are kept for a while, to look back."""
DEAD = frozenset({State.REJECTED, State.FAILED, State.UNCERTAIN})
"""The dead letters: nothing more happens unless a person wants it."""


@attrs.frozen(kw_only=True)
class Entry:
    """
    One batch in the ledger. Times are Unix seconds.

    Attributes:
        id: The batch's.
        org: Slug of the organisation.
        integration: Name of the integration.
        provider: Key of the partner.
        mode: How it is delivered.
        replaces: Whether a publish replaces what the destination has, so that order matters.
        state: How far it has come.
        rows: Records in it.
        bytes: Size of its files.
        files: How many there are.
        rejected: Reason to number of rows that were set aside before it was sealed.
        progress: What the plugin saved.
        receipt: What the partner said last: state, accepted, rejected, malformed, reasons, partner_ref.
        recheck: Whether its rows must be looked through for people who have withdrawn before it goes.
        mark: What was written beside its files when it was begun; None before.
        calls: Calls of the plugin that were begun.
        polls: Calls since there was any news.
        failures: Failed calls in a row.
        error: What went wrong last.
        next_attempt: When it is due.
        deadline: When the partner's time is over; None before the first call.
        owner: The worker that is at it.
        lease_until: Until when nobody else may be.
        superseded_by: The batch in its place.
        turn: Its place in the line of its integration.
        created: When the ledger first knew of it.
        updated: When it last changed.
        files_deleted: When its files were deleted from the storage; None while they are there.
    """

    id: str
    org: str
    integration: str
    provider: str
    mode: str
    replaces: bool
    state: State = attrs.field(default=State.STAGED, converter=State)
    rows: int
    bytes: int
    files: int
    rejected: Mapping[str, int] = attrs.Factory(dict)
    progress: Mapping[str, Any] = attrs.field(factory=dict, repr=False)
    receipt: Mapping[str, Any] = attrs.Factory(dict)
    recheck: bool = True
    mark: str | None = None
    calls: int = 0
    polls: int = 0
    failures: int = 0
    error: str | None = None
    next_attempt: float = 0.0
    deadline: float | None = None
    owner: str | None = None
    lease_until: float = 0.0
    superseded_by: str | None = None
    turn: int = 0
    created: float = 0.0
    updated: float = 0.0
    files_deleted: float | None = None

    @property
    def place(self) -> tuple[str, str]:
        """Org and integration."""
        return self.org, self.integration


@attrs.frozen
class Transition:
    """
    One line of a delivery's history.

    Attributes:
        at: Unix seconds.
        state: The new one.
        why: In a few words; empty where the state says it all.
        owner: The worker that did it; None for a person.
    """

    at: float
    state: State = attrs.field(converter=State)
    why: str
    owner: str | None


@attrs.frozen
class Pause:
    """
    An integration that is left alone for a while, by all workers.

    Attributes:
        org: Slug of the organisation.
        integration: Name of the integration.
        until: Unix seconds.
        why: What is wrong and the way out.
    """

    org: str
    integration: str
    until: float
    why: str
