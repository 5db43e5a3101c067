"""Where one cluster keeps its files, and the names and networks that follow from that place.

Everything that the machine has only once (a bridge, a subnet, a cgroup) is named after the folder, so that two
clusters in two folders never meet.
"""

import hashlib
import ipaddress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

DEFAULT = Path(__file__).parents[2] / ".headrace-cluster"


@dataclass(frozen=True)
class Layout:
    folder: Path

    @cached_property
    def id(self) -> str:
        return self._digest.hex()[:8]

    @property
    def processes(self) -> Path:
        return self.folder / "processes.json"

    @property
    def settings(self) -> Path:
        return self.folder / "settings.json"

    @property
    def lock(self) -> Path:
        return self.folder / "lock"

    @property
    def data(self) -> Path:
        return self.folder / "etcd"

    @property
    def certificates(self) -> Path:
        return self.folder / "certificates"

    @property
    def kubeconfig(self) -> Path:
        return self.folder / "kubeconfig"

    @property
    def logs(self) -> Path:
        return self.folder / "logs"

    @property
    def audit_policy(self) -> Path:
        return self.folder / "audit-policy.yaml"

    @property
    def audit_log(self) -> Path:
        return self.logs / "audit.log"

    @property
    def node(self) -> Path:
        return self.folder / "node"

    @property
    def runtime(self) -> Path:
        """Sockets live here: a socket's path may have 107 characters, and a test's folder can be longer."""
        return Path("/run") / f"headrace-{self.id}"

    @property
    def bridge(self) -> str:
        return f"headrace{self.id[:6]}"  # an interface's name may have 15 characters

    @property
    def cgroup(self) -> str:
        return f"headrace-{self.id}"

    @property
    def service_network(self) -> ipaddress.IPv4Network:
        return self._network(128)

    @property
    def service_address(self) -> str:
        """Where pods look for the API server: the first address of the services' network."""
        return str(self.service_network[1])

    @property
    def pod_network(self) -> ipaddress.IPv4Network:
        return self._network(192)

    @property
    def gateway(self) -> str:
        """The machine's own address among the pods."""
        return str(self.pod_network[1])

    def log(self, component: str) -> Path:
        return self.logs / f"{component}.log"

    def kubeconfig_of(self, user: str) -> Path:
        return self.folder / f"{user}.kubeconfig"

    def _network(self, base: int) -> ipaddress.IPv4Network:
        """One of 16,384 small networks of the private range, the half of it that home and office networks rarely use."""
        return ipaddress.IPv4Network(f"10.{base + self._digest[0] % 64}.{self._digest[1]}.0/24")

    @cached_property
    def _digest(self) -> bytes:
        return hashlib.sha256(str(self.folder).encode()).digest()
