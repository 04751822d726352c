"""``python -m benchmarks``: run one benchmark, or all."""

from __future__ import annotations

import argparse
import importlib
import json
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from benchmarks._report import Report

NAMES = ("warm", "cold", "bulk", "memory", "startup", "hub", "deliver")
"""Each is a module with a line, `SUMMARY`, and a function, `run`."""


def main() -> None:
    """Run what the command line names."""
    arguments = _parser().parse_args()
    names = NAMES if arguments.name == "all" else (arguments.name,)
    reports: dict[str, Report] = {}
    for name in names:
        reports[name] = importlib.import_module(f"benchmarks.{name}").run(quick=arguments.quick)
        if not arguments.json:
            reports[name].show()
    if arguments.json:
        told = {name: report.as_dict() for name, report in reports.items()}
        json.dump(told if arguments.name == "all" else told[arguments.name], sys.stdout)
        print()


def _parser() -> argparse.ArgumentParser:
    summaries = (f"  {name:<8} {importlib.import_module(f'benchmarks.{name}').SUMMARY}" for name in NAMES)
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description="Measure, and say what was measured: machine, versions, sizes. Targets are told, never enforced;\n"
        "only a wrong result, such as a lost or changed event, ends in an error.",
        epilog="\n".join(
            (
                "benchmarks:",
                *summaries,
                "",
                "A ratio is taken within one round, in which all contenders have their turn, so that a busy machine",
                "harms all alike; the median of the rounds is told. docs/benchmarks.md explains every figure.",
                "",
                "examples:",
                "  python -m benchmarks warm              two to three minutes",
                "  python -m benchmarks all --quick       a few seconds each, to see that they work",
                "  python -m benchmarks cold --json       one JSON object with every figure",
            )
        ),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("name", choices=(*NAMES, "all"), metavar="NAME", help="one of those below, or all")
    parser.add_argument("--quick", action="store_true", help="small sizes; the figures mean nothing")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of tables")
    return parser


if __name__ == "__main__":
    main()
