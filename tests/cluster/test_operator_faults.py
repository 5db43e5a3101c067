"""The operator and a world in which things go wrong: what the API server refuses, loses or forgets, and what others do to objects."""

from __future__ import annotations

import json
from collections import Counter
from functools import partial
from itertools import count

import pytest

from builders import BatchBuilder, a_batch
from headrace.api import labels
from headrace.api.base import JsonObject
from headrace.api.batchstatus import RecordCounts
from headrace.shells.kube.resources import BATCHES, CONFIG_MAPS, JOBS, OPTIONAL, WATCHED, Resource

from .kubectl import KubectlError
from .operator_rig import RECORDS, Rig, manifest, plane, rig
from .operator_workers import Fate
from .proxy import Act, Call, Matches, answer, any_call, calls_to, hang, lose_answer

__all__ = ["plane", "rig"]
pytestmark = [pytest.mark.cluster, pytest.mark.xdist_group("operator")]

INLINE = a_batch().inline(*RECORDS).sharded(2)
ALL_SUCCEEDED = RecordCounts(total=10, succeeded=10)


def every_other_write() -> Matches:
    """Each write is hit the first time that it is tried, and every second time after that; the lease is spared."""
    tries: Counter[tuple[str, ...]] = Counter()

    def matches(call: Call) -> bool:
        if not call.writes or call.resource == "leases":
            return False
        same = (call.verb, call.resource, call.subresource, call.sent_name)
        tries[same] += 1
        return tries[same] % 2 == 1

    return matches


def impatient(fault: Act) -> dict[str, float]:
    """Options of an operator that does not wait for long where there are no answers, and long enough for a slow machine."""
    return {"request_timeout_seconds": 3.0} if fault is hang else {}


def created(rig: Rig, resource: Resource) -> list[str]:
    """Names of the children that were made, with repetitions."""
    calls = rig.proxy.made(calls_to(resource.plural, "create"))
    return [call.sent_name for call in calls if call.status == 201]


@pytest.mark.parametrize(
    "fault",
    [
        pytest.param(answer(409, "Conflict"), id="409 Conflict"),
        pytest.param(answer(429, "TooManyRequests"), id="429 Too Many Requests"),
        pytest.param(answer(500, "InternalError"), id="500 Internal Server Error"),
        pytest.param(answer(504, "Timeout"), id="504 Gateway Timeout"),
        pytest.param(hang, id="no answer at all"),
        pytest.param(lose_answer, id="an answer that is lost"),
    ],
)
def test_a_batch_survives_that_every_other_write_goes_wrong(rig: Rig, fault: Act) -> None:
    rule = rig.proxy.on(every_other_write(), fault)
    rig.operator(more=impatient(fault)).start().wait_ready()
    rig.submit(INLINE)
    assert rig.until_state("Complete").status.records == ALL_SUCCEEDED
    assert created(rig, JOBS) == ["reviews-run"]
    assert created(rig, CONFIG_MAPS) == ["reviews-input"]
    assert len(rule.calls) >= 3


@pytest.mark.parametrize(
    "fault",
    [
        pytest.param(answer(500, "InternalError"), id="500 Internal Server Error"),
        pytest.param(answer(410, "Expired"), id="410 Gone"),
        pytest.param(hang, id="no answer at all"),
    ],
)
def test_an_operator_starts_although_its_first_lists_and_watches_go_wrong(rig: Rig, fault: Act) -> None:
    reads: Counter[tuple[str, str]] = Counter()

    def first_of_each(call: Call) -> bool:
        reads[call.verb, call.resource] += 1
        return call.verb in ("list", "watch") and reads[call.verb, call.resource] == 1

    hit = rig.proxy.on(lambda call: call.verb == "list" and first_of_each(call), fault)
    rig.operator(more=impatient(fault)).start().wait_ready()
    rig.submit(INLINE)
    rig.until_state("Complete")
    listed = {resource.plural for resource in (*WATCHED, *OPTIONAL)}
    rig.eventually(lambda: {call.resource for call in hit.calls} == listed, "each resource is listed first")
    assert len(hit.calls) == len(listed)


