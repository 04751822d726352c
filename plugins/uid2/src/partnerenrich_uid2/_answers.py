"""What both protocols share: the meaning of an answer for one identifier."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Final, TypeVar

from partnerenrich import BadResponse, Resolution

if TYPE_CHECKING:
    import msgspec

T = TypeVar("T")

SOONEST: Final = 60.0
"""Seconds for which an answer counts even when its time of refresh has just passed."""

_UNMAPPED = {"optout": Resolution.opted_out(), "invalid identifier": Resolution.invalid()}


def found(raw_uid: str, previous: str | None, refresh_from: int, now: float) -> Resolution:
    """
    An identifier that has a raw id.

    Args:
        raw_uid: The current one.
        previous: The one before it, while it is of use.
        refresh_from: Unix time in seconds. Until then the current one cannot change, after it a
            remembered one may be wrong.
        now: Unix time in seconds.
    """
    due = max(float(refresh_from), now + SOONEST)
    return Resolution(raw_uid, previous_id=previous, refresh_at=due, expires_at=due)


def unmapped(reason: str) -> Resolution:
    """An identifier without a raw id. A reason that nobody knows today counts as absent."""
    return _UNMAPPED.get(reason, Resolution.absent())


def decoded(decoder: msgspec.json.Decoder[T], message: bytes) -> T:
    """
    The body of an answer.

    Raises:
        BadResponse: It is something else. Nothing of it is in the message.
    """
    with suppress(ValueError, RecursionError):
        return decoder.decode(message)
    raise BadResponse("the answer is not the JSON of an identity map")
