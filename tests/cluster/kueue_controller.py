"""Kueue's own controller, compiled from its Go module, as one more process beside a control plane without nodes.

It is set up as its manifests do it, with its webhooks and its own certificates. Two things that a cluster with nodes would do are done
here: its webhook Service leads to this machine, and the Secret with its certificate is put where the process reads it.
"""

import base64
import os
import urllib.error
import urllib.request
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml

from . import binaries
from .control_plane import ControlPlane
from .fixtures import COMPILE
from .messages import Unavailable
from .processes import free_ports

NAME = "kueue"
NAMESPACE = "kueue-system"
_SERVICE, _SECRET = "kueue-webhook-service", "kueue-webhook-server-cert"
_CERTIFICATES = ("tls.crt", "tls.key")
_CONVERTED = {"clusterqueues", "cohorts", "localqueues", "multikueueclusters", "workloads"}
"""Kinds with two versions that differ; Kueue does not start before it may convert them."""
_WATCHED = {"batch", "kueue.x-k8s.io"}
"""API groups whose objects go through its webhooks; those of other projects are not in this cluster."""


class Kueue:
    """The controller on one control plane, which has to be up, and takes it along when it goes down."""

    def __init__(self, cluster: ControlPlane) -> None:
        self._cluster = cluster
        self._folder = cluster.layout.folder / NAME
        self._webhook_port, self._health_port = free_ports(2)

    def up(self) -> None:
        """Install and start it; return when it answers."""
        programs = _programs(self._cluster)
        self._folder.mkdir()
        self._install(programs)
        config = self._folder / "config.yaml"
        config.write_text(yaml.safe_dump(self._configuration()))
        flags = [f"--config={config}", f"--kubeconfig={self._cluster.kubeconfig}"]
        gates = "--feature-gates=VisibilityOnDemand=false"  # a second API server, at a port of the machine that may be taken
        self._cluster.supervisor.start(NAME, [programs / NAME, *flags, gates])
        self._cluster.supervisor.wait(NAME, self._ready)

    def stop(self) -> None:
        """End it, as if it were being upgraded."""
        self._cluster.supervisor.stop([NAME])

    def _install(self, programs: Path) -> None:
        crds = [self._crd(document) for document in _documents((programs / "bases").iterdir())]
        self._apply(*crds)
        self._cluster.kubectl(
            "wait", "--for=condition=Established", "--timeout=180s", *(f"crd/{crd['metadata']['name']}" for crd in crds)
        )
        self._apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}})
        self._apply(
            {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": _SECRET, "namespace": NAMESPACE}},
            {
                "apiVersion": "v1",
                "kind": "Service",
                "metadata": {"name": _SERVICE, "namespace": NAMESPACE},
                "spec": {"type": "ExternalName", "externalName": "localhost"},
            },
            *map(self._webhooks, _documents([programs / "webhook" / "manifests.yaml"])),
        )

    def _crd(self, document: dict[str, Any]) -> dict[str, Any]:
        if document["spec"]["names"]["plural"] in _CONVERTED:
            webhook = {"clientConfig": {"service": self._service("/convert")}, "conversionReviewVersions": ["v1"]}
            document["spec"]["conversion"] = {"strategy": "Webhook", "webhook": webhook}
        return document

    def _webhooks(self, document: dict[str, Any]) -> dict[str, Any]:
        kept = [it for it in document["webhooks"] if _WATCHED.issuperset(it["rules"][0]["apiGroups"])]
        for webhook in kept:
            webhook["clientConfig"]["service"] = self._service(webhook["clientConfig"]["service"]["path"])
        name = f"kueue-{document['metadata']['name']}"
        return {**document, "metadata": {"name": name}, "webhooks": kept}

    def _service(self, path: str) -> dict[str, Any]:
        return {"name": _SERVICE, "namespace": NAMESPACE, "path": path, "port": self._webhook_port}

    def _configuration(self) -> dict[str, Any]:
        return {
            "apiVersion": "config.kueue.x-k8s.io/v1beta2",
            "kind": "Configuration",
            "health": {"healthProbeBindAddress": f"127.0.0.1:{self._health_port}"},
            "metrics": {"bindAddress": "0"},
            "webhook": {"port": self._webhook_port, "certDir": str(self._folder)},
            "leaderElection": {"leaderElect": False},
            "clientConnection": {"qps": 300, "burst": 500},
            "integrations": {"frameworks": ["batch/job"]},
        }

    def _ready(self) -> bool:
        """Whether it answers; on the way there it waits for its certificate."""
        if not (self._folder / _CERTIFICATES[-1]).exists():
            secret = self._cluster.kubectl.get("secret", _SECRET, "--namespace", NAMESPACE).get("data", {})
            for name in secret.keys() & set(_CERTIFICATES):
                (self._folder / name).write_bytes(base64.b64decode(secret[name]))
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self._health_port}/readyz", timeout=5) as answer:
                return bool(answer.status == 200)
        except (urllib.error.URLError, OSError):
            return False

    def _apply(self, *manifests: dict[str, Any]) -> None:
        text = yaml.safe_dump_all(manifests)
        self._cluster.kubectl("apply", "--server-side", "--force-conflicts", "--filename=-", stdin=text)


def _programs(cluster: ControlPlane) -> Path:
    """The folder with the program and its manifests. To compile it takes so long that nobody should be surprised by it."""
    if not binaries.ready(binaries.KUEUE) and not os.environ.get(COMPILE):
        raise Unavailable(
            f"Kueue {binaries.KUEUE.version} is not compiled: `make test-cluster` does it, once, and takes ten minutes for it"
        )
    return binaries.compiled(binaries.KUEUE, cluster.say)


def _documents(files: Iterable[Path]) -> list[dict[str, Any]]:
    return [document for file in sorted(files) for document in yaml.safe_load_all(file.read_text()) if document]
