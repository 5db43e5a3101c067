"""Who is looked at when something happens to an object: schedules that depend on it, or on the schedule whose run it is.

What the answers to our own writes tell is no news to the watch. So this listens to the cache itself, which hears of everything once.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable

from headrace.shells.kube.cache import Cache, Key, Parent
from headrace.shells.kube.resources import SCHEDULES, Resource, of_kind


class Dependents:
    """Stands behind whoever listens to the cache already."""

    def __init__(self, cache: Cache, look: Callable[[Parent], None]) -> None:
        self._cache, self._look = cache, look
        self._upstream: dict[Parent, frozenset[Parent]] = {}
        """What each schedule depends on."""
        self._dependents: dict[Parent, set[Parent]] = defaultdict(set)
        """The other way round."""

    def begin(self) -> None:
        """Learn all that is known, and from then on all that is new."""
        for key in self._cache.keys(SCHEDULES):
            self._learn(key)
        others = self._cache.heard

        def heard(resource: Resource, key: Key, owner: Parent | None) -> None:
            others(resource, key, owner)
            self.news(resource, key, owner)

        self._cache.heard = heard

    def news(self, resource: Resource, key: Key, owner: Parent | None) -> None:
        """An object has come, changed or gone."""
        if resource is SCHEDULES:
            self._learn(key)
        for one in (Parent(resource, *key), owner):
            for dependent in self._dependents.get(one, ()) if one is not None else ():
                self._look(dependent)

    def _learn(self, key: Key) -> None:
        schedule, found = Parent(SCHEDULES, *key), self._cache.get(SCHEDULES, key)
        said = found["spec"].get("dependsOn", ()) if found is not None else ()
        upstream = frozenset(Parent(of_kind(one["kind"]), key[0], one["name"]) for one in said)
        before = self._upstream.pop(schedule, frozenset())
        if upstream:
            self._upstream[schedule] = upstream
        for gone in before - upstream:
            self._dependents[gone].discard(schedule)
            if not self._dependents[gone]:
                del self._dependents[gone]
        for new in upstream - before:
            self._dependents[new].add(schedule)
