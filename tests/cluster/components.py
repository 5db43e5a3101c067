"""What the control plane consists of: each component's command line, and where it says that it is ready."""

from dataclasses import dataclass
from pathlib import Path

from .layout import Layout
from .messages import ClusterError
from .pki import Authority, KeyPair

ORDER = ("etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler")
"""Each one needs those before it."""
PORTS = ("etcd", "etcd-peer", "kube-apiserver", "kube-controller-manager", "kube-scheduler")

_LOOPBACK = "127.0.0.1"


@dataclass(frozen=True)
class Component:
    name: str
    argv: tuple[str | Path, ...]
    ready: str
    """A URL that answers 200 once the component does its work."""


class Components:
    """The command lines of one cluster. Nothing here starts anything."""

    def __init__(self, layout: Layout, binaries: Path, ports: dict[str, int], authority: Authority) -> None:
        self.layout = layout
        self.binaries = binaries
        self.ports = ports
        self.authority = authority

    def named(self, name: str) -> Component:
        build = {
            "etcd": self._etcd,
            "kube-apiserver": self._apiserver,
            "kube-controller-manager": self._controller_manager,
            "kube-scheduler": self._scheduler,
        }
        if name not in build:
            raise ClusterError(f"there is no component {name!r}: the control plane has {', '.join(build)}")
        return build[name]()

    @property
    def server(self) -> str:
        return f"https://{_LOOPBACK}:{self.ports['kube-apiserver']}"

    @property
    def serving(self) -> KeyPair:
        """One certificate for all who serve: on the loopback, and as pods see the API server."""
        names = ("localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc")
        addresses = (_LOOPBACK, self.layout.service_address)
        return self.authority.server("serving", [*(f"DNS:{n}" for n in names), *(f"IP:{a}" for a in addresses)])

    def _etcd(self) -> Component:
        client, peer = (f"http://{_LOOPBACK}:{self.ports[name]}" for name in ("etcd", "etcd-peer"))
        return self._component(
            "etcd",
            f"{client}/health",
            "--name=default",
            f"--data-dir={self.layout.data}",
            f"--listen-client-urls={client}",
            f"--advertise-client-urls={client}",
            f"--listen-peer-urls={peer}",
            f"--initial-advertise-peer-urls={peer}",
            f"--initial-cluster=default={peer}",
            "--unsafe-no-fsync",  # a killed process loses nothing by it, only a machine that loses power does
        )

    def _apiserver(self) -> Component:
        signing, kubelet = self.authority.service_accounts, self.authority.client("kubelet-client", "system:masters")
        return self._component(
            "kube-apiserver",
            f"{self.server}/readyz",
            f"--etcd-servers=http://{_LOOPBACK}:{self.ports['etcd']}",
            *self._serving_flags("kube-apiserver"),
            f"--client-ca-file={self.authority.root.certificate}",
            # There is no proxy in front to believe; without a name of one, every component logs that it misses it.
            f"--requestheader-client-ca-file={self.authority.root.certificate}",
            "--requestheader-allowed-names=nobody",
            "--authorization-mode=Node,RBAC",
            "--enable-admission-plugins=NodeRestriction",
            "--allow-privileged=true",
            f"--service-cluster-ip-range={self.layout.service_network}",
            "--endpoint-reconciler-type=none",  # endpoints may not be on the loopback, and no proxy reads them
            "--service-account-issuer=https://kubernetes.default.svc",
            f"--service-account-key-file={signing.certificate}",
            f"--service-account-signing-key-file={signing.key}",
            f"--kubelet-client-certificate={kubelet.certificate}",
            f"--kubelet-client-key={kubelet.key}",
            f"--kubelet-certificate-authority={self.authority.root.certificate}",
            "--kubelet-preferred-address-types=InternalIP",
            *self._audit_flags(),
        )

    def _audit_flags(self) -> list[str]:
        if not self.layout.audit_policy.exists():
            return []
        return [f"--audit-policy-file={self.layout.audit_policy}", f"--audit-log-path={self.layout.audit_log}"]

    def _controller_manager(self) -> Component:
        return self._component(
            "kube-controller-manager",
            self._health("kube-controller-manager"),
            *self._serving_flags("kube-controller-manager"),
            *self._client_flags("kube-controller-manager"),
            "--use-service-account-credentials=true",
            f"--service-account-private-key-file={self.authority.service_accounts.key}",
            f"--root-ca-file={self.authority.root.certificate}",
            "--kube-api-qps=200",
            "--kube-api-burst=400",
        )

    def _scheduler(self) -> Component:
        return self._component(
            "kube-scheduler",
            self._health("kube-scheduler"),
            *self._serving_flags("kube-scheduler"),
            *self._client_flags("kube-scheduler"),
        )

    def _component(self, name: str, ready: str, *flags: str) -> Component:
        return Component(name, (self.binaries / name, *flags), ready)

    def _health(self, name: str) -> str:
        return f"https://{_LOOPBACK}:{self.ports[name]}/healthz"

    def _serving_flags(self, name: str) -> list[str]:
        return [
            f"--bind-address={_LOOPBACK}",
            f"--secure-port={self.ports[name]}",
            f"--tls-cert-file={self.serving.certificate}",
            f"--tls-private-key-file={self.serving.key}",
        ]

    def _client_flags(self, name: str) -> list[str]:
        kubeconfig = self.layout.kubeconfig_of(name)
        return [
            f"--kubeconfig={kubeconfig}",
            f"--authentication-kubeconfig={kubeconfig}",
            f"--authorization-kubeconfig={kubeconfig}",
            "--leader-elect=false",  # there is one of each, and a lease would delay every restart by its length
        ]
