"""Requests per second of ``GET /v1/enrich`` while every visitor is in memory, beside the least that could answer."""

from __future__ import annotations

import asyncio
import contextlib
import statistics
import time
from typing import TYPE_CHECKING, Any

import attrs
import msgspec
from redis.asyncio import Redis

from benchmarks import _events, _hub_server, _run
from benchmarks._report import Report, summarise, verdict
from benchmarks.partners.instant import ATTRIBUTES
from partnerenrich import browser, memory
from partnerenrich.memory import Answer, Keys
from partnerenrich_server.embedded import open_store
from partnerenrich_server.hub.serving import loop_factory

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

SUMMARY = "GET /v1/enrich: requests/s and latency, beside a bare route with one Redis GET"

PROVIDER = "instant"
ORIGIN = "https://shop.example.test"
CONTENDERS = ("ours", "floor")


@attrs.frozen(kw_only=True)
class Sizes:
    """
    What is run.

    Attributes:
        visitors: Who have a profile; each request is of another one.
        connections: That are kept open.
        seconds: Of one turn.
        rounds: In each, every contender has its turn.
    """

    visitors: int = 10_000
    connections: int = 32
    seconds: float = 4.0
    rounds: int = 7


@attrs.frozen
class Turn:
    """
    What one contender did in one turn.

    Attributes:
        rate: Requests per second.
        p50: Seconds.
        p99: Seconds.
    """

    rate: float
    p50: float
    p99: float


def run(*, quick: bool) -> Report:
    """Run the benchmark."""
    sizes = Sizes(visitors=100, seconds=0.3, rounds=2) if quick else Sizes()
    with contextlib.ExitStack() as stack:
        store = stack.enter_context(open_store("embedded:"))
        ports = {name: stack.enter_context(_hub_server.serve(name, store, _configuration())) for name in CONTENDERS}
        with asyncio.Runner(loop_factory=loop_factory()) as runner:
            runner.run(_fill(store.url, sizes.visitors))
            rounds = [
                {name: runner.run(_turn(ports[name], sizes)) for name in _in_turn(number)}
                for number in range(-1, sizes.rounds)
            ][1:]  # the first one warms up
    return _report(sizes, rounds)


def _configuration() -> dict[str, Any]:
    """The visitor's limit counts, but never refuses."""
    return {
        "org": "acme",
        "budget_ms": 8000,  # a busy machine is no reason to go on without the store
        "plugins_dir": str(_run.PARTNERS),
        "integrations": [{"provider": PROVIDER, "browser_attribute_allowlist": list(ATTRIBUTES)}],
        "hub": {
            "origins": [ORIGIN],
            "public_key": "pk-shop",
            "limits": {"visitor_per_minute": 1_000_000, "address_per_minute": 100_000_000},
        },
    }


def _in_turn(number: int) -> Sequence[str]:
    return CONTENDERS if number % 2 else CONTENDERS[::-1]


def _device(number: int) -> str:
    return _events.Visitor.of(number).anonymous_id


async def _fill(url: str, visitors: int) -> None:
    """Give every visitor a browser copy, and the floor what it reads."""
    attributes = msgspec.json.encode(ATTRIBUTES)
    answer = Answer(
        "1", "found", "email", stamp="s", usable_until=time.time() + 3600, attributes=msgspec.Raw(attributes)
    )
    keys = Keys("acme", (PROVIDER,))
    async with Redis.from_url(url) as redis:
        pipeline = redis.pipeline(transaction=False)
        pipeline.set(_hub_server.FLOOR_KEY, memory.encode({PROVIDER: msgspec.Raw(attributes)}))
        for number in range(visitors):
            copy = keys.browser(_device(number))
            for command in browser.publish(copy, PROVIDER, answer, set(ATTRIBUTES), {"marketing": True}, 86_400):
                pipeline.execute_command(*command)
        await pipeline.execute()


