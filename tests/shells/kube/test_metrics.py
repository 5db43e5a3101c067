"""What `/metrics` of the operator says, and above all how much."""

from __future__ import annotations

import itertools
import re
from datetime import timedelta
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from builders import NOON, BatchBuilder, a_batch
from fanout_builders import a_child, a_fan_out, ended, joined, look_at
from headrace.api.batchstatus import Admission, Batched, InferenceBatchStatus, RecordCounts, Usage
from headrace.api.branches import BranchCounts, BranchStatus
from headrace.api.bulkhead import Bulkhead
from headrace.api.bulkheadstatus import BudgetUse, BulkheadStatus
from headrace.api.evaluation import EvaluationStatus, Feature, FeatureDrift, Scores
from headrace.api.fanoutstatus import FanOutJobStatus
from headrace.api.inferencebatch import InferenceBatch
from headrace.api.meta import Condition, ConditionStatus
from headrace.api.reasons import ConditionType, Reason
from headrace.api.worker import Role
from headrace.core.fanout.reconcile import reconcile
from headrace.core.observed import JobSnapshot
from headrace.core.schedule.reconcile import reconcile as reconcile_schedule
from headrace.gateway.metrics import Metrics as GatewayMetrics
from headrace.shells.kube.cache import Parent
from headrace.shells.kube.metrics import Metrics
from headrace_worker.metrics import Metrics as WorkerMetrics
from schedule_builders import a_run, a_schedule, begun
from schedule_builders import look_at as look_at_schedule

ROOT = Path(__file__).parents[3]

NAMESPACES, BULKHEADS, TASKS = ("blue", "green", "red"), ("default", "night"), ("chat", "embedding")
MOST_SERIES_OF_A_PLACE = 60
"""For each namespace with each bulkhead and task in it."""


