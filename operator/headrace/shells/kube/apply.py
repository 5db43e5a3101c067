"""Carry out a plan: the children, then the status. Everything here may be done twice."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from headrace.api import labels
from headrace.api.base import ApiModel, JsonObject
from headrace.api.bulkhead import Bulkhead
from headrace.api.bulkheadstatus import BulkheadStatus
from headrace.api.meta import Named
from headrace.core.changes import child_patch
from headrace.core.plan import Activation, JobStatus
from headrace.shells.kube.api import Api
from headrace.shells.kube.cache import Cache, Key, Parent, controller_uid, key_of, owner_of
from headrace.shells.kube.errors import Conflict, NotFound, TransientFailure
from headrace.shells.kube.resources import (
    BATCHES,
    BULKHEADS,
    CHILDREN,
    FAN_OUTS,
    JOBS,
    PARENTS,
    SCHEDULES,
    WORKLOADS,
    Resource,
    of,
    of_kind,
)


class Applier:
    """Writes what plans ask for; the answers go into the cache, so that the next look sees them.

    What is in the cache already is no news when the watch tells of it. So those whom a write concerns, besides the object that is
    being looked at, are told here: a branch that was made or changed, and the fan-out of a batch whose status was written.
    """

    def __init__(self, api: Api, cache: Cache, changed: Callable[[Parent], None]) -> None:
        self._api, self._cache, self._changed = api, cache, changed

    async def children(self, parent: Named, desired: tuple[JsonObject, ...] | None) -> None:
        """Make the children as desired: create, patch what may be patched, delete the rest. None leaves them alone."""
        if desired is None:
            return
        wanted = {(of(child), key_of(child)): child for child in desired}
        for resource in CHILDREN:
            for child in self._cache.children(resource, Parent.of(parent)):
                if (resource, key_of(child)) not in wanted and controller_uid(child) == parent.metadata.uid:
                    await self._delete(resource, child)
        for (resource, key), child in wanted.items():
            await self._ensure(parent, resource, key, child)

    async def activate(self, parent: Named, wanted: Activation) -> None:
        """Make a Workload of Kueue active or inactive; one that is gone is left in peace."""
        mark = None if wanted.active else "true"
        metadata = {"uid": wanted.uid, "annotations": {labels.DEACTIVATED: mark}}
        body = {"metadata": metadata, "spec": {"active": wanted.active}}
        try:
            written = await self._api.patch(WORKLOADS, parent.metadata.namespace, wanted.name, body)
        except NotFound:
            return
        self._cache.put(WORKLOADS, written)

    async def status(self, named: Named, status: ApiModel) -> None:
        """Write the status of this very object; one that is gone is left in peace, a namesake is a `Conflict`."""
        metadata = {"namespace": named.metadata.namespace, "name": named.metadata.name, "uid": named.metadata.uid}
        resource = of_kind(named.kind)
        try:
            written = await self._api.replace_status(resource, metadata, status.to_object())
        except NotFound:
            return
        self._cache.put(resource, written)
        if _edited(named, written):
            self._changed(Parent.of(named))
        owner = owner_of(written)
        if owner is not None:
            self._changed(owner)

    async def job_statuses(self, statuses: Iterable[JobStatus]) -> None:
        """Write the statuses of Jobs that are ours to begin and to end; one that is gone is left in peace."""
        for told in statuses:
            metadata = {"namespace": told.namespace, "name": told.name, "uid": told.uid}
            try:
                written = await self._api.replace_status(JOBS, metadata, told.status)
            except NotFound:
                continue
            self._cache.put(JOBS, written)

    async def bulkhead_status(self, bulkhead: Bulkhead, status: BulkheadStatus) -> None:
        """Write the status of this very Bulkhead; one that is gone is left in peace."""
        metadata = {"namespace": "", "name": bulkhead.name, "uid": bulkhead.metadata.uid}
        try:
            written = await self._api.replace_status(BULKHEADS, metadata, status.to_object())
        except NotFound:
            return
        self._cache.put(BULKHEADS, written)

    async def _delete(self, resource: Resource, child: JsonObject) -> None:
        metadata = child["metadata"]
        if "deletionTimestamp" not in metadata:
            await self._api.delete(resource, metadata["namespace"], metadata["name"], metadata["uid"])

    async def _ensure(self, parent: Named, resource: Resource, key: Key, desired: JsonObject) -> None:
        before = known = self._cache.get(resource, key)
        if known is None or controller_uid(known) != parent.metadata.uid:
            known = await self._create(parent, resource, key, desired)
            self._cache.put(resource, known)
            if _patch(known, desired) is not None:  # it was there: the next look decides about it as it has become
                self._changed(Parent.of(parent))
        elif (patch := _patch(known, desired)) is not None:
            known = await self._api.patch(resource, *key, patch)
            self._cache.put(resource, known)
        if resource in PARENTS and known is not before:
            self._changed(Parent(resource, *key))

    async def _create(self, parent: Named, resource: Resource, key: Key, desired: JsonObject) -> JsonObject:
        """The child as it is now, made by us: just now, or before we died."""
        try:
            return await self._api.create(resource, key[0], desired)
        except Conflict:
            found = await self._there(resource, key)
        if controller_uid(found) != parent.metadata.uid:
            raise Conflict(
                409, f"{resource.kind} {key[1]} exists and is not of this {_noun(parent)}: {_remedy(parent, found)}"
            )
        return found

    async def _there(self, resource: Resource, key: Key) -> JsonObject:
        try:
            return await self._api.get(resource, *key)
        except NotFound as gone:
            raise TransientFailure(f"{resource.kind} {key[1]} was there, and is not any more") from gone


def _edited(named: Named, written: JsonObject) -> bool:
    """Whether somebody has edited the object since it was looked at: the watch, which comes after us, will tell nothing new."""
    before, now = named.metadata, written["metadata"]
    return (before.generation, before.annotations) != (now["generation"], now.get("annotations", {}))


_NOUNS = {BATCHES: "batch", FAN_OUTS: "fan-out", SCHEDULES: "schedule"}


def _noun(parent: Named) -> str:
    return _NOUNS[of_kind(parent.kind)]


def _remedy(parent: Named, found: JsonObject) -> str:
    noun = _noun(parent)
    if owner_of(found) == Parent.of(parent):
        return f"it was left by another {noun} of this name; delete it, unless it is about to go by itself"
    return f"delete it, or make the {noun} anew under another name"


def _patch(known: JsonObject, desired: JsonObject) -> JsonObject | None:
    """What differs of the only fields of a child that may; None when nothing does. The uid is a precondition."""
    patch = child_patch(known, desired)
    if patch is None:
        return None
    return {**patch, "metadata": {**patch.get("metadata", {}), "uid": known["metadata"]["uid"]}}
