"""What a cluster does for one batch, on this machine: keep its Jobs and ConfigMaps, and run the pods that the Jobs ask for.

Two hands change things here. `apply` brings the children to what a Plan wants; `advance` plays the Job controller and lets
`headrace.core.job_controller` say which pods to start and stop. Each change is one file written, so both may die anywhere.
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from headrace.api.base import JsonObject
from headrace.core import job_controller
from headrace.core.job_controller import RestartDelay
from headrace.core.observed import JobSnapshot, WorkerReport
from headrace.shells.local.containers import WORKER, FindConfigMap, Programs, mount_config_maps
from headrace.shells.local.pods import Pods
from headrace.shells.local.state import BatchFolder, StateError

RESTART_DELAY = RestartDelay(base=timedelta(seconds=1), cap=timedelta(minutes=1))
"""On a laptop somebody is waiting: the delays of Kubernetes, a tenth as long."""
_PATCHED = ("suspend", "parallelism")


class LocalCluster:
    """The children of one batch. One process at a time may have it."""

    def __init__(
        self,
        folder: BatchFolder,
        config_maps: FindConfigMap,
        now: datetime,
        programs: Programs = WORKER,
        companions: int = 1,
    ) -> None:
        """Take over what an earlier process has left; `config_maps` finds those of the user.

        The cores of this machine are for so many `companions`, itself included.
        """
        self._folder, self._user_config_maps = folder, config_maps
        self._jobs = {job["metadata"]["name"]: job for job in folder.children("jobs")}
        self._config_maps = {it["metadata"]["name"]: it for it in folder.children("configmaps")}
        self._mounted: set[str] = set()
        self.pods = Pods(folder.pods, now, programs, companions)

    def jobs(self) -> tuple[JobSnapshot, ...]:
        """The Jobs as the core sees them."""
        return tuple(JobSnapshot.from_object(job) for job in self._jobs.values())

    def reports(self) -> tuple[WorkerReport, ...]:
        """What the pods of these Jobs have said; those of a Job that is being deleted are of an earlier round."""
        kept = {job["metadata"]["uid"] for job in self._jobs.values() if "deletionTimestamp" not in job["metadata"]}
        return self.pods.reports(kept)

    def apply(self, desired: Sequence[JsonObject] | None, now: datetime) -> bool:
        """Make the children what they should be; None leaves them alone. Says whether anything was to be done."""
        if desired is None:
            return False
        jobs = {child["metadata"]["name"]: child for child in desired if child["kind"] == "Job"}
        config_maps = {child["metadata"]["name"]: child for child in desired if child["kind"] == "ConfigMap"}
        changes = [
            *(self._apply_config_map(config_map) for config_map in config_maps.values()),
            *(self._apply_job(job, now) for job in jobs.values()),
            *(self._delete_job(job, now) for name, job in [*self._jobs.items()] if name not in jobs),
            *(self._delete_config_map(name) for name in [*self._config_maps] if name not in config_maps),
        ]
        return any(changes)

    def advance(self, now: datetime, *, hold: bool = False) -> datetime | None:
        """Let the Job controller take one step; with `hold` no pod is started. Returns when the next retry is due."""
        self.pods.poll(now)
        retries = [self._advance_job(job, now, hold=hold) for job in [*self._jobs.values()]]
        return min((moment for moment in retries if moment is not None), default=None)

    def _advance_job(self, job: JsonObject, now: datetime, *, hold: bool) -> datetime | None:
        metadata = job["metadata"]
        pods = self.pods.of(metadata["uid"])
        if "deletionTimestamp" in metadata:
            self.pods.stop((pod.name for pod in pods), now)
            if not any(pod.running for pod in pods):
                self._remove_job(metadata["name"], metadata["uid"])
            return None
        step = job_controller.step(job, [pod.state() for pod in pods], now, RESTART_DELAY)
        if step.status != job.get("status"):
            self._write_job({**job, "status": step.status})
        self.pods.stop(step.stop, now)
        for index in () if hold else step.start:
            self._mount(job)
            self.pods.start(job, index, now)
        return step.retry_at

    def _mount(self, job: JsonObject) -> None:
        uid = job["metadata"]["uid"]
        if uid not in self._mounted:
            missing = mount_config_maps(job, self._find_config_map)
            if missing is not None:
                message = f"there is no ConfigMap {missing} in the namespace {self._folder.namespace} any more"
                raise StateError("NotFound", f"{message}: run the manifest with the ConfigMap again")
            self._mounted.add(uid)

    def _find_config_map(self, name: str) -> JsonObject | None:
        return self._config_maps.get(name) or self._user_config_maps(name)

    def _apply_job(self, desired: JsonObject, now: datetime) -> bool:
        known = self._jobs.get(desired["metadata"]["name"])
        if known is None:
            self._write_job(_created(desired, now))
            return True
        spec: dict[str, Any] = desired["spec"]
        patch = {field: spec[field] for field in _PATCHED if field in spec and known["spec"].get(field) != spec[field]}
        if not patch or "deletionTimestamp" in known["metadata"]:
            return False  # one that is being deleted is made anew at a later look
        self._write_job({**known, "spec": {**known["spec"], **patch}})
        return True

    def _delete_job(self, job: JsonObject, now: datetime) -> bool:
        if "deletionTimestamp" in job["metadata"]:
            return False
        self._write_job({**job, "metadata": {**job["metadata"], "deletionTimestamp": _timestamp(now)}})
        return True

    def _remove_job(self, name: str, uid: str) -> None:
        """Its pods go first: a pod without a Job would be nobody's."""
        self.pods.forget([uid])
        self._folder.delete_child("jobs", name)
        del self._jobs[name]

    def _apply_config_map(self, desired: JsonObject) -> bool:
        known = self._config_maps.get(desired["metadata"]["name"])
        if known is not None and known["data"] == desired["data"]:
            return False
        self._folder.write_child("configmaps", desired)
        self._config_maps[desired["metadata"]["name"]] = desired
        return True

    def _delete_config_map(self, name: str) -> bool:
        self._folder.delete_child("configmaps", name)
        del self._config_maps[name]
        return True

    def _write_job(self, job: JsonObject) -> None:
        self._folder.write_child("jobs", job)
        self._jobs[job["metadata"]["name"]] = job


def _created(child: JsonObject, now: datetime) -> JsonObject:
    """A new object, with what an API server adds to it."""
    added = {"uid": str(uuid.uuid4()), "creationTimestamp": _timestamp(now)}
    return {**child, "metadata": {**child["metadata"], **added}}


def _timestamp(now: datetime) -> str:
    return now.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
