"""The chart on a real control plane: what only an API server can refuse, and what an upgrade must leave alone."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from . import binaries
from .control_plane import ControlPlane
from .kubectl import Kubectl
from .messages import Say, Unavailable

pytestmark = [pytest.mark.cluster, pytest.mark.xdist_group("operator")]

CHART = Path(__file__).parents[2] / "charts" / "headrace"


@dataclass(frozen=True)
class Site:
    """An empty control plane, and Helm."""

    cluster: ControlPlane
    program: Path

    @property
    def kubectl(self) -> Kubectl:
        return self.cluster.kubectl

    def helm(self, word: str, *settings: str) -> None:
        """Install or upgrade the release."""
        command = [
            str(self.program),
            word,
            "headrace",
            str(CHART),
            "--namespace=headrace-system",
            "--create-namespace",
            *settings,
        ]
        environment = {**os.environ, "KUBECONFIG": str(self.cluster.kubeconfig)}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr

    def gpus(self) -> int:
        """The capacity of the Bulkhead `default`."""
        found: int = self.kubectl.get("bulkhead", "default")["spec"]["capacity"]["gpus"]
        return found


@pytest.fixture
def site(tmp_path: Path, say: Say) -> Iterator[Site]:
    try:
        program = binaries.helm(say)
    except Unavailable as reason:
        pytest.skip(str(reason))
    with ControlPlane(tmp_path / "plane", audit=False, say=say) as cluster:
        yield Site(cluster, program)


def test_chart_makes_a_default_bulkhead_once_and_then_leaves_it_alone(site: Site) -> None:
    site.helm("install", "--set", "defaultBulkhead.spec.capacity.gpus=8")
    assert site.gpus() == 8
    site.kubectl("patch", "bulkhead", "default", "--type=merge", '--patch={"spec":{"capacity":{"gpus":9}}}')
    site.helm("upgrade", "--set", "defaultBulkhead.spec.capacity.gpus=8")
    assert site.gpus() == 9
