"""Batches in real containers: the chart, our images, a kubelet, claims and PodSecurity `restricted`, with GPUs that are not there."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import pytest

from headrace.api.base import JsonObject

from .control_plane import ControlPlane
from .deploy import archive, install, provide_claim
from .kubectl import Kubectl
from .messages import Unavailable
from .node import GPU, Node

pytestmark = pytest.mark.node
T = TypeVar("T")
IMAGES = ("operator", "worker-slim")


@dataclass(frozen=True)
class Site:
    """A namespace with the operator at work in it, and the folder behind its claim."""

    kubectl: Kubectl
    namespace: str
    output: Path

    def apply(self, **spec: Any) -> None:
        """Submit the batch `reviews`: 60 records, three shards, two pods at once, a GPU each."""
        source = {"uri": "package://pydoc_data.topics:topics", "format": "text", "limit": 60}
        asked = {
            "model": {"name": "any"},
            "engine": {"name": "mock", "mock": {"latencyMilliseconds": 200}},
            "input": {**source, "prompt": {"template": "{{ text }}"}},
            "batching": {"maxBatchSize": 2},
            "resources": {"gpus": 1, "requests": {"cpu": "10m", "memory": "64Mi"}},
            "shards": 3,
            "parallelism": 2,
            **spec,
        }
        head = {"apiVersion": "headrace.dev/v1alpha1", "kind": "InferenceBatch", "metadata": {"name": "reviews"}}
        self.kubectl.apply({**head, "spec": asked}, namespace=self.namespace)

    def get(self, *arguments: str) -> Any:
        """What `kubectl get` says."""
        return self.kubectl.get(*arguments, "--namespace", self.namespace)

    def status(self) -> JsonObject:
        """The status of the batch."""
        found: JsonObject = self.get("ib/reviews").get("status", {})
        return found

    def pods(self, role: str = "run") -> list[JsonObject]:
        """The pods of the batch in one role."""
        found: list[JsonObject] = self.get("pods", "--selector", f"headrace.dev/role={role}")["items"]
        return found

    def running(self) -> list[str]:
        """The names of the run pods that have committed nothing yet, and run."""
        return [pod["metadata"]["name"] for pod in self.pods() if pod["status"]["phase"] == "Running"]

    def until(self, holds: Callable[[], T], what: str, seconds: float = 120.0) -> T:
        """Wait until something is true, and return it."""
        deadline = time.monotonic() + seconds
        while not (found := holds()):
            assert time.monotonic() < deadline, f"{what}: not within {seconds:.0f} s\n{self._report()}"
            time.sleep(0.2)
        return found

    def until_complete(self) -> JsonObject:
        """Wait for the end, and return the status."""
        self.until(lambda: self._says("Complete"), "Complete")
        return self.status()

    def ids(self, kind: str = "results") -> list[str]:
        """The ids of all lines in the output."""
        folder = self.output / self.namespace / "reviews" / kind
        lines = [line for file in sorted(folder.rglob("*.jsonl")) for line in file.read_text().splitlines()]
        return [json.loads(line)["custom_id"] for line in lines]

    def _says(self, condition: str) -> bool:
        return any((it["type"], it["status"]) == (condition, "True") for it in self.status().get("conditions", ()))

    def _report(self) -> str:
        events = self.kubectl("get", "events", "--namespace", self.namespace, "--sort-by=.lastTimestamp")
        return f"{json.dumps(self.status(), indent=1)}\n{events[-4000:]}"


@pytest.fixture(scope="module")
def installed(node: Node) -> Iterator[Site]:
    """Headrace from its chart, for one namespace that lets only restricted pods in."""
    missing = [image for image in IMAGES if not archive(image).exists()]
    if missing:
        raise Unavailable(f"{archive(missing[0])} is not there: `.ci/images {' '.join(IMAGES)}` builds it")
    kubectl, namespace = node.cluster.kubectl, "batches"
    for image in IMAGES:
        node.load_archive(archive(image))
    kubectl("create", "namespace", namespace)
    kubectl("label", "namespace", namespace, "pod-security.kubernetes.io/enforce=restricted")
    output = provide_claim(node, namespace)
    worker = {"image": {"repository": "headrace-worker-slim", "tag": "dev"}}
    install(node, worker=worker, namespaces=[namespace])
    yield Site(kubectl, namespace, output)
    kubectl("delete", "namespace", namespace)


@pytest.fixture
def site(installed: Site) -> Iterator[Site]:
    """The site, without the batch of the last test."""
    yield installed
    installed.kubectl("delete", "ib", "--all", "--namespace", installed.namespace)
    installed.until(lambda: not installed.get("pods")["items"], "the pods are gone with their batch")
    shutil.rmtree(installed.output / installed.namespace, ignore_errors=True)


def everything(site: Site) -> None:
    """Each record of the input is in the output once."""
    ids = site.ids()
    assert len(ids) == len(set(ids)) == 60


def test_batch_completes_in_restricted_pods_on_gpus_and_shows_it_live(site: Site) -> None:
    site.apply()
    seen = site.until(lambda: 0 < (site.status().get("records") or {}).get("succeeded", 0) < 60, "live progress")
    assert seen
    (first, *_) = site.pods()
    (container,) = first["spec"]["containers"]
    assert container["resources"]["limits"][GPU] == "1"
    assert first["spec"]["automountServiceAccountToken"] is False
    assert all("serviceAccountToken" not in json.dumps(volume) for volume in first["spec"]["volumes"])
    status = site.until_complete()
    assert status["records"] == {"total": 60, "succeeded": 60, "failed": 0, "pending": 0}
    assert status["usage"]["gpuSeconds"] > 0
    everything(site)


def test_evicted_pod_costs_no_record_and_no_retry(site: Site) -> None:
    site.apply()
    (pod, *_) = site.until(site.running, "a pod at work")
    eviction = {
        "apiVersion": "policy/v1",
        "kind": "Eviction",
        "metadata": {"name": pod, "namespace": site.namespace},
    }
    path = f"/api/v1/namespaces/{site.namespace}/pods/{pod}/eviction"
    site.kubectl("create", "--raw", path, "--filename=-", stdin=json.dumps(eviction))
    site.until_complete()
    everything(site)
    failed = [pod for pod in site.pods() if pod["status"]["phase"] == "Failed"]
    assert site.get("job/reviews-run")["status"].get("failed", 0) == len(failed)


def test_node_that_goes_down_and_comes_back_loses_no_record(site: Site, node: Node, cluster: ControlPlane) -> None:
    site.apply()
    site.until(site.running, "a pod at work")
    cluster.kill("kubelet")
    node.kill_containers(site.namespace)
    node.up()
    site.until_complete()
    everything(site)


def test_operator_killed_in_its_container_goes_on(site: Site, node: Node) -> None:
    site.apply()
    site.until(site.running, "a pod at work")
    node.kill_containers("headrace-system")
    site.until_complete()
    everything(site)
    assert len(site.get("jobs")["items"]) == 2, "a plan and a run: no Job was made twice"


def test_deleted_batch_takes_its_pods_along_and_leaves_its_output(site: Site) -> None:
    site.apply()
    site.until(site.ids, "a shard in the output")
    site.kubectl("delete", "ib/reviews", "--namespace", site.namespace)
    site.until(lambda: not site.get("pods,jobs")["items"], "Jobs and pods are gone")
    assert site.ids(), "what is done is kept"


def test_pods_that_find_no_gpu_are_told_in_the_status(site: Site) -> None:
    site.apply(resources={"gpus": 64, "requests": {"cpu": "10m", "memory": "64Mi"}})
    site.until(lambda: site.status().get("summary", {}).get("state") == "Unschedulable", "the state says so")
    (said,) = [it for it in site.status()["conditions"] if it["type"] == "PodsReady"]
    assert said["status"] == "False"
    assert f"Insufficient {GPU}" in said["message"]
