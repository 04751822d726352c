"""One living line on the terminal while a run lasts."""

from __future__ import annotations

import contextlib
import sys
import time
from typing import TYPE_CHECKING

from rich.console import Console
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from partnerenrich.statistics import Statistics
    from partnerenrich_server.source import Source
    from partnerenrich_server.summary import Summary


def progress(source: Source, summary: Summary, statistics: Statistics) -> AbstractContextManager[object]:
    """
    Show how far a run is, on stderr, when that is a terminal.

    Args:
        source: Tells how much of a file was read.
        summary: Tells how many events were written.
        statistics: Tells what became of them.
    """
    if not sys.stderr.isatty():
        return contextlib.nullcontext()
    started = time.monotonic()

    def line() -> Table:
        rate = summary.events / max(time.monotonic() - started, 0.001)
        calls = sum(partner.calls.calls for partner in statistics.partners.values())
        row = Table.grid(padding=(0, 2))
        row.add_row(
            ProgressBar(total=source.size, completed=source.position, width=30, pulse=source.size is None),
            f"{summary.events:,} events",
            f"{rate:,.0f}/s",
            f"{calls:,} partner calls",
        )
        return row

    return Live(get_renderable=line, console=Console(stderr=True), refresh_per_second=4, transient=True)
