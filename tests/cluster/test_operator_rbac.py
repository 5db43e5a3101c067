"""The rights of the operator are exactly those that it uses: one too many is a danger, one too few an outage."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import UTC, datetime

import pytest

from builders import BatchBuilder, a_batch
from fanout_builders import a_fan_out
from headrace.api import labels
from headrace.api.base import JsonObject
from headrace.api.worker import ExitCode, Role
from headrace.shells.kube.rbac import lease_rules, rules
from headrace.shells.kube.resources import BATCHES, BULKHEADS, FAN_OUTS, JOBS, SCHEDULES, WORKLOADS
from schedule_builders import a_schedule

from .operator_rig import RECORDS, Rig, ask_for_run, fan_out_manifest, plane, rig, until_ticking
from .operator_workers import Fate, Pod
from .proxy import answer, calls_to, verbs_used, write_kubeconfig

__all__ = ["plane", "rig"]
pytestmark = [pytest.mark.cluster, pytest.mark.xdist_group("operator")]

NAME = "headrace-operator"
INLINE = a_batch().inline(*RECORDS).sharded(2)
ASKED_BY_ADMISSION_ONLY = {
    ("headrace.dev", "inferencebatches/finalizers", "update"),
    ("headrace.dev", "fanoutjobs/finalizers", "update"),
    ("headrace.dev", "scheduledgenerations/finalizers", "update"),
}


def granted(found: Iterable[JsonObject]) -> set[tuple[str, str, str]]:
    """Group, resource and verb of each right."""
    return {
        (group, resource, verb)
        for rule in found
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }


def grant(rig: Rig) -> str:
    """Make a service account with those rights and no others; returns its token."""
    subject = {"kind": "ServiceAccount", "name": NAME, "namespace": rig.namespace}
    api, group = "rbac.authorization.k8s.io/v1", "rbac.authorization.k8s.io"
    whole = f"{NAME}-{rig.namespace}"
    rig.kubectl.apply(
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": NAME}},
        {"apiVersion": api, "kind": "ClusterRole", "metadata": {"name": whole}, "rules": rules()},
        {"apiVersion": api, "kind": "ClusterRoleBinding", "metadata": {"name": whole}, "subjects": [subject],
         "roleRef": {"apiGroup": group, "kind": "ClusterRole", "name": whole}},
        {"apiVersion": api, "kind": "Role", "metadata": {"name": NAME}, "rules": lease_rules()},
        {"apiVersion": api, "kind": "RoleBinding", "metadata": {"name": NAME}, "subjects": [subject],
         "roleRef": {"apiGroup": group, "kind": "Role", "name": NAME}},
        namespace=rig.namespace,
    )  # fmt: skip
    return rig.kubectl("create", "token", NAME, "--namespace", rig.namespace, "--duration=1h").strip()


@pytest.fixture
def workload_kind(rig: Rig) -> Iterator[None]:
    """The cluster knows Workloads of Kueue, and nobody acts on them."""
    name, names = f"{WORKLOADS.plural}.{WORKLOADS.group}", {"plural": WORKLOADS.plural, "kind": WORKLOADS.kind}
    anything = {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": True}}
    version = {"name": WORKLOADS.version, "served": True, "storage": True, "schema": anything}
    spec = {"group": WORKLOADS.group, "scope": "Namespaced", "names": names, "versions": [version]}
    head = {"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition"}
    rig.kubectl.apply(
        {**head, "metadata": {"name": name, "annotations": {"api-approved.kubernetes.io": "unapproved"}}, "spec": spec}
    )
    rig.kubectl("wait", "--for=condition=Established", f"crd/{name}", "--timeout=180s")
    yield
    rig.kubectl("delete", "crd", name)


def wait_in_a_queue(rig: Rig) -> None:
    """A batch that Kueue has taken up, and that its owner suspends."""
    rig.submit(named("queued", INLINE.with_spec(queueName="team-a")))
    rig.eventually(lambda: not rig.gone(JOBS, "queued-run"), "the Job that Kueue shall release")
    job = rig.get(JOBS, "queued-run")["metadata"]
    owner = {"apiVersion": "batch/v1", "kind": "Job", "name": job["name"], "uid": job["uid"], "controller": True}
    head = {"apiVersion": WORKLOADS.api_version, "kind": WORKLOADS.kind}
    rig.create(
        WORKLOADS,
        {**head, "metadata": {"name": "queued", "ownerReferences": [owner]}, "spec": {"queueName": "team-a"}},
    )
    rig.edit("queued", suspend=True)
    rig.eventually(lambda: rig.get(WORKLOADS, "queued")["spec"].get("active") is False, "the Workload is inactive")


def named(name: str, batch: BatchBuilder) -> BatchBuilder:
    return BatchBuilder(name, batch.spec)


def live_every_life(rig: Rig) -> None:
    """All that the operator can be asked to do."""
    rig.submit(named("plain", INLINE))
    rig.until_state("Complete", "plain")
    rig.submit(named("suspended", INLINE))
    rig.until_at_work(2)
    rig.edit("suspended", suspend=True)
    rig.until_state("Suspended", "suspended")
    rig.edit("suspended", cancel=True)
    rig.until_state("Cancelled", "suspended")
    rig.submit(named("retried", INLINE))
    rig.until_state("WorkerFailed", "retried")
    rig.patch("retried", {"metadata": {"annotations": {labels.RETRY: "1"}}})
    rig.until_state("Complete", "retried")
    rig.submit(named("stopped", a_batch().with_spec(cancel=True)))
    rig.until_state("Cancelled", "stopped")
    fan_out = a_fan_out("one", "two").with_spec(maxParallelBranches=1, suspend=True)
    rig.create(FAN_OUTS, fan_out_manifest(fan_out))
    rig.eventually(lambda: rig.state(FAN_OUTS, "answers") == "Suspended", "the fan-out suspended")
    rig.change(FAN_OUTS, "answers", {"spec": {"suspend": False}})
    rig.eventually(lambda: not rig.gone(BATCHES, "answers-one"), "its first branch")
    rig.change(FAN_OUTS, "answers", {"spec": {"cancel": True}})
    rig.eventually(lambda: rig.state(FAN_OUTS, "answers") in ("Complete", "Cancelled"), "the end of the fan-out")
    wait_in_a_queue(rig)
    live_on_schedule(rig)
    head = {"apiVersion": BULKHEADS.api_version, "kind": BULKHEADS.kind, "metadata": {"name": rig.namespace}}
    rig.create(BULKHEADS, {**head, "spec": {"capacity": {"gpus": 8}}})
    rig.eventually(lambda: "status" in rig.get(BULKHEADS, rig.namespace), "the status of the Bulkhead")
    rig.delete(BULKHEADS, rig.namespace)
    rig.delete(BATCHES, "plain")
    rig.eventually(lambda: rig.gone(BATCHES, "plain"), "the batch gone")


def live_on_schedule(rig: Rig) -> None:
    """Runs that end, that are replaced, and that history has no room for."""
    batches = a_schedule(name="batches").of_batch(**INLINE.spec).with_spec(successfulJobsHistoryLimit=0)
    replacing = {"concurrencyPolicy": "Replace", "failedJobsHistoryLimit": 0}
    fan_outs = a_schedule(name="fan-outs").of_fan_out("one", input=INLINE.spec["input"]).with_spec(**replacing)
    for schedule in (batches, fan_outs):
        rig.create(SCHEDULES, schedule.manifest)
        until_ticking(rig, schedule.name)
    ask_for_run(rig, "batches", "first")
    made = calls_to(BATCHES.plural, "create", name="first")
    rig.eventually(lambda: any(call.status == 201 for call in rig.proxy.made(made)), "a run")
    rig.eventually(lambda: rig.gone(BATCHES, "first"), "no run is kept")
    ask_for_run(rig, "fan-outs", "suspended-1")
    rig.eventually(lambda: not rig.gone(FAN_OUTS, "suspended-1"), "a run")
    begun = rig.get(JOBS, "suspended-1")["metadata"]["creationTimestamp"]
    rig.delete(JOBS, "suspended-1")
    rig.eventually(lambda: f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}" > begun, "another second, for a later tick")
    ask_for_run(rig, "fan-outs", "suspended-2")
    rig.eventually(lambda: rig.gone(FAN_OUTS, "suspended-1"), "the run is replaced, and not kept")


def fate(pod: Pod) -> Fate:
    """The pods of `suspended` wait; those of `retried` fail in the first round."""
    if pod.config.batch.name.startswith("suspended"):
        return Fate(waits=pod.role == Role.RUN)
    failing = pod.config.batch.name == "retried" and not pod.name.startswith("retried-run-r1")
    return Fate(exit_code=ExitCode.JOB_FAILED if failing else ExitCode.DONE)


@pytest.mark.usefixtures("workload_kind")
def test_the_operator_uses_every_right_that_it_has_and_lacks_none(rig: Rig) -> None:
    token = grant(rig)
    rig.script.shards, rig.script.fate = 2, fate
    for resource in (
        "jobs",
        "cronjobs",
        "configmaps",
        "inferencebatches",
        "fanoutjobs",
    ):  # so that it looks who has made them
        rig.proxy.on(calls_to(resource, "create"), answer(409, "AlreadyExists"), times=1)
    kubeconfig = write_kubeconfig(rig.folder / "as-operator.kubeconfig", rig.url, token)
    rig.operator(namespaces=(), kubeconfig=kubeconfig).start().wait_ready()
    live_every_life(rig)
    wanted = granted([*rules(), *lease_rules()]) - ASKED_BY_ADMISSION_ONLY
    rig.eventually(lambda: not wanted - verbs_used(rig.proxy.calls), f"all is used of {wanted}")
    assert verbs_used(rig.proxy.calls) == wanted
    assert not [str(call) for call in rig.proxy.calls if call.status in (401, 403)]
