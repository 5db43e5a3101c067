"""A fan-out in real containers: branches and join as restricted pods, and its answers read back with the command line."""

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
SMALL = {"gpus": 1, "requests": {"cpu": "10m", "memory": "64Mi"}}


def branch(name: str, **more: Any) -> dict[str, Any]:
    """A branch that answers with a mock engine."""
    return {"name": name, "model": {"name": "any"}, "engine": {"name": "mock"}, "resources": SMALL, **more}


def fan_out(*branches: dict[str, Any]) -> dict[str, Any]:
    """Thirty records for these branches, all answers of which are joined."""
    source = {"uri": "package://pydoc_data.topics:topics", "format": "text", "limit": 30}
    spec = {
        "input": {**source, "prompt": {"template": "{{ text }}"}},
        "branches": branches,
        "aggregation": {"type": "concat"},
    }
    head = {"apiVersion": "headrace.dev/v1alpha1", "kind": "FanOutJob", "metadata": {"name": "answers"}}
    return {**head, "spec": spec}


def test_fan_out_of_two_branches_and_a_routed_one_is_joined_in_containers(site: Site) -> None:
    routed = branch("routed", when="size(record.text) < 3000")
    site.kubectl.apply(fan_out(branch("one"), branch("two"), routed), namespace=site.namespace)

    def complete() -> bool:
        conditions = site.get("fo/answers").get("status", {}).get("conditions", ())
        return any((it["type"], it["status"]) == ("Complete", "True") for it in conditions)

    site.until(complete, "the fan-out is complete")
    status = site.get("fo/answers")["status"]
    assert status["records"] == {"total": 30, "succeeded": 30, "failed": 0, "pending": 0}
    taken = {it["name"]: it["records"]["total"] for it in status["branches"]}
    assert taken["one"] == taken["two"] == 30
    assert 0 < taken["routed"] < 30
    rows = _results(site)
    assert len({row["custom_id"] for row in rows}) == len(rows) == 30
    assert sum("routed" in row["headrace"]["contributing"] for row in rows) == taken["routed"]


def _results(site: Site) -> list[dict[str, Any]]:
    flags = ["--kubeconfig", str(site.kubectl.kubeconfig), "-n", site.namespace, "-o", "json"]
    done = subprocess.run(
        [sys.executable, "-m", "headrace", "results", "answers", *flags],
        env={**os.environ, "PYTHONPATH": str(ROOT / "operator")},
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr.decode()
    return [json.loads(line) for line in done.stdout.splitlines()]