def test_retry_after_is_waited_for_whatever_happens_to_the_batch(rig: Rig) -> None:
    rule = rig.proxy.on(calls_to("jobs", "create"), answer(429, "TooManyRequests", **{"Retry-After": "7"}), times=1)
    rig.operator().start().wait_ready()
    rig.submit(INLINE)
    rig.eventually(lambda: rule.calls, "the refusal")
    for number in range(10):
        rig.patch("reviews", {"metadata": {"annotations": {"touched": str(number)}}})
    rig.until_state("Complete")
    refused = rule.calls[0]
    again = rig.proxy.made(calls_to("jobs", "create"), since=refused.number)[0]
    assert again.came - refused.came >= 7
    between = rig.proxy.calls[refused.number : again.number - 1]
    told = ("leases", "events")  # events are posted beside the work
    assert not any(call.writes and call.resource not in told for call in between)


def test_dropped_watches_go_on_where_they_were(rig: Rig) -> None:
    rig.script.fate = lambda _: Fate(waits=True)
    rig.operator().start().wait_ready()
    rig.submit(INLINE)
    rig.until_at_work(2)
    for _ in range(3):
        rig.eventually(lambda: len(rig.proxy.watches) == len(WATCHED), "all watches open")
        before = set(rig.proxy.watches)
        rig.run(rig.proxy.drop_watches())
        rig.eventually(partial(before.isdisjoint, rig.proxy.watches), "those watches closed")
    rig.script.let_go()
    rig.until_state("Complete")
    optional = {resource.plural for resource in OPTIONAL}  # asked for again and again, until they are there
    lists = Counter(call.resource for call in rig.proxy.made(lambda call: call.verb == "list"))
    assert {plural: count for plural, count in lists.items() if plural not in optional} == {
        resource.plural: 1 for resource in WATCHED
    }


def test_a_deletion_that_no_watch_has_told_is_noticed_by_the_next_list(rig: Rig) -> None:
    rig.script.fate = lambda _: Fate(waits=True)
    rig.operator().start().wait_ready()
    rig.submit(INLINE)
    rig.until_at_work(2)
    rig.run(rig.proxy.mute_watches(any_call))
    rig.delete(JOBS, "reviews-run")
    rig.eventually(lambda: not rig.jobs(), "the deletion")
    rig.script.let_go()
    rig.run(rig.proxy.expire_watches(any_call))
    assert rig.until_state("Complete").status.records == ALL_SUCCEEDED
    assert created(rig, JOBS) == ["reviews-run", "reviews-run"]


@pytest.mark.parametrize("component", ["kube-apiserver", "etcd"])
def test_a_restart_of_the_control_plane_changes_nothing(rig: Rig, component: str) -> None:
    rig.script.fate = lambda _: Fate(waits=True)
    operator = rig.operator().start().wait_ready()
    rig.submit(INLINE)
    rig.until_at_work(2)
    rig.plane.cluster.kill(component)
    rig.plane.cluster.restart(component)
    rig.script.let_go()
    assert rig.until_state("Complete").status.records == ALL_SUCCEEDED
    assert operator.alive
    assert created(rig, JOBS) == ["reviews-run"]


def foreign_job(name: str) -> JsonObject:
    container = {"name": "theirs", "image": "theirs"}
    pod = {"restartPolicy": "Never", "containers": [container]}
    metadata = {"name": name, "labels": {"whose": "theirs"}}
    spec = {"suspend": True, "template": {"spec": pod}}
    return {"apiVersion": "batch/v1", "kind": "Job", "metadata": metadata, "spec": spec}


def wanted(child: JsonObject) -> JsonObject:
    """What its owner asked for: its own controller may fill in the rest (status, managedFields) at any time."""
    metadata = {field: child["metadata"].get(field) for field in ("uid", "generation", "labels", "ownerReferences")}
    return {"metadata": metadata, "spec": child.get("spec"), "data": child.get("data")}


def foreign_config_map(name: str) -> JsonObject:
    metadata = {"name": name, "labels": {"whose": "theirs"}}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": {"theirs": "kept"}}


@pytest.mark.parametrize(
    ("resource", "foreign"),
    [(JOBS, foreign_job("reviews-run")), (CONFIG_MAPS, foreign_config_map("reviews-input"))],
    ids=["a Job", "a ConfigMap"],
)
def test_somebody_elses_object_with_a_childs_name_is_left_alone(
    rig: Rig, resource: Resource, foreign: JsonObject
) -> None:
    name = foreign["metadata"]["name"]
    rig.run(rig.plane.api.create(resource, rig.namespace, foreign))
    before = wanted(rig.get(resource, name))
    operator = rig.operator().start().wait_ready()
    rig.submit(INLINE)
    sentence = (
        f"{resource.kind} {name} exists and is not of this batch: delete it, or make the batch anew under another name"
    )
    rig.until_event("FailedCreate", sentence)
    rig.eventually(lambda: sentence in operator.log, "a line of the log that says so")
    assert wanted(rig.get(resource, name)) == before
    rig.delete(resource, name)
    assert rig.until_state("Complete").status.records == ALL_SUCCEEDED


