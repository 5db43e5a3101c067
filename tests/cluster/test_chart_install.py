"""The chart on a real control plane: what only an API server can refuse, and what an upgrade or a removal must leave alone."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

import builders
from headrace.api.batchstatus import RecordCounts, ShardCounts
from headrace.api.inferencebatch import InferenceBatch

from . import binaries
from .control_plane import ControlPlane
from .kubectl import Kubectl
from .messages import Say, Unavailable
from .waiting import eventually

pytestmark = [pytest.mark.cluster, pytest.mark.xdist_group("operator")]

ROOT = Path(__file__).parents[2]
CHART = ROOT / "charts" / "headrace"
VALUES = ROOT / "tests" / "charts" / "values"
PREVIOUS = ROOT / "tests" / "charts" / "previous" / "headrace-0.1.0.tgz"
"""The chart as it was before there were schedules."""
MONITORING_CRDS = ROOT / "tests" / "charts" / "monitoring-crds"
SYSTEM = "headrace-system"
DRY_RUN = ("apply", "--server-side", "--dry-run=server", "--validate=strict")


@dataclass(frozen=True)
class Site:
    """A control plane with three namespaces and the kinds of the Prometheus operator, and Helm."""

    cluster: ControlPlane
    program: Path

    @property
    def kubectl(self) -> Kubectl:
        return self.cluster.kubectl

    def helm(self, *words: str) -> str:
        """One command about releases in the system namespace."""
        environment = {**os.environ, "KUBECONFIG": str(self.cluster.kubeconfig)}
        command = [str(self.program), *words, f"--namespace={SYSTEM}"]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def install(self, *settings: str) -> str:
        return self.helm("install", "headrace", str(CHART), *settings)

    def upgrade(self, *settings: str) -> str:
        return self.helm("upgrade", "headrace", str(CHART), *settings)

    def uninstall(self) -> None:
        self.helm("uninstall", "headrace", "--ignore-not-found")

    def gpus(self) -> int:
        """The capacity of the Bulkhead `default`."""
        found: int = self.kubectl.get("bulkhead", "default")["spec"]["capacity"]["gpus"]
        return found

    def may(self, user: str, verb: str, resource: str, *where: str) -> bool:
        """Whether a user has a right, in a namespace or in all."""
        rights = ["auth", "can-i", verb, f"{resource}.headrace.dev", f"--as={user}", *where, "--quiet"]
        flags = [f"--kubeconfig={self.cluster.kubeconfig}"]
        return not subprocess.run([self.kubectl.program, *flags, *rights], check=False, capture_output=True).returncode


@pytest.fixture(scope="module")
def plane(tmp_path_factory: pytest.TempPathFactory, say: Say) -> Iterator[Site]:
    try:
        program = binaries.helm(say)
    except Unavailable as reason:
        pytest.skip(str(reason))
    with ControlPlane(tmp_path_factory.mktemp("plane"), audit=False, say=say) as cluster:
        cluster.kubectl("apply", "--server-side", f"--filename={MONITORING_CRDS}")
        for namespace in (SYSTEM, "blue", "green"):
            cluster.kubectl("create", "namespace", namespace)
        yield Site(cluster, program)


@pytest.fixture
def site(plane: Site) -> Iterator[Site]:
    """Without a release, without our kinds, and so without anything of ours."""
    yield plane
    plane.uninstall()
    ours = [crd for crd in plane.kubectl("get", "crd", "--output=name").split() if crd.endswith(".headrace.dev")]
    if ours:
        plane.kubectl("delete", "--ignore-not-found", *ours)


def a_batch(name: str) -> dict[str, Any]:
    spec = {"model": {"name": "mock"}, "engine": {"name": "mock"}, "input": {"uri": "s3://in/reviews.jsonl"}}
    return {"apiVersion": "headrace.dev/v1alpha1", "kind": "InferenceBatch", "metadata": {"name": name}, "spec": spec}


def is_in(less: Any, more: Any) -> bool:
    """Whether all that a value says is said by another too, however deep."""
    if isinstance(less, dict) and isinstance(more, dict):
        return all(key in more and is_in(value, more[key]) for key, value in less.items())
    return bool(less == more)


@pytest.mark.parametrize("values", ["default", "namespaces", "everything"])
def test_every_object_of_a_release_is_one_that_the_api_server_takes(site: Site, values: str) -> None:
    settings = [] if values == "default" else [f"--values={VALUES / values}.yaml"]
    rendered = site.helm("template", "headrace", str(CHART), "--no-hooks", *settings)
    site.kubectl(*DRY_RUN, "--filename=-", stdin=rendered)
    site.install(*settings)
    wanted = {(it["kind"], it["metadata"]["name"]) for it in yaml.safe_load_all(rendered) if it}
    there = yaml.safe_load_all(site.helm("get", "manifest", "headrace"))
    assert {(it["kind"], it["metadata"]["name"]) for it in there if it} == wanted
    assert site.kubectl.get("bulkhead", "default")["metadata"]["name"] == "default"


def test_the_operator_may_run_in_a_namespace_that_enforces_restricted(site: Site) -> None:
    site.kubectl("label", "namespace", SYSTEM, "pod-security.kubernetes.io/enforce=restricted", "--overwrite")
    site.install("--set=replicas=1")
    deployment = site.kubectl.get("deployment", "headrace", f"--namespace={SYSTEM}")
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "operator", "labels": {"app": "test"}},
        "spec": deployment["spec"]["template"]["spec"],
    }
    site.kubectl(*DRY_RUN, f"--namespace={SYSTEM}", "--filename=-", stdin=yaml.safe_dump(pod))


def test_chart_makes_a_default_bulkhead_once_and_then_leaves_it_alone(site: Site) -> None:
    site.install("--set", "defaultBulkhead.spec.capacity.gpus=8")
    assert site.gpus() == 8
    site.kubectl("patch", "bulkhead", "default", "--type=merge", '--patch={"spec":{"capacity":{"gpus":9}}}')
    site.upgrade("--set", "defaultBulkhead.spec.capacity.gpus=8")
    assert site.gpus() == 9


def test_upgrade_brings_an_older_schema_up_to_date_and_keeps_the_objects(site: Site) -> None:
    site.install()
    site.kubectl.apply(a_batch("kept"), namespace="blue")
    before = site.kubectl.get("inferencebatch", "kept", "--namespace=blue")["metadata"]
    digest = "/metadata/annotations/headrace.dev~1schema-digest"
    older = f'[{{"op":"replace","path":"{digest}","value":"older"}}]'
    site.kubectl("patch", "crd", "inferencebatches.headrace.dev", "--type=json", f"--patch={older}")
    site.upgrade("--set=replicas=3", "--force-conflicts")
    crd = site.kubectl.get("crd", "inferencebatches.headrace.dev")
    assert len(crd["metadata"]["annotations"]["headrace.dev/schema-digest"]) == 64
    assert site.kubectl.get("inferencebatch", "kept", "--namespace=blue")["metadata"]["uid"] == before["uid"]
    assert site.kubectl.get("deployment", "headrace", f"--namespace={SYSTEM}")["spec"]["replicas"] == 3


def test_upgrade_from_the_chart_before_keeps_what_running_batches_have_done(site: Site) -> None:
    site.helm("install", "headrace", str(PREVIOUS))
    assert not site.kubectl("get", "crd", "scheduledgenerations.headrace.dev", "--ignore-not-found")
    site.kubectl.apply(a_batch("running"), namespace="blue")
    done = (
        builders.a_batch()
        .sharded(4)
        .validated(records=1000)
        .admitted()
        .with_status(
            records=RecordCounts(total=1000, succeeded=412, failed=3, pending=585),
            shards=ShardCounts(total=4, active=2, succeeded=2),
        )
    )
    status = {"status": done.status.to_object()}
    site.kubectl(
        "patch",
        "ib",
        "running",
        "--namespace=blue",
        "--subresource=status",
        "--type=merge",
        f"--patch={json.dumps(status)}",
    )
    before = site.kubectl.get("ib", "running", "--namespace=blue")
    assert before["status"]["records"]["succeeded"] == 412
    site.upgrade()
    after = site.kubectl.get("ib", "running", "--namespace=blue")
    assert after["metadata"]["uid"] == before["metadata"]["uid"]
    assert after["status"] == before["status"]
    assert is_in(before["spec"], after["spec"]), "only fields that are new have come, with their defaults"
    found = InferenceBatch.parse(after)
    assert (found.status.records.succeeded, found.status.shards.active) == (412, 2)
    assert site.kubectl.get("crd", "scheduledgenerations.headrace.dev")["metadata"]["name"]


def test_what_users_have_made_outlives_the_release_and_is_found_by_the_next(site: Site) -> None:
    site.install("--set", "defaultBulkhead.spec.capacity.gpus=8")
    site.kubectl.apply(a_batch("kept"), namespace="blue")
    uid = site.kubectl.get("inferencebatch", "kept", "--namespace=blue")["metadata"]["uid"]
    site.uninstall()
    assert (
        site.kubectl("get", "deployments,clusterroles", "--selector=app.kubernetes.io/name=headrace", "-A", "-o=name")
        == ""
    )
    assert site.kubectl.get("inferencebatch", "kept", "--namespace=blue")["metadata"]["uid"] == uid
    assert site.gpus() == 8
    site.install()
    assert site.kubectl.get("inferencebatch", "kept", "--namespace=blue")["metadata"]["uid"] == uid
    assert site.gpus() == 8


def test_users_get_the_rights_of_their_role_in_their_namespace_alone(site: Site) -> None:
    site.install()
    for role in ("view", "edit", "admin"):
        user = f"{role}-of-blue"
        site.kubectl("create", "rolebinding", user, f"--clusterrole={role}", f"--user={user}", "--namespace=blue")
    blue, green = "--namespace=blue", "--namespace=green"
    eventually(
        lambda: site.may("edit-of-blue", "create", "inferencebatches", blue), "the role edit is aggregated", list
    )
    eventually(lambda: site.may("view-of-blue", "get", "fanoutjobs", blue), "the role view is aggregated", list)
    assert not site.may("view-of-blue", "create", "inferencebatches", blue)
    assert not site.may("edit-of-blue", "create", "inferencebatches", green)
    assert not site.may("edit-of-blue", "patch", "inferencebatches", "--subresource=status", blue)
    assert not site.may("admin-of-blue", "create", "bulkheads")
    site.kubectl("create", "clusterrolebinding", "root", "--clusterrole=admin", "--user=root")
    eventually(lambda: site.may("root", "create", "bulkheads"), "the role admin is aggregated", list)


def test_the_install_manifest_can_be_applied_and_changed_by_kustomize(site: Site, tmp_path: Path) -> None:
    site.kubectl("apply", "--server-side", f"--kustomize={ROOT / 'manifests'}")
    own = {
        "resources": ["install.yaml"],
        "namespace": "green",
        "images": [{"name": "headrace-operator", "newName": "registry.example/operator", "newTag": "v2"}],
        "replicas": [{"name": "headrace", "count": 1}],
    }
    (tmp_path / "install.yaml").write_text((ROOT / "manifests/install.yaml").read_text())
    (tmp_path / "kustomization.yaml").write_text(yaml.safe_dump(own))
    rendered = site.kubectl("kustomize", str(tmp_path))
    site.kubectl(*DRY_RUN, "--force-conflicts", "--filename=-", stdin=rendered)
    objects = [it for it in yaml.safe_load_all(rendered) if it]
    (deployment,) = (it for it in objects if it["kind"] == "Deployment")
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    assert container["image"] == "registry.example/operator:v2"
    bindings = [it for it in objects if it["kind"] in ("ClusterRoleBinding", "RoleBinding")]
    assert {subject["namespace"] for binding in bindings for subject in binding["subjects"]} == {"green"}
    site.kubectl("delete", "--ignore-not-found", f"--kustomize={ROOT / 'manifests'}", "--wait=false")
