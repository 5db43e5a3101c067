"""Batches in real containers: the chart, our images, a kubelet, claims and PodSecurity `restricted`, with GPUs that are not there."""

from __future__ import annotations

import json

import pytest

from .node import GPU
from .node_site import Site

pytestmark = [pytest.mark.node, pytest.mark.xdist_group("node")]


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


def test_node_that_goes_down_and_comes_back_loses_no_record(site: Site) -> None:
    site.apply()
    site.until(site.running, "a pod at work")
    site.node.cluster.kill("kubelet")
    site.node.kill_containers(site.namespace)
    site.node.up()
    site.until_complete()
    everything(site)


def test_operator_killed_in_its_container_goes_on(site: Site) -> None:
    site.apply()
    site.until(site.running, "a pod at work")
    site.node.kill_containers("headrace-system")
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
