"""Starts and ends the cluster's processes, and remembers them in a file that any later command can read."""

import json
import os
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from pathlib import Path

from .layout import Layout
from .messages import ClusterError, Say
from .processes import Process, is_alive, kill, spawn, stop, tail

READY_SECONDS = 180
"""Long, because a shared machine can be slow; a component that dies is reported at once."""


class Supervisor:
    def __init__(self, layout: Layout, say: Say) -> None:
        self.layout = layout
        self.say = say

    def is_running(self, name: str) -> bool:
        process = self._recorded().get(name)
        return process is not None and is_alive(process)

    def running(self) -> list[str]:
        return [name for name, process in self._recorded().items() if is_alive(process)]

    def pid(self, name: str) -> int:
        return self._process(name).pid

    def start(self, name: str, argv: Sequence[str | Path]) -> None:
        """Start the process unless it runs already; readiness is another matter."""
        if self.is_running(name):
            return
        self.layout.logs.mkdir(exist_ok=True)
        self._record({**self._recorded(), name: spawn(argv, self.layout.log(name))})

    def wait(self, name: str, until: Callable[[], bool], *, what: str = "is ready") -> None:
        """Wait until what the process is to bring about is there, and say so."""
        began = time.monotonic()
        while not until():
            if not self.is_running(name):
                raise self._failure(name, f"ended before it {what}")
            if time.monotonic() - began > READY_SECONDS:
                raise self._failure(name, f"was given {READY_SECONDS} s, and it is still not so that it {what}")
            time.sleep(0.1)
        self.say(f"{name} {what} ({time.monotonic() - began:.1f} s)")

    def stop(self, names: Iterable[str], grace_seconds: float = 10) -> None:
        """End the processes, except this one: the guard ends the cluster that it belongs to."""
        recorded = self._recorded()
        named = [recorded[name] for name in names if name in recorded]
        stop([process for process in named if process.pid != os.getpid()], grace_seconds)

    def kill(self, name: str) -> None:
        """End the process with no warning, as a crash would."""
        kill([self._process(name)])

    def _process(self, name: str) -> Process:
        recorded = self._recorded()
        if name not in recorded:
            raise ClusterError(f"{name!r} was not started in this cluster; these were: {', '.join(recorded) or 'none'}")
        return recorded[name]

    def _failure(self, name: str, what: str) -> ClusterError:
        log = self.layout.log(name)
        return ClusterError(
            f"{name} {what}. The last lines of {log}:\n{tail(log)}\n"
            f"Mend what they name, then start again from nothing: "
            f"`python -m tests.cluster --dir {self.layout.folder} down`, then `up`."
        )

    def _recorded(self) -> dict[str, Process]:
        if not self.layout.processes.exists():
            return {}
        table = json.loads(self.layout.processes.read_text())
        return {name: Process(**fields) for name, fields in table.items()}

    def _record(self, processes: dict[str, Process]) -> None:
        table = {name: asdict(process) for name, process in processes.items()}
        fresh = self.layout.processes.with_suffix(".new")
        fresh.write_text(json.dumps(table, indent=2))
        fresh.replace(self.layout.processes)  # whole or not at all: this file is the only way to find them again
