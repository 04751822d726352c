"""Events per second when memory knows every visitor, beside a hand-written loop and the usual design."""

from __future__ import annotations

import asyncio
import gc
import statistics
import time
from typing import TYPE_CHECKING, Protocol

import attrs
import msgspec
from redis.asyncio import BlockingConnectionPool, Redis

from benchmarks import _events, _run
from benchmarks._peers import Floor, Usual
from benchmarks._report import Report, summarise, verdict
from benchmarks.partners.instant import ATTRIBUTES
from partnerenrich.enrichment import Enricher
from partnerenrich_server.embedded import open_store
from partnerenrich_server.engine import relax_garbage_collector

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

SUMMARY = "events/s from a warm memory, beside a floor and the usual design"

PROVIDER = "instant"
USUAL_CONNECTIONS = 50


@attrs.frozen(kw_only=True)
class Sizes:
    """
    What is run.

    Attributes:
        visitors: All of them are in memory.
        events: For each contender in each round.
        rounds: Each contender has its turn in every round, in rotating order.
        batch: Events in one batch.
        in_flight: Batches under way at once, for us and for the floor.
    """

    visitors: int = 20_000
    events: int = 100_000
    rounds: int = 5
    batch: int = 500
    in_flight: int = 4


@attrs.frozen
class Measure:
    """
    One turn of a contender.

    Attributes:
        seconds: On the clock.
        cpu_seconds: Of this process; the store is another.
    """

    seconds: float
    cpu_seconds: float


class Contender(Protocol):
    """Enriches JSON."""

    async def enrich(self, events: Sequence[bytes]) -> list[bytes]:
        """The enriched events, in their order."""
        ...


@attrs.frozen
class Entry:
    """
    A contender as it takes part.

    Attributes:
        contender: It.
        in_flight: Batches under way at once.
    """

    contender: Contender
    in_flight: int


def run(*, quick: bool) -> Report:
    """Run the benchmark."""
    sizes = Sizes(visitors=500, events=2_000, rounds=3) if quick else Sizes()
    with open_store("embedded:") as store:
        return asyncio.run(_compare(sizes, store.url, store.key))


async def _compare(sizes: Sizes, store_url: str, key: bytes) -> Report:
    visitors = [_events.Visitor.of(number) for number in range(sizes.visitors)]
    events = list(_events.mixed(sizes.events, sizes.visitors))
    batches = _run.in_batches(events, sizes.batch)
    pool = BlockingConnectionPool.from_url(store_url, max_connections=USUAL_CONNECTIONS)
    async with (
        Enricher.open(_run.configuration(PROVIDER), store=store_url, key=key) as enricher,
        Redis.from_url(store_url) as redis,
        Redis.from_pool(pool) as pooled,
    ):
        floor, usual = Floor(redis, PROVIDER), Usual(pooled, PROVIDER)
        entries = {
            "ours": Entry(enricher, sizes.in_flight),
            "floor": Entry(floor, sizes.in_flight),
            "ours_one_by_one": Entry(enricher, 1),
            "floor_one_by_one": Entry(floor, 1),
            "usual": Entry(usual, 1),  # has all events of a batch under way
        }
        for batch in _run.in_batches([_events.identify(visitor) for visitor in visitors], sizes.batch):
            await enricher.enrich(batch)
        await floor.fill(visitors)
        await usual.fill(visitors)
        await _check(entries, batches, {visitor.anonymous_id: visitor.email for visitor in visitors})
        relax_garbage_collector()  # as the command line does; and the events are no part of what is measured
        calls = enricher.statistics.partners[PROVIDER].calls
        calls_before = calls.calls
        rounds = [await _round(entries, batches, turn) for turn in range(sizes.rounds)]
        if calls.calls != calls_before:
            raise AssertionError(f"the partner was called {calls.calls - calls_before} times while memory was warm")
    return _report(sizes, statistics.mean(map(len, events)), rounds)


async def _check(entries: Mapping[str, Entry], batches: Sequence[Sequence[bytes]], emails: Mapping[str, str]) -> None:
    """Every event gets the id and the attributes of its own visitor, and keeps all else."""
    for name, entry in entries.items():
        for batch in batches:
            for given, enriched in zip(batch, await entry.contender.enrich(batch), strict=True):
                expected, found = msgspec.json.decode(given), msgspec.json.decode(enriched)
                expected["context"] |= {
                    "vendor_ids": {PROVIDER: f"id-of-{emails[expected['anonymousId']]}"},
                    "partner_attrs": {PROVIDER: ATTRIBUTES},
                }
                found["context"].pop("enrichment", None)
                if found != expected:
                    raise AssertionError(f"{name} does not enrich as it should")


async def _round(entries: Mapping[str, Entry], batches: Sequence[Sequence[bytes]], turn: int) -> dict[str, Measure]:
    names = list(entries)
    first = turn % len(names)
    return {name: await _measure(entries[name], batches) for name in (*names[first:], *names[:first])}


async def _measure(entry: Entry, batches: Sequence[Sequence[bytes]]) -> Measure:
    gc.collect()
    started, cpu_started = time.perf_counter(), time.process_time()
    await _run.with_workers(entry.in_flight, batches, entry.contender.enrich)
    return Measure(time.perf_counter() - started, time.process_time() - cpu_started)


def _report(sizes: Sizes, event_bytes: float, rounds: Sequence[Mapping[str, Measure]]) -> Report:
    names = list(rounds[0])
    rates = {name: summarise(sizes.events / each[name].seconds for each in rounds) for name in names}
    cpu = {name: summarise(1e6 * each[name].cpu_seconds / sizes.events for each in rounds) for name in names}
    ratios = {
        "floor": summarise(each["floor"].seconds / each["ours"].seconds for each in rounds),
        "floor_one_by_one": summarise(
            each["floor_one_by_one"].seconds / each["ours_one_by_one"].seconds for each in rounds
        ),
        "usual": summarise(each["usual"].seconds / each["ours"].seconds for each in rounds),
    }
    return Report(
        title="warm: JSON in, enriched JSON out, every visitor in memory",
        sizes=attrs.asdict(sizes)
        | {"event_bytes": round(event_bytes), "mix": _events.MIX, "usual_connections": USUAL_CONNECTIONS},
        columns=("median of the rounds", "events/s", "least", "greatest", "CPU us/event"),
        rows=[
            (
                name,
                *(f"{rates[name][figure]:,.0f}" for figure in ("median", "least", "greatest")),
                f"{cpu[name]['median']:.1f}",
            )
            for name in names
        ],
        verdicts=(
            verdict("ratio_to_floor", ratios["floor"]["median"], at_least=0.5),
            f"ratio_to_floor_one_by_one: {ratios['floor_one_by_one']['median']:.2f}",
            verdict("ratio_to_usual", ratios["usual"]["median"], at_least=8),
            "partner calls while warm: 0",
        ),
        figures={
            "events_per_second": rates,
            "cpu_us_per_event": cpu,
            **{f"ratio_to_{name}": ratio["median"] for name, ratio in ratios.items()},
            "ratios_of_rounds": ratios,
            "partner_calls": 0,
        },
    )
