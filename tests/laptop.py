"""A laptop to try the local shell on: a state folder, one batch, and a worker that ends as it is told."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from builders import BatchBuilder, a_batch
from headrace.api.batchstatus import InferenceBatchStatus
from headrace.api.inferencebatch import InferenceBatch
from headrace.api.kinds import OurObject
from headrace.core.edits import Submission
from headrace.core.observed import Installation
from headrace.core.plan import Event
from headrace.shells.local.containers import Programs
from headrace.shells.local.converge import Converger, utc_now
from headrace.shells.local.objects import submit
from headrace.shells.local.pods import Pods
from headrace.shells.local.state import BatchFolder, StateDir

FAKE_WORKER = Path(__file__).parent / "shells" / "fake_worker.py"
PATIENCE_SECONDS = 180.0


@dataclass(frozen=True)
class FakeWorker:
    """The worker of `fake_worker.py`, and what it has been told."""

    log: Path
    orders: Callable[..., None]
    """Give it orders."""

    @property
    def programs(self) -> Programs:
        """How it is started."""
        return {"headrace_worker": (sys.executable, "-E", "-S", str(FAKE_WORKER))}

    def turns(self, role: str) -> list[str]:
        """The pods that have been started in a role, as `<shard>-<turn>`, sorted."""
        return sorted(path.name.removeprefix(f"{role}-") for path in self.log.glob(f"{role}-*"))

    def environment(self, pod: str) -> dict[str, str]:
        """The environment that a pod such as `run-0-1` was given."""
        found: dict[str, str] = json.loads((self.log / pod).read_text())
        return found


def local_batch(name: str = "reviews") -> BatchBuilder:
    """A batch of two shards, both at once, with an input that only the fake worker believes in."""
    return (
        a_batch(name).with_spec(input={"uri": "file:///in/reviews.jsonl"}, terminationGracePeriodSeconds=600).sharded(2)
    )


@dataclass
class Audience:
    """Somebody who writes down what it is told, and may interrupt."""

    events: list[str] = field(default_factory=list)
    looks: list[InferenceBatchStatus] = field(default_factory=list)
    requested: int = 0
    on_look: Callable[[InferenceBatch], None] = lambda _: None

    def progress(self, batch: OurObject) -> None:
        """One look."""
        if not isinstance(batch, InferenceBatch):
            return
        self.looks.append(batch.status)
        self.on_look(batch)

    def event(self, batch: OurObject, event: Event) -> None:
        """One event."""
        assert batch.metadata.uid
        self.events.append(event.reason)


@dataclass(frozen=True)
class Laptop:
    """One batch in a state folder, and somebody to work on it."""

    state: StateDir
    folder: BatchFolder
    worker: FakeWorker

    @property
    def place(self) -> Installation:
        """Where it runs."""
        return Installation(
            default_output=self.state.default_output, files_root=str(self.folder.files), secrets_root=None
        )

    def converger(self) -> Converger:
        """A process that takes the batch over."""
        return Converger(self.state, self.folder, self.place, self.worker.programs)

    def submit(self, batch: InferenceBatch, *, replace: bool = False) -> Submission:
        """Submit a batch."""
        return submit(self.state, batch, utc_now(), replace=replace)

    def run(self, audience: Audience | None = None) -> InferenceBatch:
        """Work on the batch until it is finished."""
        audience = audience or Audience()
        ended = self.converger().run(audience, audience)
        assert isinstance(ended, InferenceBatch)
        return ended


def die(pods: Pods) -> None:
    """What becomes of the pods of a shell that is killed: the pipes close, and nobody waits for the processes any more."""
    for process in pods._processes.values():
        assert process.stdin is not None
        process.stdin.close()
    pods._processes.clear()


def eventually(holds: Callable[[], Any]) -> None:
    """Wait until something holds; it must within three minutes."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not holds():
        assert time.monotonic() < deadline, "it never came to that"
        time.sleep(0.01)


def processes_with(variable: str, value: str) -> Iterator[int]:
    """Numbers of the processes whose environment has that variable; zombies have none."""
    wanted = f"{variable}={value}".encode()
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if wanted in (folder / "environ").read_bytes().split(b"\0") and int(folder.name) != os.getpid():
                yield int(folder.name)
