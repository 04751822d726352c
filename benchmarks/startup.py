"""How long ``partnerenrich --help`` takes, beside a Python that does nothing."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks._report import Report, summarise, verdict

if TYPE_CHECKING:
    from collections.abc import Sequence

SUMMARY = "wall time of partnerenrich --help, and what it imports"

HELP = (str(Path(sys.executable).with_name("partnerenrich")), "--help")
FLOOR = (sys.executable, "-c", "pass")


def run(*, quick: bool) -> Report:
    """Run the benchmark."""
    times = 3 if quick else 10
    rounds = [{"ours": _milliseconds(HELP), "floor": _milliseconds(FLOOR)} for _ in range(times)]
    ours, floor = (summarise(each[name] for each in rounds) for name in ("ours", "floor"))
    ratio = summarise(each["ours"] / each["floor"] for each in rounds)
    imports = dict(_imports().most_common())
    return Report(
        title="startup: partnerenrich --help beside python -c pass",
        sizes={"times": times},
        columns=("median of the times", "ms", "least", "greatest"),
        rows=[
            (name, *(f"{figures[figure]:.0f}" for figure in ("median", "least", "greatest")))
            for name, figures in (("ours", ours), ("floor", floor))
        ],
        verdicts=(
            verdict("seconds", ours["median"] / 1000, at_most=0.3),
            f"ratio_to_floor: {ratio['median']:.1f}",
            "imported beside the standard library: "
            + ", ".join(f"{name} {us / 1000:.0f} ms" for name, us in imports.items()),
        ),
        figures={
            "milliseconds": {"ours": ours, "floor": floor},
            "ratio_to_floor": ratio["median"],
            "imports_us": imports,
        },
    )


def _milliseconds(command: Sequence[str]) -> float:
    started = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return 1000 * (time.perf_counter() - started)


def _imports() -> Counter[str]:
    """Top-level package outside the standard library to the microseconds that its own modules took."""
    command = (sys.executable, "-X", "importtime", *HELP)
    told = subprocess.run(command, check=True, capture_output=True, text=True).stderr
    spent: Counter[str] = Counter()
    for microseconds, module in re.findall(r"^import time:\s+(\d+) \|\s+\d+ \|\s+(\S+)$", told, re.MULTILINE):
        package = module.partition(".")[0]
        if package not in sys.stdlib_module_names and not package.startswith("_"):
            spent[package] += int(microseconds)
    return spent
