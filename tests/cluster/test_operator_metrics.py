"""Dashboards and alerts against what a run really shows: an operator on a control plane, a worker, and a Prometheus that scrapes both."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from builders import BatchBuilder, a_batch
from fanout_builders import a_fan_out
from generate.dashboards import PICTURED
from headrace.api.worker import Env, ExitCode, Role
from headrace.shells.kube.resources import BATCHES, BULKHEADS, FAN_OUTS, SCHEDULES
from prometheus_server import Prometheus, program, scraping
from schedule_builders import a_schedule
from worker_rig import Folder, WorkerProcess, chat_line

from .operator_rig import RECORDS, Rig, ask_for_run, plane, rig, until_ticking
from .operator_rig import fan_out_manifest as manifest_of
from .operator_workers import Fate, Pod
from .waiting import eventually

__all__ = ["plane", "rig"]
pytestmark = [pytest.mark.cluster, pytest.mark.xdist_group("operator")]

ALERTS = Path(__file__).parents[2] / "charts/headrace/files/alerts.yaml"
INLINE = a_batch().inline(*RECORDS)
NOTHING_TO_SHOW = {
    "Time to the first token": "the mock engine has no tokens of its own",
    "Looks that went wrong": "none did",
    "Requests to endpoints": "the mock engine asks none",
    "Requests in flight at endpoints": "the same",
    "Workers that send an endpoint nothing": "the same",
}
"""Panels that stay empty in this run, and why."""


@contextmanager
def a_worker(folder: Path) -> Iterator[int]:
    """A real worker that works for as long as it is wanted; the port of its metrics."""
    mock = {"name": "mock", "mock": {"latencyMilliseconds": 200, "errorPercent": 30}}
    place = Folder(folder, {"engine": mock, "gpus": 1, "batching": {"maxBatchSize": 1}, "retries": {"limit": 1}})
    place.write_input(*(chat_line(number) for number in range(5000)))
    assert WorkerProcess(place, Role.PLAN).wait() == 0
    port_file = folder / "port"
    env = {Env.METRICS_PORT: "0", Env.METRICS_PORT_FILE: str(port_file), Env.DRAIN_ON_EOF: "1"}
    worker = WorkerProcess(place, Role.RUN, env={name.value: value for name, value in env.items()})
    eventually(lambda: port_file.exists() or worker.ended(), "the worker shows its metrics", lambda: worker.log)
    yield int(port_file.read_text())
    assert worker.wait() == ExitCode.DRAINED  # waiting closes its standard input


def named(name: str, batch: BatchBuilder) -> BatchBuilder:
    return BatchBuilder(name, batch.spec)


def fate(pod: Pod) -> Fate:
    return Fate(waits=pod.role == Role.RUN and pod.config.batch.name == "running")


def live(rig: Rig) -> None:
    """Batches: complete, evaluated, at work, waiting, and one that lost what it held; a fan-out that ended, a schedule that ran."""
    bulkhead = f"{rig.namespace}-small"
    head = {"apiVersion": BULKHEADS.api_version, "kind": BULKHEADS.kind, "metadata": {"name": bulkhead}}
    budget = {"name": "day", "resource": "gpuSeconds", "limit": 100_000}
    rig.create(BULKHEADS, {**head, "spec": {"capacity": {"pods": 1}, "budgets": [budget]}})
    inside = INLINE.with_spec(bulkheadName=bulkhead)
    rig.submit(named("complete", inside))
    rig.until_state("Complete", "complete")
    rig.submit(named("evaluated", inside.with_spec(evaluation={"reference": "s3://out/january/"})))
    rig.until_state("Complete", "evaluated")
    rig.submit(named("running", inside))
    rig.until_at_work(1)
    rig.submit(named("waiting", inside))
    rig.until_state("Waiting", "waiting")
    rig.create(FAN_OUTS, manifest_of(a_fan_out("one", "two").with_spec(input={"inline": RECORDS, "format": "jsonl"})))
    rig.eventually(lambda: rig.state(FAN_OUTS, "answers") == "Complete", "the fan-out complete")
    rig.create(SCHEDULES, a_schedule("0 0 1 1 *", "yearly").of_batch(**INLINE.spec).manifest)
    until_ticking(rig, "yearly")
    ask_for_run(rig, "yearly", "now")
    rig.eventually(lambda: not rig.gone(BATCHES, "now"), "a run")
    rig.until_state("Complete", "now")
    rig.edit("running", suspend=True)
    rig.until_state("Suspended", "running")
    rig.until_state("Complete", "waiting")
    rig.edit("running", suspend=False)
    rig.until_at_work(1)
    rig.submit(named("waiting-too", inside))
    rig.until_state("Waiting", "waiting-too")


def asked(expression: str) -> str:
    """The query as Grafana sends it, over a time as short as this run."""
    variables = {"$namespace": ".*", "$bulkhead": ".*", "$__rate_interval": "1m"}
    for name, value in variables.items():
        expression = expression.replace(name, value)
    return expression


def test_every_panel_shows_something_of_a_real_run_and_no_alert_is_refused(rig: Rig, tmp_path: Path) -> None:
    program("prometheus")
    rig.script.fate = fate
    operator = rig.operator().start().wait_ready()
    (tmp_path / "worker").mkdir()
    with a_worker(tmp_path / "worker") as port:
        targets = {operator.setup.port: {"pod": "operator"}, port: {"pod": "worker", "namespace": rig.namespace}}
        with scraping(tmp_path, targets, ALERTS) as prometheus:
            live(rig)
            for dashboard in PICTURED:
                for panel in dashboard.panels:
                    for query in panel.queries:
                        expect(prometheus, panel.title, asked(query.expression))
            for rule in alerting(prometheus):
                prometheus.query(rule)


def expect(prometheus: Prometheus, title: str, expression: str) -> None:
    if title in NOTHING_TO_SHOW:
        prometheus.query(expression)  # it is understood, at least
        return
    eventually(lambda: prometheus.query(expression), f"{title}: {expression}", lambda: prometheus.query("up"))


def alerting(prometheus: Prometheus) -> list[str]:
    """What the alerts of the chart ask, as Prometheus has read them."""
    with urllib.request.urlopen(f"http://127.0.0.1:{prometheus.port}/api/v1/rules", timeout=30) as answer:
        groups = json.loads(answer.read())["data"]["groups"]
    rules = [rule for group in groups for rule in group["rules"]]
    assert rules
    assert {rule["health"] for rule in rules} <= {"ok", "unknown"}, [rule.get("lastError") for rule in rules]
    return [rule["query"] for rule in rules]
