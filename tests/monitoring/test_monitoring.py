"""Dashboards, alerts and runbooks: they speak of metrics that there are, and of each other."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from prometheus_client import CollectorRegistry

from generate.dashboards import DASHBOARDS, render_dashboards
from headrace.gateway.metrics import Metrics as GatewayMetrics
from headrace.shells.kube.metrics import Metrics
from headrace_worker.metrics import Metrics as WorkerMetrics
from prometheus_server import program

ROOT = Path(__file__).parents[2]
ALERTS = ROOT / "charts/headrace/files/alerts.yaml"
UNIT_TESTS = Path(__file__).parent / "alerts_test.yaml"
RUNBOOKS = ROOT / "docs/runbooks"
FROM_PROMETHEUS = {"pod"}
"""Labels that a scrape adds."""


def alerts() -> list[dict[str, str]]:
    groups = yaml.safe_load(ALERTS.read_text())["groups"]
    return [rule for group in groups for rule in group["rules"]]


def known(registry: CollectorRegistry) -> dict[str, set[str]]:
    """The series that a registry can have, each with its labels."""
    endings = {"counter": ("_total",), "gauge": ("",), "histogram": ("_bucket", "_sum", "_count")}
    names: dict[str, set[str]] = {}
    for collector in list(registry._collector_to_names):
        labels = set(getattr(collector, "_labelnames", ()))
        for metric in collector.describe() if hasattr(collector, "describe") else ():
            for ending in endings[metric.type]:
                names[metric.name + ending] = labels | ({"le"} if ending == "_bucket" else set())
    return names


KNOWN = known(Metrics().registry) | known(WorkerMetrics().registry) | known(GatewayMetrics().registry)


def expressions() -> Iterator[tuple[str, str]]:
    for dashboard in DASHBOARDS:
        for panel in dashboard.panels:
            for query in panel.queries:
                yield f"{dashboard.name}: {panel.title} {query.legend}", query.expression
    for rule in alerts():
        yield rule["alert"], rule["expr"]


@pytest.mark.parametrize("expression", [pytest.param(text, id=name) for name, text in expressions()])
def test_query_asks_for_series_and_labels_that_there_are(expression: str) -> None:
    asked = re.findall(r"(headrace_\w+)(?:\{([^}]*)\})?", expression)
    assert asked
    possible: set[str] = set(FROM_PROMETHEUS)
    for name, selector in asked:
        labels = KNOWN.get(name)
        assert labels is not None, f"there is no series {name}"
        of_scrape = {"namespace"} if name.startswith("headrace_worker_") else set()
        assert set(re.findall(r"(\w+)\s*(?:=~|!~|!=|=)", selector)) <= labels | of_scrape, name
        possible |= labels | of_scrape
    grouped = {one.strip() for group in re.findall(r"\b(?:by|on) \(([^)]*)\)", expression) for one in group.split(",")}
    assert grouped <= possible


def test_every_metric_of_an_object_is_on_a_dashboard() -> None:
    shown = set(re.findall(r"headrace_\w+", " ".join(text for _, text in expressions())))
    unseen = {name for name in KNOWN if not name.endswith(("_bucket", "_sum", "_count"))} - shown
    assert unseen == {"headrace_bulkhead_waiting"}, "which is the sum of headrace_batches_waiting"


def test_every_alert_has_a_runbook_and_every_runbook_an_alert() -> None:
    wanted = {rule["annotations"]["runbook_url"]: rule["alert"] for rule in alerts()}  # type: ignore[index]
    titles = {path.name: path.read_text().splitlines()[0].removeprefix("# ") for path in RUNBOOKS.glob("*.md")}
    assert titles == wanted
    for path in RUNBOOKS.glob("*.md"):
        assert re.findall(r"^## (.*)$", path.read_text(), re.MULTILINE) == ["Look", "Mend"], path.name


def test_every_alert_is_seen_firing_in_a_unit_test() -> None:
    cases = [case for test in yaml.safe_load(UNIT_TESTS.read_text())["tests"] for case in test["alert_rule_test"]]
    assert {case["alertname"] for case in cases if case["exp_alerts"]} == {rule["alert"] for rule in alerts()}


def test_alerts_pass_the_unit_tests_of_promtool() -> None:
    for words in (["check", "rules", str(ALERTS)], ["test", "rules", str(UNIT_TESTS)]):
        done = subprocess.run([program("promtool"), *words], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr


def test_panels_of_a_dashboard_do_not_cover_each_other() -> None:
    for name, text in render_dashboards().items():
        board = json.loads(text)
        places = [(panel["gridPos"]["x"], panel["gridPos"]["y"]) for panel in board["panels"]]
        assert len(set(places)) == len(places), name
        assert {panel["id"] for panel in board["panels"]} == set(range(1, len(places) + 1))
