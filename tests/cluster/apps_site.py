"""The two applications on a control plane, by the files of their page and in its order, with processes of this machine in place of pods."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from contextlib import AsyncExitStack
from datetime import datetime
from pathlib import Path
from typing import Any

from gateway_rig import Gateway
from headrace.gateway.queues.natsserver import nats_server
from headrace.shells.kube.resources import CRON_JOBS, JOBS

from . import binaries
from .messages import Say
from .operator_rig import Plane, Rig, tick_job, until_ticking
from .pod_processes import REPOSITORY, Machine, headrace
from .processes import free_ports

EXAMPLES = REPOSITORY / "manifests" / "examples"
CLUSTER = EXAMPLES / "apps" / "cluster"
NAMESPACE = "headrace-apps"


class Applications:
    """Both of them. Whoever makes one closes it."""

    def __init__(self, plane: Plane, folder: Path, say: Say) -> None:
        self.rig = Rig(plane, folder, NAMESPACE)
        self.claim = folder / "claim"
        self.claim.mkdir()
        self._folder, self._stack, self._say = folder, AsyncExitStack(), say
        (folder / "machine").mkdir()
        self._machine = Machine(plane.api, NAMESPACE, folder / "machine", {"files": self.claim}).start()
        self._processes: list[subprocess.Popen[str]] = []
        self.rig.script.machine = self._machine

    def close(self) -> None:
        """End all that runs."""
        for process in self._processes:
            process.kill()
            process.communicate()
        self._machine.close()
        self.rig.run(self._stack.aclose())
        self.rig.close()

    def place(self, written: datetime) -> None:
        """The namespace and its claim; the files, the documents as written at that time."""
        self.rig.kubectl("apply", f"--kustomize={CLUSTER / 'place'}")
        shutil.copytree(EXAMPLES / "data" / "documents", self.claim / "inbox")
        shutil.copytree(EXAMPLES / "data" / "events", self.claim / "photos")
        for file in (self.claim / "inbox").iterdir():
            os.utime(file, (written.timestamp(), written.timestamp()))

    def install(self) -> Gateway:
        """A queue, the release, and what its pods would be; gives the gateway."""
        nats = self.rig.run(self._stack.enter_async_context(nats_server(self._folder / "nats")))
        secret = ("secret", "generic", "nats-client", f"--from-literal=token={nats.token}")
        self.rig.kubectl("create", *secret, f"--namespace={NAMESPACE}")
        self._helm(f"--set=gateway.nats.url={nats.url}")
        self._machine.wait_ready()
        self._run("headrace", f"--port={free_ports(1)[0]}", "--host=127.0.0.1")
        process = self._run("headrace-gateway", "--port=0", "--host=127.0.0.1")
        assert process.stdout is not None
        said = process.stdout.readline()
        assert said.startswith("listening"), self.log("headrace-gateway")
        return Gateway(process, said.split()[-1], self._folder, "apps")

    def begin(self) -> None:
        """What runs once, and by the clock."""
        self.rig.kubectl("apply", f"--kustomize={CLUSTER}")

    def tick(self, schedule: str, time: datetime) -> str:
        """Make the Job of a tick as the controller of CronJobs does, so that nobody waits for the clock; gives the name of the run."""
        until_ticking(self.rig, schedule)
        name = f"{schedule}-{int(time.timestamp()) // 60}"
        self.rig.create(JOBS, tick_job(self.rig.get(CRON_JOBS, schedule), name, time))
        return name

    def lines(self, name: str, part: str = "results") -> dict[str, Any]:
        """What a run has left, by the ids of its records."""
        files = (self.claim / "out" / NAMESPACE / name / part).glob("*.jsonl")
        found = [json.loads(line) for file in files for line in file.read_text().splitlines()]
        return {line["custom_id"]: line for line in found}

    def log(self, name: str) -> str:
        """What a program has written."""
        return (self._folder / f"{name}.log").read_text()

    def _helm(self, *settings: str) -> None:
        # The kinds are there already, and were made in another way.
        flags = ["--take-ownership", "--force-conflicts", f"--values={CLUSTER / 'values.yaml'}"]
        command = [str(binaries.helm(self._say)), "install", "headrace", str(REPOSITORY / "charts" / "headrace")]
        done = subprocess.run(
            [*command, f"--namespace={NAMESPACE}", *flags, *settings],
            env={**os.environ, "KUBECONFIG": str(self.rig.plane.cluster.kubeconfig)},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr

    def _run(self, deployment: str, *more: str) -> subprocess.Popen[str]:
        """The container of a Deployment, with the rights of its service account."""
        found = self.rig.kubectl.get("deployment", deployment, f"--namespace={NAMESPACE}")
        pod = found["spec"]["template"]
        told = self.rig.run(self._machine.told(pod["metadata"], pod["spec"], self._folder / deployment))
        account = pod["spec"]["serviceAccountName"]
        kubeconfig = self.rig.plane.cluster.service_account_kubeconfig(account, NAMESPACE)
        process = headrace(told, self._folder / f"{deployment}.log", f"--kubeconfig={kubeconfig}", *more)
        self._processes.append(process)
        return process


def asked(gateway: Gateway, what: str, *files: Path) -> subprocess.Popen[str]:
    """The client of the applications, at work."""
    command = [sys.executable, str(EXAMPLES / "apps" / "ask.py"), what, *map(str, files)]
    environment = {**os.environ, "HEADRACE_GATEWAY": gateway.base_url}
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def answers(client: subprocess.Popen[str]) -> dict[str, str]:
    """What it prints, by file."""
    out, err = client.communicate()
    assert client.returncode == 0, err
    return dict(line.split(": ", 1) for line in out.splitlines())
