"""From the cache to one look: whose Jobs, whose pods, and what they have said."""

from __future__ import annotations

from typing import Any

import pytest

from builders import NOON, PLACE, a_batch
from headrace.api import labels
from headrace.api.base import JsonObject
from headrace.api.inferencebatch import RecordCounts
from headrace.api.reasons import Reason
from headrace.api.worker import PlanReport, Role, ShardReport, termination_message
from headrace.core.observed import Observed, Verdict
from headrace.shells.kube.cache import Cache
from headrace.shells.kube.observe import Sight, observe
from headrace.shells.kube.resources import JOBS, PODS

BATCH = a_batch().build()
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
