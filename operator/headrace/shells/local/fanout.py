"""Running a fan-out on this machine: its own Jobs like those of a batch, and each of its branches as the batch that it is.

All of it is one process's: it holds the locks of the branches too, so that nobody else works on them meanwhile.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import ExitStack
from datetime import datetime, timedelta

from headrace.api.base import JsonObject
from headrace.api.fanoutjob import FanOutJob
from headrace.api.inferencebatch import InferenceBatch
from headrace.api.kinds import OurObject, OurStatus
from headrace.core.changes import child_patch
from headrace.core.fanout.observed import FanOutObserved
from headrace.core.fanout.reconcile import reconcile
from headrace.core.plan import Event
from headrace.shells.local.cluster import LocalCluster
from headrace.shells.local.containers import WORKER, Programs
from headrace.shells.local.converge import LOOK_INTERVAL, Converger, Drive, Interrupt, Watcher, config_maps_of, utc_now
from headrace.shells.local.objects import created, is_child
from headrace.shells.local.place import installation
from headrace.shells.local.state import BatchFolder, StateDir, StateError


class FanOutConverger(Drive):
    """A fan-out, its branches, and the processes that work on them."""

    def __init__(
        self,
        state: StateDir,
        folder: BatchFolder,
        programs: Programs = WORKER,
        clock: Callable[[], datetime] = utc_now,
    ) -> None:
        """Take over what an earlier process has left."""
        super().__init__(folder, clock)
        self._state, self._programs = state, programs
        self._place = installation(state, folder)
        self.cluster = LocalCluster(folder, config_maps_of(state, folder.namespace), clock(), programs)
        self._branches: dict[str, Converger] = {}
        """Those that are at work, by the name of the batch."""
        self._held = ExitStack()

    def run(
        self, watcher: Watcher, interrupt: Interrupt, until: Callable[[OurStatus], bool] | None = None
    ) -> OurObject:
        """Work like any `Drive`, and let go of the branches."""
        with self._held:
            return super().run(watcher, interrupt, until)

    def look(self, watcher: Watcher) -> tuple[OurStatus, timedelta]:
        """One round, of the branches too."""
        now = self._clock()
        retry_at = self.cluster.advance(now)
        fan_out = self._load()
        children = self._children(fan_out)
        plan = reconcile(self._observe(fan_out, children, now))
        own = None if plan.children is None else [c for c in plan.children if c["kind"] != "InferenceBatch"]
        changed = self.cluster.apply(own, now)
        changed = self._apply_branches(fan_out, plan.children or (), now) or changed
        self.publish(fan_out, plan, now, watcher)
        waits = [LOOK_INTERVAL, plan.look_again_after, retry_at - now if retry_at is not None else None]
        waits += [self._look_at(branch, watcher) for branch in self._wanted(fan_out, plan.children)]
        wait = min(wait for wait in waits if wait is not None)
        return plan.status, timedelta(0) if changed else wait

    def poll(self) -> bool:
        """Look at all pods."""
        ended = [branch.poll() for branch in self._branches.values()]
        return self.cluster.pods.poll(self._clock()) or any(ended)

    def drain(self, hurry: Callable[[], bool]) -> None:
        """Stop all pods: first all are told, then each is waited for."""
        clusters = [self.cluster, *(branch.cluster for branch in self._branches.values())]
        for cluster in clusters:
            cluster.pods.stop([pod.name for pod in cluster.pods.running], self._clock())
        for cluster in clusters:
            cluster.pods.drain(self._clock, hurry=hurry)

    def look_back(self) -> None:
        """Look without starting anything."""
        for branch in self._branches.values():
            branch.look_back()
        now = self._clock()
        self.cluster.advance(now, hold=True)
        fan_out = self._load()
        status = reconcile(self._observe(fan_out, self._children(fan_out), now)).status
        if status != fan_out.status:
            self._folder.write_status(status)

    def _load(self) -> FanOutJob:
        found = self._folder.load()
        assert isinstance(found, FanOutJob)
        return found

    def _folder_of(self, name: str) -> BatchFolder:
        return self._state.batch(self._folder.namespace, name)

    def _children(self, fan_out: FanOutJob) -> dict[str, InferenceBatch]:
        """The batches of its branches, by the name of the branch."""
        folders = {branch.name: self._folder_of(fan_out.child_name(branch)) for branch in fan_out.spec.branches}
        found = {name: folder.load() for name, folder in folders.items() if folder.exists}
        return {n: it for n, it in found.items() if isinstance(it, InferenceBatch) and is_child(it, fan_out)}

    def _observe(self, fan_out: FanOutJob, children: dict[str, InferenceBatch], now: datetime) -> FanOutObserved:
        jobs, reports = self.cluster.jobs(), self.cluster.reports()
        return FanOutObserved(fan_out, now, children, jobs, reports, installation=self._place)

    def _apply_branches(self, fan_out: FanOutJob, desired: Iterable[JsonObject], now: datetime) -> bool:
        """Make the branches what they should be; says whether anything was to be done."""
        batches = [child for child in desired if child["kind"] == "InferenceBatch"]
        changes = [self._apply_branch(fan_out, child, now) for child in batches]
        return any(changes)

    def _apply_branch(self, fan_out: FanOutJob, desired: JsonObject, now: datetime) -> bool:
        folder = self._folder_of(desired["metadata"]["name"])
        with self._state.editing(folder):
            if not folder.exists:
                folder.write_object(created(InferenceBatch.parse(desired), now))
                return True
            known = folder.load()
            if not is_child(known, fan_out):
                why = f"{folder.name} exists, and is not of {fan_out.metadata.name}: delete it, or rename the branch"
                raise StateError("NameTaken", why)
            patch = child_patch(known.to_object(), desired)
            if patch is None:
                return False
            folder.write_object(_patched(known, patch))
            return True

    def _wanted(self, fan_out: FanOutJob, desired: tuple[JsonObject, ...] | None) -> list[Converger]:
        """The branches that are to be looked at: all that are not over."""
        names = [child["metadata"]["name"] for child in desired or () if child["kind"] == "InferenceBatch"]
        return [self._branch(fan_out, name) for name in names if not _is_over(self._folder_of(name).load())]

    def _branch(self, fan_out: FanOutJob, name: str) -> Converger:
        if name not in self._branches:
            folder = self._folder_of(name)
            self._held.enter_context(self._state.running(folder))
            place = installation(self._state, folder)
            companions = min(len(fan_out.spec.branches), place.max_parallel_branches or 1)
            self._branches[name] = Converger(
                self._state, folder, place, self._programs, self._clock, companions=companions
            )
        return self._branches[name]

    def _look_at(self, branch: Converger, watcher: Watcher) -> timedelta:
        _, wait = branch.look(_EventsOnly(watcher))
        return wait


class _EventsOnly:
    """Tells of what happens to a branch, but not how far it is: the fan-out does."""

    def __init__(self, watcher: Watcher) -> None:
        self._watcher = watcher

    def progress(self, batch: OurObject) -> None:
        """Nothing."""

    def event(self, batch: OurObject, event: Event) -> None:
        """Pass it on."""
        self._watcher.event(batch, event)


def _is_over(batch: OurObject) -> bool:
    return batch.status.finished and not batch.retry_asked


def _patched(batch: OurObject, patch: JsonObject) -> OurObject:
    """The batch after a merge patch; a change of its spec is a new generation."""
    data = batch.to_object()
    for part, changes in patch.get("metadata", {}).items():
        data["metadata"][part] = {**data["metadata"].get(part, {}), **changes}
    if "spec" in patch:
        data["spec"] = {name: value for name, value in {**data["spec"], **patch["spec"]}.items() if value is not None}
        data["metadata"]["generation"] += 1
    return InferenceBatch.parse(data)


def drive_of(state: StateDir, folder: BatchFolder, programs: Programs = WORKER) -> Drive:
    """What runs the object in that folder."""
    if isinstance(folder.load(), FanOutJob):
        return FanOutConverger(state, folder, programs)
    return Converger(state, folder, installation(state, folder), programs)
