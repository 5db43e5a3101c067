"""What the gateway counts. Labels are routes of its file, and words from lists in the code: no tenant, request or batch is one."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from headrace.api.asking import ClosedWindow, RequestRecord, RequestRoute
from headrace.core.asking.life import is_dead
from headrace.core.asking.requests import route_name
from headrace.gateway.queues.store import Lane, Waiting
from headrace.gateway.watch import UNWATCHED, Watch

_FILL = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.85, 0.9, 0.95, 1.0)
"""As of the batches of a worker, so that the two can be held side by side."""
_QUICK = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10)
_SLOW = (0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 900, 3600, 14_400, 86_400)
_REASONS = {
    400: "invalid",
    403: "not_allowed",
    404: "no_route",
    408: "body_stopped",
    409: "key_reused",
    410: "gone",
    413: "too_large",
    415: "wrong_media_type",
    429: "queue_full",
    503: "store_away",
}
"""What a refusal is counted as, by its status."""


class Metrics(Watch):
    """One registry a gateway."""

    def __init__(self, routes: Iterable[str] = (), also: Watch = UNWATCHED) -> None:
        """`routes`: those that are served; each is there from the start, with nothing counted. `also` is told of ends too."""
        self.registry = here = CollectorRegistry()
        self._routes, self._also = [*routes], also
        name = "headrace_gateway_{}".format
        self._accepted = Counter(name("accepted"), "Requests accepted", ["route"], registry=here)
        self._refused = Counter(name("refused"), "Requests refused, by why", ["route", "reason"], registry=here)
        self._accept = Histogram(
            name("accept_seconds"), "From a request to its 202", ["route"], registry=here, buckets=_QUICK
        )
        self._whole = Histogram(
            name("request_seconds"), "From a 202 to the end", ["route", "state"], registry=here, buckets=_SLOW
        )
        self._dead = Counter(name("dead_letters"), "Requests that failed or expired", ["route", "state"], registry=here)
        self._fill = Histogram(
            name("window_fill_ratio"), "Requests in a window / maxBatchSize", ["route"], registry=here, buckets=_FILL
        )
        self._open = Gauge(name("open_batches"), "Windows at work", ["route"], registry=here)
        self._waiting = Gauge(name("queue_requests"), "Requests in the queue", ["route"], registry=here)
        self._oldest = Gauge(name("queue_oldest_seconds"), "How long the oldest has waited", ["route"], registry=here)
        self._store = Gauge(name("store_up"), "Whether what keeps the requests answers", registry=here)
        self._connections = Gauge(name("connections"), "Who waits to be told", ["kind"], registry=here)
        self._push = Histogram(name("push_seconds"), "From an end to its push", registry=here, buckets=_QUICK)
        self._calls = Counter(name("webhook_calls"), "Calls of webhooks, by how they went", ["outcome"], registry=here)
        for route in self._routes:
            self._accepted.labels(route)
            self._open.labels(route)

    def accepted(self, route: str, seconds: float) -> None:
        """Count it."""
        self._accepted.labels(route).inc()
        self._accept.labels(route).observe(seconds)

    def refused(self, route: str | None, status: int, code: str | None) -> None:
        """Count it: a queue that is full apart from what its tenant may not have."""
        reason = "tenant_limit" if status == 429 and code != "queue_full" else _REASONS.get(status, "other")
        self._refused.labels(route or "", reason).inc()

    def closed(self, route: RequestRoute, window: ClosedWindow) -> None:
        """Observe how full it is."""
        self._fill.labels(route.name).observe(len(window.members) / route.window.max_batch_size)

    def under_way(self, route: str, change: int) -> None:
        """Count them."""
        self._open.labels(route).inc(change)

    def ended(self, record: RequestRecord) -> None:
        """Observe how long it has taken, and count it if it is dead."""
        self._also.ended(record)
        route = route_name(record.id) or ""
        self._whole.labels(route, record.state.value).observe(((record.ended or 0) - record.accepted) / 1000)
        if is_dead(record.state):
            self._dead.labels(route, record.state.value).inc()

    def connected(self, kind: str, change: int) -> None:
        """Count them."""
        self._connections.labels(kind).inc(change)

    def pushed(self, milliseconds: int) -> None:
        """Observe how long it took."""
        self._push.observe(milliseconds / 1000)

    def called(self, outcome: str) -> None:
        """Count it."""
        self._calls.labels(outcome).inc()

    def text(self, waiting: Mapping[Lane, Waiting] | None, now: int) -> bytes:
        """All of it, as Prometheus reads it; None for queues that nobody can look at now."""
        self._store.set(waiting is not None)
        for gauge in (self._waiting, self._oldest):
            gauge.clear()
        for route in self._routes if waiting is not None else ():
            here = [one for lane, one in (waiting or {}).items() if lane.route == route]
            self._waiting.labels(route).set(sum(one.requests for one in here))
            since = min((one.since for one in here if one.since is not None), default=now)
            self._oldest.labels(route).set(max(0, now - since) / 1000)
        return generate_latest(self.registry)
