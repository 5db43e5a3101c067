"""The newest known version of every object that matters, from watch events, lists and the answers to our own writes.

The answers to our own writes matter: without them a loop that is faster than its watch would create everything twice. Newest wins;
resource versions are comparable integers by contract since Kubernetes 1.35, and always were with etcd. A deleted uid is remembered,
so that a late answer cannot bring an object back to life. Of children only what decisions need is kept: the rest is most of an object.
"""

from __future__ import annotations

from collections import OrderedDict, defaultdict
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

import orjson

from headrace.api import labels
from headrace.api.base import JsonObject
from headrace.api.meta import Named
from headrace.core.changes import CRON_FIELDS, JOB_FIELDS
from headrace.core.schedule.observed import SCHEDULED_TIMESTAMP
from headrace.shells.kube.resources import (
    BULKHEADS,
    CONFIG_MAPS,
    CRON_JOBS,
    JOBS,
    NAMESPACES,
    PARENTS,
    PODS,
    WORKLOADS,
    Resource,
    of_kind,
)

Key = tuple[str, str]
"""Namespace and name of an object; the namespace is empty where there is none."""


class Parent(NamedTuple):
    """What others belong to: one of our own objects, which the work queue has in line; or a Job, for a Workload of Kueue."""

    resource: Resource
    namespace: str
    name: str

    @classmethod
    def of(cls, named: Named) -> Parent:
        """The one that this is."""
        return cls(of_kind(named.kind), named.metadata.namespace, named.metadata.name)

    @property
    def key(self) -> Key:
        """Where it is among the objects of its kind."""
        return (self.namespace, self.name)

    def __str__(self) -> str:
        return f"{self.resource.kind} {self.namespace}/{self.name}"


Heard = Callable[[Resource, Key, Parent | None], None]
"""Takes the kind of an object, where it is among those, and whose child it is."""

_OWNER_LABELS = tuple((of_kind(kind), label) for kind, label in labels.OF_KIND.items())

TOMBSTONES = 20_000
LAST_APPLIED = "kubectl.kubernetes.io/last-applied-configuration"
"""kubectl's copy of the whole manifest."""


def key_of(obj: JsonObject) -> Key:
    """The object's own namespace and name."""
    return (obj["metadata"].get("namespace", ""), obj["metadata"]["name"])


def owner_of(obj: JsonObject) -> Parent | None:
    """The parent that a child says it is of, by its label; None when it is nobody's."""
    metadata = obj["metadata"]
    named = ((resource, metadata.get("labels", {}).get(label)) for resource, label in _OWNER_LABELS)
    return next((Parent(resource, key_of(obj)[0], name) for resource, name in named if name), None)


def about(resource: Resource, obj: JsonObject) -> tuple[Parent, ...]:
    """Whom news of an object is for: itself, if it is one of ours, and its parent."""
    owner = owner_of(obj)
    own = (Parent(resource, *key_of(obj)),) if resource in PARENTS else ()
    return own if owner is None else (*own, owner)


def job_of(workload: JsonObject) -> Parent | None:
    """The Job that a Workload of Kueue stands for; None when it stands for something else."""
    owners = workload["metadata"].get("ownerReferences", ())
    named = (owner["name"] for owner in owners if owner.get("controller") and owner["kind"] == JOBS.kind)
    return next((Parent(JOBS, key_of(workload)[0], name) for name in named), None)


def controller_uid(obj: JsonObject) -> str | None:
    """The uid of the object that this one belongs to."""
    owners = obj["metadata"].get("ownerReferences", ())
    return next((owner["uid"] for owner in owners if owner.get("controller")), None)


class _Kept(NamedTuple):
    """An object as JSON text: a tenth of the memory of its dictionaries, and given back when it goes."""

    uid: str
    version: int
    text: bytes
    bulkhead: str = ""
    """That a batch names."""


