"""The configuration files of a node: containerd, its network, the kubelet."""

from pathlib import Path
from typing import Any

from .layout import Layout
from .pki import Authority, KeyPair

PAUSE_IMAGE = "headrace.test/pause:1"


def containerd(layout: Layout, plugins: Path, snapshotter: str) -> str:
    """Its own root, state and socket keep it apart from the machine's containerd."""
    return f"""\
version = 2
root = "{layout.node}/containerd"
state = "{layout.runtime}/containerd"

[grpc]
  address = "{layout.runtime}/containerd.sock"

[plugins."io.containerd.internal.v1.opt"]
  path = "{layout.node}/opt"

[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{PAUSE_IMAGE}"
  # Lowering the score takes a capability that root in a container does not have.
  restrict_oom_score_adj = true
  netns_mounts_under_state_dir = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "{plugins}"
    conf_dir = "{layout.node}/cni"
  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "{snapshotter}"
  [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
    runtime_type = "io.containerd.runc.v2"
"""


def network(layout: Layout) -> dict[str, Any]:
    """Pods of one node on one bridge: they reach each other and this machine, and nothing beyond it."""
    return {
        "cniVersion": "0.4.0",
        "name": "headrace",
        "plugins": [
            {
                "type": "bridge",
                "bridge": layout.bridge,
                "isDefaultGateway": True,
                "ipam": {"type": "host-local", "ranges": [[{"subnet": str(layout.pod_network)}]]},
            }
        ],
    }


def kubelet(layout: Layout, authority: Authority, serving: KeyPair, port: int) -> dict[str, Any]:
    return {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "address": layout.gateway,
        "port": port,
        "healthzPort": 0,
        "tlsCertFile": str(serving.certificate),
        "tlsPrivateKeyFile": str(serving.key),
        "authentication": {"x509": {"clientCAFile": str(authority.root.certificate)}},
        "containerRuntimeEndpoint": f"unix://{layout.runtime}/containerd.sock",
        # A machine may have either version of control groups, and no systemd.
        "failCgroupV1": False,
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": f"/{layout.cgroup}",
        "enforceNodeAllocatable": [],
        "failSwapOn": False,
        "oomScoreAdj": 0,
        "makeIPTablesUtilChains": False,
        # The machine's resolver is of no use in a network that ends at the machine.
        "resolvConf": "",
        # A test machine with a full disk or little memory is still to run the test.
        "evictionHard": {"memory.available": "50Mi", "nodefs.available": "1%", "imagefs.available": "1%"},
        "imageGCHighThresholdPercent": 100,
        "imageMinimumGCAge": "0s",
        # A device shows in the status only when that is next written, by default after ten seconds.
        "nodeStatusUpdateFrequency": "1s",
        "nodeStatusReportFrequency": "10s",
    }
