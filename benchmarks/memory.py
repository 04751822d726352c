"""Resident memory of ``partnerenrich run`` over a long stream of events."""

from __future__ import annotations

import re
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import IO

import attrs

from benchmarks import _events, _run
from benchmarks._report import Report, verdict

SUMMARY = "resident memory of partnerenrich run over a million events"

PROVIDER = "instant"


@attrs.frozen(kw_only=True)
class Sizes:
    """
    What is run.

    Attributes:
        events: All of them.
        visitors: So many that most of them are new for a good part of the run.
        every: Events between two samples.
    """

    events: int = 1_000_000
    visitors: int = 200_000
    every: int = 100_000


@attrs.frozen
class Sample:
    """
    Memory at one moment.

    Attributes:
        events: That have come out.
        resident: MiB.
        peak: Greatest so far, MiB.
    """

    events: int
    resident: float
    peak: float


def run(*, quick: bool) -> Report:
    """Run the benchmark."""
    sizes = Sizes(events=20_000, visitors=4_000, every=2_000) if quick else Sizes()
    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder, "partnerenrich.yaml")
        config.write_text(_CONFIG.format(provider=PROVIDER, plugins_dir=_run.PARTNERS), "utf-8")
        command = [str(Path(sys.executable).with_name("partnerenrich")), "run", "--config", str(config)]
        started = time.perf_counter()
        with subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        ) as process:
            assert process.stdin is not None
            assert process.stdout is not None
            threading.Thread(target=_feed, args=(process.stdin, sizes), daemon=True).start()
            assert process.stderr is not None
            events, samples = _watch(process.pid, process.stdout, sizes.every)
            seconds = time.perf_counter() - started
            said = process.stderr.read().decode()
    if process.returncode or events != sizes.events:
        raise AssertionError(f"run ended with {process.returncode} after {events:,} events: {said}")
    return _report(sizes, samples, seconds)


_CONFIG = """\
org: acme
plugins_dir: {plugins_dir}
integrations:
  - provider: {provider}
"""


def _feed(pipe: IO[bytes], sizes: Sizes) -> None:
    with pipe:
        for event in _events.mixed(sizes.events, sizes.visitors):
            pipe.write(event + b"\n")


def _watch(pid: int, output: IO[bytes], every: int) -> tuple[int, list[Sample]]:
    """Read the output to its end; look at the memory each time that so many events have come out."""
    events, due = 0, every
    samples = []
    while chunk := output.read1(1 << 20):  # type: ignore[attr-defined] # it is buffered
        events += chunk.count(b"\n")
        if events >= due:
            samples.append(_sample(pid, events))
            due += every
    return events, [sample for sample in samples if sample]


def _sample(pid: int, events: int) -> Sample | None:
    """None when the process has just ended."""
    status = Path(f"/proc/{pid}/status").read_text("ascii")
    kib = {field: int(size) for field, size in re.findall(r"^(VmRSS|VmHWM):\s+(\d+) kB$", status, re.MULTILINE)}
    return Sample(events, kib["VmRSS"] / 1024, kib["VmHWM"] / 1024) if kib else None


def _report(sizes: Sizes, samples: list[Sample], seconds: float) -> Report:
    later = samples[len(samples) // 2 :]
    slope = statistics.linear_regression([s.events / 100_000 for s in later], [s.resident for s in later]).slope
    peak = samples[-1].peak
    return Report(
        title="memory: partnerenrich run, events through a pipe; the store is a process of its own",
        sizes=attrs.asdict(sizes) | {"mix": _events.MIX, "partner": "in process"},
        columns=("events", "resident MiB", "peak MiB"),
        rows=[(f"{s.events:,}", f"{s.resident:.1f}", f"{s.peak:.1f}") for s in samples],
        verdicts=(
            verdict("peak_mib", peak, at_most=200),
            f"slope over the second half: {slope:+.2f} MiB per 100,000 events",
            f"{sizes.events / seconds:,.0f} events/s, start and generator included",
        ),
        figures={
            "samples": [attrs.asdict(s) for s in samples],
            "first_mib": samples[0].resident,
            "peak_mib": peak,
            "slope_mib_per_100k_events": slope,
            "events_per_second": sizes.events / seconds,
        },
    )
