"""Batches with a `queueName` beside Kueue's real controller: it admits, it releases, it evicts; we mirror, and never fight over a Job."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from builders import BatchBuilder, a_batch
from fanout_builders import a_fan_out
from headrace.api import labels
from headrace.api.base import JsonObject
from headrace.api.inferencebatch import InferenceBatch
from headrace.api.meta import ConditionStatus
from headrace.api.reasons import ConditionType, Reason
from headrace.api.worker import Role
from headrace.shells.kube.resources import BATCHES, BULKHEADS, FAN_OUTS, JOBS, WORKLOADS

from .kueue_controller import Kueue
from .kueue_queues import PRIORITY_CLASSES, QUEUE, make, queue_up
from .messages import Say
from .operator_process import OperatorProcess
from .operator_rig import RECORDS, Plane, Rig, fan_out_manifest, started_plane
from .operator_workers import Fate
from .proxy import calls_to

pytestmark = [pytest.mark.cluster, pytest.mark.xdist_group("kueue")]


@pytest.fixture(scope="module")
def plane(tmp_path_factory: pytest.TempPathFactory, say: Say) -> Iterator[Plane]:
    """A plane of its own: Kueue's webhooks stand before every Job of a cluster."""
    with started_plane(tmp_path_factory.mktemp("plane"), say) as plane:
        Kueue(plane.cluster).up()
        yield plane


@pytest.fixture
def rig(plane: Plane, tmp_path: Any) -> Iterator[Rig]:
    made = Rig(plane, tmp_path)
    yield made
    made.close()


@pytest.fixture
def operator(rig: Rig) -> OperatorProcess:
    """One operator, whose workers wait until they are let go."""
    rig.script.fate = lambda pod: Fate(waits=pod.role == Role.RUN)
    return rig.operator().start().wait_ready()


def member(name: str, shards: int = 1, **spec: Any) -> BatchBuilder:
    """A batch in the queue, with so many shards, each of which wants a pod with one GPU at once."""
    builder = BatchBuilder(name, a_batch().inline(*RECORDS).sharded(shards).spec)
    return builder.with_spec(queueName=QUEUE, resources={"gpus": 1}, **spec)


def admitted(batch: InferenceBatch) -> tuple[ConditionStatus | None, str, str]:
    found = batch.status.condition(ConditionType.ADMITTED)
    return (found.status, found.reason, found.message) if found is not None else (None, "", "")


def until_waits(rig: Rig, name: str, *words: str, reason: Reason = Reason.WAITING_FOR_KUEUE) -> InferenceBatch:
    """Wait until a batch is not admitted for that reason, with those words in its message."""

    def waits(batch: InferenceBatch) -> bool:
        status, why, message = admitted(batch)
        return (status, why) == (ConditionStatus.FALSE, reason) and all(word in message for word in words)

    return rig.until(waits, f"{name} waits: {reason}: {words}", name)


def until_at(rig: Rig, name: str, position: int) -> None:
    """Wait until a batch stands there in the line."""

    def there(batch: InferenceBatch) -> bool:
        return batch.status.queue is not None and batch.status.queue.position == position

    rig.until(there, f"{name} at {position}", name)


def until_admitted(rig: Rig, name: str) -> InferenceBatch:
    return rig.until(lambda it: admitted(it)[0] == ConditionStatus.TRUE, f"{name} admitted", name)


def workload(rig: Rig, name: str) -> JsonObject:
    """The Workload of a batch's run Job."""
    uid = rig.get(JOBS, f"{name}-run")["metadata"]["uid"]
    (found,) = [it for it in rig.all(WORKLOADS) if it["metadata"]["ownerReferences"][0]["uid"] == uid]
    return found


def set_active(rig: Rig, name: str, *, active: bool) -> None:
    rig.change(WORKLOADS, workload(rig, name)["metadata"]["name"], {"spec": {"active": active}})


def suspended(rig: Rig, name: str) -> bool:
    return bool(rig.get(JOBS, f"{name}-run")["spec"]["suspend"])


def releases_asked(rig: Rig) -> list[JsonObject]:
    """What the operator has asked of the `suspend` of a Job that is there."""
    bodies = [json.loads(call.body) for call in rig.proxy.calls if calls_to("jobs", "patch")(call)]
    return [body for body in bodies if "suspend" in body.get("spec", {})]


