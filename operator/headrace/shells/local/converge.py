"""Running one object to its end on this machine: observe, reconcile, apply, write the status, tell; again until it is finished.

Nothing is decided here. What there should be is the core's answer; when to look again is too, or sooner when a pod ends. Whatever
stops this loop, running it again goes on from the files.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any, Protocol

from headrace.api.inferencebatch import InferenceBatch
from headrace.api.kinds import OurObject, OurStatus
from headrace.core.observed import Installation, Observed
from headrace.core.plan import Event, Plan
from headrace.core.publish import write_due
from headrace.core.reconcile import reconcile
from headrace.core.tracing.spans import spans
from headrace.shells.local.cluster import LocalCluster
from headrace.shells.local.containers import WORKER, FindConfigMap, Programs
from headrace.shells.local.state import BatchFolder, StateDir
from headrace.shells.local.traces import tracer_here, tracing_here

LOOK_INTERVAL = timedelta(seconds=0.5)
"""Longest time between two looks: it is what a person watches."""
_NAP_SECONDS = 0.02


def utc_now() -> datetime:
    """The time now."""
    return datetime.now(UTC)


class Watcher(Protocol):
    """Somebody who is told how it goes."""

    def progress(self, batch: OurObject) -> None:
        """A look at the object."""

    def event(self, batch: OurObject, event: Event) -> None:
        """Something worth telling has happened; the status that shows it is written."""


class Interrupt(Protocol):
    """Whether to stop."""

    @property
    def requested(self) -> int:
        """How often it was asked for: 1 drains, 2 kills."""


class Drive(ABC):
    """One object and the processes that work on it. Hold `StateDir.running` while you have one."""

    def __init__(self, folder: BatchFolder, clock: Callable[[], datetime]) -> None:
        self._folder, self._clock = folder, clock
        self._written_at: datetime | None = None

    def run(
        self, watcher: Watcher, interrupt: Interrupt, until: Callable[[OurStatus], bool] | None = None
    ) -> OurObject:
        """Work until the object is finished, `until` holds, or somebody interrupts. No process is left behind in any case."""
        try:
            while not interrupt.requested:
                status, wait = self.look(watcher)
                if status.finished or (until is not None and until(status)):
                    break
                self._rest(wait, interrupt)
        finally:
            self.drain(lambda: interrupt.requested > 1)
        if interrupt.requested:
            self.look_back()
        return self._folder.load()

    @abstractmethod
    def look(self, watcher: Watcher) -> tuple[OurStatus, timedelta]:
        """One round; returns the status now and how long nothing needs to be done."""

    @abstractmethod
    def poll(self) -> bool:
        """Take note of pods that have ended; says whether any has."""

    @abstractmethod
    def drain(self, hurry: Callable[[], bool]) -> None:
        """Tell all pods to put their work away, and wait until they are gone; with `hurry` they are killed."""

    @abstractmethod
    def look_back(self) -> None:
        """Write down how far it has come; nothing is started."""

    def publish(self, before: OurObject, plan: Plan[Any], now: datetime, watcher: Watcher) -> None:
        """Write the status when it is due, and tell."""
        due = write_due(before.status, plan.status, self._written_at, now)
        if due is not None and due <= timedelta(0):
            self._folder.write_status(plan.status)
            self._written_at = now
            tracer_here().send(spans(before, plan.status, now, tracing_here()))
            for event in plan.events:
                watcher.event(before, event)
        watcher.progress(before.model_copy(update={"status": plan.status}))

    def _rest(self, wait: timedelta, interrupt: Interrupt) -> None:
        """Wait, but no longer than until a pod ends or somebody interrupts."""
        deadline = time.monotonic() + wait.total_seconds()
        while time.monotonic() < deadline and not interrupt.requested:
            time.sleep(_NAP_SECONDS)
            if self.poll():
                return


def config_maps_of(state: StateDir, namespace: str) -> FindConfigMap:
    """The ConfigMaps that the user has put there."""

    def find(name: str) -> dict[str, object] | None:
        found = state.config_map(namespace, name)
        return found.to_object() if found is not None else None

    return find


class Converger(Drive):
    """A batch and the processes that work on it."""

    def __init__(
        self,
        state: StateDir,
        folder: BatchFolder,
        place: Installation,
        programs: Programs = WORKER,
        clock: Callable[[], datetime] = utc_now,
        *,
        companions: int = 1,
    ) -> None:
        """Take over what an earlier process has left. It shares the machine with `companions`, itself included."""
        super().__init__(folder, clock)
        self._state, self._place = state, place
        find = config_maps_of(state, folder.namespace)
        self.cluster = LocalCluster(folder, find, clock(), programs, companions)

    def look(self, watcher: Watcher) -> tuple[OurStatus, timedelta]:
        """One round."""
        now = self._clock()
        retry_at = self.cluster.advance(now)
        self.cluster.pods.listen(now)
        batch = self._folder.load_batch()
        plan = reconcile(self._observe(batch, now))
        changed = self.cluster.apply(plan.children, now)
        self.publish(batch, plan, now, watcher)
        waits = [LOOK_INTERVAL, plan.look_again_after, retry_at - now if retry_at is not None else None]
        wait = min(wait for wait in waits if wait is not None)
        return plan.status, timedelta(0) if changed else wait

    def poll(self) -> bool:
        """Look at the pods."""
        return self.cluster.pods.poll(self._clock())

    def drain(self, hurry: Callable[[], bool]) -> None:
        """Stop the pods."""
        self.cluster.pods.drain(self._clock, hurry=hurry)

    def look_back(self) -> None:
        """Look without starting anything."""
        now = self._clock()
        self.cluster.advance(now, hold=True)
        batch = self._folder.load_batch()
        status = reconcile(self._observe(batch, now)).status
        if status != batch.status:
            self._folder.write_status(status)

    def _observe(self, batch: InferenceBatch, now: datetime) -> Observed:
        # A queue of Kueue is in a cluster: here it means nothing, as a bulkhead does.
        here = batch.model_copy(update={"spec": batch.spec.model_copy(update={"queue_name": None})})
        jobs, reports = self.cluster.jobs(), self.cluster.reports()
        return Observed(here, now, jobs, reports, installation=self._place, earlier=self._earlier(batch))

    def _earlier(self, batch: InferenceBatch) -> InferenceBatch | None:
        """The batch that this one names to be resumed."""
        wanted = batch.spec.resume_from
        if wanted is None or wanted.name is None:
            return None
        folder = self._state.batch(batch.metadata.namespace, wanted.name)
        found = folder.load() if folder.exists else None
        return found if isinstance(found, InferenceBatch) else None
