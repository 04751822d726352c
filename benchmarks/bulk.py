"""What it costs to map cold e-mails in full calls, beside the partner's own SDK."""

from __future__ import annotations

import asyncio
import gc
import statistics
import time
from itertools import count
from typing import TYPE_CHECKING

import attrs
import msgspec

from benchmarks import _events, _run
from benchmarks._report import Report, summarise, verdict
from partnerenrich.enrichment import Enricher
from partnerenrich_server.embedded import open_store
from partnerenrich_server.engine import relax_garbage_collector

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from benchmarks._operator import Operator
    from benchmarks._sdk import Sdk

SUMMARY = "identities/s and CPU of cold e-mails in full calls, beside the official SDK"

PROVIDER = "uid2"


@attrs.frozen(kw_only=True)
class Sizes:
    """
    What is run.

    Attributes:
        one_batch: E-mails in a single batch, to count its calls.
        identities: E-mails for each contender in each round. None comes twice. So many that the first and the last
            call, in which we wait for the partner alone, weigh little.
        rounds: Contenders take turns in every round.
        latency_ms: Of the operator, beside the time that it works.
        call: Most identities in one call, the partner's limit; also, events in one of our batches.
        in_flight: Our batches under way at once. The SDK makes one call after the other.
    """

    one_batch: int = 10_000
    identities: int = 100_000
    rounds: int = 5
    latency_ms: int = 40
    call: int = 5_000
    in_flight: int = 4


@attrs.frozen
class Measure:
    """
    One turn of a contender.

    Attributes:
        seconds: On the clock.
        cpu_seconds: Of this process; operator and store are others.
    """

    seconds: float
    cpu_seconds: float


class Bench:
    """
    The operator, asked through us and through the SDK.

    Args:
        sizes: What is run.
        operator: Whom both ask.
        enricher: Asks it for us.
        sdk: Asks it without us.
    """

    def __init__(self, sizes: Sizes, operator: Operator, enricher: Enricher, sdk: Sdk) -> None:
        self._sizes = sizes
        self._operator = operator
        self._enricher = enricher
        self._sdk = sdk
        self._numbers = count()

    async def calls_of_one_batch(self) -> int:
        """Calls that arrive at the operator for one batch of cold e-mails."""
        before = self._operator.calls()
        emails = self._new_emails(self._sizes.one_batch)
        _check(emails, await self._enricher.enrich(list(map(_bare, emails))))
        return self._operator.calls() - before

    async def round(self, turn: int) -> dict[str, Measure]:
        """Let all contenders have their turn."""
        contenders = {"ours": self._ours, "ours_visitors": self._ours_visitors, "sdk": self._theirs}
        names = sorted(contenders, reverse=bool(turn % 2))
        return {name: await contenders[name](self._new_emails(self._sizes.identities)) for name in names}

    async def _ours(self, emails: Sequence[str]) -> Measure:
        return await self._enrich(emails, _bare)

    async def _ours_visitors(self, emails: Sequence[str]) -> Measure:
        return await self._enrich(emails, _visit)

    async def _enrich(self, emails: Sequence[str], event_of: Callable[[str], bytes]) -> Measure:
        batches = _run.in_batches(list(map(event_of, emails)), self._sizes.call)
        enriched: dict[int, list[bytes]] = {}

        async def enrich(number: int) -> None:
            enriched[number] = await self._enricher.enrich(batches[number])

        gc.collect()
        gc.freeze()  # the events are no part of what is measured
        started, cpu_started = time.perf_counter(), time.process_time()
        await _run.with_workers(self._sizes.in_flight, range(len(batches)), enrich)
        measure = Measure(time.perf_counter() - started, time.process_time() - cpu_started)
        _check(emails, [event for number in range(len(batches)) for event in enriched[number]])
        return measure

    async def _theirs(self, emails: Sequence[str]) -> Measure:
        gc.collect()
        gc.freeze()
        mapped: dict[str, str] = {}
        started, cpu_started = time.perf_counter(), time.process_time()
        for portion in _run.in_batches(emails, self._sizes.call):
            mapped |= self._sdk.map(portion)
        measure = Measure(time.perf_counter() - started, time.process_time() - cpu_started)
        if list(mapped) != list(emails):
            raise AssertionError("the SDK has not mapped every e-mail")
        return measure

    def _new_emails(self, wanted: int) -> list[str]:
        return [_events.Visitor.of(next(self._numbers)).email for _ in range(wanted)]


def run(*, quick: bool) -> Report:
    """Run the benchmark."""
    sizes = Sizes(identities=2_000, rounds=1, call=500, one_batch=1_000) if quick else Sizes()
    return asyncio.run(_measure(sizes))


async def _measure(sizes: Sizes) -> Report:
    from benchmarks import _operator, _sdk  # noqa: PLC0415 - what they need is needed by this benchmark alone

    with open_store("embedded:") as store, _operator.serve(sizes.latency_ms) as operator:
        configuration = _run.configuration(PROVIDER, settings=operator.settings, limits={"bulk": sizes.call})
        async with Enricher.open(configuration, store=store.url, key=store.key) as enricher:
            bench = Bench(sizes, operator, enricher, _sdk.Sdk(operator.settings))
            relax_garbage_collector()  # as the command line does
            calls = await bench.calls_of_one_batch()
            return _report(sizes, calls, [await bench.round(turn) for turn in range(sizes.rounds)])


def _bare(email: str) -> bytes:
    """An event that says no more than the SDK is told."""
    return msgspec.json.encode({"traits": {"email": email}})


def _visit(email: str) -> bytes:
    """The event of a page, of a device that is remembered, too."""
    return _events.identify(_events.Visitor(f"device-of-{email.partition('@')[0]}", f"user-of-{email}", email))


def _check(emails: Sequence[str], events: Sequence[bytes]) -> None:
    """Every event has an id, and no two have the same."""
    ids = {msgspec.json.decode(event)["context"]["vendor_ids"][PROVIDER] for event in events}
    if not len(ids) == len(events) == len(emails):
        raise AssertionError("not every e-mail has an id of its own")


def _report(sizes: Sizes, calls: int, rounds: Sequence[dict[str, Measure]]) -> Report:
    names = ("ours", "ours_visitors", "sdk")
    rates = {name: summarise(sizes.identities / each[name].seconds for each in rounds) for name in names}
    cpu = {name: summarise(1e6 * each[name].cpu_seconds / sizes.identities for each in rounds) for name in names}
    ratios = {name: summarise(each["sdk"].seconds / each[name].seconds for each in rounds) for name in names[:2]}
    expected_calls = -(-sizes.one_batch // sizes.call)
    return Report(
        title=f"bulk: cold e-mails, the operator answers after {sizes.latency_ms} ms and the time that it works",
        sizes=attrs.asdict(sizes),
        columns=("median of the rounds", "identities/s", "CPU µs an identity", "of the SDK's rate"),
        rows=[
            (
                name,
                f"{rates[name]['median']:,.0f}",
                f"{cpu[name]['median']:.1f}",
                f"{ratios[name]['median']:.2f}" if name in ratios else "",
            )
            for name in names
        ],
        verdicts=(
            verdict("calls_of_one_batch", calls, at_most=expected_calls),
            verdict(
                "ratio_to_sdk",
                statistics.median(each["sdk"].seconds / each["ours"].seconds for each in rounds),
                at_least=0.9,
            ),
        ),
        figures={
            "calls_of_one_batch": calls,
            "identities_per_second": rates,
            "cpu_us_per_identity": cpu,
            "ratio_to_sdk": ratios["ours"]["median"],
            "ratios_to_sdk": ratios,
        },
    )
