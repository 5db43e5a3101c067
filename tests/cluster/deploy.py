"""Headrace on a cluster with a node of ours: its images, a claim for output, and the chart."""

import json
from collections.abc import Sequence
from pathlib import Path

from . import binaries, machine
from .messages import ClusterError
from .node import Node

ROOT = Path(__file__).parents[2]
CHART = ROOT / "charts" / "headrace"
IMAGES = ROOT / "build" / "images"
CLAIM = "headrace-output"
RELEASE = "headrace"
SYSTEM_NAMESPACE = "headrace-system"


def archive(image: str) -> Path:
    """Where `make images` leaves an image."""
    return IMAGES / f"headrace-{image}.tar"


def deploy(node: Node, images: Sequence[str] = ("operator", "worker"), namespace: str = "default") -> None:
    """Install Headrace for all namespaces; output goes to a claim in one of them unless a batch says where."""
    missing = [image for image in images if not archive(image).exists()]
    if missing:
        raise ClusterError(f"{archive(missing[0])} is not there: `make images` builds it")
    for image in images:
        node.cluster.say(f"giving the node {archive(image).name}")
        node.load_archive(archive(image))
    provide_claim(node, namespace)
    install(node)


def provide_claim(node: Node, namespace: str) -> Path:
    """Make a PersistentVolumeClaim in that namespace, and return the folder of this machine that is behind it."""
    folder = node.layout.folder / "volumes" / namespace
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(0o777)  # workers are not root, and the group of a pod is not given to a folder of the machine
    size = {"storage": "10Gi"}
    name = f"{CLAIM}-{namespace}"
    volume = {
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {"name": name},
        "spec": {
            "capacity": size,
            "accessModes": ["ReadWriteMany"],
            "persistentVolumeReclaimPolicy": "Retain",
            "storageClassName": "",
            "claimRef": {"namespace": namespace, "name": CLAIM},
            "hostPath": {"path": str(folder)},
        },
    }
    claim = {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": CLAIM, "namespace": namespace},
        "spec": {
            "accessModes": ["ReadWriteMany"],
            "storageClassName": "",
            "volumeName": name,
            "resources": {"requests": size},
        },
    }
    for manifest in (volume, claim):
        node.cluster.kubectl("apply", "--filename=-", stdin=json.dumps(manifest))
    return folder


def install(node: Node, system_namespace: str = SYSTEM_NAMESPACE, **values: object) -> None:
    """Install the chart or bring it up to date, and wait until the operator is ready."""
    chosen = {
        "image": {"tag": "dev"},
        "worker": {"image": {"tag": "dev"}},
        "defaultOutput": f"claim://{CLAIM}/",
        "replicas": 1,
        **values,
    }
    settings = [f"--set-json={name}={json.dumps(value)}" for name, value in chosen.items()]
    place = [f"--kubeconfig={node.cluster.kubeconfig}", f"--namespace={system_namespace}", "--create-namespace"]
    helm = binaries.helm(node.cluster.say)
    machine.run(str(helm), "upgrade", "--install", RELEASE, str(CHART), *place, *settings, "--wait", "--timeout=300s")
