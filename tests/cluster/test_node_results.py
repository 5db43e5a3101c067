"""`headrace results` where the output is on a claim of a real node: a real pod, a real exec, and nothing left behind."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from .node_site import Site

pytestmark = [pytest.mark.node, pytest.mark.xdist_group("node")]

ROOT = Path(__file__).parents[2]
SIXTY = {"engine": {"name": "mock", "mock": {"errorPercent": 25}}, "retries": {"limit": 0}}


def start(site: Site, *words: str) -> subprocess.Popen[bytes]:
    """A command about the batch."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "operator")}
    flags = ["--kubeconfig", str(site.kubectl.kubeconfig), "-n", site.namespace]
    command = [sys.executable, "-m", "headrace", *words, *flags]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def read(site: Site, *words: str) -> list[dict[str, Any]]:
    """The records that the command shows."""
    process = start(site, "results", "reviews", "-o", "json", *words)
    out, err = process.communicate()
    assert process.returncode == 0, err.decode()
    return [json.loads(line) for line in out.splitlines()]


def readers(site: Site) -> list[str]:
    """The pods that read results, and are not about to go."""
    pods = site.kubectl.get("pods", "--namespace", site.namespace, "--selector=app.kubernetes.io/component=results")
    return [pod["metadata"]["name"] for pod in pods["items"] if "deletionTimestamp" not in pod["metadata"]]


def test_results_of_a_claim_are_all_there_in_order_and_no_pod_stays(site: Site) -> None:
    site.apply(**SIXTY)
    records = site.until_complete()["records"]
    everything = read(site, "--all")
    assert [row["id"] for row in everything] == sorted(row["id"] for row in everything)
    assert len(everything) == records["total"] == 60
    succeeded, failed = read(site), read(site, "--errors")
    assert (len(succeeded), len(failed)) == (records["succeeded"], records["failed"])
    assert all(row["error"] is None for row in succeeded)
    assert all(row["response"] is None for row in failed)
    assert read(site, "--all", "--limit", "7") == everything[:7]
    assert readers(site) == []


def test_results_to_a_reader_that_goes_away_leave_no_pod(site: Site) -> None:
    site.apply(**SIXTY)
    site.until_complete()
    process = start(site, "results", "reviews", "--all", "-o", "json")
    assert process.stdout is not None
    assert json.loads(process.stdout.readline())["custom_id"]
    process.stdout.close()
    assert process.stderr is not None
    assert b"Traceback" not in process.stderr.read()
    process.wait()
    assert readers(site) == []


def test_results_with_an_image_that_cannot_be_pulled_say_so(site: Site) -> None:
    site.apply(**SIXTY)
    site.until_complete()
    site.kubectl("delete", "jobs", "--all", "--namespace", site.namespace, "--wait")
    process = start(site, "results", "reviews", "--worker-image", "none.test/none:1")
    _, err = process.communicate()
    assert process.returncode == 1
    assert b"which was to read the output, has not started: " in err, err.decode()
    assert readers(site) == []
