"""Records that are set aside, and how many of them are too many."""

from __future__ import annotations

from collections import Counter
from threading import Lock
from typing import TYPE_CHECKING, Final

from partnerenrich import PartnerEnrichError

if TYPE_CHECKING:
    from collections.abc import Callable


SUPPRESSED: Final = "on the suppression list"
"""Why a person's record is left out; it says nothing against the input, so there may be any number of them."""

BROKEN: Final = "a line break in quotes"
"""Why what may be several lines of a CSV is no record."""


class TooManyRejected(PartnerEnrichError):
    """More records were set aside than the integration allows: nothing was sealed, and nothing is lost."""


class Rejects:
    """
    Counts of what was set aside, by reason. A reason never holds a value.

    Attributes:
        records: Reason to number of records that are not delivered.
        cells: Column to number of values that could not be used, in records that may be delivered all the same.
    """

    def __init__(self) -> None:
        self.records: Counter[str] = Counter()
        self.cells: Counter[str] = Counter()
        self._lock = Lock()
        self._closed = False

    def close(self) -> None:
        """Count no more: what comes now comes again."""
        self._closed = True

    def add(self, reason: str, count: int = 1) -> None:
        """Count records."""
        with self._lock:
            if not self._closed:
                self.records[reason] += count

    def set_aside(self, reason: str) -> bool:
        """Count one record; False, as the condition of a query wants it."""
        self.add(reason)
        return False

    def set_aside_lines(self, count: str) -> bool:
        """Count the lines of what a stray quote has made one record; False, as the condition of a query wants it."""
        self.add(BROKEN, int(count))
        return False

    def unusable(self, column: str) -> Callable[[], None]:
        """What counts one value of a column."""

        def count() -> None:
            with self._lock:
                if not self._closed:
                    self.cells[column] += 1

        return count

    def check(self, accepted: int, most: float) -> None:
        """
        Refuse to go on when too many were set aside.

        Args:
            accepted: Records that were not.
            most: Largest share of all of them.

        Raises:
            TooManyRejected: It is passed; says by how much, and why.
        """
        counted = Counter({reason: count for reason, count in self.records.items() if reason != SUPPRESSED})
        rejected = counted.total()
        if rejected > most * (rejected + accepted):
            reasons = "; ".join(f"{reason}: {count:,}" for reason, count in counted.most_common())
            raise TooManyRejected(
                f"{rejected:,} of {rejected + accepted:,} records were set aside ({reasons}),"
                f" more than deliver.max_rejected allows ({most:.0%}): nothing was sealed, nothing is lost"
            )
