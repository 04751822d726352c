"""SIGTERM and SIGINT at any moment of ``partnerenrich run``."""

import itertools
import json
import os
import signal
import time
from collections import Counter

import pytest

pytestmark = pytest.mark.soak

PROVIDERS = ("amperity", "uid2")
BUDGET = 3.0
LENGTH = 200_000


@pytest.fixture
def config(soak, new_partner, new_store, configured):
    """Partners that take their time, and a store that lives from run to run."""
    partners = [new_partner(name) for name in PROVIDERS]
    for partner in partners:
        partner.behave(latency_ms=30)
    limits = {"timeout": 2, "attempts": 2, "concurrency": 16}
    ttl = {"resolved": 5, "attributes": 5, "not_found": 5, "failed": 1}
    integrations = [partner.integration(limits=limits, ttl=ttl) for partner in partners]
    return configured(integrations, new_store(kept=False).url, budget_ms=1000 * BUDGET)


class File:
    """An input that ends. How much of it was read is seen by the position that the reader shares."""

    def __init__(self, crowd, path):
        path.write_bytes(b"".join(sent.line for sent in itertools.islice(crowd.lines(), LENGTH)))
        self.reader = os.open(path, os.O_RDONLY)
        self.size = path.stat().st_size

    def read(self):
        """Bytes, and whether that was all."""
        position = os.lseek(self.reader, 0, os.SEEK_CUR)
        return position, position == self.size


class Stream:
    """An input without end. How much of it was read is seen by what is left in the pipe."""

    def __init__(self, crowd):
        self.reader, writer = os.pipe()
        self._feeding = crowd.feed(os.fdopen(writer, "wb"))

    def read(self):
        """Bytes, and whether that was all."""
        self._feeding.end()
        left = 0
        while chunk := os.read(self.reader, 1 << 16):
            left += len(chunk)
        self._feeding.join()
        return self._feeding.bytes - left, False


@pytest.mark.parametrize("kind", ["file", "stream"])
def test_what_was_read_comes_out_and_nothing_else(soak, kind, config, started, crowd, some_time_of, tmp_path):
    """After a first signal, all that was read; after a second one, at once, the beginning of it."""
    output, summary = tmp_path / "out", tmp_path / "summary"
    codes, events, slowest = Counter(), 0, 0.0
    while soak.goes_on:
        many = crowd(seed=f"{soak.seed} {codes.total()}", settled=True)
        given = File(many, tmp_path / "in") if kind == "file" else Stream(many)
        for file in (output, summary):
            file.unlink(missing_ok=True)
        run = started(
            *("run", "--config", config, "--output", output, "--summary-json", summary),
            stdin=given.reader,
        )
        again, number = soak.random.random() < 0.3, soak.random.choice([signal.SIGTERM, signal.SIGINT])
        some_time_of(run, output)
        run.send_signal(number)
        told = time.monotonic()
        if again:
            time.sleep(soak.random.uniform(0, 0.3))
            run.send_signal(number)
        code = run.wait(BUDGET + 20)
        slowest = max(slowest, time.monotonic() - told)
        codes[code] += 1
        read, whole = given.read()
        os.close(given.reader)
        if not output.exists():
            continue  # it ended while it started
        ended = summary.exists() and summary.stat().st_size > 0
        assert ended or again or not read, f"it ended with {code}, and {read} bytes were read"
        with output.open("rb") as lines:
            tally = many.account(_within(many.lines(), read), lines, PROVIDERS, killed=not ended)
            assert lines.read() == b"", "more came out than was read"
        events += tally.events
        if ended:
            told = json.loads(summary.read_text())
            tally.agrees_with(told)
            assert (told["stopped_by"], code) == ((None, 0) if whole else (number.name, int(kind == "file")))
    soak.tell(runs=codes.total(), codes=str(dict(codes)), events=events, slowest=f"{slowest:.1f} s")
    assert slowest < BUDGET + 5


def _within(lines, read):
    """The lines that end within so many bytes."""
    for sent in lines:
        read -= len(sent.line)
        if read < 0:
            return
        yield sent
