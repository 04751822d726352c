"""The log of what goes wrong again and again."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import logging

QUIET_SECONDS: Final = 10.0
"""For how long a complaint is not repeated."""


class Complaints:
    """
    Logs each failure once in a while. In any thread.

    Args:
        log: Where they go.
    """

    def __init__(self, log: logging.Logger) -> None:
        self._log = log
        self._quiet_until: dict[str, float] = {}

    def tell(self, name: str, what: str, *details: object) -> None:
        """Log a failure. `name` is one of few; what bears it is not logged again for a while."""
        now = time.monotonic()
        if now >= self._quiet_until.get(name, 0.0):
            self._quiet_until[name] = now + QUIET_SECONDS
            self._log.warning(what, *details)
