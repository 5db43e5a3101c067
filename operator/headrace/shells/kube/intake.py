"""Everything that is heard of the cluster goes through here into the cache; those of our objects that it is about are looked at."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable

from headrace.api.base import JsonObject
from headrace.shells.kube.cache import Cache, Parent, about, job_of, key_of, owner_of
from headrace.shells.kube.line import Urgency
from headrace.shells.kube.resources import JOBS, OPTIONAL, PODS, WATCHED, WORKLOADS, Resource

DELETED = "DELETED"


class Intake:
    """Takes in what watches and lists say. `complete` is set once everything has been listed."""

    def __init__(
        self,
        cache: Cache,
        changed: Callable[[Parent, Urgency], None],
        pods_changed: Callable[[Parent], None],
        namespaces: tuple[str, ...] = (),
    ) -> None:
        self._cache, self._changed, self._pods_changed = cache, changed, pods_changed
        self.places = _places(WATCHED, namespaces)
        """What is to be listed and watched: each resource, in each namespace or in all (None)."""
        self.optional_places = _places(OPTIONAL, namespaces)
        """The same of what the cluster may not have."""
        self._unlisted = {*self.places, *self.optional_places}
        self.complete = asyncio.Event()
        self.last_event = 0.0
        """When something was heard last, by the clock of the loop."""

    def event(self, resource: Resource, kind: str | None, obj: JsonObject) -> None:
        """One watch event: ADDED, MODIFIED or DELETED; None for an object of a list."""
        self.last_event = asyncio.get_running_loop().time()
        if kind == DELETED:
            self._cache.remove(resource, obj)
        elif not self._cache.put(resource, obj):
            return
        self._notify(resource, obj)

    def listed(self, resource: Resource, namespace: str | None, seen: Iterable[str], version: int) -> None:
        """A list has ended: what it did not show (by uid), and is not younger than the list, is gone."""
        self._cache.absent.discard(resource)
        self._gone(resource, namespace, seen, version)

    def _gone(self, resource: Resource, namespace: str | None, seen: Iterable[str], version: int) -> None:
        shown = set(seen)
        for obj in self._cache.all(resource):
            metadata = obj["metadata"]
            here = namespace in (None, key_of(obj)[0])
            if here and metadata["uid"] not in shown and int(metadata["resourceVersion"]) <= version:
                self._cache.remove(resource, obj)
                self._notify(resource, obj)
        self._unlisted.discard((resource, namespace))
        if not self._unlisted:
            self.complete.set()

    def absent(self, resource: Resource, namespace: str | None) -> None:
        """The cluster has no such kind: there is nothing of it."""
        self._cache.absent.add(resource)
        everything_so_far = max((int(it["metadata"]["resourceVersion"]) for it in self._cache.all(resource)), default=0)
        self._gone(resource, namespace, (), everything_so_far)

    def _notify(self, resource: Resource, obj: JsonObject) -> None:
        for parent in self._job_owner(obj) if resource is WORKLOADS else about(resource, obj):
            if resource is PODS:
                self._pods_changed(parent)
            else:  # whoever has Jobs holds something, and may have come to its end
                self._changed(parent, Urgency.NOW if resource is JOBS else Urgency.SOON)

    def _job_owner(self, workload: JsonObject) -> Iterable[Parent]:
        """The batch whose Job a Workload of Kueue stands for; nobody for a Job that is not ours."""
        job = job_of(workload)
        found = self._cache.get(job.resource, job.key) if job is not None else None
        owner = owner_of(found) if found is not None else None
        return () if owner is None else (owner,)


def _places(resources: Iterable[Resource], namespaces: tuple[str, ...]) -> tuple[tuple[Resource, str | None], ...]:
    everywhere: tuple[str | None, ...] = (None,)
    return tuple(
        (resource, place)
        for resource in resources
        for place in (everywhere if resource.clusterwide else namespaces or everywhere)
    )
