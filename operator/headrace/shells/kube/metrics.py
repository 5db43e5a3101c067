"""The operator's own metrics, with bounded labels."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from time import perf_counter

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from headrace.api.bulkhead import Bulkhead
from headrace.api.bulkheadstatus import BulkheadStatus
from headrace.api.kinds import OurObject, OurStatus
from headrace.api.scheduledgeneration import ScheduledGeneration
from headrace.api.schedulestatus import ScheduledGenerationStatus
from headrace.shells.kube.cache import Parent
from headrace.shells.kube.objectmetrics import ObjectMetrics
from headrace.shells.kube.schedulemetrics import ScheduleMetrics


class Metrics:
    """One registry an operator."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._writes_told = 0
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
        self._api_writes = Counter(
            "headrace_api_writes", "Requests that change something at the API server", registry=self.registry
        )
        self.objects = Gauge("headrace_cached_objects", "Objects in the cache", ["resource"], registry=self.registry)
        held, waiting, oldest = (
            "headrace_bulkhead_held",
            "headrace_bulkhead_waiting",
            "headrace_bulkhead_oldest_wait_seconds",
        )
        self._held = Gauge(held, "What batches hold of a Bulkhead", ["bulkhead", "what"], registry=self.registry)
        self._waiting = Gauge(waiting, "Batches that wait in a Bulkhead", ["bulkhead"], registry=self.registry)
        self._oldest = Gauge(oldest, "How long the first of them has waited", ["bulkhead"], registry=self.registry)
        self._breakers = Gauge(
            "headrace_breakers", "Circuit breakers that are not closed", ["state"], registry=self.registry
        )
        self._budgets = Gauge(
            "headrace_bulkhead_budget_left_ratio",
            "What is left of a budget within its window",
            ["bulkhead", "budget", "namespace"],
            registry=self.registry,
        )
        self.of_objects = ObjectMetrics(self.registry)
        self.of_schedules = ScheduleMetrics(self.registry)
        self.leading = Gauge("headrace_leading", "Whether this replica acts", registry=self.registry)

    @contextmanager
    def reconciling(self) -> Iterator[None]:
        """Time one look."""
        start = perf_counter()
        try:
            yield
        finally:
            self._seconds.observe(perf_counter() - start)

    def seen(
        self, key: Parent, parent: OurObject | ScheduledGeneration, status: OurStatus | ScheduledGenerationStatus
    ) -> None:
        """An object of ours stands like this now."""
        if isinstance(status, ScheduledGenerationStatus):
            self.of_schedules.seen(key, status)
        elif not isinstance(parent, ScheduledGeneration):
            self.of_objects.seen(key, parent, status)

    def gone(self, key: Parent) -> None:
        """There is no such object any more."""
        self.of_objects.gone(key)
        self.of_schedules.gone(key)

    def wrote(
        self, parent: OurObject | ScheduledGeneration, status: OurStatus | ScheduledGenerationStatus, now: datetime
    ) -> None:
        """A status has been written in place of the one that the object had."""
        if not isinstance(parent, ScheduledGeneration) and not isinstance(status, ScheduledGenerationStatus):
            self.of_objects.wrote(parent, status, now)
            self.of_schedules.run_wrote(parent, status)

    def failed(self, kind: str) -> None:
        """One look went wrong: transient, refused or bug."""
        self._errors.labels(kind).inc()

    def api_writes(self, so_far: int) -> None:
        """So many requests in all have changed something."""
        self._api_writes.inc(so_far - self._writes_told)
        self._writes_told = so_far

    def bulkheads(
        self, bulkheads: Mapping[str, Bulkhead], statuses: Mapping[str, BulkheadStatus], now: datetime
    ) -> None:
        """What the Bulkheads' statuses say; of those that are gone nothing more is said."""
        for gauge in (self._held, self._waiting, self._oldest, self._budgets):
            gauge.clear()
        breakers = {breaker.name: breaker.state for status in statuses.values() for breaker in status.breakers}
        for state in ("Open", "HalfOpen"):
            self._breakers.labels(state).set(list(breakers.values()).count(state))
        for name, status in statuses.items():
            for what, amount in status.used.to_object().items():
                self._held.labels(name, what).set(amount)
            self._waiting.labels(name).set(status.waiting)
            since = status.oldest_wait_time
            self._oldest.labels(name).set((now - since).total_seconds() if since is not None else 0)
            if name in bulkheads:
                self._show_budgets(bulkheads[name], status)

    def _show_budgets(self, bulkhead: Bulkhead, status: BulkheadStatus) -> None:
        limits = {budget.name: budget.limit for budget in bulkhead.spec.budgets}
        for use in status.budgets:
            limit = limits.get(use.name)
            if limit is not None:
                left = max(0.0, 1 - use.used / limit)
                self._budgets.labels(bulkhead.name, use.name, use.namespace).set(left)

    def text(self) -> bytes:
        """The metrics in Prometheus' text format."""
        self.of_objects.refresh()
        self.of_schedules.refresh()
        return generate_latest(self.registry)
