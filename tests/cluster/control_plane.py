"""etcd, API server, controller manager and scheduler on this machine's loopback: a cluster without nodes."""

import json
import shutil
import ssl
import urllib.error
import urllib.request
from contextlib import AbstractContextManager, ExitStack
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import yaml

from . import binaries, components, guard, machine
from .cluster import Cluster
from .components import Component, Components
from .kubectl import Kubectl, KubectlError, client_certificate, write_kubeconfig
from .layout import DEFAULT, Layout
from .locking import only_one
from .messages import ClusterError, Say
from .pki import Authority
from .processes import free_ports, require_linux
from .supervisor import Supervisor

_USERS = {
    "admin": ("headrace-test-admin", "system:masters"),
    "kube-controller-manager": ("system:kube-controller-manager", ""),
    "kube-scheduler": ("system:kube-scheduler", ""),
}

# The control plane's own talk would be most of the log and is nobody's subject.
_AUDIT_POLICY = {
    "apiVersion": "audit.k8s.io/v1",
    "kind": "Policy",
    "omitStages": ["RequestReceived"],
    "rules": [
        {"level": "None", "users": ["system:apiserver", *(f"system:{name}" for name in components.ORDER)]},
        {"level": "None", "userGroups": ["system:nodes", "system:serviceaccounts:kube-system"]},
        {"level": "Metadata"},
    ],
}


class ControlPlane(Cluster):
    """One control plane in one folder. As a context manager it is there inside the block and gone after it."""

    def __init__(self, folder: Path = DEFAULT, *, audit: bool = False, say: Say = print) -> None:
        self.layout = Layout(folder.resolve())
        self.audit = audit
        self.say = say
        self.supervisor = Supervisor(self.layout, say)
        self.authority = Authority(self.layout.certificates)
        self.kubeconfig = self.layout.kubeconfig
        self.scratch = self.layout.folder

    def __enter__(self) -> Self:
        with ExitStack() as on_failure:
            on_failure.callback(self.down)
            self.up()
            self.supervisor.start("guard", guard.command(self.layout.folder))
            on_failure.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.down()

    @property
    def is_up(self) -> bool:
        return all(self.supervisor.is_running(name) for name in components.ORDER)

    @property
    def server(self) -> str:
        return self._components.server

    @property
    def kubectl(self) -> Kubectl:
        return Kubectl(self._components.binaries / "kubectl", self.kubeconfig)

    def up(self) -> None:
        """Start what does not run yet, and return when pods can be created."""
        require_linux()
        folder = binaries.find(binaries.CONTROL_PLANE, self.say)
        with self.locked():
            if not self.layout.settings.exists():
                self._prepare(folder)
            self._start("etcd")
            self._start("kube-apiserver")
            self._start("kube-controller-manager", "kube-scheduler")
            made = "made the default service account"
            self.supervisor.wait("kube-controller-manager", self._gives_service_accounts, what=made)

    def down(self) -> None:
        """End everything this cluster started and remove its files, except the logs."""
        with self.locked():
            machine.take_back(self.layout)
            self.supervisor.stop(name for name in self.supervisor.running() if name not in components.ORDER)
            self.supervisor.stop(components.ORDER[1:], grace_seconds=3)
            self.supervisor.stop(components.ORDER[:1])
            for path in self.layout.folder.iterdir():
                if path.is_dir() and path != self.layout.logs:
                    shutil.rmtree(path)
                elif path.is_file() and path != self.layout.lock:
                    path.unlink()

    def start(self, component: str) -> None:
        with self.locked():
            self._start(component)
            self._wait_for_api_server()

    def kill(self, component: str) -> None:
        """End the component with no warning, as a crash would, and leave it so."""
        with self.locked():
            self.supervisor.kill(component)

    def restart(self, component: str) -> None:
        """End the component as its own upgrade would, and return when it is ready again."""
        with self.locked():
            self.supervisor.stop([component])
            self._start(component)
            self._wait_for_api_server()

    def audited(self, user: str) -> list[dict[str, Any]]:
        """Give the requests that the user made, as events of the audit log."""
        if not self.layout.audit_log.exists():
            raise ClusterError("this cluster keeps no audit log: run `down`, then `up --audit`")
        events = map(json.loads, self.layout.audit_log.read_text().splitlines())
        return [event for event in events if event["user"]["username"] == user]

    def is_ready(self, component: str) -> bool:
        return self._answers(self._components.named(component))

    def _prepare(self, folder: Path) -> None:
        """Write everything that the components read. The settings come last: they say that the rest is there."""
        if self.layout.logs.exists():
            shutil.rmtree(self.layout.logs)  # an earlier cluster's, kept for its reader until now
        self.authority.create()
        ports = dict(zip(components.PORTS, free_ports(len(components.PORTS)), strict=True))
        prepared = Components(self.layout, folder, ports, self.authority)
        for name, (user, group) in _USERS.items():
            path = self.kubeconfig if name == "admin" else self.layout.kubeconfig_of(name)
            certificate = client_certificate(self.authority.client(user, group))
            write_kubeconfig(path, prepared.server, self.authority.root.certificate, certificate)
        if self.audit:
            self.layout.audit_policy.write_text(yaml.safe_dump(_AUDIT_POLICY))
        self.layout.settings.write_text(json.dumps({"binaries": str(folder), "ports": ports}, indent=2))

    @property
    def _components(self) -> Components:
        if not self.layout.settings.exists():
            folder = self.layout.folder
            raise ClusterError(
                f"there is no cluster in {folder}: `python -m tests.cluster --dir {folder} up` makes one"
            )
        settings = json.loads(self.layout.settings.read_text())
        return Components(self.layout, Path(settings["binaries"]), settings["ports"], self.authority)

    def _start(self, *names: str) -> None:
        chosen = [self._components.named(name) for name in names]
        for component in chosen:
            self.supervisor.start(component.name, component.argv)
        for component in chosen:
            self.supervisor.wait(component.name, partial(self._answers, component))

    def _wait_for_api_server(self) -> None:
        """Wait for what clients notice: etcd is back before the API server has found it again."""
        if self.supervisor.is_running("kube-apiserver"):
            self.supervisor.wait("kube-apiserver", partial(self.is_ready, "kube-apiserver"))

    def _answers(self, component: Component) -> bool:
        context = ssl.create_default_context(cafile=str(self.authority.root.certificate))
        opener = urllib.request.build_opener(
            urllib.request.ProxyHandler({}),  # a proxy of the environment is not for the loopback
            urllib.request.HTTPSHandler(context=context),
        )
        try:
            with opener.open(component.ready, timeout=5) as response:
                return bool(response.status == 200)
        except (urllib.error.URLError, OSError):
            return False

    def _gives_service_accounts(self) -> bool:
        """Pods are refused until their namespace has its service account, which a controller makes."""
        try:
            self.kubectl("get", "serviceaccount", "default")
        except KubectlError:
            return False
        return True

    def locked(self) -> AbstractContextManager[None]:
        return only_one(self.layout.lock, self.say)
