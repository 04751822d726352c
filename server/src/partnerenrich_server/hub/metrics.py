"""What the hub counts, for Prometheus. No label names a visitor, an address or anything that a request may choose."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily
from prometheus_client.registry import Collector

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from partnerenrich.configuration import Integration
    from partnerenrich.governor import CallStatistics
    from partnerenrich.models import Outcome
    from partnerenrich.statistics import Statistics
    from partnerenrich_server.hub.inbox import Inbox

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)


class Metrics:
    """The numbers of one hub."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self._requests = Counter(
            "partnerenrich_requests", "Requests by route and status", ("route", "status"), registry=self.registry
        )
        self._seconds = Histogram(
            "partnerenrich_request_seconds",
            "Time from a request's head to the end of its answer",
            ("route",),
            buckets=_SECONDS,
            registry=self.registry,
        )
        self._events = Counter(
            "partnerenrich_events",
            "Events accepted, rejected (not valid) or refused (busy)",
            ("result",),
            registry=self.registry,
        )
        self._streamed = Counter(
            "partnerenrich_stream_events",
            "Events that the stream has acknowledged (written), or not (failed)",
            ("result",),
            registry=self.registry,
        )
        self._limited = Counter(
            "partnerenrich_limited", "Requests that passed a limit", ("limit",), registry=self.registry
        )
        self._store_down = Counter(
            "partnerenrich_without_store", "Requests answered without the store", ("purpose",), registry=self.registry
        )
        self._personalized = Counter(
            "partnerenrich_personalized",
            "Contextual calls by outcome",
            ("org", "integration", "outcome"),
            registry=self.registry,
        )
        self._routes: dict[tuple[str, int], tuple[Counter, Histogram]] = {}

    def request(self, route: str, status: int, seconds: float) -> None:
        """Count a request. `route` is one of a fixed set."""
        children = self._routes.get((route, status))
        if children is None:
            children = self._routes[route, status] = (
                self._requests.labels(route, str(status)),
                self._seconds.labels(route),
            )
        requests, durations = children
        requests.inc()
        durations.observe(seconds)

    def events(self, result: str, count: int) -> None:
        """Count events."""
        self._events.labels(result).inc(count)

    def streamed(self, result: str, count: int) -> None:
        """Count events that were to be written into the stream."""
        self._streamed.labels(result).inc(count)

    def limited(self, limit: str) -> None:
        """Count a request that was too many."""
        self._limited.labels(limit).inc()

    def store_down(self, purpose: str) -> None:
        """Count a request that had to do without the store."""
        self._store_down.labels(purpose).inc()

    def personalized(self, integration: Integration, outcome: Outcome) -> None:
        """Count a contextual call."""
        self._personalized.labels(integration.org, integration.name, outcome.value).inc()

    def watch(
        self,
        statistics: Statistics,
        contextual: Mapping[str, CallStatistics],
        inbox: Inbox,
        store_failures: Mapping[str, Callable[[], int]],
    ) -> None:
        """
        Tell also what others count.

        Args:
            statistics: Of the enricher.
            contextual: Label of an integration, as in `statistics`, to the numbers of its contextual calls.
            inbox: Tells how many events wait.
            store_failures: Name of each connection to the store to how often it failed.
        """
        waiting = Gauge("partnerenrich_queue_events", "Events that wait or are under way", registry=self.registry)
        waiting.set_function(lambda: inbox.events)
        failures = Gauge(
            "partnerenrich_store_failures", "Failed commands since the start", ("connection",), registry=self.registry
        )
        for connection, count in store_failures.items():
            failures.labels(connection).set_function(count)
        self.registry.register(_OfPartners(statistics, contextual))

    def exposition(self) -> bytes:
        """All numbers, as text."""
        return generate_latest(self.registry)


class _OfPartners(Collector):
    def __init__(self, statistics: Statistics, contextual: Mapping[str, CallStatistics]) -> None:
        self._statistics = statistics
        self._contextual = contextual

    def collect(self) -> Iterable[CounterMetricFamily]:
        """The numbers of all integrations at this moment."""
        outcomes = CounterMetricFamily(
            "partnerenrich_outcomes", "Events by integration and outcome", labels=("integration", "outcome")
        )
        for label, numbers in self._statistics.partners.items():
            for outcome, count in numbers.outcomes.items():
                outcomes.add_metric((label, outcome.value), count)
        calls = CounterMetricFamily(
            "partnerenrich_partner_calls", "Attempts to call a partner", labels=("integration", "purpose")
        )
        seconds = CounterMetricFamily(
            "partnerenrich_partner_call_seconds", "Time spent in attempts", labels=("integration", "purpose")
        )
        failures = CounterMetricFamily(
            "partnerenrich_partner_call_failures",
            "Attempts that failed, and calls held back (NotCalled)",
            labels=("integration", "purpose", "error"),
        )
        lookups = {label: numbers.calls for label, numbers in self._statistics.partners.items()}
        for purpose, each in (("lookup", lookups), ("personalize", self._contextual)):
            for label, called in each.items():
                calls.add_metric((label, purpose), called.calls)
                seconds.add_metric((label, purpose), called.seconds)
                for error, count in called.failures.items():
                    failures.add_metric((label, purpose, error), count)
        return (outcomes, calls, seconds, failures)
