"""Pods as processes: each has a folder with a record of its life, its log, and its last words.

A process never outlives the shell for long: it holds the end of a pipe whose closing tells it to drain. So that the next shell
knows whether one is still there, whatever has become of its number meanwhile, it also holds a lock on a file in its folder.
A process that an earlier shell has left behind counts as lost: nobody was there to hear its exit code.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Container, Iterable, Mapping
from contextlib import suppress
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from headrace.api import labels
from headrace.api.worker import Report, Role, parse_report
from headrace.core.observed import WorkerReport
from headrace.shells.local.containers import (
    WORKER,
    Programs,
    command_line,
    container_of,
    environment,
    grace_seconds,
    start,
)
from headrace.shells.local.files import holder_of, take_lock, write_atomically
from headrace.shells.local.live import ask_progress
from headrace.shells.local.podrecord import PodRecord, load_records, weighed

CANNOT_START = 128
"""Exit code of a pod whose program could not be started, as Kubernetes has it."""
_LIVE_INTERVAL = timedelta(seconds=0.5)
_NAP_SECONDS = 0.02


class Pods:
    """The pods of one batch. One process at a time may have a `Pods` of a folder."""

    def __init__(self, folder: Path, now: datetime, programs: Programs = WORKER, companions: int = 1) -> None:
        """Take over the pods in that folder. Each gets its part of the cores that are left for one of so many companions."""
        self._folder, self._programs, self._companions = folder, programs, companions
        self._records: dict[str, PodRecord] = {}
        self._running: dict[str, PodRecord] = {}
        """Those of them that have not ended: a few, where a batch may have had thousands."""
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self._last_words: dict[str, Report] = {}
        self._live: dict[str, Report] = {}
        self._asked_at = now
        for record in sorted(load_records(folder), key=lambda r: r.started_at):
            left_behind = record.running and record.stopped_at is None
            self._keep(record.model_copy(update={"stopped_at": now}) if left_behind else record)
            self._hear(record.name)

    def of(self, job_uid: str) -> tuple[PodRecord, ...]:
        """All pods that a Job has had, in the order of their starts."""
        return tuple(record for record in self._records.values() if record.job_uid == job_uid)

    @property
    def running(self) -> tuple[PodRecord, ...]:
        """The pods that have not ended."""
        return tuple(self._running.values())

    def log(self, name: str) -> Path:
        """What a pod has printed."""
        return self._folder / name / "log"

    def start(self, job: Mapping[str, Any], index: int, now: datetime) -> None:
        """Start a pod of a Job. One that cannot be started ends at once, with the reason in its log."""
        record = PodRecord(
            name=self._free_name(f"{job['metadata']['name']}-{index}"),
            job_name=job["metadata"]["name"],
            job_uid=job["metadata"]["uid"],
            role=Role(job["metadata"]["labels"][labels.ROLE]),
            index=index,
            grace_seconds=grace_seconds(job),
            started_at=now,
        )
        self._write(record)
        try:
            process = self._spawn(record.name, job, index)
        except OSError as error:
            self.log(record.name).write_text(f"cannot be started: {error}\n")
            self._write(record.model_copy(update={"finished_at": now, "exit_code": CANNOT_START}))
            return
        self._processes[record.name] = process
        self._write(record.model_copy(update={"pid": process.pid}))

    def stop(self, names: Iterable[str], now: datetime) -> None:
        """Tell pods to put their work away; those that do not end within their grace period are killed by `poll`."""
        for record in map(self._records.__getitem__, names):
            if record.running and record.stopped_at is None:
                self._write(record.model_copy(update={"stopped_at": now}))
                if record.name in self._processes:
                    self._processes[record.name].terminate()

    def poll(self, now: datetime) -> bool:
        """Take note of pods that have ended, and kill those that overstay; says whether any has ended."""
        ended = [record for record in self.running if self._has_ended(record, now)]
        for record in ended:
            self._hear(record.name)
        return bool(ended)

    def drain(self, clock: Callable[[], datetime], hurry: Callable[[], bool] = lambda: False) -> None:
        """Tell all pods to put their work away, and wait until they are gone; with `hurry` they are killed."""
        self.stop([pod.name for pod in self.running], clock())
        while self.running:
            for record in self.running if hurry() else ():
                self._kill(record)
            time.sleep(_NAP_SECONDS)
            self.poll(clock())

    def forget(self, job_uids: Iterable[str]) -> None:
        """Remove all that is kept of the pods of these Jobs; they have ended."""
        gone = set(job_uids)
        for record in [r for r in self._records.values() if r.job_uid in gone]:
            shutil.rmtree(self._folder / record.name)
            self._records.pop(record.name)
            self._last_words.pop(record.name, None)
            self._live.pop(record.name, None)

    def listen(self, now: datetime) -> None:
        """Ask the running pods how far they are, twice a second at most."""
        if now - self._asked_at < _LIVE_INTERVAL:
            return
        self._asked_at = now
        for record in self.running:
            report = ask_progress(self._folder / record.name / "port")
            if report is not None:
                self._live[record.name] = report

    def reports(self, jobs: Container[str] | None = None) -> tuple[WorkerReport, ...]:
        """What the pods have said, oldest first; `jobs`: only those of the Jobs with these uids."""
        heard = (
            weighed(record, self._last_words.get(record.name), self._live.get(record.name))
            for record in self._records.values()
            if jobs is None or record.job_uid in jobs
        )
        return tuple(report for report in heard if report is not None)

    def _spawn(self, name: str, job: Mapping[str, Any], index: int) -> subprocess.Popen[bytes]:
        folder = self._folder / name
        alive = take_lock(folder / "alive")
        try:
            with self.log(name).open("wb") as log:
                variables = environment(job, index, folder, self._companions)
                return start(command_line(container_of(job), self._programs), variables, log, [alive])
        finally:
            os.close(alive)

    def _has_ended(self, record: PodRecord, now: datetime) -> bool:
        process = self._processes.get(record.name)
        code = process.poll() if process is not None else None
        if process is not None and code is not None:
            self._processes.pop(record.name)
            if process.stdin is not None:
                process.stdin.close()
            exit_code = code if code >= 0 else 128 - code
            self._write(record.model_copy(update={"finished_at": now, "exit_code": exit_code}))
            return True
        overdue = record.stopped_at is not None and now > record.stopped_at + timedelta(seconds=record.grace_seconds)
        if process is None and (self._is_gone(record) or (overdue and record.pid is None)):
            self._write(record.model_copy(update={"finished_at": now}))
            return True
        if overdue:
            self._kill(record)
        return False

    def _is_gone(self, record: PodRecord) -> bool:
        """Whether nothing is left of a pod that an earlier shell had started."""
        return holder_of(self._folder / record.name / "alive") is None

    def _kill(self, record: PodRecord) -> None:
        """Kill a pod and whatever it has started; a number that may belong to somebody else by now is left alone."""
        if record.pid is not None and (record.name in self._processes or not self._is_gone(record)):
            with suppress(ProcessLookupError):
                os.killpg(record.pid, signal.SIGKILL)

    def _hear(self, name: str) -> None:
        """Read the last words of a pod, if it has left any."""
        with suppress(FileNotFoundError):
            report = parse_report((self._folder / name / "termination").read_bytes())
            if report is not None:
                self._last_words[name] = report

    def _free_name(self, stem: str) -> str:
        number = 0
        while True:
            number += 1
            with suppress(FileExistsError):
                (self._folder / f"{stem}-{number}").mkdir(parents=True)
                return f"{stem}-{number}"

    def _write(self, record: PodRecord) -> None:
        write_atomically(self._folder / record.name / "pod.json", record.model_dump_json(by_alias=True).encode())
        self._keep(record)

    def _keep(self, record: PodRecord) -> None:
        self._records[record.name] = record
        if record.running:
            self._running[record.name] = record
        else:
            self._running.pop(record.name, None)