async def _turn(port: int, sizes: Sizes) -> Turn:
    loop = asyncio.get_running_loop()
    latencies: list[float] = []
    requests = [_request(number) for number in range(sizes.visitors)]
    until = time.perf_counter() + sizes.seconds
    ends = []
    started = time.perf_counter()
    for first in range(sizes.connections):
        end = loop.create_future()
        ends.append(end)
        mine = requests[first :: sizes.connections]
        await loop.create_connection(lambda mine=mine, end=end: _Client(mine, until, latencies, end), "127.0.0.1", port)  # type: ignore[misc]  # bound early
    await asyncio.gather(*ends)
    seconds = time.perf_counter() - started
    cuts = statistics.quantiles(latencies, n=100)
    return Turn(len(latencies) / seconds, cuts[49], cuts[98])


def _request(number: int) -> bytes:
    device = _device(number)
    lines = (
        "GET /v1/enrich?key=pk-shop HTTP/1.1",
        "Host: id.shop.example.test",
        "User-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/139.0 Safari/537.36",
        "Accept: */*",
        "Accept-Encoding: gzip, deflate, br, zstd",
        "Accept-Language: en-GB,en;q=0.9",
        f"Origin: {ORIGIN}",
        f"Referer: {ORIGIN}/",
        "Sec-Fetch-Site: same-site",
        "Sec-Fetch-Mode: cors",
        "Sec-Fetch-Dest: empty",
        f"Cookie: _ga=GA1.1.1234567890.1700000000; _dfid={device}; _dfdid={device}; basket=3",
    )
    return "\r\n".join((*lines, "", "")).encode()


class _Client(asyncio.Protocol):
    """One connection that asks again as soon as it is answered, for one visitor after the other."""

    def __init__(
        self, requests: Sequence[bytes], until: float, latencies: list[float], end: asyncio.Future[None]
    ) -> None:
        self._requests = requests
        self._until = until
        self._latencies = latencies
        self._end = end
        self._received = b""
        self._sent = 0
        self._asked = 0.0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # of TCP
        self._transport = transport
        self._ask()

    def _ask(self) -> None:
        self._asked = time.perf_counter()
        self._transport.write(self._requests[self._sent % len(self._requests)])
        self._sent += 1

    def data_received(self, data: bytes) -> None:
        self._received += data
        head, complete, body = self._received.partition(b"\r\n\r\n")
        if not complete or len(body) < int(head.lower().partition(b"content-length: ")[2].partition(b"\r")[0]):
            return
        now = time.perf_counter()
        if not head.startswith(b"HTTP/1.1 200 ") or b"Persona" not in body:
            self._fail(f"answered {head[:30]!r}")
            return
        self._latencies.append(now - self._asked)
        self._received = b""
        if now < self._until:
            self._ask()
        else:
            self._transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        if not self._end.done():
            if self._sent and time.perf_counter() >= self._until:
                self._end.set_result(None)
            else:
                self._fail(f"hung up: {exc}")

    def _fail(self, reason: str) -> None:
        if not self._end.done():
            self._end.set_exception(AssertionError(f"the server {reason}"))
        self._transport.close()


def _report(sizes: Sizes, rounds: Sequence[Mapping[str, Turn]]) -> Report:
    rates = {name: summarise(each[name].rate for each in rounds) for name in CONTENDERS}
    p50 = {name: summarise(1000 * each[name].p50 for each in rounds) for name in CONTENDERS}
    p99 = {name: summarise(1000 * each[name].p99 for each in rounds) for name in CONTENDERS}
    ratio = summarise(each["ours"].rate / each["floor"].rate for each in rounds)
    return Report(
        title="hub: GET /v1/enrich, every visitor in memory, limits counted; one uvicorn worker",
        sizes=attrs.asdict(sizes),
        columns=("median of the rounds", "requests/s", "least", "greatest", "p50 ms", "p99 ms"),
        rows=[
            (
                name,
                *(f"{rates[name][figure]:,.0f}" for figure in ("median", "least", "greatest")),
                f"{p50[name]['median']:.2f}",
                f"{p99[name]['median']:.2f}",
            )
            for name in CONTENDERS
        ],
        verdicts=(
            verdict("ratio_to_floor", ratio["median"], at_least=0.75),
            "Redis round trips per request: 1",
        ),
        figures={
            "requests_per_second": rates,
            "p50_ms": p50,
            "p99_ms": p99,
            "ratio_to_floor": ratio["median"],
            "ratios_of_rounds": ratio,
        },
    )
