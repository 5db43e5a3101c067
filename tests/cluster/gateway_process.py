"""Gateways to a control plane, each a process of its own, with one NATS server and one folder that is everybody's claim `data`."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import yaml

from gateway_outputs import write_output
from gateway_rig import REPOSITORY, Gateway, environment
from headrace.api.inferencebatch import InferenceBatch
from headrace.gateway.queues.leading import LEASE_NAME
from headrace.gateway.queues.natsserver import Address, nats_server
from headrace.shells.kube.rbac import gateway_rules, lease_rules, pool_rules

from .operator_rig import Rig
from .proxy import Proxy, write_kubeconfig

CLAIM = "data"
MODELS: list[dict[str, Any]] = [{"model": {"name": "small"}, "engine": {"name": "mock"}}]
POOL_OWNER = "gateway-pools"
_ACCOUNT = "gateway"
ROUTES: list[dict[str, Any]] = [
    {"name": "chat", "model": "small", "window": {"maxBatchSize": 1}, "maxOpenBatches": 1},
]


class GatewayRig:
    """What gateways to one namespace share. Whoever makes one closes it."""

    def __init__(
        self,
        rig: Rig,
        folder: Path,
        models: list[dict[str, Any]] | None = None,
        routes: list[dict[str, Any]] | None = None,
    ) -> None:
        self.rig, self.claim = rig, folder / "claim"
        self._folder, self._stack = folder, AsyncExitStack()
        self._processes: list[subprocess.Popen[str]] = []
        self.claim.mkdir()
        (folder / "models.yaml").write_text(yaml.safe_dump({"models": models or MODELS, "routes": routes or ROUTES}))
        self._nats: Address = rig.run(self._stack.enter_async_context(nats_server(folder / "nats")))
        credentials = folder / "credentials"
        credentials.mkdir()
        (credentials / "token").write_text(f"{self._nats.token}\n")
        self._token = _granted(rig)

    def close(self) -> None:
        """End all of them, and the server."""
        for process in self._processes:
            process.kill()
            process.wait()
            assert process.stdout is not None
            process.stdout.close()
        self.rig.run(self._stack.aclose())

    def start(self, name: str = "gateway") -> tuple[Gateway, Proxy]:
        """A gateway that listens, and the proxy that stands before its API server."""
        proxy, url = self.rig.another_proxy()
        kubeconfig = write_kubeconfig(self._folder / f"{name}.kubeconfig", url, self._token)
        words = ["gateway", f"--kubeconfig={kubeconfig}", f"--namespace={self.rig.namespace}", "--port=0"]
        words += [f"--models={self._folder / 'models.yaml'}", f"--mount={CLAIM}={self.claim}"]
        words += [f"--files=claim://{CLAIM}/uploads", f"--nats={self._nats.url}"]
        words += [f"--nats-credentials={self._folder / 'credentials'}"]
        words += ["--worker-image=hollow", f"--pool-owner={POOL_OWNER}"]
        with self.log(name).open("a") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "headrace", *words],
                cwd=REPOSITORY,
                env=environment("cluster"),
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )
        self._processes.append(process)
        assert process.stdout is not None
        said = process.stdout.readline()
        assert said.startswith("listening"), self.log(name).read_text()
        return Gateway(process, said.split()[-1], self._folder, "cluster"), proxy

    def log(self, name: str = "gateway") -> Path:
        """Where it writes."""
        return self._folder / f"{name}.log"

    def until_leading(self, name: str) -> None:
        """Wait until it has the windows."""
        self.rig.eventually(lambda: " leads" in self.log(name).read_text(), f"{name} leads")

    def kill_queue(self) -> None:
        """Kill the NATS server; it is started again."""
        os.kill(int((self._folder / "nats" / "server.pid").read_text()), signal.SIGKILL)

    def answer(self, batch: InferenceBatch) -> None:
        """Leave what the workers of a batch would: an answer to each of its records."""
        folder = self.claim / "out" / batch.metadata.namespace / batch.metadata.name
        write_output(folder, batch, [line["custom_id"] for line in self._records(batch)])

    def _records(self, batch: InferenceBatch) -> list[dict[str, Any]]:
        if batch.spec.input.inline is not None:
            return [dict(record) for record in batch.spec.input.inline]
        assert batch.spec.input.uri is not None
        parts = urlsplit(batch.spec.input.uri)
        assert (parts.scheme, parts.netloc) == ("claim", CLAIM)
        return [json.loads(line) for line in (self.claim / parts.path.lstrip("/")).read_bytes().splitlines()]


def _granted(rig: Rig) -> str:
    """A service account with the rights that the chart gives a gateway, and no others; returns its token."""
    api, group = "rbac.authorization.k8s.io/v1", "rbac.authorization.k8s.io"
    subject = {"kind": "ServiceAccount", "name": _ACCOUNT, "namespace": rig.namespace}
    rules = [*gateway_rules(), *lease_rules(LEASE_NAME), *pool_rules(POOL_OWNER)]
    bound = {"roleRef": {"apiGroup": group, "kind": "Role", "name": _ACCOUNT}, "subjects": [subject]}
    rig.kubectl.apply(
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": _ACCOUNT}},
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": POOL_OWNER}},
        {"apiVersion": api, "kind": "Role", "metadata": {"name": _ACCOUNT}, "rules": rules},
        {"apiVersion": api, "kind": "RoleBinding", "metadata": {"name": _ACCOUNT}, **bound},
        namespace=rig.namespace,
    )
    return rig.kubectl("create", "token", _ACCOUNT, "--namespace", rig.namespace).strip()
