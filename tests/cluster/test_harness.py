"""The harness itself: what other tests take for granted about the cluster they get."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from .cluster import Cluster
from .control_plane import ControlPlane
from .images import Image
from .kubectl import Kubectl, KubectlError
from .messages import Say, Unavailable
from .node import GPU, Node
from .waiting import eventually


def indexed_job(name: str, *, completions: int, image: str, command: list[str]) -> dict[str, Any]:
    container = {"name": "main", "image": image, "command": command, "resources": {"limits": {GPU: "1"}}}
    pod = {"restartPolicy": "Never", "dnsPolicy": "Default", "containers": [container]}
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": name},
        "spec": {
            "completions": completions,
            "parallelism": completions,
            "completionMode": "Indexed",
            "template": {"spec": pod},
        },
    }


def alive_with(word: str) -> set[int]:
    """Find running processes by a word of their command line; one that waits to be collected has none."""
    found = set()
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and word in (entry / "cmdline").read_text():
                found.add(int(entry.name))
        except (FileNotFoundError, ProcessLookupError):
            continue
    return found - {os.getpid(), os.getppid()}


@pytest.fixture
def own_cluster(tmp_path: Path, say: Say) -> Iterator[ControlPlane]:
    with ControlPlane(tmp_path / "own", say=say) as control_plane:
        yield control_plane


@pytest.mark.cluster
def test_a_job_gets_pods_that_wait_for_a_node(kubectl: Kubectl, namespace: str) -> None:
    kubectl.apply(indexed_job("waits", completions=3, image="none.test/none:1", command=["true"]), namespace=namespace)
    kubectl("wait", "--namespace", namespace, "--for=jsonpath={.status.active}=3", "job/waits", "--timeout=180s")
    pods = kubectl.get("pods", "--namespace", namespace)["items"]
    assert len(pods) == 3


@pytest.mark.cluster
def test_deleting_a_job_collects_its_pods(kubectl: Kubectl, namespace: str) -> None:
    kubectl.apply(indexed_job("goes", completions=2, image="none.test/none:1", command=["true"]), namespace=namespace)
    kubectl("wait", "--namespace", namespace, "--for=jsonpath={.status.active}=2", "job/goes", "--timeout=180s")
    kubectl("delete", "job", "goes", "--namespace", namespace, "--cascade=background")
    kubectl("wait", "--namespace", namespace, "--for=delete", "pods", "--all", "--timeout=180s")


@pytest.mark.cluster
def test_a_service_account_may_do_what_it_is_granted_and_nothing_else(
    cluster: Cluster, kubectl: Kubectl, namespace: str
) -> None:
    kubectl("create", "serviceaccount", "reader", "--namespace", namespace)
    kubectl("create", "role", "reader", "--namespace", namespace, "--verb=list", "--resource=jobs")
    kubectl("create", "rolebinding", "reader", "--namespace", namespace, "--role=reader",
            f"--serviceaccount={namespace}:reader")  # fmt: skip
    as_reader = Kubectl(kubectl.program, cluster.service_account_kubeconfig("reader", namespace))
    assert as_reader.get("jobs")["items"] == []
    with pytest.raises(KubectlError, match="forbidden"):
        as_reader("get", "pods")


@pytest.mark.cluster
def test_the_audit_log_tells_what_a_service_account_asked_for(
    cluster: Cluster, kubectl: Kubectl, namespace: str
) -> None:
    if not isinstance(cluster, ControlPlane):
        raise Unavailable("the audit log of this cluster is not ours to read")
    kubectl("create", "serviceaccount", "asker", "--namespace", namespace)
    as_asker = Kubectl(kubectl.program, cluster.service_account_kubeconfig("asker", namespace))
    with pytest.raises(KubectlError, match="forbidden"):
        as_asker("get", "cronjobs")

    def asked() -> set[tuple[str, str, int]]:
        """As far as it is written down: a line may come after the answer."""
        return {
            (event["verb"], event["objectRef"]["resource"], event["responseStatus"]["code"])
            for event in cluster.audited(f"system:serviceaccount:{namespace}:asker")
            if "objectRef" in event
        }

    eventually(lambda: asked() == {("list", "cronjobs", 403)}, "what it asked for", asked)


@pytest.mark.cluster
@pytest.mark.parametrize("component", ["etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler"])
def test_objects_survive_a_component_that_is_killed(
    cluster: Cluster, kubectl: Kubectl, namespace: str, component: str
) -> None:
    kubectl("create", "configmap", "kept", "--namespace", namespace)
    cluster.kill(component)
    cluster.restart(component)

    def kept() -> bool:
        try:
            found = kubectl.get("configmap", "kept", "--namespace", namespace)
        except KubectlError:
            return False  # it may be for a moment that it cannot answer
        return bool(found["metadata"]["name"] == "kept")

    eventually(kept, "the ConfigMap")


@pytest.mark.cluster
def test_two_clusters_at_once_are_two_clusters(own_cluster: ControlPlane, tmp_path: Path, say: Say) -> None:
    with ControlPlane(tmp_path / "other", say=say) as other:
        own_cluster.kubectl("create", "namespace", "only-here")
        with pytest.raises(KubectlError, match="not found"):
            other.kubectl("get", "namespace", "only-here")


@pytest.mark.cluster
def test_up_again_keeps_the_cluster_as_it_is(own_cluster: ControlPlane) -> None:
    before = own_cluster.layout.processes.read_text()
    own_cluster.up()
    assert own_cluster.layout.processes.read_text() == before


@pytest.mark.cluster
def test_down_leaves_no_process_and_only_the_logs(own_cluster: ControlPlane) -> None:
    folder = own_cluster.layout.folder
    assert len(alive_with(str(folder))) >= 4
    own_cluster.down()
    assert alive_with(str(folder)) == set()
    assert {path.name for path in folder.iterdir()} == {"lock", "logs"}


@pytest.fixture(scope="module")
def busybox(node: Node, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Load the smallest image with a shell, and give its reference."""
    program = shutil.which("busybox")
    if program is None or b"/ld-linux" in Path(program).read_bytes():
        raise Unavailable("the image of this test is a busybox that needs no library: `apt-get install busybox-static`")
    image = Image("headrace.test/busybox:1", tmp_path_factory.mktemp("image"))
    (image.tree / "bin").mkdir()
    for applet in ("sh", "true"):
        shutil.copy(program, image.tree / "bin" / applet)
    node.load(image)
    return image.reference


