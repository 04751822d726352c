"""End in good order on SIGINT and SIGTERM."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_NUMBERS = (signal.SIGINT, signal.SIGTERM)


@contextlib.contextmanager
def ended_by_signals(end: Callable[[str], None]) -> Iterator[None]:
    """
    Call `end` with the name of the first SIGINT or SIGTERM; a second one kills the process.

    Needs a running event loop in the main thread.
    """
    loop = asyncio.get_running_loop()

    def handle(received: signal.Signals) -> None:
        for number in _NUMBERS:
            loop.remove_signal_handler(number)
            signal.signal(number, signal.SIG_DFL)
        end(received.name)

    for number in _NUMBERS:
        loop.add_signal_handler(number, handle, number)
    try:
        yield
    finally:
        for number in _NUMBERS:
            loop.remove_signal_handler(number)
