"""The command line: `python -m tests.cluster up | node | deploy | status | kubeconfig | down`."""

import argparse
import sys
import time
from pathlib import Path

from . import binaries, components
from .control_plane import ControlPlane
from .deploy import deploy
from .guard import wait_for_end
from .images import Image
from .layout import DEFAULT
from .messages import ClusterError, Unavailable
from .node import Node
from .processes import Process


def up(cluster: ControlPlane) -> None:
    if cluster.is_up:
        print(f"the cluster in {cluster.layout.folder} is running already")
    else:
        began = time.monotonic()
        cluster.up()
        print(f"the cluster is up after {time.monotonic() - began:.1f} s at {cluster.server}")
    print(f"export KUBECONFIG={cluster.kubeconfig}\nexport PATH={cluster.kubectl.program.parent}:$PATH")


def node(cluster: ControlPlane, gpus: int) -> None:
    began = time.monotonic()
    up(cluster)
    name = Node(cluster, gpus=gpus).up()
    print(f"node {name} is ready after {time.monotonic() - began:.1f} s, with {gpus} GPUs that are not there")


def down(cluster: ControlPlane) -> None:
    cluster.down()
    print(f"nothing of the cluster runs any more; its logs are in {cluster.layout.logs}")


def load(cluster: ControlPlane, source: Path, reference: str | None) -> None:
    if source.is_file():
        Node(cluster).load_archive(source)
    elif reference is None:
        raise ClusterError(f"an image of the folder {source} needs a name: give one with --as, such as test/worker:1")
    else:
        Node(cluster).load(Image(reference, source))
    print(f"the node has {reference or source}")


def guard(cluster: ControlPlane, owner: Process) -> None:
    wait_for_end(owner)
    down(cluster)


def status(cluster: ControlPlane) -> int:
    """Print a line a process, and exit 1 unless the control plane is whole."""
    running = cluster.supervisor.running()
    for name in dict.fromkeys([*components.ORDER, *running]):
        print(f"{name:25} {'running' if name in running else 'stopped'}   {cluster.layout.log(name)}")
    return 0 if cluster.is_up else 1


def kubeconfig(cluster: ControlPlane, service_account: str | None) -> None:
    if service_account is None:
        print(cluster.kubectl.kubeconfig)
        return
    namespace, _, name = service_account.rpartition("/")
    print(cluster.service_account_kubeconfig(name, namespace or "default"))


def parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.cluster", description=__doc__)
    parser.add_argument("--dir", type=Path, default=DEFAULT, help=f"where the cluster lives (default: {DEFAULT})")
    commands = parser.add_subparsers(dest="command", required=True)
    starts = commands.add_parser("up", help="start the control plane")
    starts.add_argument("--audit", action="store_true", help="log every request but the control plane's own")
    joins = commands.add_parser("node", help="start the control plane and a node with containers (as root)")
    joins.add_argument("--gpus", type=int, default=4, help="how many fake nvidia.com/gpu it has (default: 4)")
    loads = commands.add_parser("load", help="give the node an image")
    loads.add_argument("source", type=Path, help="an archive (docker save), or a folder that becomes the root")
    loads.add_argument("--as", dest="reference", help="the image's name and tag, if the source is a folder")
    commands.add_parser("deploy", help="install Headrace there, from build/images and charts/headrace")
    commands.add_parser("status", help="say what runs")
    asks = commands.add_parser(
        "compiled", help="exit 0 if the programs are there, 1 if they would have to be compiled first"
    )
    asks.add_argument("module", choices=("kubernetes", "kueue"))
    names = commands.add_parser("kubeconfig", help="print the path of a kubeconfig")
    names.add_argument("--service-account", metavar="[NAMESPACE/]NAME", help="for this account, not the administrator")
    commands.add_parser("down", help="end everything that this cluster started")
    guards = commands.add_parser("guard")  # not for people: a test run starts it, and it ends the cluster after the run
    guards.add_argument("pid", type=int)
    guards.add_argument("started", type=int)
    return parser.parse_args(arguments)


def main(arguments: list[str]) -> int:
    chosen = parse(arguments)
    cluster = ControlPlane(chosen.dir, audit=getattr(chosen, "audit", False))
    match chosen.command:
        case "up":
            up(cluster)
        case "node":
            node(cluster, chosen.gpus)
        case "load":
            load(cluster, chosen.source, chosen.reference)
        case "deploy":
            deploy(Node(cluster))
            print("headrace runs there: kubectl apply -f manifests/examples/01-summarise.yaml; kubectl get ib -w")
        case "guard":
            guard(cluster, Process(chosen.pid, chosen.started))
        case "status":
            return status(cluster)
        case "compiled":
            return 0 if binaries.ready(binaries.KUEUE if chosen.module == "kueue" else binaries.KUBERNETES) else 1
        case "kubeconfig":
            kubeconfig(cluster, chosen.service_account)
        case "down":
            down(cluster)
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except (ClusterError, Unavailable) as error:
        sys.exit(f"error: {error}")
    except PermissionError as error:
        sys.exit(f"error: {error}\nAnother user's cluster is there: act as that user, or choose a folder with --dir.")
