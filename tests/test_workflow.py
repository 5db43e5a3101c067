"""The workflow of CI runs commands that there are, on the Kubernetes that the chart says it wants."""

from __future__ import annotations

import re
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[1]
WORKFLOW = yaml.safe_load((ROOT / ".github/workflows/ci.yaml").read_text())
STEPS = [step for job in WORKFLOW["jobs"].values() for step in job["steps"]]
RUN = "\n".join(step["run"] for step in STEPS if "run" in step)


def test_every_make_target_of_the_workflow_is_one_that_there_is() -> None:
    there = set(re.findall(r"^([a-z0-9-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert set(re.findall(r"^make ([a-z0-9-]+)", RUN, re.MULTILINE)) <= there


def test_every_script_of_the_workflow_is_one_that_can_be_run() -> None:
    scripts = set(re.findall(r"^(\.ci/[\w-]+)", RUN, re.MULTILINE))
    assert {".ci/images", ".ci/kind-site"} <= scripts
    assert all((ROOT / script).stat().st_mode & 0o100 for script in scripts)


def test_every_action_is_pinned_to_a_version() -> None:
    used = [step["uses"] for step in STEPS if "uses" in step]
    assert [one for one in used if not re.fullmatch(r"[\w-]+/[\w-]+@v\d[\d.]*", one)] == []


def test_the_oldest_kubernetes_of_the_matrix_is_one_that_the_chart_takes() -> None:
    versions = WORKFLOW["jobs"]["kind"]["strategy"]["matrix"]["kubernetes"]
    minors = [int(version.split(".")[1]) for version in versions]
    assert minors == sorted(minors, reverse=True)
    assert len(minors) == 3
    wanted = yaml.safe_load((ROOT / "charts/headrace/Chart.yaml").read_text())["kubeVersion"]
    assert minors[-1] >= int(wanted.removeprefix(">=1.").split(".")[0])