@pytest.mark.cluster
@pytest.mark.node
def test_an_indexed_job_runs_on_the_nodes_gpus(kubectl: Kubectl, namespace: str, busybox: str) -> None:
    command = ["sh", "-c", "echo record $JOB_COMPLETION_INDEX on $NVIDIA_VISIBLE_DEVICES"]
    kubectl.apply(indexed_job("runs", completions=6, image=busybox, command=command), namespace=namespace)
    kubectl("wait", "--namespace", namespace, "--for=condition=Complete", "job/runs", "--timeout=240s")
    log = kubectl("logs", "--namespace", namespace, "job/runs", "--all-pods")
    for index in range(6):
        assert f"record {index} on fake-" in log


@pytest.mark.cluster
@pytest.mark.node
def test_a_pod_reaches_the_api_server_where_it_is_told(kubectl: Kubectl, namespace: str, busybox: str) -> None:
    command = ["sh", "-c", "nc -w 5 $KUBERNETES_SERVICE_HOST $KUBERNETES_SERVICE_PORT < /dev/null"]
    kubectl.apply(indexed_job("calls", completions=1, image=busybox, command=command), namespace=namespace)
    kubectl("wait", "--namespace", namespace, "--for=condition=Complete", "job/calls", "--timeout=180s")


@pytest.mark.cluster
@pytest.mark.node
def test_down_takes_back_what_the_node_had_and_leaves_other_nodes_alone(
    own_cluster: ControlPlane, kubectl: Kubectl, namespace: str, busybox: str
) -> None:
    layout = own_cluster.layout
    Node(own_cluster, gpus=1).up()
    assert len(alive_with(str(layout.folder))) >= 7
    assert Path("/sys/class/net", layout.bridge).exists()
    own_cluster.down()
    assert alive_with(str(layout.folder)) == set()
    assert not Path("/sys/class/net", layout.bridge).exists()
    assert not list(Path("/sys/fs/cgroup").rglob(layout.cgroup))
    assert not layout.runtime.exists()
    kubectl.apply(indexed_job("other", completions=1, image=busybox, command=["true"]), namespace=namespace)
    kubectl("wait", "--namespace", namespace, "--for=condition=Complete", "job/other", "--timeout=180s")
