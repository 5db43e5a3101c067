"""The operator's own metrics, with bounded labels."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from time import perf_counter

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest


class Metrics:
    """One registry an operator."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._seconds = Histogram(
            "headrace_reconcile_seconds",
            "Time from taking a key to having applied its plan",
            registry=self.registry,
            buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10),
        )
        self._errors = Counter(
            "headrace_reconcile_errors_total",
            "Looks that went wrong, by kind of error",
            ["kind"],
            registry=self.registry,
        )
        self.queue_depth = Gauge("headrace_work_queue_depth", "Keys that wait for a worker", registry=self.registry)
        self.queue_age = Gauge(
            "headrace_work_queue_oldest_seconds", "How long the oldest key has waited", registry=self.registry
        )
        self.api_writes = Gauge(
            "headrace_api_writes", "Requests that changed something at the API server", registry=self.registry
        )
        self.objects = Gauge("headrace_cached_objects", "Objects in the cache", ["resource"], registry=self.registry)
        self.leading = Gauge("headrace_leading", "Whether this replica acts", registry=self.registry)

    @contextmanager
    def reconciling(self) -> Iterator[None]:
        """Time one look."""
        start = perf_counter()
        try:
            yield
        finally:
            self._seconds.observe(perf_counter() - start)

    def failed(self, kind: str) -> None:
        """One look went wrong: transient, refused or bug."""
        self._errors.labels(kind).inc()

    def text(self) -> bytes:
        """The metrics in Prometheus' text format."""
        return generate_latest(self.registry)
