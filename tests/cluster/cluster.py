"""What tests may ask of any cluster, whoever runs it."""

import os
from pathlib import Path

from . import binaries
from .kubectl import Kubectl, write_kubeconfig_for_token
from .messages import ClusterError, Say, Unavailable


class Cluster:
    """A Kubernetes cluster that this process may use as an administrator."""

    kubeconfig: Path
    scratch: Path
    """A folder for files about the cluster."""

    @property
    def kubectl(self) -> Kubectl:
        raise NotImplementedError

    def service_account_kubeconfig(self, name: str, namespace: str = "default") -> Path:
        """Write a kubeconfig that acts as the service account, with a token that the API server issued for an hour."""
        token = self.kubectl("create", "token", name, "--namespace", namespace, "--duration=1h").strip()
        path = self.scratch / f"{namespace}.{name}.kubeconfig"
        write_kubeconfig_for_token(path, self.kubectl, token, namespace)
        return path

    def start(self, component: str) -> None:
        raise self._not_ours(component)

    def restart(self, component: str) -> None:
        raise self._not_ours(component)

    def kill(self, component: str) -> None:
        raise self._not_ours(component)

    @staticmethod
    def _not_ours(component: str) -> Unavailable:
        return Unavailable(
            f"the harness did not start this cluster's {component} and will not touch it: "
            "unset HEADRACE_TEST_KUBECONFIG and KUBECONFIG to test on a cluster of its own"
        )


class GivenCluster(Cluster):
    """A cluster that somebody else runs, named by a kubeconfig."""

    def __init__(self, kubeconfig: Path, scratch: Path, say: Say) -> None:
        self.kubeconfig = kubeconfig
        self.scratch = scratch
        self._program = binaries.kubectl(say)

    @property
    def kubectl(self) -> Kubectl:
        return Kubectl(self._program, self.kubeconfig)


def given_kubeconfig() -> Path | None:
    """Give the kubeconfig of the cluster that the user wants tested, None if the harness shall start its own."""
    for variable in ("HEADRACE_TEST_KUBECONFIG", "KUBECONFIG"):
        if value := os.environ.get(variable):
            path = Path(value.split(os.pathsep)[0])
            if not path.is_file():
                raise ClusterError(
                    f"{variable}={value} names no file: correct it, or unset it for a cluster of our own"
                )
            return path
    return None
