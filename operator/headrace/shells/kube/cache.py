"""The newest known version of every object that matters, from watch events, lists and the answers to our own writes.

The answers to our own writes matter: without them a loop that is faster than its watch would create everything twice. Newest wins;
resource versions are comparable integers by contract since Kubernetes 1.35, and always were with etcd. A deleted uid is remembered,
so that a late answer cannot bring an object back to life. Of children only what decisions need is kept: the rest is most of an object.
"""

from __future__ import annotations

from collections import OrderedDict, defaultdict
from collections.abc import Iterator

from headrace.api import labels
from headrace.api.base import JsonObject
from headrace.shells.kube.resources import BATCHES, CONFIG_MAPS, JOBS, PODS, Resource

Key = tuple[str, str]
"""Namespace and name of an InferenceBatch."""

TOMBSTONES = 20_000
LAST_APPLIED = "kubectl.kubernetes.io/last-applied-configuration"
"""kubectl's copy of the whole manifest."""


def key_of(obj: JsonObject) -> Key:
    """The object's own namespace and name."""
    return (obj["metadata"]["namespace"], obj["metadata"]["name"])


def batch_key(resource: Resource, obj: JsonObject) -> Key | None:
    """The batch that an object is about; None when it is nobody's."""
    if resource is BATCHES:
        return key_of(obj)
    name = obj["metadata"].get("labels", {}).get(labels.INFERENCE_BATCH)
    return (obj["metadata"]["namespace"], name) if name else None


def controller_uid(obj: JsonObject) -> str | None:
    """The uid of the object that this one belongs to."""
    owners = obj["metadata"].get("ownerReferences", ())
    return next((owner["uid"] for owner in owners if owner.get("controller")), None)


class Cache:
    """Objects by resource and key, children also by their batch."""

    def __init__(self) -> None:
        self._objects: dict[Resource, dict[Key, JsonObject]] = defaultdict(dict)
        self._children: dict[tuple[Resource, Key], dict[Key, JsonObject]] = defaultdict(dict)
        self._dead: OrderedDict[str, None] = OrderedDict()

    def put(self, resource: Resource, obj: JsonObject) -> bool:
        """Take in a version of an object; False when it is no news."""
        metadata = obj["metadata"]
        if metadata["uid"] in self._dead:
            return False
        known = self._objects[resource].get(key_of(obj))
        if known is not None and _version(known) >= _version(obj):
            return False
        kept = self._objects[resource][key_of(obj)] = _needed(resource, obj)
        owner = batch_key(resource, obj)
        if owner is not None and resource is not BATCHES:
            self._children[resource, owner][key_of(obj)] = kept
        return True

    def remove(self, resource: Resource, obj: JsonObject) -> None:
        """The object is gone; a younger one of the same name stays."""
        uid = obj["metadata"]["uid"]
        self._bury(uid)
        known = self._objects[resource].get(key_of(obj))
        if known is None or known["metadata"]["uid"] != uid:
            return
        del self._objects[resource][key_of(obj)]
        owner = batch_key(resource, known)
        if owner is not None and resource is not BATCHES:
            siblings = self._children[resource, owner]
            siblings.pop(key_of(obj), None)
            if not siblings:
                del self._children[resource, owner]

    def get(self, resource: Resource, key: Key) -> JsonObject | None:
        """The object of that key."""
        return self._objects[resource].get(key)

    def children(self, resource: Resource, batch: Key) -> list[JsonObject]:
        """Objects of that resource that carry the batch's label."""
        found = self._children.get((resource, batch))
        return list(found.values()) if found else []

    def all(self, resource: Resource) -> Iterator[JsonObject]:
        """All objects of a resource, as they are now."""
        return iter(list(self._objects[resource].values()))

    def count(self, resource: Resource) -> int:
        """How many there are."""
        return len(self._objects[resource])

    def _bury(self, uid: str) -> None:
        self._dead[uid] = None
        if len(self._dead) > TOMBSTONES:
            self._dead.popitem(last=False)


_NEEDED: dict[Resource, dict[str, tuple[str, ...]]] = {
    JOBS: {
        "spec": ("suspend", "parallelism"),
        "status": ("active", "terminating", "completedIndexes", "failedIndexes", "conditions"),
    },
    PODS: {"status": ("phase", "podIP", "containerStatuses", "conditions")},
    CONFIG_MAPS: {},
}
"""What is kept of children besides their metadata."""


def _needed(resource: Resource, obj: JsonObject) -> JsonObject:
    obj["metadata"].pop("managedFields", None)
    if resource is BATCHES:
        obj["metadata"].get("annotations", {}).pop(LAST_APPLIED, None)
        return obj
    if resource is PODS and obj.get("status", {}).get("phase") != "Pending":
        obj.get("status", {}).pop("conditions", None)  # they only tell why a pod does not start
    parts = ((part, obj.get(part, {}), fields) for part, fields in _NEEDED[resource].items())
    kept = {part: {field: found[field] for field in fields if field in found} for part, found, fields in parts}
    obj["metadata"].pop("annotations", None)
    return {"metadata": obj["metadata"], **kept}


def _version(obj: JsonObject) -> int:
    return int(obj["metadata"]["resourceVersion"])