def test_a_quota_that_forbids_the_job_is_told_and_tried_again(rig: Rig) -> None:
    quota = {
        "apiVersion": "v1",
        "kind": "ResourceQuota",
        "metadata": {"name": "none"},
        "spec": {"hard": {"count/jobs.batch": "0"}},
    }
    rig.kubectl.apply(quota, namespace=rig.namespace)
    rig.kubectl("wait", "--namespace", rig.namespace, "--for=jsonpath={.status.hard}", "resourcequota/none")
    rig.operator().start().wait_ready()
    rig.submit(INLINE)
    rig.until_event("FailedCreate", "exceeded quota")
    rig.kubectl("delete", "resourcequota", "none", "--namespace", rig.namespace)
    touches = count(1)

    def is_tried_again() -> bool:
        """At once when something happens to the batch; the API server may need a moment to know that there is no quota any more."""
        rig.patch("reviews", {"metadata": {"annotations": {"touched": str(next(touches))}}})
        return "reviews-run" in rig.jobs()

    rig.eventually(is_tried_again, "the Job")
    assert rig.until_state("Complete").status.records == ALL_SUCCEEDED


def test_an_older_crd_keeps_the_operator_from_touching_anything(rig: Rig) -> None:
    crd = "crd/inferencebatches.headrace.dev"
    rig.kubectl("annotate", "--overwrite", crd, f"{labels.SCHEMA_DIGEST}=older")
    operator = rig.operator().start()
    try:
        health = operator.wait_until(lambda health: "is not of this operator's version" in health["problem"])
        assert operator.get("/readyz")[0] == 503
        assert health["ready"] is False
        assert "is not of this operator's version, fields would be lost" in operator.log
        assert {call.resource for call in rig.proxy.calls} == {"customresourcedefinitions"}
        rig.submit(INLINE)
    finally:
        rig.plane.install_crds()
    rig.until_state("Complete")
    assert operator.get("/readyz")[0] == 200


def submit_what_an_older_crd_lets_pass(rig: Rig, batch: BatchBuilder) -> None:
    """Submit it while the CRD takes every spec."""

    def taken() -> bool:
        try:
            rig.kubectl(
                "create",
                "--dry-run=server",
                "--namespace",
                rig.namespace,
                "--filename=-",
                stdin=json.dumps(manifest(batch)),
            )
        except KubectlError:
            return False
        return True

    crd = rig.kubectl.get("crd", "inferencebatches.headrace.dev")
    schema = crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    schema.pop("x-kubernetes-validations", None)  # they are about fields that are unknown then
    schema["properties"]["spec"] = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    del crd["metadata"]["resourceVersion"]
    rig.kubectl("apply", "--server-side", "--force-conflicts", "--filename=-", stdin=json.dumps(crd))
    try:
        rig.eventually(taken, "the older CRD in force")
        rig.submit(batch)
    finally:
        rig.plane.install_crds()
    rig.eventually(lambda: not taken(), "our CRD in force")


def test_an_object_of_an_older_crd_is_told_what_is_wrong_with_it(rig: Rig) -> None:
    submit_what_an_older_crd_lets_pass(rig, INLINE.with_spec(engine={"name": "abacus"}))
    rig.operator().start().wait_ready()
    status = rig.eventually(lambda: rig.get(BATCHES, "reviews").get("status", {}), "its status")
    assert status["summary"]["state"] == "InvalidSpec"
    assert status["conditions"][0]["message"].startswith("spec.engine.name: must be 'transformers', 'vllm'")
    rig.until_event("InvalidSpec")
    assert created(rig, JOBS) == []


def test_an_object_whose_status_cannot_be_written_is_told_by_an_event(rig: Rig) -> None:
    submit_what_an_older_crd_lets_pass(rig, INLINE.with_spec(shards="two"))
    rig.operator().start().wait_ready()
    assert rig.until_event("InvalidSpec")["note"].startswith('spec.shards: must be an integer, not "two"')
    assert created(rig, JOBS) == []
