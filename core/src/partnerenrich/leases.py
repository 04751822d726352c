"""Claims that this process holds, prolonged for as long as it works on them."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from partnerenrich.store import Store


class Leases:
    """
    What keeps other processes from the same work. A process that dies is succeeded when its leases end.

    Args:
        store: Where the leases are.
        milliseconds: How long each lasts when it is not prolonged.
    """

    def __init__(self, store: Store, milliseconds: int) -> None:
        self._store = store
        self._milliseconds = milliseconds
        self._ends: dict[str, float] = {}
        self._timer: asyncio.TimerHandle | None = None

    def hold(self, key: str) -> None:
        """Prolong a lease that was granted just now."""
        self._ends[key] = time.monotonic() + self._milliseconds / 1000
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(self._milliseconds / 3000, self._prolong)

    def drop(self, key: str) -> None:
        """Let a lease end by itself, or with the answer that takes its place."""
        self._ends.pop(key, None)

    def release(self, key: str) -> None:
        """Let another process ask, unless the lease has ended and may be another's."""
        if time.monotonic() < self._ends.pop(key, 0.0):
            self._store.release(key)

    def close(self) -> None:
        """Prolong nothing any more."""
        if self._timer is not None:
            self._timer.cancel()

    def _prolong(self) -> None:
        """See to leases of which a third is over. Whatever has taken the place of one lasts longer, and stays."""
        now, life = time.monotonic(), self._milliseconds / 1000
        aged = [key for key, end in self._ends.items() if now < end <= now + life * 2 / 3]
        self._store.queue(("PEXPIRE", key, self._milliseconds, "GT") for key in aged)
        self._ends.update(dict.fromkeys(aged, now + life))
        self._timer = None
        if self._ends:
            self._timer = asyncio.get_running_loop().call_later(life / 3, self._prolong)
