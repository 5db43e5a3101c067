"""Kueue, as the cache shows it: the Workload of each Job, and who waits in which LocalQueue."""

from __future__ import annotations

from headrace.api.inferencebatch import InferenceBatch
from headrace.core.kueue.line import Lines
from headrace.core.kueue.workload import KueueView, Workload
from headrace.core.observed import JobSnapshot
from headrace.shells.kube.cache import Cache, Key, Parent
from headrace.shells.kube.resources import JOBS, WORKLOADS


class Kueue:
    """What looks at batches with a `queueName` can see of it. It may not be installed."""

    def __init__(self, cache: Cache) -> None:
        self._cache, self._lines = cache, Lines()

    def heard(self, key: Key) -> None:
        """A Workload has come, changed or gone."""
        found = self._cache.get(WORKLOADS, key)
        if found is None:
            self._lines.remove(*key)
        else:
            self._lines.put(key[0], Workload.from_object(found))

    def view(self, batch: InferenceBatch, run: JobSnapshot | None) -> KueueView | None:
        """What is seen of it for a batch with that run Job; None when the batch does not ask Kueue."""
        if batch.spec.queue_name is None:
            return None
        namespace = batch.metadata.namespace
        workload = self._workload(namespace, run) if run is not None else None
        position = self._lines.position(namespace, workload.name) if workload is not None else None
        return KueueView(installed=WORKLOADS not in self._cache.absent, workload=workload, position=position)

    def _workload(self, namespace: str, run: JobSnapshot) -> Workload | None:
        """The newest that there is of this very Job."""
        found = map(Workload.from_object, self._cache.children(WORKLOADS, Parent(JOBS, namespace, run.name)))
        return max((it for it in found if it.job_uid == run.uid), key=lambda it: it.turn.since, default=None)
