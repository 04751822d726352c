"""What a look-up costs beside the partner's own time: calls for one visitor, calls a second, added latency."""

from __future__ import annotations

import asyncio
import random
import statistics
import time
from contextlib import asynccontextmanager
from itertools import count
from typing import TYPE_CHECKING

import attrs
import httpx
import msgspec

from benchmarks import _events, _remote, _run
from benchmarks._report import Report, summarise, verdict
from benchmarks._wire import Wire
from partnerenrich.enrichment import Enricher
from partnerenrich.models import Outcome
from partnerenrich_server.embedded import open_store
from partnerenrich_server.engine import relax_garbage_collector
from partnerenrich_server.hub.serving import loop_factory

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator

    from benchmarks._remote import Remote
    from partnerenrich_server.embedded import Store

SUMMARY = "calls for one visitor, calls/s and added latency, beside bare httpx and bare sockets"

PROVIDER = "remote"


@attrs.frozen(kw_only=True)
class Sizes:
    """
    What is run.

    Attributes:
        events_of_one_visitor: All at once.
        latency_ms: Of the partner.
        concurrency: Calls under way at once; each in turn. Latency is measured with the first.
        calls: For each contender in each round.
        rounds: Of the calls. Contenders take turns in every round.
        load: Share of the rate that the slower contender bears, event by event, at which latency is measured.
        timed_rounds: Of the latency: many short ones, so that a stall of the machine spoils few.
        timed_events: Arrivals in each of them.
    """

    events_of_one_visitor: int = 1_000
    latency_ms: int = 40
    concurrency: tuple[int, ...] = (32, 64)
    calls: int = 1_000
    rounds: int = 5
    load: float = 0.5
    timed_rounds: int = 15
    timed_events: int = 200


