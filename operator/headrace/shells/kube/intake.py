"""Everything that is heard of the cluster goes through here into the cache; those of our objects that it is about are looked at."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable

from headrace.api.base import JsonObject
from headrace.shells.kube.cache import Cache, Parent, about, key_of
from headrace.shells.kube.resources import PODS, WATCHED, Resource

DELETED = "DELETED"


class Intake:
    """Takes in what watches and lists say. `complete` is set once everything has been listed."""

    def __init__(
        self,
        cache: Cache,
        changed: Callable[[Parent], None],
        pods_changed: Callable[[Parent], None],
        namespaces: tuple[str, ...] = (),
    ) -> None:
        self._cache, self._changed, self._pods_changed = cache, changed, pods_changed
        everywhere: tuple[str | None, ...] = (None,)
        self.places: tuple[tuple[Resource, str | None], ...] = tuple(
            (resource, place)
            for resource in WATCHED
            for place in (everywhere if resource.clusterwide else namespaces or everywhere)
        )
        """What is to be listed and watched: each resource, in each namespace or in all (None)."""
        self._unlisted = set(self.places)
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

    def _notify(self, resource: Resource, obj: JsonObject) -> None:
        tell = self._pods_changed if resource is PODS else self._changed
        for parent in about(resource, obj):
            tell(parent)
