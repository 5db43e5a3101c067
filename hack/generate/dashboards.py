"""The Grafana dashboards. A panel is a title, a unit and queries; where it stands follows from its place in the list."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from headrace.api.base import JsonObject

Unit = Literal["short", "percentunit", "s", "reqps", "ops"]
WIDTH, HEIGHT, PER_ROW = 8, 8, 3
SCHEMA_VERSION = 39


@dataclass(frozen=True)
class Query:
    """What is asked of Prometheus, and what each line of the answer is called."""

    expression: str
    legend: str


@dataclass(frozen=True)
class Panel:
    """One graph."""

    title: str
    unit: Unit
    queries: tuple[Query, ...]
    description: str = ""


@dataclass(frozen=True)
class Dashboard:
    """One page."""

    name: str
    title: str
    panels: tuple[Panel, ...]
    variables: tuple[str, ...]
    """Labels by which the page can be narrowed down."""


RANGE = "[$__rate_interval]"
HERE = '{namespace=~"$namespace"}'
IN_BULKHEAD = '{namespace=~"$namespace",bulkhead=~"$bulkhead"}'


def _rate(metric: str, by: str, where: str = HERE) -> str:
    return f"sum by ({by}) (rate({metric}{where}{RANGE}))"


def _panel(title: str, unit: Unit, expression: str, legend: str, description: str = "") -> Panel:
    return Panel(title, unit, (Query(expression, legend),), description)


def _quantiles(title: str, metric: str, where: str, description: str = "", span: str = RANGE) -> Panel:
    def query(percent: int) -> Query:
        buckets = f"sum by (le) (rate({metric}_bucket{where}{span}))"
        return Query(f"histogram_quantile({percent / 100}, {buckets})", f"p{percent}")

    return Panel(title, "s", (query(50), query(95), query(99)), description)


FLEET = Dashboard(
    "fleet",
    "Headrace / Fleet",
    (
        _panel("Objects by state", "short", f"sum by (kind, state) (headrace_objects{HERE})", "{{kind}} {{state}}"),
        _panel(
            "Waiting by reason",
            "short",
            'sum by (bulkhead, reason) (headrace_batches_waiting{bulkhead=~"$bulkhead"})',
            "{{bulkhead}}: {{reason}}",
            "The reasons are explained in docs/troubleshooting.md.",
        ),
        _panel(
            "Longest wait",
            "s",
            'max by (bulkhead) (headrace_bulkhead_oldest_wait_seconds{bulkhead=~"$bulkhead"})',
            "{{bulkhead}}",
        ),
        _panel("Records a second", "reqps", _rate("headrace_records_total", "outcome", IN_BULKHEAD), "{{outcome}}"),
        _panel(
            "Failed records",
            "percentunit",
            f'sum by (namespace) (rate(headrace_records_total{{namespace=~"$namespace",outcome="failed"}}{RANGE}))'
            f" / {_rate('headrace_records_total', 'namespace')}",
            "{{namespace}}",
        ),
        _panel("Tokens a second", "ops", _rate("headrace_tokens_total", "direction", IN_BULKHEAD), "{{direction}}"),
        _panel(
            "Fill of batches",
            "percentunit",
            f"{_rate('headrace_batched_records_total', 'bulkhead', IN_BULKHEAD)}"
            f" / {_rate('headrace_batch_places_total', 'bulkhead', IN_BULKHEAD)}",
            "{{bulkhead}}",
            "Records in a batch as a share of maxBatchSize; of shards that have ended.",
        ),
        _panel(
            "GPUs held",
            "short",
            'max by (bulkhead) (headrace_bulkhead_held{bulkhead=~"$bulkhead",what="gpus"})',
            "{{bulkhead}}",
        ),
        _panel(
            "GPU time used",
            "short",
            _rate("headrace_gpu_seconds_total", "namespace", IN_BULKHEAD),
            "{{namespace}}",
            "GPU-seconds a second, which is GPUs.",
        ),
        _panel(
            "Left of budgets",
            "percentunit",
            'max by (bulkhead, budget, namespace) (headrace_bulkhead_budget_left_ratio{bulkhead=~"$bulkhead"})',
            "{{bulkhead}}/{{budget}} {{namespace}}",
        ),
        _panel("Circuit breakers", "short", "max by (state) (headrace_breakers)", "{{state}}"),
        _panel(
            "Batches that lost what they held",
            "ops",
            f'sum by (bulkhead, reason) (rate(headrace_evictions_total{{bulkhead=~"$bulkhead"}}{RANGE}))',
            "{{bulkhead}}: {{reason}}",
        ),
        _panel(
            "GPUs that were given back and not yet free",
            "short",
            f'sum by (bulkhead, reason) (rate(headrace_lost_gpu_seconds_total{{bulkhead=~"$bulkhead"}}{RANGE}))',
            "{{bulkhead}}: {{reason}}",
        ),
        _quantiles("Looks of the operator", "headrace_reconcile_seconds", ""),
        _panel("Looks that went wrong", "ops", _rate("headrace_reconcile_errors_total", "kind", ""), "{{kind}}"),
        Panel(
            "Work queue",
            "short",
            (
                Query("max(headrace_work_queue_depth)", "depth"),
                Query("max(headrace_work_queue_oldest_seconds)", "seconds that the oldest has waited"),
            ),
        ),
        _panel("Writes to the API server", "reqps", f"sum(rate(headrace_api_writes_total{RANGE}))", "writes"),
        _panel("Replicas that act", "short", "sum(headrace_leading)", "leading", "Exactly one."),
        _panel("Objects in the cache", "short", "max by (resource) (headrace_cached_objects)", "{{resource}}"),
    ),
    ("namespace", "bulkhead"),
)

BATCH = Dashboard(
    "batch",
    "Headrace / Batches at work",
    (
        Panel(
            "Fill of batches",
            "percentunit",
            tuple(
                Query(f"sum(rate({metric}_sum{HERE}{RANGE})) / sum(rate({metric}_count{HERE}{RANGE}))", legend)
                for metric, legend in (
                    ("headrace_worker_batch_fill_ratio", "records"),
                    ("headrace_worker_batch_token_fill_ratio", "tokens"),
                )
            ),
            "By records: a share of maxBatchSize. By tokens: of maxBatchTokens. The one nearer to 1 is the limit that counts.",
        ),
        _quantiles("Latency of records", "headrace_worker_record_latency_seconds", HERE),
        _quantiles("Time to the first token", "headrace_worker_time_to_first_token_seconds", HERE),
        Panel(
            "Records a second",
            "reqps",
            (
                Query(_rate("headrace_worker_records_total", "outcome"), "{{outcome}}"),
                Query(_rate("headrace_worker_records_reused_total", "origin"), "had an answer: {{origin}}"),
            ),
        ),
        _panel("Errors by code", "ops", _rate("headrace_worker_errors_total", "code"), "{{code}}"),
        _panel(
            "Tries after the first", "ops", f"sum(rate(headrace_worker_record_retries_total{HERE}{RANGE}))", "tries"
        ),
        Panel(
            "Tokens a second",
            "ops",
            (
                Query(f"sum(rate(headrace_worker_prompt_tokens_total{HERE}{RANGE}))", "prompt"),
                Query(f"sum(rate(headrace_worker_completion_tokens_total{HERE}{RANGE}))", "completion"),
            ),
        ),
        _panel("Records that wait in workers", "short", f"sum(headrace_worker_queue_depth{HERE})", "records"),
        _panel(
            "What GPUs are held for",
            "short",
            _rate("headrace_worker_gpu_seconds_total", "activity"),
            "{{activity}}",
            "GPU-seconds a second. Work is useful; load, reload, wait and other are not.",
        ),
        _panel(
            "Useful GPU time",
            "percentunit",
            f'sum(rate(headrace_worker_gpu_seconds_total{{namespace=~"$namespace",activity="work"}}{RANGE}))'
            f" / sum(rate(headrace_worker_gpu_seconds_total{HERE}{RANGE}))",
            "useful",
        ),
        _panel(
            "Records begun again",
            "ops",
            f"sum(rate(headrace_worker_records_reprocessed_total{HERE}{RANGE}))",
            "records",
            "Because a pod was lost with them.",
        ),
        _panel(
            "Ends of batches",
            "short",
            'sum by (reason) (increase(headrace_finished_total{namespace=~"$namespace",kind="InferenceBatch"}[1h]))',
            "{{reason}}",
            "Within an hour.",
        ),
        _panel(
            "Scores of answers",
            "percentunit",
            f"sum by (score) (increase(headrace_evaluation_score_ratio_sum{HERE}[1d]))"
            f" / sum by (score) (increase(headrace_evaluation_score_ratio_count{HERE}[1d]))",
            "{{score}}",
            "Of batches whose records say what is expected; mean of a day.",
        ),
        _panel(
            "Answers that are what was expected",
            "short",
            f"sum by (verdict) (increase(headrace_evaluated_records_total{HERE}[1d]))",
            "{{verdict}}",
            "Within a day.",
        ),
        _panel(
            "Data drift",
            "short",
            f"sum by (feature) (increase(headrace_data_drift_psi_sum{HERE}[1d]))"
            f" / sum by (feature) (increase(headrace_data_drift_psi_count{HERE}[1d]))",
            "{{feature}}",
            "Population stability index against the reference, mean of a day: below 0.1 is alike, above 0.2 is not.",
        ),
        _panel(
            "Batches that have drifted",
            "short",
            f"sum by (feature) (increase(headrace_data_drifts_total{HERE}[1d]))",
            "{{feature}}",
            "Within a day, by what has changed.",
        ),
        _panel(
            "Requests to endpoints",
            "reqps",
            _rate("headrace_worker_endpoint_requests_total", "endpoint, outcome"),
            "{{endpoint}} {{outcome}}",
        ),
        Panel(
            "Requests in flight at endpoints",
            "short",
            (
                Query(f"sum by (endpoint) (headrace_worker_endpoint_in_flight{HERE})", "{{endpoint}}"),
                Query(f"sum by (endpoint) (headrace_worker_endpoint_limit{HERE})", "{{endpoint}} may have"),
            ),
            "What it may have follows from how it answers.",
        ),
        _panel(
            "Workers that send an endpoint nothing",
            "short",
            f"sum by (endpoint) (headrace_worker_endpoint_open{HERE})",
            "{{endpoint}}",
            "Its breaker is open, or somebody must mend something.",
        ),
    ),
    ("namespace",),
)

FAN_OUT = Dashboard(
    "fan-out",
    "Headrace / Fan-outs",
    (
        _panel(
            "Fan-outs by state",
            "short",
            'sum by (state) (headrace_objects{namespace=~"$namespace",kind="FanOutJob"})',
            "{{state}}",
        ),
        _panel(
            "Evenness",
            "percentunit",
            f"sum by (namespace) (increase(headrace_fanout_evenness_ratio_sum{HERE}[6h]))"
            f" / sum by (namespace) (increase(headrace_fanout_evenness_ratio_count{HERE}[6h]))",
            "{{namespace}}",
            "Jain's index over the durations of the branches, mean of six hours: 1 when all take equally long.",
        ),
        _panel(
            "Fan-outs by evenness",
            "short",
            f"sum by (le) (increase(headrace_fanout_evenness_ratio_bucket{HERE}[6h]))",
            "up to {{le}}",
            "Within six hours.",
        ),
        _panel(
            "Branches by outcome",
            "short",
            f"sum by (outcome) (increase(headrace_fanout_branches_total{HERE}[1h]))",
            "{{outcome}}",
            "Of fan-outs that have ended within an hour.",
        ),
        _panel(
            "Stragglers",
            "short",
            f"sum by (part) (headrace_stragglers{HERE})",
            "{{part}}",
            "Branches and shards at work that take more than twice as long as half of the others; the status names them.",
        ),
        _panel(
            "Ends of fan-outs",
            "short",
            'sum by (reason) (increase(headrace_finished_total{namespace=~"$namespace",kind="FanOutJob"}[1h]))',
            "{{reason}}",
            "Within an hour.",
        ),
        _panel(
            "Branches that wait, with other batches",
            "short",
            "sum by (reason) (headrace_batches_waiting)",
            "{{reason}}",
        ),
    ),
    ("namespace",),
)

SCHEDULE = Dashboard(
    "schedule",
    "Headrace / Schedules",
    (
        _panel(
            "Schedules by state",
            "short",
            f"sum by (state) (headrace_schedules{HERE})",
            "{{state}}",
            "Late: see DriftExceeded.",
        ),
        _quantiles(
            "Drift",
            "headrace_schedule_drift_seconds",
            HERE,
            "From when runs were due, jitter included, to their first record. Of six hours.",
            "[6h]",
        ),
        _panel(
            "Runs begun",
            "short",
            f"sum by (namespace) (increase(headrace_schedule_drift_seconds_count{HERE}[1h]))",
            "{{namespace}}",
            "Within an hour.",
        ),
    ),
    ("namespace",),
)

GATEWAY = Dashboard(
    "gateway",
    "Headrace / Gateway",
    (
        _panel("Requests accepted", "reqps", _rate("headrace_gateway_accepted_total", "route", ""), "{{route}}"),
        _panel("Requests refused", "reqps", _rate("headrace_gateway_refused_total", "reason", ""), "{{reason}}"),
        _panel("Requests in queues", "short", "max by (route) (headrace_gateway_queue_requests)", "{{route}}"),
        _panel(
            "Oldest in a queue",
            "s",
            "max by (route) (headrace_gateway_queue_oldest_seconds)",
            "{{route}}",
            "All replicas tell the same.",
        ),
        _panel(
            "Fill of windows",
            "percentunit",
            f"{_rate('headrace_gateway_window_fill_ratio_sum', 'route', '')}"
            f" / {_rate('headrace_gateway_window_fill_ratio_count', 'route', '')}",
            "{{route}}",
            "Requests in a window as a share of maxBatchSize.",
        ),
        _panel("Windows at work", "short", "sum by (route) (headrace_gateway_open_batches)", "{{route}}"),
        _quantiles("From a request to its 202", "headrace_gateway_accept_seconds", ""),
        _quantiles("From a 202 to the end", "headrace_gateway_request_seconds", ""),
        _quantiles("From an end to its push", "headrace_gateway_push_seconds", ""),
        _panel(
            "Dead letters",
            "ops",
            _rate("headrace_gateway_dead_letters_total", "route, state", ""),
            "{{route}} {{state}}",
        ),
        _panel("Calls of webhooks", "ops", _rate("headrace_gateway_webhook_calls_total", "outcome", ""), "{{outcome}}"),
        _panel("Who waits to be told", "short", "sum by (kind) (headrace_gateway_connections)", "{{kind}}"),
    ),
    (),
)

PICTURED = (FLEET, BATCH, FAN_OUT, SCHEDULE)
"""Those of which there are pictures: the run that these are drawn of has no gateway."""
DASHBOARDS = (*PICTURED, GATEWAY)


def render_dashboards() -> dict[str, str]:
    """File names and contents."""
    return {f"{one.name}.json": json.dumps(_grafana(one), indent=2) + "\n" for one in DASHBOARDS}


def _grafana(dashboard: Dashboard) -> JsonObject:
    return {
        "uid": f"headrace-{dashboard.name}",
        "title": dashboard.title,
        "tags": ["headrace"],
        "schemaVersion": SCHEMA_VERSION,
        "refresh": "30s",
        "time": {"from": "now-3h", "to": "now"},
        "templating": {"list": list(_variables(dashboard))},
        "panels": [_grafana_panel(number, panel) for number, panel in enumerate(dashboard.panels)],
    }


def _variables(dashboard: Dashboard) -> Iterator[JsonObject]:
    yield {"name": "datasource", "type": "datasource", "query": "prometheus"}
    for label in dashboard.variables:
        metric = "headrace_bulkhead_held" if label == "bulkhead" else "headrace_objects"
        yield {
            "name": label,
            "type": "query",
            "datasource": _SOURCE,
            "query": {"query": f"label_values({metric}, {label})", "refId": label},
            "refresh": 2,
            "includeAll": True,
            "multi": True,
            "allValue": ".*",
            "current": {"text": "All", "value": "$__all"},
        }


_SOURCE = {"type": "prometheus", "uid": "${datasource}"}


def _grafana_panel(number: int, panel: Panel) -> JsonObject:
    row, column = divmod(number, PER_ROW)
    return {
        "id": number + 1,
        "type": "timeseries",
        "title": panel.title,
        "description": panel.description,
        "datasource": _SOURCE,
        "gridPos": {"x": column * WIDTH, "y": row * HEIGHT, "w": WIDTH, "h": HEIGHT},
        "fieldConfig": {"defaults": {"unit": panel.unit, "min": 0}, "overrides": []},
        "targets": [
            {"refId": chr(ord("A") + place), "expr": query.expression, "legendFormat": query.legend}
            for place, query in enumerate(panel.queries)
        ],
    }