class Cache:
    """Objects by resource and key, children also by their parent."""

    def __init__(self) -> None:
        self._objects: dict[Resource, dict[Key, _Kept]] = defaultdict(dict)
        self._children: dict[tuple[Resource, Parent], dict[Key, _Kept]] = defaultdict(dict)
        self._dead: OrderedDict[str, None] = OrderedDict()
        self.heard: Heard = lambda _resource, _key, _owner: None
        """Told of each object that has come, changed or gone."""
        self.absent: set[Resource] = set()
        """Kinds that the cluster does not know, as far as it was asked."""

    def put(self, resource: Resource, obj: JsonObject) -> bool:
        """Take in a version of an object; False when it is no news."""
        uid, version, key = obj["metadata"]["uid"], int(obj["metadata"]["resourceVersion"]), key_of(obj)
        if uid in self._dead:
            return False
        known = self._objects[resource].get(key)
        if known is not None and known.version >= version:
            return False
        kept = self._objects[resource][key] = _Kept(
            uid, version, _text(_needed(resource, obj)), obj.get("spec", {}).get("bulkheadName", "")
        )
        owner = _owner(resource, obj)
        if owner is not None:
            self._children[resource, owner][key] = kept
        self.heard(resource, key, owner)
        return True

    def remove(self, resource: Resource, obj: JsonObject) -> None:
        """The object is gone; a younger one of the same name stays."""
        uid, key = obj["metadata"]["uid"], key_of(obj)
        self._bury(uid)
        known = self._objects[resource].get(key)
        if known is None or known.uid != uid:
            return
        del self._objects[resource][key]
        owner = _owner(resource, orjson.loads(known.text))
        if owner is not None:
            siblings = self._children[resource, owner]
            siblings.pop(key, None)
            if not siblings:
                del self._children[resource, owner]
        self.heard(resource, key, owner)

    def has(self, resource: Resource, key: Key) -> bool:
        """Whether there is an object of that key."""
        return key in self._objects[resource]

    def get(self, resource: Resource, key: Key) -> JsonObject | None:
        """A copy of the object of that key."""
        kept = self._objects[resource].get(key)
        return _object(kept) if kept is not None else None

    def bulkhead(self, parent: Parent) -> str:
        """The name of the bulkhead that a batch wants to be in, and of others nothing."""
        kept = self._objects[parent.resource].get(parent.key)
        return kept.bulkhead if kept is not None else ""

    def children(self, resource: Resource, parent: Parent) -> list[JsonObject]:
        """Copies of the objects of that resource that carry the parent's label."""
        return [_object(kept) for kept in self._children.get((resource, parent), {}).values()]

    def has_children(self, resources: Iterable[Resource], parent: Parent) -> bool:
        """Whether there are any of those."""
        return any(self._children.get((resource, parent)) for resource in resources)

    def all(self, resource: Resource) -> Iterator[JsonObject]:
        """Copies of all objects of a resource, as they are now."""
        return map(_object, list(self._objects[resource].values()))

    def keys(self, resource: Resource) -> list[Key]:
        """Those of all objects of a resource."""
        return list(self._objects[resource])

    def count(self, resource: Resource) -> int:
        """How many there are."""
        return len(self._objects[resource])

    def _bury(self, uid: str) -> None:
        self._dead[uid] = None
        if len(self._dead) > TOMBSTONES:
            self._dead.popitem(last=False)


_NEEDED: dict[Resource, dict[str, tuple[str, ...]]] = {
    CRON_JOBS: {"spec": (*CRON_FIELDS, "jobTemplate")},
    JOBS: {
        "spec": JOB_FIELDS,
        "status": ("active", "terminating", "startTime", "completedIndexes", "failedIndexes", "conditions"),
    },
    PODS: {"status": ("phase", "podIP", "containerStatuses", "conditions")},
    CONFIG_MAPS: {},
    NAMESPACES: {},
    WORKLOADS: {
        "spec": ("queueName", "active", "priority"),
        "status": ("conditions", "admission", "admissionChecks", "requeueState"),
    },
}
"""What is kept besides their metadata of objects that are not of our kinds."""


def _needed(resource: Resource, obj: JsonObject) -> JsonObject:
    obj["metadata"].pop("managedFields", None)
    if resource in (*PARENTS, BULKHEADS):
        obj["metadata"].get("annotations", {}).pop(LAST_APPLIED, None)
        return obj
    if resource is PODS and obj.get("status", {}).get("phase") != "Pending":
        obj.get("status", {}).pop("conditions", None)  # they only tell why a pod does not start
    parts = ((part, obj.get(part, {}), fields) for part, fields in _NEEDED[resource].items())
    kept = {part: {field: found[field] for field in fields if field in found} for part, found, fields in parts}
    annotations = obj["metadata"].pop("annotations", {})
    ours = {
        name: annotations[name]
        for name in (labels.HOLDS, labels.DEACTIVATED, SCHEDULED_TIMESTAMP)
        if name in annotations
    }
    if ours:
        obj["metadata"]["annotations"] = ours
    return {"metadata": obj["metadata"], **kept}


def _owner(resource: Resource, obj: JsonObject) -> Parent | None:
    return job_of(obj) if resource is WORKLOADS else owner_of(obj)


def _text(obj: JsonObject) -> bytes:
    """As JSON, copied: orjson cuts its text from a longer buffer, and what is cut off would lie between the objects as holes."""
    return memoryview(orjson.dumps(obj)).tobytes()


def _object(kept: _Kept) -> JsonObject:
    found: JsonObject = orjson.loads(kept.text)
    return found
