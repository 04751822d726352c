"""Claims that this process holds, prolonged for as long as what they are about waits for its turn."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from partnerenrich.store import Store


class Leases:
    """
    What keeps other processes from the same work. A process that dies is succeeded when its leases end.

    Nothing here touches what another process has put in the place of a lease, an answer or a claim of its own.

    Args:
        store: Where the leases are.
        milliseconds: How long each lasts when it is not prolonged.
    """

    def __init__(self, store: Store, milliseconds: int) -> None:
        self._store = store
        self._milliseconds = milliseconds
        self._wanted_until: dict[str, float] = {}
        self._timer: asyncio.TimerHandle | None = None

    def hold(self, key: str, wait_until: float) -> None:
        """
        See to a lease that was granted just now.

        Args:
            key: Where it is.
            wait_until: Moment of `time.monotonic` until when it is prolonged. Then the work begins, or is given up.
        """
        self._wanted_until[key] = wait_until
        if self._timer is None:
            self._prolong_later()

    def drop(self, key: str) -> None:
        """Let a lease end by itself, or with the answer that takes its place."""
        self._wanted_until.pop(key, None)

    def release(self, key: str) -> None:
        """Let another process ask."""
        if self._wanted_until.pop(key, None) is not None:
            self._store.release(key)

    def close(self) -> None:
        """Release all that are still held."""
        if self._timer is not None:
            self._timer.cancel()
        for key in list(self._wanted_until):
            self.release(key)

    def _prolong_later(self) -> None:
        self._timer = asyncio.get_running_loop().call_later(self._milliseconds / 3000, self._prolong)

    def _prolong(self) -> None:
        self._timer = None
        now = time.monotonic()
        wanted = [key for key, until in self._wanted_until.items() if now < until]
        self._store.prolong(wanted, self._milliseconds)
        if self._wanted_until:
            self._prolong_later()
