"""
The salts of an operator, and how they rotate.

As in IABTechLab/uid2-admin, a bucket rotates at midnight UTC, only after a whole number of 30 days,
about once a year.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable, Sequence
from typing import Protocol

import attrs

from partnerenrich_uid2._sandbox.raw_uids import Key
from partnerenrich_uid2.config import Scope

DAY = 86_400
STEP_DAYS = 30
"""A raw UID may change after each of so many days."""
LIFE_DAYS = 360
"""Days of one salt; a multiple of `STEP_DAYS`."""
PREVIOUS_DAYS = 90
"""Days for which the raw UID before is told."""


@attrs.frozen
class Bucket:
    """
    One bucket.

    Attributes:
        id: Its number in public names.
        salt: Of today.
        previous: The one before.
        rotated_at: When that changed, Unix time in seconds.
        refresh_from: Until when it does not change, Unix time in seconds.
    """

    id: int
    salt: str | Key
    previous: str | Key | None
    rotated_at: float
    refresh_from: float

    def previous_salt(self, now: float) -> str | Key | None:
        """The salt before, while it is told."""
        return self.previous if (now - self.rotated_at) // DAY < PREVIOUS_DAYS else None

    def refresh_at(self, now: float) -> int:
        """`refresh_from`, or the next midnight when that is past."""
        return int(self.refresh_from) if self.refresh_from > now else (int(now) // DAY + 1) * DAY


class Salts(Protocol):
    """All salts of an operator."""

    @property
    def first_level(self) -> str:
        """The salt that never rotates."""

    @property
    def size(self) -> int:
        """Number of buckets."""

    def bucket(self, index: int, now: float) -> Bucket:
        """One bucket, as it is at a moment."""

    def buckets(self, now: float) -> Iterable[Bucket]:
        """All buckets, as they are at a moment."""


@attrs.frozen
class Table:
    """
    Salts that are written down.

    Attributes:
        first_level: The salt that never rotates.
        rows: The buckets.
    """

    first_level: str
    rows: Sequence[Bucket]

    @property
    def size(self) -> int:
        """Number of buckets."""
        return len(self.rows)

    def bucket(self, index: int, now: float) -> Bucket:  # noqa: ARG002  the interface's
        """One bucket, at any time."""
        return self.rows[index]

    def buckets(self, now: float) -> Iterable[Bucket]:  # noqa: ARG002  the interface's
        """All buckets, at any time."""
        return self.rows


@attrs.frozen
class Calendar:
    """
    Salts that follow from the day, so that they rotate and yet are the same in every run.

    A tenth of a percent of the buckets of a real operator, spread evenly over the days. Every fourth
    bucket has a key.

    Attributes:
        scope: Two scopes have no salt in common.
        first_level: The salt that never rotates.
        size: Number of buckets.
    """

    scope: Scope
    first_level: str = "sandbox-first-level"
    size: int = 3 * LIFE_DAYS

    def bucket(self, index: int, now: float) -> Bucket:
        """One bucket, as it is on a day."""
        age = int(now // DAY - index) % LIFE_DAYS
        rotated_on = int(now // DAY) - age
        refresh_on = rotated_on + (age // STEP_DAYS + 1) * STEP_DAYS
        return Bucket(
            1_000_000 + index,
            self._salt(index, rotated_on),
            self._salt(index, rotated_on - LIFE_DAYS),
            rotated_on * DAY,
            refresh_on * DAY,
        )

    def buckets(self, now: float) -> Iterable[Bucket]:
        """All buckets, as they are on a day."""
        return (self.bucket(index, now) for index in range(self.size))

    def _salt(self, index: int, day: int) -> str | Key:
        digest = hashlib.sha256(f"{self.scope} {index} {day}".encode()).digest()
        if index % 4 == 3:
            return Key(2_000_000 + index, digest, digest[::-1])
        return base64.b64encode(digest).decode()
