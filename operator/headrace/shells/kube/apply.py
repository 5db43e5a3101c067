"""Carry out a plan: the children, then the status, then the events. Everything here may be done twice."""

from __future__ import annotations

import hashlib
import logging
from datetime import datetime

from headrace.api import labels
from headrace.api.base import JsonObject
from headrace.api.inferencebatch import InferenceBatch, InferenceBatchStatus
from headrace.core.plan import Event
from headrace.shells.kube.api import Api
from headrace.shells.kube.cache import Cache, Key, controller_uid, key_of
from headrace.shells.kube.errors import ApiError, Conflict, NotFound, TransientFailure
from headrace.shells.kube.resources import BATCHES, CHILDREN, EVENTS, JOBS, Resource, of

logger = logging.getLogger(__name__)


class Applier:
    """Writes what plans ask for; the answers go into the cache, so that the next look sees them."""

    def __init__(self, api: Api, cache: Cache, identity: str) -> None:
        self._api, self._cache, self._identity = api, cache, identity

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

    async def events(self, batch: InferenceBatch, events: tuple[Event, ...], now: datetime) -> None:
        """Post each event once: its name follows from what it says and from the status that it was seen in.

        Nothing depends on an event, so one that cannot be posted holds nothing up.
        """
        for event in events:
            try:
                await self._api.create(EVENTS, batch.metadata.namespace, self._event(batch, event, now))
            except Conflict:
                continue  # posted before we died
            except (ApiError, TransientFailure) as error:
                logger.warning("%s: the event %s is lost: %s", batch.key, event.reason, error)

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

    def _event(self, batch: InferenceBatch, event: Event, now: datetime) -> JsonObject:
        metadata = batch.metadata
        essence = f"{metadata.uid}/{metadata.resource_version}/{event.reason}/{event.message}"
        stamp = now.strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        return {
            "apiVersion": "events.k8s.io/v1",
            "kind": "Event",
            "metadata": {
                "name": f"{metadata.name}.{hashlib.sha256(essence.encode()).hexdigest()[:16]}",
                "namespace": metadata.namespace,
            },
            "regarding": {
                "apiVersion": labels.API_VERSION,
                "kind": "InferenceBatch",
                "name": metadata.name,
                "namespace": metadata.namespace,
                "uid": metadata.uid,
            },
            "type": event.type,
            "reason": event.reason,
            "note": event.message[:1024],
            "action": event.reason,
            "eventTime": stamp,
            "reportingController": "headrace.dev/operator",
            "reportingInstance": self._identity[:128],
        }


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
