"""Records per second from CSV to hashed Parquet parts in a storage, beside bare queries and a Python loop."""

from __future__ import annotations

import csv
import json
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import attrs

from benchmarks import _delivery
from benchmarks._report import Report, summarise, verdict

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

SUMMARY = "records/s of a delivery from CSV to Parquet parts, beside bare Polars and DuckDB, and its memory"

THREADS: Final = 2
MIX: Final = "half of the phones +44..., three tenths with separators, a sixth 00..., one in a hundred national"


@attrs.frozen(kw_only=True)
class Sizes:
    """
    What is run.

    Attributes:
        records: In the file of each round.
        more_records: In the file whose memory is compared; 0 for none.
        loop_records: For the Python loop, which is slow.
        rounds: Each contender has its turn in every round, in rotating order.
        threads: Of each contender.
    """

    records: int = 5_000_000
    more_records: int = 20_000_000
    loop_records: int = 200_000
    rounds: int = 3
    threads: int = THREADS


def run(*, quick: bool) -> Report:
    """Run the benchmark."""
    sizes = Sizes(records=50_000, more_records=0, loop_records=5_000, rounds=1) if quick else Sizes()
    with tempfile.TemporaryDirectory(prefix="partnerenrich-bench-") as folder:
        place = Path(folder)
        file = _written(place / "records.csv", sizes.records)
        few = _written(place / "few.csv", sizes.loop_records)
        expected = _expected(few)
        for name in _delivery.CONTENDERS:
            _check(name, _turn(name, few, place, sizes.threads), expected)
        rounds = [_round(place, file, few, sizes, turn) for turn in range(sizes.rounds)]
        more = None
        if sizes.more_records:
            file.unlink()
            more = _turn("ours", _written(file, sizes.more_records), place, sizes.threads)
        snapshot = None if quick else _turn("ours_snapshot", _written(file, sizes.records), place, sizes.threads)
    return _report(sizes, rounds, more, snapshot)


@attrs.frozen
class Turn:
    """
    One turn of a contender, in a process of its own.

    Attributes:
        records: How many it wrote.
        seconds: On the clock, without the start of the process.
        cpu_seconds: Of the process.
        megabytes: Most memory that it had.
        sample: A digest over some of the rows.
    """

    records: int
    seconds: float
    cpu_seconds: float
    megabytes: float
    sample: str

    @property
    def rate(self) -> float:
        """Records per second."""
        return self.records / self.seconds


def _round(place: Path, file: Path, few: Path, sizes: Sizes, turn: int) -> dict[str, Turn]:
    names = list(_delivery.CONTENDERS)
    first = turn % len(names)
    return {
        name: _turn(name, few if name == "python_loop" else file, place, sizes.threads)
        for name in (*names[first:], *names[:first])
    }


def _turn(name: str, file: Path, place: Path, threads: int) -> Turn:
    out = place / "out"
    command = [sys.executable, "-m", "benchmarks._delivery", name, str(file), str(out), str(threads)]
    try:
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    finally:
        shutil.rmtree(out, ignore_errors=True)
    return Turn(**json.loads(done.stdout))


def _check(name: str, turn: Turn, expected: str) -> None:
    if turn.sample != expected:
        raise AssertionError(f"{name} does not hash as it should")


def _expected(file: Path) -> str:
    with file.open(newline="") as lines:
        return _delivery.sample(_delivery.by_hand(row) for row in csv.DictReader(lines))


def _written(file: Path, records: int) -> Path:
    """A file of made-up customers; the same for the same count."""
    chance = random.Random(5)
    with file.open("w", newline="") as out:
        out.write("customer_id,email,first_name,last_name,phone\n")
        for number in range(records):
            phone = _phone(chance.random(), f"{chance.randrange(10**8):08}")
            email = f"{'Pat.' if number % 3 else 'pat.'}{number:x}@Example{number % 1000}.test"
            out.write(f"user-{number},{email},First{number % 5000},Last{number % 7000},{phone}\n")
    return file


def _phone(kind: float, digits: str) -> str:
    if kind < 0.01:
        return f"079{digits}"
    if kind < 0.5:
        return f"+4479{digits}"
    if kind < 0.7:
        return f"+44 79{digits[:2]} {digits[2:]}"
    if kind < 0.85:
        return f"0044 79{digits[:2]} {digits[2:]}"
    return f"+1 (212) 55{digits[0]}-{digits[1:5]}"


def _report(sizes: Sizes, rounds: Sequence[Mapping[str, Turn]], more: Turn | None, snapshot: Turn | None) -> Report:
    names = list(_delivery.CONTENDERS)
    rates = {name: summarise(each[name].rate for each in rounds) for name in names}
    cpu = {name: summarise(1e6 * each[name].cpu_seconds / each[name].records for each in rounds) for name in names}
    memory = {name: max(each[name].megabytes for each in rounds) for name in names}
    to_floor = summarise(each["ours"].rate / max(each["polars"].rate, each["duckdb"].rate) for each in rounds)
    to_loop = summarise(each["ours"].rate / each["python_loop"].rate for each in rounds)
    figures: dict[str, Any] = {
        "records_per_second": rates,
        "cpu_us_per_record": cpu,
        "megabytes": memory,
        "ratio_to_floor": to_floor["median"],
        "ratio_to_loop": to_loop["median"],
        "ratios_of_rounds": {"floor": to_floor, "loop": to_loop},
    }
    verdicts = [
        verdict("ratio_to_floor", to_floor["median"], at_least=0.6),
        f"ratio_to_loop: {to_loop['median']:.1f}",
        verdict("megabytes", memory["ours"], at_most=600),
    ]
    if more:
        figures |= {"megabytes_of_more": more.megabytes, "records_per_second_of_more": more.rate}
        grown = more.megabytes / statistics.median(each["ours"].megabytes for each in rounds)
        verdicts.append(f"{more.records:,} records: {more.megabytes:.0f} MB, {more.rate:,.0f}/s")
        verdicts.append(verdict("memory of more records, times as much", grown, at_most=1.2))
    if snapshot:
        figures |= {"snapshot": attrs.asdict(snapshot)}
        verdicts.append(f"as a snapshot, latest of each key: {snapshot.rate:,.0f}/s, {snapshot.megabytes:.0f} MB")
    return Report(
        title="deliver: CSV to hashed e-mails and phones in Parquet parts, in a local storage",
        sizes=attrs.asdict(sizes) | {"mix": MIX},
        columns=("median of the rounds", "records/s", "least", "greatest", "CPU us/record", "MB at most"),
        rows=[
            (
                name,
                *(f"{rates[name][figure]:,.0f}" for figure in ("median", "least", "greatest")),
                f"{cpu[name]['median']:.2f}",
                f"{memory[name]:,.0f}",
            )
            for name in names
        ],
        verdicts=verdicts,
        figures=figures,
    )
