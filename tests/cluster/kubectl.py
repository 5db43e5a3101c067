"""kubectl, for everything that a test or the harness asks of a cluster that is up."""

import base64
import json
import os
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from .messages import ClusterError
from .pki import KeyPair


class KubectlError(ClusterError):
    """A kubectl command failed; `stderr` holds the API server's own words."""

    def __init__(self, arguments: tuple[str, ...], stderr: str) -> None:
        super().__init__(f"`kubectl {' '.join(arguments)}` failed: {stderr.strip()}")
        self.stderr = stderr


@dataclass(frozen=True)
class Kubectl:
    """Runs kubectl as one user of one cluster: `kubectl("get", "pods")`."""

    program: Path
    kubeconfig: Path

    def __call__(self, *arguments: str, stdin: str | None = None) -> str:
        # Its cache of the API is kept by address, and another test's cluster may have had this address before.
        flags = [f"--kubeconfig={self.kubeconfig}", f"--cache-dir={self.kubeconfig}.cache"]
        environment = {name: value for name, value in os.environ.items() if name != "KUBECONFIG"}
        done = subprocess.run(
            [self.program, *flags, *arguments],
            input=stdin,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise KubectlError(arguments, done.stderr or done.stdout)
        return done.stdout

    def get(self, *arguments: str) -> Any:
        """Give one object, or a list of them, as kubectl's JSON."""
        return json.loads(self("get", *arguments, "--output=json"))

    def apply(self, *manifests: dict[str, Any], namespace: str = "default") -> str:
        text = yaml.safe_dump_all(manifests)
        return self("apply", "--namespace", namespace, "--filename=-", stdin=text)


def client_certificate(pair: KeyPair) -> dict[str, str]:
    """Give a kubeconfig's user that proves itself by certificate."""
    return {"client-certificate-data": _encoded(pair.certificate), "client-key-data": _encoded(pair.key)}


def write_kubeconfig(path: Path, server: str, authority: Path, user: dict[str, str]) -> None:
    cluster = {"server": server, "certificate-authority-data": _encoded(authority)}
    _write(path, cluster, user, namespace="default")


def write_kubeconfig_for_token(path: Path, admin: Kubectl, token: str, namespace: str) -> None:
    """Write a kubeconfig for the admin's cluster in which the user is whoever the token says."""
    view = json.loads(admin("config", "view", "--raw", "--minify", "--flatten", "--output=json"))
    _write(path, view["clusters"][0]["cluster"], {"token": token}, namespace)


def _write(path: Path, cluster: dict[str, str], user: dict[str, str], namespace: str) -> None:
    context = {"cluster": "headrace-test", "user": "user", "namespace": namespace}
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "headrace-test", "cluster": cluster}],
        "users": [{"name": "user", "user": user}],
        "contexts": [{"name": "headrace-test", "context": context}],
        "current-context": "headrace-test",
    }
    path.touch(mode=0o600)
    path.write_text(yaml.safe_dump(config))


def _encoded(file: Path) -> str:
    return base64.b64encode(file.read_bytes()).decode()