@pytest.mark.usefixtures("operator")
def test_the_second_waits_with_kueues_words_and_goes_on_when_the_first_is_done(rig: Rig) -> None:
    queue_up(rig, gpus=1)
    make(rig, BULKHEADS, rig.namespace, {"spec": {"capacity": {"gpus": 1}}})
    rig.submit(member("first", bulkheadName=rig.namespace))
    first = until_admitted(rig, "first")
    assert admitted(first)[1:] == ("Admitted", f"by ClusterQueue {rig.namespace} of Kueue")
    rig.until_at_work(1)
    for position, name in enumerate(("second", "third"), 1):
        rig.submit(member(name, bulkheadName=rig.namespace))
        waiting = until_waits(rig, name, f"LocalQueue {QUEUE}: ", "insufficient unused quota for nvidia.com/gpu")
        until_at(rig, name, position)
        assert waiting.status.admission is None
        assert waiting.status.summary.state == "Waiting"
        assert suspended(rig, name)
    assert rig.get(JOBS, "first-run")["spec"]["template"]["spec"]["nodeSelector"] == {"gpu": "h200"}
    used = rig.get(BULKHEADS, rig.namespace).get("status", {}).get("used", {})
    assert not any(used.values())
    rig.script.let_go()
    for name in ("first", "second", "third"):
        assert rig.until_state("Complete", name).status.records.succeeded == 10
    assert releases_asked(rig) == []
    rig.delete(BULKHEADS, rig.namespace)


@pytest.mark.usefixtures("operator")
def test_a_batch_that_its_owner_suspends_rests_and_goes_on_where_it_stopped(rig: Rig) -> None:
    queue_up(rig, gpus=2)
    rig.submit(member("reviews", 2))
    rig.until_at_work(2)
    rig.edit(suspend=True)
    rig.until_state("Suspended")
    assert workload(rig, "reviews")["spec"]["active"] is False
    rig.eventually(lambda: suspended(rig, "reviews"), "Kueue has suspended the Job")
    until_waits(rig, "reviews", "spec.suspend is true", reason=Reason.SUSPENDED)
    rig.submit(member("other", 2))
    rig.until_at_work(2)
    rig.edit(suspend=False)
    until_waits(rig, "reviews", "insufficient unused quota")
    rig.script.let_go()
    for name in ("other", "reviews"):
        assert rig.until_state("Complete", name).status.records.succeeded == 10
    assert releases_asked(rig) == []


@pytest.mark.usefixtures("operator")
def test_a_workload_that_somebody_made_inactive_is_told_of_and_left_so(rig: Rig) -> None:
    queue_up(rig, gpus=1)
    rig.submit(member("reviews"))
    rig.until_at_work(1)
    set_active(rig, "reviews", active=False)
    name = workload(rig, "reviews")["metadata"]["name"]
    until_waits(rig, "reviews", "evicted (Deactivated", f"set it to true on Workload {name} to go on")
    rig.eventually(lambda: suspended(rig, "reviews"), "Kueue has suspended the Job")
    rig.edit(suspend=True)
    rig.until_state("Suspended")
    rig.edit(suspend=False)
    until_waits(rig, "reviews", "spec.active is false")
    assert workload(rig, "reviews")["spec"]["active"] is False
    set_active(rig, "reviews", active=True)
    rig.until_at_work(1)
    rig.script.let_go()
    rig.until_state("Complete")


@pytest.mark.usefixtures("operator")
def test_a_batch_that_kueue_preempts_drains_and_loses_nothing(rig: Rig) -> None:
    queue_up(rig, gpus=1, preemption={"withinClusterQueue": "LowerPriority"})
    make(rig, PRIORITY_CLASSES, rig.namespace, {"value": 100, "description": "first"})
    rig.submit(member("reviews"))
    rig.until_at_work(1)
    rig.run(rig.plane.api.create(JOBS, rig.namespace, urgent_job(rig.namespace)))
    until_waits(rig, "reviews", "evicted (Preempted)")
    rig.eventually(lambda: not rig.get(JOBS, "urgent")["spec"]["suspend"], "the urgent Job is released")
    rig.delete(JOBS, "urgent")
    rig.until_at_work(1)
    rig.script.let_go()
    assert rig.until_state("Complete").status.records.succeeded == 10
    assert [pod.shard for pod in rig.script.of_role(Role.RUN)] == [0, 0]
    assert releases_asked(rig) == []


