"""What Kueue says becomes what the batch says; what is Kueue's is never in a manifest of ours."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from builders import BatchBuilder, a_batch, a_job, committed, look
from headrace.api import labels
from headrace.api.base import JsonObject
from headrace.api.meta import ConditionStatus
from headrace.api.reasons import ConditionType, Reason
from headrace.api.worker import Role
from headrace.core.admission.admit import admit
from headrace.core.admission.demand import Surroundings, demand_of
from headrace.core.kueue.line import Lines
from headrace.core.kueue.verdict import kueue_verdict
from headrace.core.kueue.workload import KueueView, Workload
from headrace.core.observed import JobSnapshot, Observed
from headrace.core.plan import Activation, Plan
from headrace.core.reconcile import WAITING_LOOK, reconcile

BATCH = a_batch().sharded(4).with_spec(queueName="team-a").validated()
SHORT = "couldn't assign flavors to pod set main: insufficient unused quota for nvidia.com/gpu, 1 more needed"
HELD = a_job(Role.RUN, suspended=True, parallelism=4)
RUNNING = a_job(Role.RUN, parallelism=4, active=4)


def condition(kind: str, *, holds: bool = True, reason: str = "Because", message: str = "") -> JsonObject:
    moment = "2026-01-15T12:00:30Z"
    status = "True" if holds else "False"
    return {"type": kind, "status": status, "reason": reason, "message": message, "lastTransitionTime": moment}


def a_workload(*conditions: JsonObject, ours: bool = False, status: JsonObject | None = None, **spec: Any) -> Workload:
    metadata: JsonObject = {
        "name": "job-reviews-run-1",
        "uid": "uid-workload",
        "creationTimestamp": "2026-01-15T12:00:00Z",
        "ownerReferences": [{"kind": "Job", "name": "reviews-run", "uid": "uid-run", "controller": True}],
        "annotations": {labels.DEACTIVATED: "true"} if ours else {},
    }
    found = {"conditions": list(conditions), **(status or {})}
    return Workload.from_object({"metadata": metadata, "spec": {"queueName": "team-a", **spec}, "status": found})


WAITING = a_workload(condition("QuotaReserved", holds=False, reason="Pending", message=SHORT))
PREEMPTED = a_workload(
    condition("Evicted", reason="Preempted", message="made room."),
    condition("QuotaReserved", holds=False, message=SHORT),
)
ADMITTED = a_workload(condition("QuotaReserved"), condition("Admitted"), status={"admission": {"clusterQueue": "gpus"}})


def seen(
    workload: Workload | None, *jobs: JobSnapshot, batch: BatchBuilder = BATCH, installed: bool = True, **more: Any
) -> Observed:
    """One look at a batch in a queue."""
    built, view = batch.build(), KueueView(installed, workload, position=3 if workload and workload.waits else None)
    run = next((job for job in jobs if job.role == Role.RUN), None)
    return replace(look(built, jobs=jobs, verdict=kueue_verdict(built, run, view), **more), kueue=view)


def run_job(plan: Plan[Any]) -> JsonObject | None:
    assert plan.children is not None
    return next((child for child in plan.children if child["metadata"]["name"] == "reviews-run"), None)


def admitted(plan: Plan[Any]) -> tuple[ConditionStatus, str, str]:
    found = plan.status.condition(ConditionType.ADMITTED)
    assert found is not None
    return found.status, found.reason, found.message


def test_the_job_is_made_suspended_and_with_the_label_of_its_queue() -> None:
    job = run_job(reconcile(seen(None)))
    assert job is not None
    assert job["metadata"]["labels"][labels.QUEUE_NAME] == "team-a"
    assert (job["spec"]["suspend"], job["spec"]["parallelism"]) == (True, 4)
    assert "annotations" not in job["metadata"], "nothing says that it holds something of a Bulkhead"
    assert "annotations" not in job["spec"]["template"]["metadata"]


def test_only_the_work_goes_through_the_queue() -> None:
    plan = reconcile(seen(None, batch=a_batch().with_spec(queueName="team-a")))
    assert plan.children is not None
    (preflight,) = plan.children
    assert preflight["metadata"]["name"] == "reviews-plan"
    assert labels.QUEUE_NAME not in preflight["metadata"]["labels"]


@pytest.mark.parametrize(
    ("least", "annotation"), [(2, {labels.MIN_PARALLELISM: "2"}), (4, None)], ids=["fewer than all", "all"]
)
def test_kueue_is_told_with_how_many_pods_a_batch_may_start(least: int, annotation: dict[str, str] | None) -> None:
    job = run_job(reconcile(seen(None, batch=BATCH.with_spec(minParallelism=least))))
    assert job is not None
    assert job["metadata"].get("annotations") == annotation


def test_kueues_words_and_the_position_are_mirrored() -> None:
    plan = reconcile(seen(WAITING, HELD))
    assert admitted(plan) == (ConditionStatus.FALSE, Reason.WAITING_FOR_KUEUE, f"LocalQueue team-a: {SHORT}")
    assert plan.status.queue is not None
    assert (plan.status.queue.position, plan.status.queue.ahead) == (3, 2)
    assert plan.status.summary.state == "Waiting"


def test_who_waits_in_a_line_of_kueue_is_looked_at_again_soon_enough_to_see_it_move() -> None:
    waiting = reconcile(seen(WAITING, HELD)).status
    assert waiting.queue is not None
    assert reconcile(seen(WAITING, HELD, batch=replace(BATCH, status=waiting))).look_again_after == WAITING_LOOK


def test_new_words_of_kueue_are_mirrored_though_the_position_stays() -> None:
    first = reconcile(seen(a_workload(), HELD)).status
    second = reconcile(seen(WAITING, HELD, batch=replace(BATCH, status=first)))
    assert admitted(second)[2] == f"LocalQueue team-a: {SHORT}"


def test_what_kueue_releases_is_admitted_and_counts_for_nobody() -> None:
    plan = reconcile(seen(ADMITTED, RUNNING))
    assert admitted(plan) == (ConditionStatus.TRUE, Reason.ADMITTED, "by ClusterQueue gpus of Kueue")
    assert plan.status.admission is None
    assert plan.status.queue is None


@pytest.mark.parametrize(
    "batch", [BATCH, BATCH.admitted(), BATCH.with_spec(suspend=True)], ids=["new", "admitted", "at rest"]
)
def test_a_bulkhead_does_not_know_of_it(batch: BatchBuilder) -> None:
    observed = seen(ADMITTED, RUNNING, batch=batch)
    demand = demand_of(observed.batch, Surroundings(observed.now))
    assert (demand.held, demand.wants, demand.suspended) == (0, False, False)
    assert admit([demand], [], [], observed.now) == {}


@pytest.mark.parametrize(
    ("job", "fields"),
    [(HELD, {"parallelism": 4}), (RUNNING, {}), (replace(HELD, parallelism=2), {"parallelism": 4})],
    ids=["held", "running", "held with another number of pods"],
)
def test_what_kueue_owns_is_in_no_manifest(job: JobSnapshot, fields: JsonObject) -> None:
    found = run_job(reconcile(seen(ADMITTED if job is RUNNING else WAITING, job)))
    assert found is not None
    assert {name: found["spec"][name] for name in ("suspend", "parallelism") if name in found["spec"]} == fields


@pytest.mark.parametrize(
    ("workload", "words"),
    [
        (a_workload(), "Kueue has not looked at it yet"),
        (PREEMPTED, f"evicted (Preempted): made room; {SHORT}"),
        (
            a_workload(condition("Evicted", reason="Deactivated", message="was deactivated"), active=False),
            "evicted (Deactivated): was deactivated; its spec.active is false: set it to true on Workload job-reviews-run-1 to go on",
        ),
        (
            a_workload(
                condition("QuotaReserved"),
                status={"admissionChecks": [{"name": "nodes", "state": "Pending", "message": "two of four are there"}]},
            ),
            "admission check nodes is Pending: two of four are there",
        ),
        (a_workload(condition("QuotaReserved")), "its quota is reserved; it is about to be admitted"),
        (
            a_workload(status={"requeueState": {"count": 1, "requeueAt": "2026-01-15T12:05:00Z"}}),
            "it is put in line again at 2026-01-15T12:05:00Z",
        ),
    ],
    ids=["new", "evicted", "made inactive", "checks", "reserved", "backs off"],
)  # fmt: skip
def test_verdict_says_what_kueue_says(workload: Workload, words: str) -> None:
    plan = reconcile(seen(workload, HELD))
    assert admitted(plan) == (ConditionStatus.FALSE, Reason.WAITING_FOR_KUEUE, f"LocalQueue team-a: {words}")
    assert plan.activations == ()


def test_without_kueue_no_job_is_made_and_it_is_said() -> None:
    plan = reconcile(seen(None, installed=False))
    assert run_job(plan) is None
    status, reason, message = admitted(plan)
    assert (status, reason) == (ConditionStatus.FALSE, Reason.KUEUE_NOT_INSTALLED)
    assert message.startswith("spec.queueName is team-a, and this cluster does not know Kueue's Workloads")


def test_what_runs_goes_on_when_kueue_is_taken_out_of_the_cluster() -> None:
    plan = reconcile(seen(None, RUNNING, installed=False))
    job = run_job(plan)
    assert job is not None
    assert "suspend" not in job["spec"]
    assert admitted(plan)[0] == ConditionStatus.TRUE


def test_a_job_that_kueue_does_not_take_up_is_named() -> None:
    assert "Kueue has not taken up the Job reviews-run yet" in admitted(reconcile(seen(None, HELD)))[2]


RESTING = [BATCH.with_spec(suspend=True), BATCH.with_spec(cancel=True), BATCH.with_spec(parallelism=0)]


@pytest.mark.parametrize("batch", RESTING, ids=["suspended", "cancelled", "no pods allowed"])
def test_who_is_to_rest_has_his_workload_made_inactive(batch: BatchBuilder) -> None:
    plan = reconcile(seen(ADMITTED, RUNNING, batch=batch))
    assert plan.activations == (Activation("job-reviews-run-1", "uid-workload", active=False),)
    job = run_job(plan)
    assert job is not None
    assert {"suspend", "parallelism"}.isdisjoint(job["spec"])


@pytest.mark.parametrize("batch", RESTING, ids=["suspended", "cancelled", "no pods allowed"])
def test_who_is_to_rest_is_suspended_by_us_where_kueue_is_gone(batch: BatchBuilder) -> None:
    job = run_job(reconcile(seen(None, RUNNING, batch=batch, installed=False)))
    assert job is not None
    assert job["spec"]["suspend"] is True


@pytest.mark.parametrize("ours", [True, False], ids=["by us", "by others"])
def test_only_what_we_made_inactive_is_made_active_again(*, ours: bool) -> None:
    plan = reconcile(seen(a_workload(ours=ours, active=False), HELD))
    wanted = (Activation("job-reviews-run-1", "uid-workload", active=True),)
    assert plan.activations == (wanted if ours else ())


def test_a_batch_in_a_queue_is_complete_as_any_other() -> None:
    done = replace(RUNNING, complete=True, active=0, succeeded_indexes=frozenset(range(4)))
    plan = reconcile(seen(ADMITTED, done, reports=[committed(shard, 25) for shard in range(4)]))
    assert plan.status.is_true(ConditionType.COMPLETE)


def test_a_preflight_that_others_have_suspended_is_told_of() -> None:
    batch = a_batch().with_spec(queueName="team-a")
    plan = reconcile(seen(None, a_job(Role.PLAN, suspended=True), batch=batch))
    found = plan.status.condition(ConditionType.INPUT_VALIDATED)
    assert found is not None
    assert "manageJobsWithoutQueueName" in found.message


workloads = st.builds(
    lambda number, priority, second, queue, active: Workload.from_object(
        {
            "metadata": {
                "name": f"w{number}",
                "uid": f"u{number}",
                "creationTimestamp": f"2026-01-15T12:00:0{second}Z",
            },
            "spec": {"queueName": queue, "priority": priority, "active": active},
        }
    ),
    st.integers(0, 9),
    st.integers(-1, 1),
    st.integers(0, 3),
    st.sampled_from(["a", "b"]),
    st.booleans(),
)


@given(st.lists(workloads, max_size=40))
def test_lines_have_everybody_where_sorting_would_put_him(news: list[Workload]) -> None:
    lines, known = Lines(), dict[str, Workload]()
    for workload in news:
        known[workload.name] = workload
        lines.put("default", workload)
    for workload in known.values():
        line = sorted(it.turn for it in known.values() if it.waits and it.queue == workload.queue)
        expected = line.index(workload.turn) + 1 if workload.waits else None
        assert lines.position("default", workload.name) == expected
    for name in known:
        lines.remove("default", name)
        assert lines.position("default", name) is None


def test_who_was_evicted_for_pods_that_did_not_start_lines_up_anew() -> None:
    timeout = a_workload(condition("Evicted", reason="PodsReadyTimeout"))
    preempted = a_workload(condition("Evicted", reason="Preempted"))
    assert (timeout.turn.since, preempted.turn.since) == ("2026-01-15T12:00:30Z", "2026-01-15T12:00:00Z")
