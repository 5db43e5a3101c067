"""A site: a namespace of a real node with the operator at work in it, for tests of batches in real containers."""

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

from .cluster import given_kubeconfig
from .control_plane import ControlPlane
from .deploy import archive, install, provide_claim
from .kubectl import Kubectl
from .messages import Say, Unavailable
from .node import Node

T = TypeVar("T")
IMAGES = ("operator", "worker-slim")


@dataclass(frozen=True)
class Site:
    """A namespace with the operator at work in it, and the folder behind its claim."""

    node: Node
    namespace: str
    output: Path

    @property
    def kubectl(self) -> Kubectl:
        """Give kubectl as the administrator of the site's cluster."""
        return self.node.cluster.kubectl

    def apply(self, **spec: Any) -> None:
        """Submit the batch `reviews`: 60 records, three shards, two pods at once, a GPU each."""
        source = {"uri": "package://pydoc_data.topics:topics", "format": "text", "limit": 60}
        asked = {
            "model": {"name": "any"},
            "engine": {"name": "mock", "mock": {"latencyMilliseconds": 600}},
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

    def until(self, holds: Callable[[], T], what: str, seconds: float = 240.0) -> T:
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


@pytest.fixture(scope="session")
def installed(tmp_path_factory: pytest.TempPathFactory, say: Say) -> Iterator[Site]:
    """Headrace from its chart on a cluster that knows nothing of it yet, for one namespace that lets only restricted pods in."""
    if given_kubeconfig() is not None:
        raise Unavailable("images cannot be loaded into a cluster that somebody else runs: unset its kubeconfig")
    missing = [image for image in IMAGES if not archive(image).exists()]
    if missing:
        raise Unavailable(f"{archive(missing[0])} is not there: `.ci/images {' '.join(IMAGES)}` builds it")
    with ControlPlane(tmp_path_factory.mktemp("site"), say=say) as cluster:
        node, namespace = Node(cluster), "batches"
        node.up()
        for image in IMAGES:
            node.load_archive(archive(image))
        cluster.kubectl("create", "namespace", namespace)
        cluster.kubectl("label", "namespace", namespace, "pod-security.kubernetes.io/enforce=restricted")
        output = provide_claim(node, namespace)
        worker = {"image": {"repository": "headrace-worker-slim", "tag": "dev"}}
        install(node, worker=worker, namespaces=[namespace])
        yield Site(node, namespace, output)


@pytest.fixture
def site(installed: Site) -> Iterator[Site]:
    """The site, without the batch of the last test."""
    yield installed
    installed.kubectl("delete", "fo,ib", "--all", "--namespace", installed.namespace)
    installed.until(lambda: not installed.get("pods")["items"], "the pods are gone with their batch")
    shutil.rmtree(installed.output / installed.namespace, ignore_errors=True)