def a_life(number: int) -> tuple[InferenceBatch, list[BatchBuilder]]:
    """A batch and how it is at four moments; neighbours differ in all that may be a label."""
    spec = {
        "model": {"name": f"model-{number}", "task": TASKS[number % 2]},
        "bulkheadName": BULKHEADS[number // 2 % 2],
    }
    new = a_batch(f"batch-{number}").with_spec(**spec).with_meta(namespace=NAMESPACES[number % 3])
    waits = new.validated().with_condition(ConditionType.ADMITTED, ConditionStatus.FALSE, Reason.QUOTA_EXCEEDED)
    runs = new.validated().admitted()
    reason = (Reason.RECORDS_PROCESSED, Reason.RECORDS_PROCESSED_WITH_ERRORS)[number % 2]
    ended = runs.with_condition(ConditionType.COMPLETE, ConditionStatus.TRUE, reason).with_status(
        records=RecordCounts(total=10, succeeded=8, failed=2),
        usage=Usage(prompt_tokens=100, completion_tokens=50, gpu_seconds=30),
        batched=Batched(batches=2, records=10, reprocessed=1),
    )
    return new.build(), [new, waits, runs, ended]


def live(metrics: Metrics, number: int) -> None:
    """Let a batch live through all of it."""
    batch, moments = a_life(number)
    key = Parent.of(batch)
    for before, after in itertools.pairwise(moments):
        written = batch.model_copy(update={"status": before.status})
        metrics.of_objects.seen(key, written, after.status)
        metrics.of_objects.wrote(written, after.status, NOON + timedelta(seconds=90))


def series(metrics: Metrics) -> set[str]:
    return {line.rpartition(" ")[0] for line in metrics.text().decode().splitlines() if not line.startswith("#")}


def test_a_thousand_objects_more_are_not_one_series_more() -> None:
    metrics = Metrics()
    for number in range(12):
        live(metrics, number)
    of_twelve = series(metrics)
    for number in range(12, 1012):
        live(metrics, number)
    assert series(metrics) == of_twelve
    assert len(of_twelve) <= MOST_SERIES_OF_A_PLACE * len(NAMESPACES) * len(BULKHEADS) * len(TASKS)


def test_no_label_is_the_name_of_an_object() -> None:
    metrics = Metrics()
    live(metrics, 7)
    labels = set(re.findall(r'(\w+)="', metrics.text().decode()))
    assert labels <= {
        "namespace", "kind", "state", "bulkhead", "reason", "engine", "task", "outcome", "direction", "condition", "le",
        "part",
    }  # fmt: skip
    assert "batch-7" not in metrics.text().decode()
    assert "model-7" not in metrics.text().decode()


def value(metrics: Metrics, name: str, **labels: str) -> float:
    metrics.text()
    return metrics.registry.get_sample_value(name, labels) or 0.0


@pytest.fixture
def after_one() -> Metrics:
    metrics = Metrics()
    live(metrics, 1)
    return metrics


WORK = {"namespace": "green", "bulkhead": "default", "engine": "mock", "task": "embedding"}


@pytest.mark.parametrize(
    ("name", "labels", "expected"),
    [
        ("headrace_records_total", {**WORK, "outcome": "succeeded"}, 8),
        ("headrace_records_total", {**WORK, "outcome": "failed"}, 2),
        ("headrace_records_reprocessed_total", WORK, 1),
        ("headrace_tokens_total", {**WORK, "direction": "prompt"}, 100),
        ("headrace_tokens_total", {**WORK, "direction": "completion"}, 50),
        ("headrace_gpu_seconds_total", WORK, 30),
        ("headrace_batched_records_total", WORK, 10),
        ("headrace_batch_places_total", WORK, 128),
        ("headrace_objects", {"namespace": "green", "kind": "InferenceBatch", "state": "Complete"}, 1),
        ("headrace_admission_wait_seconds_sum", {"bulkhead": "default"}, 90),
        (
            "headrace_finished_total",
            {
                "namespace": "green",
                "kind": "InferenceBatch",
                "condition": "Complete",
                "reason": "RecordsProcessedWithErrors",
            },
            1,
        ),
    ],
)
def test_a_batch_is_counted(after_one: Metrics, name: str, labels: dict[str, str], expected: float) -> None:
    assert value(after_one, name, **labels) == expected


def test_a_batch_that_waits_is_counted_while_it_does() -> None:
    metrics = Metrics()
    batch, (_, waits, runs, _) = a_life(1)
    key = Parent.of(batch)
    metrics.of_objects.seen(key, batch, waits.status)
    assert value(metrics, "headrace_batches_waiting", bulkhead="default", reason="QuotaExceeded") == 1
    metrics.of_objects.seen(key, batch, runs.status)
    assert value(metrics, "headrace_batches_waiting", bulkhead="default", reason="QuotaExceeded") == 0
    assert value(metrics, "headrace_objects", namespace="green", kind="InferenceBatch", state="Running") == 1
    metrics.of_objects.gone(key)
    assert value(metrics, "headrace_objects", namespace="green", kind="InferenceBatch", state="Running") == 0


def test_a_batch_that_loses_what_it_held_is_counted_by_cause() -> None:
    metrics = Metrics()
    batch, (_, waits, runs, _) = a_life(1)
    preempted = waits.with_condition(ConditionType.ADMITTED, ConditionStatus.FALSE, Reason.PREEMPTED)
    metrics.of_objects.wrote(batch.model_copy(update={"status": runs.status}), preempted.status, NOON)
    assert value(metrics, "headrace_evictions_total", bulkhead="default", reason="Preempted") == 1


def test_what_a_preemption_costs_is_counted_when_the_pods_are_gone() -> None:
    metrics = Metrics()
    _, (_, waits, _, _) = a_life(1)
    preempted = waits.with_condition(ConditionType.ADMITTED, ConditionStatus.FALSE, Reason.PREEMPTED)
    draining = preempted.with_spec(resources={"gpus": 2}).with_status(admission=Admission(pods=3))
    gone = draining.with_status(admission=Admission(pods=0)).build().status
    metrics.of_objects.wrote(draining.build(), draining.build().status, NOON + timedelta(seconds=5))
    metrics.of_objects.wrote(draining.build(), gone, NOON + timedelta(seconds=30))
    assert value(metrics, "headrace_lost_gpu_seconds_total", bulkhead="default", reason="Preempted") == 3 * 2 * 30


def test_a_new_process_goes_on_counting_where_the_last_status_was() -> None:
    metrics = Metrics()
    batch, _ = a_life(1)
    before = InferenceBatchStatus(records=RecordCounts(total=10, succeeded=6, pending=4))
    after = InferenceBatchStatus(records=RecordCounts(total=10, succeeded=10))
    metrics.of_objects.wrote(batch.model_copy(update={"status": before}), after, NOON)
    assert value(metrics, "headrace_records_total", **WORK, outcome="succeeded") == 4


def test_a_fan_out_is_counted_when_it_ends() -> None:
    metrics = Metrics()
    fan_out = a_fan_out("one", "two", "three").build()
    complete = Condition(
        type=ConditionType.COMPLETE,
        status=ConditionStatus.TRUE,
        reason=Reason.PARTIALLY_SUCCEEDED,
        last_transition_time=NOON,
    )
    running = FanOutJobStatus(branch_counts=BranchCounts(total=3, active=1, succeeded=1, failed=1), evenness_percent=70)
    ends = (("one", Reason.RECORDS_PROCESSED), ("two", Reason.RECORDS_PROCESSED), ("three", Reason.WORKER_FAILED))
    branches = tuple(BranchStatus(name=name, reason=reason) for name, reason in ends)
    counts = BranchCounts(total=3, succeeded=2, failed=1)
    ended = running.model_copy(update={"conditions": (complete,), "branch_counts": counts, "branches": branches})
    metrics.of_objects.wrote(fan_out, running, NOON)
    metrics.of_objects.wrote(fan_out.model_copy(update={"status": running}), ended, NOON)
    namespace = fan_out.metadata.namespace
    assert value(metrics, "headrace_fanout_branches_total", namespace=namespace, outcome="succeeded") == 2
    assert value(metrics, "headrace_fanout_branches_total", namespace=namespace, outcome="failed") == 1
    assert value(metrics, "headrace_fanout_evenness_ratio_sum", namespace=namespace) == 0.7
    assert value(metrics, "headrace_fanout_evenness_ratio_count", namespace=namespace) == 1


def test_an_evaluated_batch_is_counted_when_it_ends() -> None:
    metrics = Metrics()
    spec = {"evaluation": {"reference": "s3://out/january/"}}
    batch = a_batch("tickets").with_spec(**spec).with_meta(namespace="green").build()
    scores = Scores(expected=10, correct=7, accuracy="0.7000", precision="0.8000", recall="0.6000", f1="0.6857")
    drift = (
        FeatureDrift(feature=Feature.LANGUAGE, psi="0.5000", limit="0.20", drifted=True),
        FeatureDrift(feature=Feature.ERROR_RATE, psi="0.0100", limit="0.20", drifted=False),
    )
    running = InferenceBatchStatus()
    found = EvaluationStatus(uri="s3://out/tickets/evaluation.json", scores=scores, drift=drift)
    complete = a_batch().with_condition(ConditionType.COMPLETE, ConditionStatus.TRUE, Reason.RECORDS_PROCESSED).status
    metrics.of_objects.wrote(batch, running, NOON)
    assert value(metrics, "headrace_data_drifts_total", namespace="green", feature="Language") == 0, "counted from 0 on"
    ended = complete.model_copy(update={"evaluation": found})
    metrics.of_objects.wrote(batch.model_copy(update={"status": running}), ended, NOON)
    metrics.of_objects.wrote(batch.model_copy(update={"status": ended}), ended, NOON)
    place = {"namespace": "green", "bulkhead": "default", "engine": "mock", "task": "chat"}
    assert value(metrics, "headrace_evaluated_records_total", **place, verdict="correct") == 7
    assert value(metrics, "headrace_evaluated_records_total", **place, verdict="wrong") == 3
    assert value(metrics, "headrace_evaluation_score_ratio_sum", namespace="green", task="chat", score="f1") == 0.6857
    assert value(metrics, "headrace_data_drift_psi_sum", namespace="green", feature="Language") == 0.5
    assert value(metrics, "headrace_data_drifts_total", namespace="green", feature="Language") == 1
    assert value(metrics, "headrace_data_drifts_total", namespace="green", feature="ErrorRate") == 0


def test_bulkheads_say_what_is_left_of_their_budgets() -> None:
    metrics = Metrics()
    spec = {"budgets": [{"name": "day", "resource": "gpuSeconds", "limit": 1000}]}
    head = {"apiVersion": "headrace.dev/v1alpha1", "kind": "Bulkhead", "metadata": {"name": "default"}}
    bulkhead = Bulkhead.parse({**head, "spec": spec})
    status = BulkheadStatus(budgets=(BudgetUse(name="day", used=750), BudgetUse(name="dropped", used=1)))
    metrics.bulkheads({"default": bulkhead}, {"default": status}, NOON)
    assert value(metrics, "headrace_bulkhead_budget_left_ratio", bulkhead="default", budget="day", namespace="") == 0.25
    metrics.bulkheads({}, {}, NOON)
    assert "budget_left_ratio{" not in metrics.text().decode()


def test_api_writes_only_grow() -> None:
    metrics = Metrics()
    metrics.api_writes(3)
    metrics.api_writes(5)
    assert value(metrics, "headrace_api_writes_total") == 5


def documented(page: str) -> set[str]:
    """The metrics in the tables of a page."""
    rows = [
        line.split("|")[1] for line in (ROOT / "docs" / page).read_text().splitlines() if line.startswith("| `head")
    ]
    return {name for row in rows for name in re.findall(r"`(headrace_\w+)", row)}


@pytest.mark.parametrize(
    ("page", "registries"),
    [("metrics.md", [Metrics().registry, GatewayMetrics().registry]), ("worker.md", [WorkerMetrics().registry])],
    ids=["operator and gateway", "worker"],
)
def test_every_metric_is_documented_and_every_documented_one_is_there(
    page: str, registries: list[CollectorRegistry]
) -> None:
    found = [it for registry in registries for it in registry.collect()]
    there = {f"{it.name}_total" if it.type == "counter" else it.name for it in found}
    assert documented(page) == there


def test_a_planted_straggler_is_counted_while_it_lags_behind_and_its_fan_out_is_uneven() -> None:
    """Two branches take a minute, the third is planted: it is still at work after five, and takes six in the end."""
    metrics, fan_out = Metrics(), a_fan_out("one", "two", "three").validated().build()
    key, namespace = Parent.of(fan_out), fan_out.metadata.namespace
    slow = a_child("three").model_copy(update={"status": InferenceBatchStatus(start_time=NOON)})
    lagging = reconcile(look_at(fan_out, ended("one"), ended("two"), slow, after=300)).status
    metrics.of_objects.seen(key, fan_out, lagging)
    assert value(metrics, "headrace_stragglers", namespace=namespace, part="branch") == 1

    join = JobSnapshot("answers-join", "uid-join", Role.JOIN, complete=True)
    all_three = (ended("one"), ended("two"), ended("three", seconds=360))
    at_end = reconcile(look_at(fan_out, *all_three, jobs=[join], reports=[joined()], after=400)).status
    metrics.of_objects.seen(key, fan_out, at_end)
    metrics.of_objects.wrote(fan_out, at_end, NOON)
    assert at_end.stragglers == ("three",)
    assert value(metrics, "headrace_stragglers", namespace=namespace, part="branch") == 0, (
        "it lags behind nobody any more"
    )
    jain = (60 + 60 + 360) ** 2 / (3 * (60**2 + 60**2 + 360**2))
    found = value(metrics, "headrace_fanout_evenness_ratio_sum", namespace=namespace)
    assert found == pytest.approx(jain, abs=0.01)


def test_a_shard_that_lags_behind_is_counted_once() -> None:
    """At its batch, and not at the fan-out whose branch that is."""
    metrics, fan_out = Metrics(), a_fan_out("one").validated().build()
    branch = a_child("one")
    slow = InferenceBatchStatus(stragglers=("7",), evenness_percent=60)
    metrics.of_objects.seen(Parent.of(branch), branch, slow)
    metrics.of_objects.seen(Parent.of(fan_out), fan_out, FanOutJobStatus(stragglers=("one/7",)))
    namespace = branch.metadata.namespace
    counted = {
        part: value(metrics, "headrace_stragglers", namespace=namespace, part=part) for part in ("shard", "branch")
    }
    assert counted == {"shard": 1, "branch": 0}
    complete = Condition(
        type=ConditionType.COMPLETE,
        status=ConditionStatus.TRUE,
        reason=Reason.RECORDS_PROCESSED,
        last_transition_time=NOON,
    )
    metrics.of_objects.wrote(branch, slow.model_copy(update={"conditions": (complete,)}), NOON)
    assert value(metrics, "headrace_batch_evenness_ratio_sum", namespace=namespace) == 0.6


def test_schedules_are_counted_by_how_they_stand_and_the_drift_of_each_run_once() -> None:
    """One schedule whose run began 400 seconds late, where 300 are allowed, and one whose run began at once."""
    metrics, namespace = Metrics(), "default"
    for name, late in (("hourly", 400), ("daily", 0)):
        schedule = a_schedule(name=name).with_spec(maxDriftSeconds=300).build()
        run = begun(a_run(), late)
        metrics.wrote(a_run(), run.status, NOON)
        metrics.wrote(run, run.status, NOON)
        status = reconcile_schedule(look_at_schedule(schedule, runs=[run], after=500)).status
        metrics.seen(Parent.of(schedule), schedule, status)
    assert value(metrics, "headrace_schedules", namespace=namespace, state="Late") == 1
    assert value(metrics, "headrace_schedules", namespace=namespace, state="Scheduled") == 1
    assert value(metrics, "headrace_schedule_drift_seconds_sum", namespace=namespace) == 400
    assert value(metrics, "headrace_schedule_drift_seconds_count", namespace=namespace) == 2
    assert value(metrics, "headrace_schedule_drift_seconds_bucket", namespace=namespace, le="300.0") == 1
    metrics.gone(Parent.of(a_schedule(name="hourly").build()))
    assert value(metrics, "headrace_schedules", namespace=namespace, state="Late") == 0
