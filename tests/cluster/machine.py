"""What a node takes from the machine and gives back: a control group, a bridge, a folder for sockets."""

import ipaddress
import json
import os
import shlex
import shutil
import subprocess
import tempfile
from pathlib import Path

from .cgroups import ControlGroup
from .layout import Layout
from .messages import ClusterError, Unavailable

_PACKAGES = {
    "containerd": "containerd",
    "ctr": "containerd",
    "runc": "runc",
    "ip": "iproute2",
    "unshare": "util-linux",
    "nsenter": "util-linux",
}
_CNI_FOLDERS = (Path("/usr/lib/cni"), Path("/opt/cni/bin"), Path("/usr/libexec/cni"))


def require_container_tools() -> Path:
    """Give the folder with the network plugins, or say everything that is missing."""
    if os.geteuid() != 0:
        raise Unavailable("a node needs root: run it as root, or set HEADRACE_TEST_KUBECONFIG to a cluster with nodes")
    missing = {package for command, package in _PACKAGES.items() if shutil.which(command) is None}
    plugins = next((folder for folder in _CNI_FOLDERS if (folder / "bridge").exists()), None)
    if plugins is None:
        missing.add("containernetworking-plugins")
    if missing or plugins is None:
        raise Unavailable(f"a node needs more programs: `apt-get install {' '.join(sorted(missing))}`")
    return plugins


def lend(layout: Layout) -> None:
    layout.runtime.mkdir(mode=0o700, exist_ok=True)
    ControlGroup(layout.cgroup).create()
    if not _has_bridge(layout):
        _create_bridge(layout)


def take_back(layout: Layout) -> None:
    """End every process of the node, and remove what was lent. Its network and mounts end with the processes."""
    if not layout.node.exists():
        return
    if os.geteuid() != 0:
        raise ClusterError(f"root started a node in {layout.folder}: run `down` as root")
    ControlGroup(layout.cgroup).remove()
    if _has_bridge(layout):
        run("ip", "link", "delete", layout.bridge)
    if layout.runtime.exists():
        shutil.rmtree(layout.runtime)


def can_overlay(folder: Path) -> bool:
    """Try it: the file system of a container often cannot be the lower side of an overlay."""
    with tempfile.TemporaryDirectory(dir=folder) as name:
        parts = {part: Path(name) / part for part in ("lower", "upper", "work", "merged")}
        for part in parts.values():
            part.mkdir()
        options = f"lowerdir={parts['lower']},upperdir={parts['upper']},workdir={parts['work']}"
        mount = ["mount", "-t", "overlay", "overlay", "-o", options, str(parts["merged"])]
        done = subprocess.run(["unshare", "--mount", *mount], capture_output=True, check=False)
    return done.returncode == 0


def run(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise ClusterError(f"`{shlex.join(command)}` failed: {done.stderr.strip()}\nRun `down`, then `node` again.")
    return done.stdout


def _has_bridge(layout: Layout) -> bool:
    return Path("/sys/class/net", layout.bridge).exists()


def _create_bridge(layout: Layout) -> None:
    """Make the bridge before the first pod does: the kubelet and the way to the API server listen on it."""
    _refuse_overlap(layout)
    run("ip", "link", "add", layout.bridge, "type", "bridge")
    run("ip", "address", "add", f"{layout.gateway}/24", "dev", layout.bridge)
    run("ip", "address", "add", f"{layout.service_address}/32", "dev", layout.bridge)
    run("ip", "link", "set", layout.bridge, "up")


def _refuse_overlap(layout: Layout) -> None:
    """Two networks with one address would each lose packets to the other, and no message would say so."""
    for route in json.loads(run("ip", "-json", "-4", "route", "show")):
        if route["dst"] != "default" and layout.pod_network.overlaps(ipaddress.IPv4Network(route["dst"])):
            raise ClusterError(
                f"the pods' network {layout.pod_network} is in use by {route['dev']}: "
                "take another folder with --dir, its name decides the network"
            )
