"""Running one batch to its end on this machine: observe, reconcile, apply, write the status, tell; again until it is finished.

Nothing is decided here. What there should be is the core's answer; when to look again is too, or sooner when a pod ends. Whatever
stops this loop, running it again goes on from the files.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Protocol

from headrace.api.inferencebatch import InferenceBatch, InferenceBatchStatus
from headrace.core.observed import Installation, Observed
from headrace.core.plan import Event, Plan
from headrace.core.publish import write_due
from headrace.core.reconcile import reconcile
from headrace.shells.local.cluster import LocalCluster
from headrace.shells.local.containers import WORKER, Programs
from headrace.shells.local.state import BatchFolder, StateDir

LOOK_INTERVAL = timedelta(seconds=0.5)
"""Longest time between two looks: it is what a person watches."""
_NAP_SECONDS = 0.02


def utc_now() -> datetime:
    """The time now."""
    return datetime.now(UTC)


class Watcher(Protocol):
    """Somebody who is told how it goes."""

    def progress(self, batch: InferenceBatch) -> None:
        """A look at the batch."""

    def event(self, batch: InferenceBatch, event: Event) -> None:
        """Something worth telling has happened; the status that shows it is written."""


class Interrupt(Protocol):
    """Whether to stop."""

    @property
    def requested(self) -> int:
        """How often it was asked for: 1 drains, 2 kills."""


class Converger:
    """One batch and the processes that work on it. Hold `StateDir.running` while you have one."""

    def __init__(
        self,
        state: StateDir,
        folder: BatchFolder,
        place: Installation,
        programs: Programs = WORKER,
        clock: Callable[[], datetime] = utc_now,
    ) -> None:
        """Take over what an earlier process has left."""
        self._folder, self._place, self._clock = folder, place, clock
        self._written_at: datetime | None = None

        def find_config_map(name: str) -> dict[str, object] | None:
            found = state.config_map(folder.namespace, name)
            return found.to_object() if found is not None else None

        self.cluster = LocalCluster(folder, find_config_map, clock(), programs)

    def run(
        self, watcher: Watcher, interrupt: Interrupt, until: Callable[[InferenceBatchStatus], bool] | None = None
    ) -> InferenceBatch:
        """Work until the batch is finished, `until` holds, or somebody interrupts. No process is left behind in any case."""
        try:
            while not interrupt.requested:
                status, wait = self.look(watcher)
                if status.finished or (until is not None and until(status)):
                    break
                self._rest(wait, interrupt)
        finally:
            self.cluster.pods.drain(self._clock, hurry=lambda: interrupt.requested > 1)
        if interrupt.requested:
            self._look_back()
        return self._folder.load()

    def look(self, watcher: Watcher) -> tuple[InferenceBatchStatus, timedelta]:
        """One round; returns the status now and how long nothing needs to be done."""
        now = self._clock()
        retry_at = self.cluster.advance(now)
        self.cluster.pods.listen(now)
        batch = self._folder.load()
        plan = reconcile(self._observe(batch, now))
        changed = self.cluster.apply(plan.children, now)
        self._publish(batch, plan, now, watcher)
        waits = [LOOK_INTERVAL, plan.look_again_after, retry_at - now if retry_at is not None else None]
        wait = min(wait for wait in waits if wait is not None)
        return plan.status, timedelta(0) if changed else wait

    def _observe(self, batch: InferenceBatch, now: datetime) -> Observed:
        return Observed(batch, now, self.cluster.jobs(), self.cluster.reports(), installation=self._place)

    def _publish(self, batch: InferenceBatch, plan: Plan, now: datetime, watcher: Watcher) -> None:
        due = write_due(batch.status, plan.status, self._written_at, now)
        if due is not None and due <= timedelta(0):
            self._folder.write_status(plan.status)
            self._written_at = now
            for event in plan.events:
                watcher.event(batch, event)
        watcher.progress(batch.model_copy(update={"status": plan.status}))

    def _rest(self, wait: timedelta, interrupt: Interrupt) -> None:
        """Wait, but no longer than until a pod ends or somebody interrupts."""
        deadline = time.monotonic() + wait.total_seconds()
        while time.monotonic() < deadline and not interrupt.requested:
            time.sleep(_NAP_SECONDS)
            if self.cluster.pods.poll(self._clock()):
                return

    def _look_back(self) -> None:
        """Write down how far it has come; nothing is started."""
        now = self._clock()
        self.cluster.advance(now, hold=True)
        batch = self._folder.load()
        status = reconcile(self._observe(batch, now)).status
        if status != batch.status:
            self._folder.write_status(status)
