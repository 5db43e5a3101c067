"""pytest fixtures on a real cluster. A test that cannot have one is skipped with the reason, never passed."""

import secrets
from collections.abc import Generator, Iterator
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import pytest

from .cluster import Cluster, GivenCluster, given_kubeconfig
from .control_plane import ControlPlane
from .kubectl import Kubectl
from .messages import Say, Unavailable
from .node import Node

_SHARED = pytest.StashKey[Cluster]()


COMPILE = "HEADRACE_COMPILE"
"""When set, a missing Kubernetes is compiled rather than its tests skipped."""


@pytest.fixture(scope="session")
def say(pytestconfig: pytest.Config) -> Say:
    """Print progress at once: the first cluster of a machine takes minutes, and silence looks like a hang."""
    capture = pytestconfig.pluginmanager.getplugin("capturemanager")

    def write(line: str) -> None:
        with capture.global_and_fixture_disabled():
            print(f"  {line}", flush=True)

    return write


@pytest.fixture(scope="session")
def cluster(pytestconfig: pytest.Config, tmp_path_factory: pytest.TempPathFactory, say: Say) -> Iterator[Cluster]:
    """Give one cluster for the whole run, also when the conftest of several folders imports this fixture."""
    if _SHARED in pytestconfig.stash:
        yield pytestconfig.stash[_SHARED]
        return
    with _chosen(tmp_path_factory.mktemp("cluster"), say) as chosen:
        pytestconfig.stash[_SHARED] = chosen
        yield chosen


def _chosen(folder: Path, say: Say) -> AbstractContextManager[Cluster]:
    """Take the cluster that the environment names, or else one of our own."""
    kubeconfig = given_kubeconfig()
    if kubeconfig is None:
        return ControlPlane(folder, audit=True, say=say)
    say(f"testing on the cluster of {kubeconfig}")
    return nullcontext(GivenCluster(kubeconfig, folder, say))


@pytest.fixture(scope="session")
def node(cluster: Cluster) -> Node:
    """Give the node of our own cluster, which it joins now and leaves with the control plane."""
    if not isinstance(cluster, ControlPlane):
        raise Unavailable("images cannot be loaded into a cluster that somebody else runs: unset its kubeconfig")
    node = Node(cluster)
    node.up()
    return node


@pytest.fixture
def kubectl(cluster: Cluster) -> Kubectl:
    """Give kubectl as the administrator."""
    return cluster.kubectl


@pytest.fixture
def namespace(kubectl: Kubectl) -> Iterator[str]:
    """Give a namespace of this test's own, where pods can be created at once."""
    name = f"test-{secrets.token_hex(4)}"
    kubectl("create", "namespace", name)
    kubectl("wait", "--namespace", name, "--for=create", "serviceaccount/default", "--timeout=180s")
    yield name
    kubectl("delete", "namespace", name, "--wait=false")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_setup() -> Generator[None]:
    return (yield from _skip_if_unavailable())


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call() -> Generator[None]:
    return (yield from _skip_if_unavailable())


def _skip_if_unavailable() -> Generator[None]:
    try:
        return (yield)
    except Unavailable as reason:
        pytest.skip(str(reason))
