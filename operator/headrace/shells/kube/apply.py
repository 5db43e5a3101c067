"""Carry out a plan: the children, then the status. Everything here may be done twice."""

from __future__ import annotations

from headrace.api import labels
from headrace.api.base import JsonObject
from headrace.api.inferencebatch import InferenceBatch, InferenceBatchStatus
from headrace.shells.kube.api import Api
from headrace.shells.kube.cache import Cache, Key, controller_uid, key_of
from headrace.shells.kube.errors import Conflict, NotFound, TransientFailure
from headrace.shells.kube.resources import BATCHES, CHILDREN, JOBS, Resource, of


class Applier:
    """Writes what plans ask for; the answers go into the cache, so that the next look sees them."""

    def __init__(self, api: Api, cache: Cache) -> None:
        self._api, self._cache = api, cache

    async def children(self, batch: InferenceBatch, desired: tuple[JsonObject, ...] | None) -> None:
        """Make the children as desired: create, patch what may be patched, delete the rest. None leaves them alone."""
        if desired is None:
            return
        wanted = {(of(child), key_of(child)): child for child in desired}
        for resource in CHILDREN:
            for child in self._cache.children(resource, (batch.metadata.namespace, batch.metadata.name)):
                if (resource, key_of(child)) not in wanted and controller_uid(child) == batch.metadata.uid:
                    await self._delete(resource, child)
        for (resource, key), child in wanted.items():
            await self._ensure(batch, resource, key, child)

    async def status(self, batch: InferenceBatch, status: InferenceBatchStatus) -> None:
        """Write the status of this very batch; one that is gone is left in peace, a namesake is a `Conflict`."""
        metadata = {"namespace": batch.metadata.namespace, "name": batch.metadata.name, "uid": batch.metadata.uid}
        try:
            written = await self._api.replace_status(BATCHES, metadata, status.to_object())
        except NotFound:
            return
        self._cache.put(BATCHES, written)

    async def _delete(self, resource: Resource, child: JsonObject) -> None:
        metadata = child["metadata"]
        if "deletionTimestamp" not in metadata:
            await self._api.delete(resource, metadata["namespace"], metadata["name"], metadata["uid"])

    async def _ensure(self, batch: InferenceBatch, resource: Resource, key: Key, desired: JsonObject) -> None:
        known = self._cache.get(resource, key)
        if known is None or controller_uid(known) != batch.metadata.uid:
            known = await self._create(batch, resource, key, desired)
            self._cache.put(resource, known)
        patch = _patch(known, desired) if resource is JOBS else None
        if patch is not None:
            self._cache.put(resource, await self._api.patch(resource, *key, patch))

    async def _create(self, batch: InferenceBatch, resource: Resource, key: Key, desired: JsonObject) -> JsonObject:
        """The child as it is now, made by us: just now, or before we died."""
        try:
            return await self._api.create(resource, key[0], desired)
        except Conflict:
            found = await self._there(resource, key)
        if controller_uid(found) != batch.metadata.uid:
            raise Conflict(409, f"{resource.kind} {key[1]} exists and is not of this batch: {_remedy(found)}")
        return found

    async def _there(self, resource: Resource, key: Key) -> JsonObject:
        try:
            return await self._api.get(resource, *key)
        except NotFound as gone:
            raise TransientFailure(f"{resource.kind} {key[1]} was there, and is not any more") from gone


def _remedy(found: JsonObject) -> str:
    if labels.INFERENCE_BATCH in found["metadata"].get("labels", {}):
        return "it was left by another batch of this name; delete it, unless it is about to go by itself"
    return "delete it, or make the batch anew under another name"


def _patch(known: JsonObject, desired: JsonObject) -> JsonObject | None:
    """What differs of the only fields of a Job that may; None when nothing does. The uid is a precondition."""
    changes = {
        field: desired["spec"][field]
        for field in ("suspend", "parallelism")
        if field in desired["spec"] and desired["spec"][field] != known["spec"].get(field)
    }
    return {"metadata": {"uid": known["metadata"]["uid"]}, "spec": changes} if changes else None