class Bench:
    """
    The partner, asked through us and by bare httpx. No visitor comes twice.

    Args:
        sizes: What is run.
        remote: The partner.
        store: Memory.

    Attributes:
        unanswered: Events that left without the partner's answer.
    """

    def __init__(self, sizes: Sizes, remote: Remote, store: Store) -> None:
        self._sizes = sizes
        self._remote = remote
        self._store = store
        self._numbers = count()
        self.unanswered = 0

    async def calls_for_one_visitor(self) -> int:
        """Calls that arrive at the partner when one unknown visitor sends many events at once."""
        (event,) = self._new_visitors(1)
        calls = await self._remote.calls()
        async with self._enricher(max(self._sizes.concurrency)) as enricher:
            async with asyncio.TaskGroup() as group:
                for _ in range(self._sizes.events_of_one_visitor):
                    group.create_task(enricher.enrich([event]))
            self._count_unanswered(enricher)
        return await self._remote.calls() - calls

    async def rates(self, concurrency: int) -> list[dict[str, float]]:
        """For each round, calls a second of each contender with so many calls under way."""
        rounds = []
        async with self._enricher(concurrency) as enricher, self._http(concurrency) as http:
            contenders: dict[str, Callable[[], Awaitable[None]]] = {
                "httpx": lambda: _run.with_workers(
                    concurrency, self._new_visitors(self._sizes.calls), self._post(http)
                ),
                "ours": lambda: self._enrich_batches(enricher),
                "ours_single": lambda: _run.with_workers(
                    concurrency, self._new_visitors(self._sizes.calls), _enrich_one(enricher)
                ),
            }
            await _run.with_workers(concurrency, self._new_visitors(concurrency), self._post(http))  # connects
            await enricher.enrich(self._new_visitors(concurrency))
            for turn in range(self._sizes.rounds):
                names = sorted(contenders, reverse=bool(turn % 2))
                rounds.append({name: self._sizes.calls / await _seconds(contenders[name]) for name in names})
            self._count_unanswered(enricher)
        return rounds

    async def latencies(self, rate: float) -> list[dict[str, float]]:
        """For each round, the p95 of each contender in milliseconds, while events come one by one at a mean rate."""
        rounds = []
        concurrency = self._sizes.concurrency[0]
        async with self._enricher(concurrency) as enricher, self._http(concurrency) as http, self._wire() as wire:
            relax_garbage_collector()  # as the command line does
            contenders: dict[str, Callable[[bytes], Awaitable[object]]] = {
                "floor": wire.post,
                "httpx": self._post(http),
                "ours": _enrich_one(enricher),
            }
            for work in contenders.values():
                await _arrivals(self._new_visitors(concurrency), rate, work)
            for turn in range(self._sizes.timed_rounds):
                names = sorted(contenders, reverse=bool(turn % 2))
                rounds.append(
                    {
                        name: _p95(
                            await _arrivals(self._new_visitors(self._sizes.timed_events), rate, contenders[name])
                        )
                        for name in names
                    }
                )
            self._count_unanswered(enricher)
        return rounds

    async def _enrich_batches(self, enricher: Enricher) -> None:
        batches = _run.in_batches(self._new_visitors(self._sizes.calls), 500)
        await _run.with_workers(4, batches, enricher.enrich)

    def _post(self, http: httpx.AsyncClient) -> Callable[[bytes], Awaitable[None]]:
        """What the plugin does, and nothing around it."""

        async def post(event: bytes) -> None:
            email = msgspec.json.decode(event)["traits"]["email"]
            response = await http.post(f"{self._remote.base_url}/lookup", json={"email": email})
            response.raise_for_status()
            msgspec.json.decode(response.content)

        return post

    def _count_unanswered(self, enricher: Enricher) -> None:
        outcomes = enricher.statistics.partners[PROVIDER].outcomes
        self.unanswered += outcomes.total() - outcomes[Outcome.FRESH] - outcomes[Outcome.HIT]

    def _new_visitors(self, wanted: int) -> list[bytes]:
        return [_events.identify(_events.Visitor.of(next(self._numbers))) for _ in range(wanted)]

    @asynccontextmanager
    async def _enricher(self, concurrency: int) -> AsyncIterator[Enricher]:
        configuration = _run.configuration(
            PROVIDER, settings={"base_url": self._remote.base_url}, limits={"concurrency": concurrency}
        )
        async with Enricher.open(configuration, store=self._store.url, key=self._store.key) as enricher:
            yield enricher

    @asynccontextmanager
    async def _http(self, concurrency: int) -> AsyncIterator[httpx.AsyncClient]:
        limits = httpx.Limits(max_connections=concurrency, max_keepalive_connections=concurrency)
        async with httpx.AsyncClient(limits=limits, timeout=30, trust_env=False) as http:
            yield http

    @asynccontextmanager
    async def _wire(self) -> AsyncIterator[Wire]:
        wire = Wire(self._remote.base_url)
        yield wire
        wire.close()


def run(*, quick: bool) -> Report:
    """Run the benchmark."""
    sizes = Sizes(calls=64, rounds=1, timed_rounds=1, timed_events=20) if quick else Sizes()
    with (
        open_store("embedded:") as store,
        _remote.serve(sizes.latency_ms / 1000) as remote,
        asyncio.Runner(loop_factory=loop_factory()) as runner,  # as in the hub, where events come one by one
    ):
        return runner.run(_measure(sizes, Bench(sizes, remote, store)))


async def _measure(sizes: Sizes, bench: Bench) -> Report:
    calls = await bench.calls_for_one_visitor()
    rates = {concurrency: await bench.rates(concurrency) for concurrency in sizes.concurrency}
    rounds = rates[sizes.concurrency[0]]
    rate = sizes.load * min(statistics.median(each[name] for each in rounds) for name in ("ours_single", "httpx"))
    latencies = await bench.latencies(rate)
    return _report(sizes, (calls, bench.unanswered), rates, rate, latencies)


def _enrich_one(enricher: Enricher) -> Callable[[bytes], Awaitable[object]]:
    """Events that come one by one, each a batch of its own."""
    return lambda event: enricher.enrich([event])