def urgent_job(priority: str) -> JsonObject:
    """Somebody else's Job of a higher priority in the same queue; nobody plays its pods."""
    wants = {"requests": {"cpu": "1", "memory": "1Gi"}, "limits": {"nvidia.com/gpu": "1"}}
    container = {"name": "main", "image": "none", "resources": wants}
    named = {labels.QUEUE_NAME: QUEUE, "kueue.x-k8s.io/priority-class": priority}
    template = {"spec": {"containers": [container], "restartPolicy": "Never"}}
    head = {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "urgent", "labels": named}}
    return {**head, "spec": {"suspend": True, "template": template}}


@pytest.mark.usefixtures("operator")
def test_a_batch_that_is_cancelled_in_the_queue_gets_its_error_lines_and_no_gpu(rig: Rig) -> None:
    queue_up(rig, gpus=1)
    rig.submit(member("first"))
    rig.until_at_work(1)
    rig.submit(member("second"))
    until_waits(rig, "second", "insufficient unused quota")
    rig.edit("second", cancel=True)
    assert rig.until_state("Cancelled", "second").status.records.failed == 10
    rig.edit("first", cancel=True)
    rig.until_state("Cancelled", "first")
    assert {pod.config.batch.name for pod in rig.script.of_role(Role.RUN)} == {"first"}
    assert releases_asked(rig) == []


@pytest.mark.usefixtures("operator")
def test_a_batch_that_may_start_with_fewer_pods_gets_as_many_as_kueue_has(rig: Rig) -> None:
    queue_up(rig, gpus=2)
    rig.submit(member("reviews", 4, minParallelism=1))
    rig.until_at_work(2)
    assert rig.get(JOBS, "reviews-run")["spec"]["parallelism"] == 2
    rig.script.let_go()
    assert rig.until_state("Complete").status.records.succeeded == 10


@pytest.mark.usefixtures("operator")
def test_a_queue_that_does_not_exist_is_said(rig: Rig) -> None:
    rig.submit(member("reviews"))
    until_waits(rig, "reviews", f"LocalQueue {QUEUE} doesn't exist")


def test_an_operator_that_dies_finds_what_kueue_has_done_meanwhile(operator: OperatorProcess, rig: Rig) -> None:
    queue_up(rig, gpus=1)
    rig.submit(member("first"))
    rig.until_at_work(1)
    rig.submit(member("second"))
    until_waits(rig, "second", "insufficient unused quota")
    operator.kill()
    rig.script.let_go()
    rig.eventually(lambda: not suspended(rig, "second"), "Kueue has released the second")
    operator.start().wait_ready()
    for name in ("first", "second"):
        rig.until_state("Complete", name)
    assert releases_asked(rig) == []


@pytest.mark.usefixtures("operator")
def test_branches_of_a_fan_out_wait_in_their_own_queues(rig: Rig) -> None:
    queue_up(rig, gpus=1)
    fan_out = a_fan_out("one", "two").with_spec(input={"inline": RECORDS, "format": "jsonl"})
    branches = [{**branch, "queueName": QUEUE, "resources": {"gpus": 1}} for branch in fan_out.spec["branches"]]
    rig.create(FAN_OUTS, fan_out_manifest(fan_out.with_spec(branches=branches)))
    rig.until_at_work(1)
    rig.eventually(lambda: len([it for it in rig.all(BATCHES) if _waits_for_kueue(it)]) == 1, "the other one waits")
    rig.script.let_go()
    rig.eventually(lambda: rig.state(FAN_OUTS, "answers") == "Complete", "the fan-out complete")
    assert releases_asked(rig) == []


def _waits_for_kueue(found: JsonObject) -> bool:
    return admitted(InferenceBatch.parse(found))[1] == Reason.WAITING_FOR_KUEUE
