"""From the cache to one look: whose Jobs, whose pods, and what they have said."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from builders import NOON, PLACE, a_batch
from headrace.api import labels
from headrace.api.base import JsonObject
from headrace.api.batchstatus import RecordCounts
from headrace.api.reasons import Reason
from headrace.api.window import DataWindow
from headrace.api.worker import Failure, ListReport, PlanReport, Role, ShardReport, termination_message
from headrace.core.observed import Observed, Verdict, WorkerReport
from headrace.core.schedule.listing import listing_job
from headrace.core.schedule.observed import Listing
from headrace.shells.kube.cache import Cache
from headrace.shells.kube.observe import Sight, observe, observe_schedule
from headrace.shells.kube.resources import BATCHES, JOBS, PODS, SCHEDULES
from schedule_builders import ScheduleBuilder, a_run, a_schedule, triggered

BATCH = a_batch().build()
WINDOW = DataWindow(start_time=NOON, end_time=NOON + timedelta(minutes=5))
DONE = ShardReport(shard=0, attempt=1, committed=True, records=RecordCounts(total=5, succeeded=5))


def an_object(name: str, owner: str, role: Role, of_round: int = 0, **more: Any) -> JsonObject:
    metadata = {
        "namespace": "default",
        "name": name,
        "uid": f"uid-{name}",
        "resourceVersion": "5",
        "creationTimestamp": f"2026-01-15T12:00:0{len(name) % 10}Z",
        "labels": {labels.INFERENCE_BATCH: "reviews", labels.ROLE: str(role), labels.ROUND: str(of_round)},
        "ownerReferences": [{"uid": owner, "controller": True}],
    }
    return {"metadata": metadata, "spec": {}, **more}


def ended(message: str, code: int = 0) -> JsonObject:
    state = {"terminated": {"exitCode": code, "message": message}}
    return {"phase": "Failed" if code else "Succeeded", "containerStatuses": [{"name": "worker", "state": state}]}


def look(*objects: JsonObject, live: dict[str, ShardReport] | None = None, retry: int = 0) -> Observed:
    """One look at a cluster of those Jobs and pods."""
    cache = Cache()
    for obj in objects:
        cache.put(PODS if "status" in obj else JOBS, obj)
    batch = BATCH.model_copy(
        update={"metadata": BATCH.metadata.model_copy(update={"annotations": {labels.RETRY: str(retry)}})}
    )
    return observe(Sight(cache, live or {}, lambda _batch, _now: Verdict(admitted=True), PLACE), batch, NOON)


def run_job(owner: str = BATCH.metadata.uid) -> JsonObject:
    return an_object("job0", owner, Role.RUN)


def pod(status: JsonObject, name: str = "pod", job: str = "uid-job0") -> JsonObject:
    return an_object(name, job, Role.RUN, status=status)


def test_observe_reads_the_last_word_of_a_pod() -> None:
    found = look(run_job(), pod(ended(termination_message(DONE).decode())))
    assert [job.name for job in found.jobs] == ["job0"]
    (said,) = found.reports
    assert (said.role, said.report, said.final, said.exit_code) == (Role.RUN, DONE, True, 0)


def test_observe_takes_what_a_running_pod_says_for_now() -> None:
    running = {"phase": "Running", "containerStatuses": [{"name": "worker", "state": {"running": {}}}]}
    (said,) = look(run_job(), pod(running), live={"uid-pod": DONE}).reports
    assert (said.report, said.final) == (DONE, False)


def test_observe_does_not_take_an_old_live_word_for_a_lost_last_one() -> None:
    assert look(run_job(), pod(ended("")), live={"uid-pod": DONE}).reports == ()


def test_observe_leaves_the_children_of_a_namesake_out() -> None:
    found = look(run_job(owner="uid-of-an-older-batch"), pod(ended(termination_message(DONE).decode())))
    assert (found.jobs, found.reports) == ((), ())


def test_observe_forgets_what_was_said_before_a_retry() -> None:
    """Its Jobs are still seen, so that they are deleted."""
    bad = PlanReport(error_count=1)
    plan = an_object("job0", BATCH.metadata.uid, Role.PLAN)
    said = an_object("pod", "uid-job0", Role.PLAN, status=ended(termination_message(bad).decode()))
    assert look(plan, said).plan_report == bad
    again = look(plan, said, retry=1)
    assert again.plan_report is None
    assert [job.name for job in again.jobs] == ["job0"]


def test_observe_puts_older_words_first() -> None:
    first = pod(ended(termination_message(DONE).decode()), "p1")
    second = pod(ended(termination_message(DONE.model_copy(update={"attempt": 2})).decode()), "pod2")
    attempts = [said.report.attempt for said in look(run_job(), second, first).reports if said.report.kind == "shard"]
    assert attempts == [1, 2]


def waiting(reason: str, message: str | None = None) -> JsonObject:
    said = {"reason": reason} | ({"message": message} if message else {})
    return {"phase": "Pending", "containerStatuses": [{"name": "worker", "state": {"waiting": said}}]}


NO_NODE = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/1 nodes are available"}


@pytest.mark.parametrize(
    ("status", "obstacle", "message"),
    [
        pytest.param(waiting("ErrImagePull", "not found"), Reason.IMAGE_PULL_FAILED, "not found", id="no image"),
        pytest.param(waiting("ImagePullBackOff"), Reason.IMAGE_PULL_FAILED, "ImagePullBackOff", id="no message"),
        pytest.param(
            waiting("CreateContainerConfigError", 'secret "hub" not found'),
            Reason.CONTAINER_NOT_CREATED,
            'secret "hub" not found',
            id="no secret",
        ),
        pytest.param(waiting("ContainerCreating"), None, "", id="on its way"),
        pytest.param(
            {"phase": "Pending", "conditions": [NO_NODE]}, Reason.UNSCHEDULABLE, "0/1 nodes are available", id="no node"
        ),
        pytest.param({"phase": "Running", "conditions": [NO_NODE]}, None, "", id="it runs"),
        pytest.param({}, None, "", id="just made"),
    ],
)
def test_observe_tells_what_keeps_a_pod_from_starting(
    status: JsonObject, obstacle: Reason | None, message: str
) -> None:
    (found,) = look(run_job(), pod(status)).pods
    assert (found.role, found.obstacle, found.message) == (Role.RUN, obstacle, message)


# what schedules depend on


def depending(name: str, *upstream: str) -> ScheduleBuilder:
    """A schedule that depends on others, and on the batch `embeddings`."""
    found = [{"kind": "ScheduledGeneration", "name": one} for one in upstream]
    return a_schedule(name=name).with_spec(dependsOn=[*found, {"kind": "InferenceBatch", "name": "embeddings"}])


def test_observe_schedule_finds_what_it_depends_on_with_its_runs_and_the_schedules_beyond() -> None:
    cache = Cache()
    for number, schedule in enumerate((depending("hourly", "a"), depending("a", "b"), depending("b", "hourly"))):
        found = schedule.build().to_object()
        cache.put(SCHEDULES, {**found, "metadata": {**found["metadata"], "resourceVersion": str(number + 1)}})
    run = a_run(NOON, "a-29474640").to_object()
    owned = {
        "resourceVersion": "9",
        "labels": {labels.SCHEDULED_GENERATION: "a"},
        "ownerReferences": [{"apiVersion": labels.API_VERSION, "kind": "ScheduledGeneration", "name": "a", "uid": "uid-a",
                             "controller": True}],
    }  # fmt: skip
    cache.put(BATCHES, {**run, "metadata": {**run["metadata"], **owned}})
    sight = Sight(cache, {}, lambda _batch, _now: Verdict(admitted=True), PLACE)
    upstream = observe_schedule(sight, depending("hourly", "a").build(), NOON).upstream
    assert {kind for kind, _ in upstream} == {"ScheduledGeneration", "InferenceBatch"}
    assert upstream["InferenceBatch", "embeddings"].found is None
    found_schedules = {name: one.found for (kind, name), one in upstream.items() if kind == "ScheduledGeneration"}
    assert set(found_schedules) == {"a", "b", "hourly"}
    assert None not in found_schedules.values()
    assert [run.metadata.name for run in upstream["ScheduledGeneration", "a"].runs] == ["a-29474640"]


def test_observe_schedule_reads_what_its_looks_have_found() -> None:
    found = ListReport(window=WINDOW, objects=7)
    job, name = listing_job(triggered().build(), PLACE, WINDOW), "hourly-list-1768478700"
    of_cluster = {"uid": "uid-look", "resourceVersion": "5", "creationTimestamp": "2026-01-15T12:06:00Z"}
    complete = {"conditions": [{"type": "Complete", "status": "True"}]}
    pod = {
        "name": "pod",
        "namespace": "default",
        "uid": "uid-pod",
        "resourceVersion": "6",
        "creationTimestamp": "2026-01-15T12:06:01Z",
        "labels": job["spec"]["template"]["metadata"]["labels"],
        "ownerReferences": [{"uid": "uid-look", "controller": True}],
    }
    cache = Cache()
    cache.put(JOBS, {**job, "metadata": {**job["metadata"], **of_cluster}, "status": complete})
    cache.put(PODS, {"metadata": pod, "status": ended(termination_message(found).decode())})
    sight = Sight(cache, {}, lambda _batch, _now: Verdict(admitted=True), PLACE)
    (look,) = observe_schedule(sight, triggered().build(), NOON).listings
    assert (look.name, look.made, look.finished, look.failed) == (name, NOON + timedelta(minutes=6), True, False)
    assert (look.report, look.until) == (found, NOON + timedelta(minutes=5))


def test_observe_schedule_reads_what_a_look_has_failed_of() -> None:
    failure = Failure(reason="InputUnreadable", message="there is no such bucket")
    job = listing_job(triggered().build(), PLACE, WINDOW)
    of_cluster = {"uid": "uid-look", "resourceVersion": "5", "creationTimestamp": "2026-01-15T12:06:00Z"}
    status = {"conditions": [{"type": "Failed", "status": "True", "message": "a pod has exited with 44"}]}
    said = WorkerReport(Role.LIST, ListReport(failure=failure), final=True, exit_code=44)
    look = Listing.of({**job, "metadata": {**job["metadata"], **of_cluster}, "status": status}, (), [said])
    assert (look.finished, look.failed, look.report) == (True, True, None)
    assert look.why == "InputUnreadable: there is no such bucket"
