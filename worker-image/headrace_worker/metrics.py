"""Prometheus metrics of one worker, and the small server that shows them and the live report.

The registry is the process's own and holds nothing else. Labels are bounded: outcomes and error codes are enumerated, endpoints are in
the spec, and no record, batch or custom id is ever a label; the scrape adds the pod.
"""

from __future__ import annotations

import os
import socket
import sys
import threading
from collections.abc import Callable, Mapping
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import orjson
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from headrace.api.worker import Report
from headrace_worker.engines.base import EndpointStats
from headrace_worker.errors import JobFailed
from headrace_worker.latencies import Latencies
from headrace_worker.ledger import CACHED, EQUAL, RESUMED

_FILL_BUCKETS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.85, 0.9, 0.95, 1.0)
_ORIGINS = {RESUMED: "resumed", EQUAL: "equal", CACHED: "cached"}


class Metrics:
    """What a worker counts. Everything is since the start of the process."""

    def __init__(self) -> None:
        registry = self.registry = CollectorRegistry()
        self.batch_fill = Histogram(
            "headrace_worker_batch_fill_ratio",
            "Records in a batch as a share of maxBatchSize",
            buckets=_FILL_BUCKETS,
            registry=registry,
        )
        self.token_fill = Histogram(
            "headrace_worker_batch_token_fill_ratio",
            "Tokens in a batch as a share of maxBatchTokens",
            buckets=_FILL_BUCKETS,
            registry=registry,
        )
        self.first_token = Latencies(
            "headrace_worker_time_to_first_token_seconds",
            "Time from a record's submission to the engine to the first token of its answer",
            registry,
        )
        self.latency = Latencies(
            "headrace_worker_record_latency_seconds",
            "Time from a record's submission to the engine to its outcome",
            registry,
        )
        self.records = Counter("headrace_worker_records", "Records finished", ["outcome"], registry=registry)
        self.errors = Counter("headrace_worker_errors", "Records failed, by error code", ["code"], registry=registry)
        self.retries = Counter("headrace_worker_record_retries", "Tries of records after the first", registry=registry)
        self.reprocessed = Counter(
            "headrace_worker_records_reprocessed",
            "Records begun again because an earlier attempt had lost them",
            registry=registry,
        )
        reused = Counter(
            "headrace_worker_records_reused",
            "Records that got an answer which was there already, by where it was",
            ["origin"],
            registry=registry,
        )
        self.reused = {kind: reused.labels(name) for kind, name in _ORIGINS.items()}
        self.prompt_tokens = Counter(
            "headrace_worker_prompt_tokens", "Prompt tokens of finished records", registry=registry
        )
        self.completion_tokens = Counter("headrace_worker_completion_tokens", "Tokens generated", registry=registry)
        self.gpu_seconds = Counter(
            "headrace_worker_gpu_seconds",
            "GPUs times the seconds that they were held, by what they were held for",
            ["activity"],
            registry=registry,
        )
        self.endpoints = EndpointMetrics(registry)
        self.queue_depth = Gauge("headrace_worker_queue_depth", "Records that wait in the worker", registry=registry)
        self.succeeded = self.records.labels("succeeded")
        self.failed = self.records.labels("failed")


class EndpointMetrics:
    """What a worker sends to endpoints. Their names are labels: they are in the spec, and 64 at most."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._requests = Counter(
            "headrace_worker_endpoint_requests",
            "Requests to endpoints that have ended, by what came of them",
            ["endpoint", "outcome"],
            registry=registry,
        )
        self._gauges = {
            field: Gauge(f"headrace_worker_endpoint_{field}", meaning, ["endpoint"], registry=registry)
            for field, meaning in _ENDPOINT_GAUGES.items()
        }
        self._shown: dict[tuple[str, str], int] = {}

    def show(self, endpoints: Mapping[str, EndpointStats]) -> None:
        """Show the newest counts."""
        for name, stats in endpoints.items():
            for field, gauge in self._gauges.items():
                gauge.labels(name).set(getattr(stats, field))
            for outcome, count in stats.outcomes.items():
                self._requests.labels(name, outcome).inc(count - self._shown.get((name, outcome), 0))
                self._shown[name, outcome] = count


_ENDPOINT_GAUGES = {
    "in_flight": "Requests to an endpoint under way",
    "limit": "Requests in flight that an endpoint is thought to bear",
    "open": "1 while nothing is sent to an endpoint: its breaker is open, or somebody must mend something",
}


class MetricsServer:
    """`/metrics` and `/progress` over HTTP, in threads of their own. Use it in a `with` block."""

    def __init__(self, port: int, metrics: Metrics, report: Callable[[], Report]) -> None:
        """Listen on `port`; on 0, on a free port that only this machine can reach. Raises `JobFailed`."""
        pages = {
            "/metrics": (CONTENT_TYPE_LATEST, lambda: generate_latest(metrics.registry)),
            "/progress": ("application/json", lambda: orjson.dumps(report().to_object())),
        }
        try:
            self._server = _listen(port, _handler(pages))
        except OSError as error:
            raise JobFailed("BadConfig", f"HEADRACE_METRICS_PORT: cannot listen on port {port}: {error}") from error
        self.port: int = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, name="metrics", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop listening."""
        self._server.shutdown()
        self._server.server_close()


def write_port(path: Path, port: int) -> None:
    """Tell the shell which port was taken; the file appears whole."""
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    partial.write_text(f"{port}\n")
    partial.replace(path)


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A caller that did not wait for its answer is no error of ours."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


class _DualStackServer(_Server):
    """For pods: reached by IPv4 and by IPv6."""

    address_family = socket.AF_INET6

    def server_bind(self) -> None:
        self.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        super().server_bind()


def _listen(port: int, handler: type[BaseHTTPRequestHandler]) -> _Server:
    if port == 0:
        return _Server(("127.0.0.1", 0), handler)
    try:
        return _DualStackServer(("::", port), handler)
    except OSError:  # no IPv6 on this machine; whatever else it was, the second try says it
        return _Server(("0.0.0.0", port), handler)  # noqa: S104 - a pod is scraped from outside


def _handler(pages: dict[str, tuple[str, Callable[[], bytes]]]) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.path not in pages:
                self.send_error(HTTPStatus.NOT_FOUND, "there are /metrics and /progress")
                return
            content_type, page = pages[self.path]
            body = page()
            self.send_response(HTTPStatus.OK)
            self.send_header("Content-Type", content_type)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """A scrape is not worth a line."""

    return Handler
