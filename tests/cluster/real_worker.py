"""A real worker in the place of a hollow pod: a process with the pod's own configuration, but for where its files are."""

from __future__ import annotations

import asyncio
import signal
import urllib.request
from pathlib import Path

from headrace.api.worker import Env, Report, Role, ShardReport, parse_report
from worker_rig import Folder, WorkerProcess, chat_line

from .operator_workers import Pod

LOOK_SECONDS = 0.2
SECONDS = 30
"""How long it may take to say how far it is: the machine may be busy."""
TOLD = ("model", "engine", "parameters", "batching", "retries")
"""What of the configuration is taken from the pod."""


class RealWorker:
    """The pods of a batch with one shard, one after the other."""

    def __init__(self, folder: Path, records: int) -> None:
        """With an input of so many records, which is planned."""
        folder.mkdir()
        self.folder = Folder(folder)
        self.folder.write_input(*(chat_line(number, f"text {number}") for number in range(records)))
        assert WorkerProcess(self.folder, Role.PLAN).wait() == 0

    async def __call__(self, pod: Pod) -> tuple[int, Report | None]:
        """Work as that pod until it ends, or is told to."""
        told = pod.config.to_object()
        self.folder.fields = {name: told[name] for name in TOLD if name in told}
        port_file = self.folder.path / f"port-{pod.name}"
        env = {Env.METRICS_PORT: "0", Env.METRICS_PORT_FILE: str(port_file), Env.DRAIN_ON_EOF: "1"}
        worker = WorkerProcess(self.folder, Role.RUN, env={name.value: value for name, value in env.items()})
        is_told = False
        try:
            while not worker.ended():
                pod.said = await asyncio.to_thread(_said, port_file) or pod.said
                if pod.stopped.is_set() and not is_told:
                    worker.kill(signal.SIGTERM)
                    is_told = True
                await asyncio.sleep(LOOK_SECONDS)
            return await asyncio.to_thread(worker.wait), worker.report
        finally:
            pod.said = None
            if not worker.ended():
                worker.kill()


def _said(port_file: Path) -> ShardReport | None:
    """What its metrics port says; None before it listens, and when it has just gone."""
    try:
        url = f"http://127.0.0.1:{int(port_file.read_text())}/progress"
        with urllib.request.urlopen(url, timeout=SECONDS) as answer:
            report = parse_report(answer.read())
    except OSError:
        return None
    return report if isinstance(report, ShardReport) else None
