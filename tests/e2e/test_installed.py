"""Headrace as it is installed on somebody's cluster: kind in CI, or whichever `KUBECONFIG` names. Only kubectl and helm touch it.

It wants the chart installed with `defaultOutput=claim://headrace-output/`, a claim of that name in the namespace `default`, and four GPUs,
which need not be there (`.ci/kind-site`, or `make cluster node deploy`).
"""

from __future__ import annotations

import json
import os
import secrets
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from cluster import binaries
from cluster.cluster import GivenCluster, given_kubeconfig
from cluster.kubectl import Kubectl, KubectlError

pytestmark = [pytest.mark.node]

ROOT = Path(__file__).parents[2]
NAMESPACE, SYSTEM, CLAIM = "default", "headrace-system", "headrace-output"
SECONDS = 300
TOPICS = {"uri": "package://pydoc_data.topics:topics", "format": "text", "limit": 60}
SMALL = {"requests": {"cpu": "10m", "memory": "64Mi"}}


@dataclass(frozen=True)
class Place:
    """The cluster, and a word in the names of what one test makes there."""

    kubectl: Kubectl
    mark: str

    def apply(self, kind: str, name: str, **spec: Any) -> str:
        """Submit an object; returns its name."""
        whole = f"{name}-{self.mark}"
        labels = {"e2e": self.mark}
        head = {"apiVersion": "headrace.dev/v1alpha1", "kind": kind, "metadata": {"name": whole, "labels": labels}}
        self.kubectl.apply({**head, "spec": spec}, namespace=NAMESPACE)
        return whole

    def batch(self, **spec: Any) -> str:
        """A batch of 60 records in three shards, two pods at once, a GPU each."""
        usual = {
            "model": {"name": "any"},
            "engine": {"name": "mock", "mock": {"latencyMilliseconds": 100}},
            "input": {**TOPICS, "prompt": {"template": "{{ text }}"}},
            "batching": {"maxBatchSize": 2},
            "resources": {"gpus": 1, **SMALL},
            "shards": 3,
            "parallelism": 2,
        }
        return self.apply("InferenceBatch", "batch", **{**usual, **spec})

    def wait(self, what: str, condition: str) -> None:
        """Wait for a condition."""
        self.kubectl("wait", what, f"--for=condition={condition}", f"--timeout={SECONDS}s", f"--namespace={NAMESPACE}")

    def status(self, what: str) -> dict[str, Any]:
        """The status of an object; empty before it has one."""
        found: dict[str, Any] = self.kubectl.get(what, f"--namespace={NAMESPACE}").get("status", {})
        return found

    def headrace(self, *words: str) -> str:
        """What a command says about the cluster."""
        flags = ["--kubeconfig", str(self.kubectl.kubeconfig), "-n", NAMESPACE]
        environment = {**os.environ, "PYTHONPATH": str(ROOT / "operator")}
        command = [sys.executable, "-m", "headrace", *words, *flags]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def ids(self, name: str, *which: str) -> list[str]:
        """The ids in the results of an object."""
        return [
            json.loads(line)["custom_id"] for line in self.headrace("results", name, "-o", "json", *which).splitlines()
        ]


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    kubeconfig = given_kubeconfig()
    if kubeconfig is None:
        pytest.skip("no cluster is named: set KUBECONFIG (`make e2e` does with that of `make cluster node deploy`)")
    kubectl = GivenCluster(kubeconfig, tmp_path, print).kubectl
    try:
        kubectl("get", "inferencebatches", f"--namespace={NAMESPACE}")
        kubectl("get", f"pvc/{CLAIM}", f"--namespace={NAMESPACE}")
    except KubectlError as error:
        pytest.skip(f"Headrace is not installed there as the tests want it: {error}")
    here = Place(kubectl, secrets.token_hex(3))
    yield here
    kubectl("delete", "fo,ib", f"--selector=e2e={here.mark}", f"--namespace={NAMESPACE}")


def test_a_batch_on_gpus_gives_each_record_one_line(place: Place) -> None:
    name = place.batch()
    place.wait(f"ib/{name}", "Complete")
    ids = place.ids(name)
    assert len(ids) == len(set(ids)) == 60
    status = place.status(f"ib/{name}")
    assert status["records"] == {"total": 60, "succeeded": 60, "failed": 0, "pending": 0}
    assert status["usage"]["gpuSeconds"] > 0


def test_a_fan_out_joins_its_branches(place: Place) -> None:
    branch = {"model": {"name": "any"}, "engine": {"name": "mock"}, "resources": {"gpus": 0, **SMALL}}
    records = [{"custom_id": f"r{number}", "text": f"Say {number}."} for number in range(10)]
    name = place.apply(
        "FanOutJob",
        "fan-out",
        input={"inline": records, "format": "jsonl"},
        branches=[{"name": "one", **branch}, {"name": "two", **branch}],
    )
    place.wait(f"fo/{name}", "Complete")
    assert sorted(place.ids(name)) == sorted(record["custom_id"] for record in records)


def test_bad_input_ends_before_any_gpu_is_asked_for(place: Place) -> None:
    records = [{"custom_id": "same", "text": "a"}, {"custom_id": "same", "text": "b"}]
    name = place.batch(input={"inline": records, "format": "jsonl"}, shards=1)
    place.wait(f"ib/{name}", "Failed")
    selector = f"--selector=headrace.dev/inference-batch={name},headrace.dev/role=run"
    assert place.kubectl.get("pods", selector, f"--namespace={NAMESPACE}")["items"] == []


def test_an_upgrade_of_the_operator_in_the_middle_of_a_batch_loses_no_record(place: Place) -> None:
    name = place.batch(engine={"name": "mock", "mock": {"latencyMilliseconds": 500}})
    running = "--for=jsonpath={.status.summary.state}=Running"
    place.kubectl("wait", f"ib/{name}", running, f"--timeout={SECONDS}s", f"--namespace={NAMESPACE}")
    helm = str(binaries.helm(print))
    settings = ["--reuse-values", "--set-string", f"podAnnotations.upgraded={place.mark}", "--wait", "--timeout=180s"]
    flags = [f"--kubeconfig={place.kubectl.kubeconfig}", f"--namespace={SYSTEM}"]
    command = [helm, "upgrade", "headrace", str(ROOT / "charts/headrace"), *settings, *flags]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    place.wait(f"ib/{name}", "Complete")
    ids = place.ids(name)
    assert len(ids) == len(set(ids)) == 60
    jobs = place.kubectl.get("jobs", f"--selector=headrace.dev/inference-batch={name}", f"--namespace={NAMESPACE}")
    assert len(jobs["items"]) == 2, "a plan and a run: no Job was made twice"
