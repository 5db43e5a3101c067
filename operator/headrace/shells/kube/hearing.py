"""What the cache hears of Bulkheads, namespaces, Kueue's Workloads and of batches that are gone, as admission understands it.

Of batches that are there it learns when they are looked at, which all news of them brings about.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import datetime

from headrace.api import labels
from headrace.api.base import InvalidSpec
from headrace.api.bulkhead import Bulkhead
from headrace.api.inferencebatch import InferenceBatch
from headrace.core.admission.orphans import orphans
from headrace.shells.kube.admission import Admission
from headrace.shells.kube.cache import Cache, Key, Parent
from headrace.shells.kube.kueue import Kueue
from headrace.shells.kube.line import Urgency
from headrace.shells.kube.resources import BATCHES, BULKHEADS, JOBS, NAMESPACES, PODS, WORKLOADS, Resource

logger = logging.getLogger(__name__)


class Hearing:
    """Stands between the cache and admission, from the moment on when everything has been listed."""

    def __init__(self, cache: Cache, admission: Admission, kueue: Kueue, now: Callable[[], datetime]) -> None:
        self._cache, self._admission, self._now = cache, admission, now
        self._leaving: set[Key] = set()
        """Batches that were deleted and have left pods, or a Job that may still start some."""
        self._news: dict[Resource, Callable[[Key], None]] = {
            BATCHES: self._batch,
            BULKHEADS: self._bulkhead,
            NAMESPACES: self._namespace,
            WORKLOADS: kueue.heard,
        }

    def begin(self) -> None:
        """Tell all that is known, and from then on all that is new."""
        self._admission.namespaces = {key[1]: self._labels(key) for key in self._cache.keys(NAMESPACES)}
        batches = [batch for key in self._cache.keys(BATCHES) if (batch := self._read(key)) is not None]
        bulkheads = [one for key in self._cache.keys(BULKHEADS) if (one := self._read_bulkhead(key)) is not None]
        left = orphans(self._cache.all(JOBS), self._cache.all(PODS), set(self._cache.keys(BATCHES)), self._now())
        self._leaving = {(it.namespace, it.key.partition("/")[2]) for it in left}
        self._admission.load(batches, bulkheads, self._now(), left)
        for key in self._cache.keys(WORKLOADS):
            self.news(WORKLOADS, key, None)
        self._cache.heard = self.news

    def news(self, resource: Resource, key: Key, owner: Parent | None) -> None:
        """An object has come, changed or gone. One that cannot be taken in must not end the watch: it is not admitted, that is all."""
        try:
            if resource in self._news:
                self._news[resource](key)
            elif owner is not None:
                self._child(owner)
        except Exception:
            logger.exception("%s %s: this is a bug; admission does not know of its last change", resource.kind, key)

    def _batch(self, key: Key) -> None:
        self._leaving.discard(key)
        if self._cache.has(BATCHES, key):
            return
        if self._has_children(key) and self._admission.leaving(key, self._now()):
            self._leaving.add(key)
        else:
            self._admission.gone(key, self._now())

    def _child(self, owner: Parent) -> None:
        """A child has changed, perhaps the last that a batch has left."""
        if owner.key in self._leaving and owner.resource is BATCHES and not self._has_children(owner.key):
            self._leaving.remove(owner.key)
            self._admission.gone(owner.key, self._now())

    def _has_children(self, key: Key) -> bool:
        return self._cache.has_children((JOBS, PODS), Parent(BATCHES, *key))

    def _bulkhead(self, key: Key) -> None:
        bulkhead = self._read_bulkhead(key)
        if bulkhead is None:
            self._admission.gone_bulkhead(key[1], self._now())
        else:
            self._admission.heard_bulkhead(bulkhead, self._now())

    def _namespace(self, key: Key) -> None:
        """Its labels decide which Bulkheads take its batches."""
        name, found = key[1], self._labels(key)
        if self._admission.namespaces.get(name, {}) == found:
            return
        self._admission.namespaces[name] = found
        for batch in self._cache.keys(BATCHES):
            if batch[0] == name:
                self._admission.changed(batch, Urgency.SOON)

    def _read(self, key: Key) -> InferenceBatch | None:
        """The batch; None when there is none, or the models refuse it, for then nothing of it may run."""
        found = self._cache.get(BATCHES, key)
        try:
            return InferenceBatch.parse({**_head(BATCHES), **found}) if found is not None else None
        except InvalidSpec:
            return None

    def _read_bulkhead(self, key: Key) -> Bulkhead | None:
        found = self._cache.get(BULKHEADS, key)
        try:
            return Bulkhead.parse({**_head(BULKHEADS), **found}) if found is not None else None
        except InvalidSpec as error:
            logger.error("Bulkhead %s is taken as one that is not there: %s", key[1], error)
            return None

    def _labels(self, key: Key) -> dict[str, str]:
        found = self._cache.get(NAMESPACES, key)
        return dict(found["metadata"].get("labels", {})) if found is not None else {}


def _head(resource: Resource) -> dict[str, str]:
    return {"apiVersion": labels.API_VERSION, "kind": resource.kind}