async def _seconds(work: Callable[[], Awaitable[None]]) -> float:
    started = time.perf_counter()
    await work()
    return time.perf_counter() - started


async def _arrivals(events: list[bytes], rate: float, work: Callable[[bytes], Awaitable[object]]) -> list[float]:
    """
    Let events arrive at random moments, the same ones for every contender.

    Returns:
        Milliseconds from each moment of arrival to the end of the work.
    """
    took: list[float] = []
    started = time.perf_counter()

    async def one(event: bytes, moment: float) -> None:
        await work(event)
        took.append(1000 * (time.perf_counter() - started - moment))

    async with asyncio.TaskGroup() as group:
        for event, moment in zip(events, _moments(rate)):
            await asyncio.sleep(max(0.0, started + moment - time.perf_counter()))
            group.create_task(one(event, moment))
    return took


def _moments(rate: float) -> Iterator[float]:
    """Moments of a Poisson process, in seconds."""
    draw = random.Random(1)
    moment = 0.0
    while True:
        moment += draw.expovariate(rate)
        yield moment


def _p95(values: list[float]) -> float:
    return statistics.quantiles(values, n=20)[-1]


def _report(
    sizes: Sizes,
    counts: tuple[int, int],
    rates: dict[int, list[dict[str, float]]],
    rate: float,
    latencies: list[dict[str, float]],
) -> Report:
    names = ("ours", "ours_single", "httpx")
    calls, unanswered = counts
    told = {str(each): {name: summarise(r[name] for r in rates[each]) for name in names} for each in rates}
    ideal = {str(each): 1000 * each / sizes.latency_ms for each in rates}
    ratios = {str(each): summarise(r["ours"] / r["httpx"] for r in rates[each]) for each in rates}
    p95 = {name: summarise(each[name] for each in latencies) for name in ("ours", "httpx", "floor")}
    added = summarise(each["ours"] - each["httpx"] for each in latencies)
    added_to_floor = summarise(each["ours"] - each["floor"] for each in latencies)
    of_ideal = {each: told[each]["ours"]["median"] / ideal[each] for each in told}
    rows = [
        (
            f"calls/s, {each} at once",
            *(f"{told[each][name]['median']:,.0f}" for name in names),
            f"{ratios[each]['median']:.2f} of httpx, {of_ideal[each]:.2f} of {ideal[each]:,.0f}",
        )
        for each in told
    ]
    rows.append(
        (
            f"p95 ms at {rate:,.0f} events/s",
            "",
            f"{p95['ours']['median']:.1f}",
            f"{p95['httpx']['median']:.1f}",
            f"{added['median']:.1f} ms added, {added_to_floor['median']:.1f} to the floor",
        )
    )
    ratio_to_httpx = min(ratio["median"] for ratio in ratios.values())
    return Report(
        title=f"cold: nobody is in memory, the partner answers after {sizes.latency_ms} ms",
        sizes=attrs.asdict(sizes),
        columns=("median of the rounds", "ours", "ours, event by event", "httpx", "beside it"),
        rows=rows,
        verdicts=(
            verdict("calls_for_one_visitor", calls, at_most=1),
            verdict("ratio_to_httpx", ratio_to_httpx, at_least=0.8),
            verdict("added_p95_ms", added["median"], at_most=5),
            verdict("added_p95_ms_to_floor", added_to_floor["median"], at_most=5),
            verdict("unanswered", unanswered, at_most=0),
        ),
        figures={
            "calls_for_one_visitor": calls,
            "unanswered": unanswered,
            "calls_per_second": told,
            "ratio_to_httpx": ratio_to_httpx,
            "ratios_to_httpx": ratios,
            "ratios_to_ideal": of_ideal,
            "arrivals_per_second": rate,
            "p95_ms": p95,
            "added_p95_ms": added["median"],
            "added_p95_ms_of_rounds": added,
            "added_p95_ms_to_floor": added_to_floor["median"],
            "added_p95_ms_to_floor_of_rounds": added_to_floor,
        },
    )
