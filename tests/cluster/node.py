"""A kubelet on a containerd of its own: real pods, on fake GPUs.

All of it lives in a private mount namespace, so that the kubelet and the container runtime see their usual folders
while the machine keeps its own, and no mount survives the last process.
"""

import json
import shlex
import shutil
import tempfile
from contextlib import suppress
from pathlib import Path

import yaml

from . import binaries, machine, node_files
from .cgroups import ControlGroup
from .control_plane import ControlPlane
from .images import Image
from .kubectl import client_certificate, write_kubeconfig
from .messages import ClusterError
from .processes import free_ports

NAME = "headrace-node"
GPU = "nvidia.com/gpu"

# The kubelet and the network plugins know these by name; the node sees folders of its own there. They stay behind,
# empty: removing a folder on which another node has mounted its own would take that mount away from it.
_PRIVATE_FOLDERS = (Path("/var/lib/kubelet"), Path("/var/lib/cni"), Path("/var/log"))


class Node:
    """The one node of a control plane."""

    def __init__(self, cluster: ControlPlane, *, gpus: int = 4) -> None:
        self.cluster = cluster
        self.gpus = gpus
        self.layout = cluster.layout
        self.supervisor = cluster.supervisor

    def up(self) -> str:
        """Start what does not run yet, and return the node's name once it takes pods and offers its GPUs."""
        plugins = machine.require_container_tools()
        programs = binaries.find(binaries.NODE, self.cluster.say)
        with self.cluster.locked():
            self._prepare(plugins)
            self._start_containerd()
            self.load(self._pause_image(programs / "pause"))
            self._start_kubelet(programs)
            self.supervisor.wait("kubelet", self._offers_gpus, what="takes pods and offers its GPUs")
        return NAME

    @property
    def machine_address(self) -> str:
        """The machine's own address among the pods: they reach a server of the test that listens there."""
        return self.layout.gateway

    def load(self, image: Image) -> None:
        """Make the image known to the node, which never pulls one."""
        with tempfile.TemporaryDirectory() as folder:
            archive = Path(folder) / "image.tar"
            image.write(archive)
            self.load_archive(archive)

    def load_archive(self, archive: Path) -> None:
        """Take an image in the form of `docker save` or of the Open Container Initiative."""
        if not self.supervisor.is_running("containerd"):
            raise ClusterError(
                f"no node runs in {self.layout.folder} to load {archive}: `python -m tests.cluster node`"
            )
        self._ctr("images", "import", str(archive))

    def kill_containers(self, namespace: str) -> None:
        """Kill what runs in the pods of a namespace, as a crash would; nobody is told."""
        of_pods = f'labels."io.kubernetes.pod.namespace"=={namespace},labels."io.cri-containerd.kind"==container'
        for container in self._ctr("containers", "list", "--quiet", of_pods).split():
            with suppress(ClusterError):  # one that has ended has no task any more
                self._ctr("tasks", "kill", "--signal", "SIGKILL", "--all", container)

    def _prepare(self, plugins: Path) -> None:
        layout = self.layout
        for folder in (layout.node / "cni", *map(self._private, _PRIVATE_FOLDERS), *_PRIVATE_FOLDERS):
            folder.mkdir(parents=True, exist_ok=True)
        machine.lend(layout)
        snapshotter = "overlayfs" if machine.can_overlay(layout.node) else "native"
        (layout.node / "containerd.toml").write_text(node_files.containerd(layout, plugins, snapshotter))
        (layout.node / "cni" / "10-headrace.conflist").write_text(json.dumps(node_files.network(layout), indent=2))
        self._configure_kubelet()

    def _configure_kubelet(self) -> None:
        authority, kubeconfig = self.cluster.authority, self.layout.kubeconfig_of("kubelet")
        user = client_certificate(authority.client(f"system:node:{NAME}", "system:nodes"))
        write_kubeconfig(kubeconfig, self.cluster.server, authority.root.certificate, user)
        path = self.layout.node / "kubelet.yaml"
        if not path.exists():
            serving = authority.server("kubelet", [f"IP:{self.layout.gateway}", f"DNS:{NAME}"])
            [port] = free_ports(1)
            path.write_text(yaml.safe_dump(node_files.kubelet(self.layout, authority, serving, port)))

    def _start_containerd(self) -> None:
        mounts = [["mount", "--bind", str(self._private(folder)), str(folder)] for folder in _PRIVATE_FOLDERS]
        # Shared inside, so that what the kubelet mounts for a pod is there for containerd to put into it.
        commands = [["mount", "--make-rshared", "/"], *mounts]
        containerd = ["exec", "containerd", "--config", f"{self.layout.node}/containerd.toml"]
        enter = ["unshare", "--mount", "--propagation", "private"]
        self.supervisor.start("containerd", [*enter, *self._as_member(*commands, containerd)])
        self.supervisor.wait("containerd", self._runs_containers)

    def _start_kubelet(self, programs: Path) -> None:
        """Start the kubelet and what it needs, in the mount namespace that containerd opened."""
        layout = self.layout
        arguments = {
            "forward-tcp": [f"{layout.service_address}:443", self.cluster.server.removeprefix("https://")],
            "kubelet": [
                f"--config={layout.node}/kubelet.yaml",
                f"--kubeconfig={layout.kubeconfig_of('kubelet')}",
                f"--hostname-override={NAME}",
                f"--node-ip={layout.gateway}",
            ],
            "fake-gpu-plugin": [f"--count={self.gpus}", f"--resource={GPU}"],
        }
        if not self._offers_gpus():
            self.supervisor.stop(["fake-gpu-plugin"])  # it may run with another number of them
        enter = ["nsenter", f"--target={self.supervisor.pid('containerd')}", "--mount"]
        for program, flags in arguments.items():
            command = ["exec", str(programs / program), *flags]
            self.supervisor.start(program, [*enter, *self._as_member(command)])

    def _as_member(self, *commands: list[str]) -> list[str]:
        """Give the command that runs others as a member of the node's control group, and so all that they start."""
        joins = [f"echo $$ > {path}" for path in ControlGroup(self.layout.cgroup).joins]
        return ["sh", "-ec", "; ".join([*joins, *map(shlex.join, commands)])]

    def _private(self, folder: Path) -> Path:
        return self.layout.node / "private" / folder.name

    def _pause_image(self, pause: Path) -> Image:
        tree = self.layout.node / "pause"
        tree.mkdir(exist_ok=True)
        shutil.copy(pause, tree / "pause")
        return Image(node_files.PAUSE_IMAGE, tree, entrypoint=["/pause"])

    def _runs_containers(self) -> bool:
        try:
            self._ctr("version")
        except ClusterError:
            return False
        return True

    def _offers_gpus(self) -> bool:
        nodes = self.cluster.kubectl.get("nodes")["items"]
        return any(
            node["metadata"]["name"] == NAME
            and node["status"].get("allocatable", {}).get(GPU) == str(self.gpus)
            and any(c["type"] == "Ready" and c["status"] == "True" for c in node["status"]["conditions"])
            for node in nodes
        )

    def _ctr(self, *arguments: str) -> str:
        return machine.run(
            "ctr", "--address", f"{self.layout.runtime}/containerd.sock", "--namespace", "k8s.io", *arguments
        )
