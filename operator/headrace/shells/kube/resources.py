"""The resources that the operator touches, and their URL paths."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import quote

from headrace.api import labels


@dataclass(frozen=True, slots=True)
class Resource:
    """One kind of object at the API server."""

    group: str
    version: str
    plural: str
    kind: str
    clusterwide: bool = False

    @property
    def api_version(self) -> str:
        """As it stands in a manifest."""
        return f"{self.group}/{self.version}" if self.group else self.version

    def path(self, namespace: str | None = None, name: str | None = None, subresource: str | None = None) -> str:
        """URL path of the collection, of one object, or of a part of it."""
        root = f"/apis/{self.group}/{self.version}" if self.group else f"/api/{self.version}"
        scope = f"/namespaces/{quote(namespace)}" if namespace is not None and not self.clusterwide else ""
        parts = [self.plural, *(quote(p, safe="") for p in (name, subresource) if p is not None)]
        return f"{root}{scope}/{'/'.join(parts)}"


BATCHES = Resource(labels.GROUP, labels.VERSION, "inferencebatches", "InferenceBatch")
FAN_OUTS = Resource(labels.GROUP, labels.VERSION, "fanoutjobs", "FanOutJob")
SCHEDULES = Resource(labels.GROUP, labels.VERSION, "scheduledgenerations", "ScheduledGeneration")
BULKHEADS = Resource(labels.GROUP, labels.VERSION, "bulkheads", "Bulkhead", clusterwide=True)
JOBS = Resource("batch", "v1", "jobs", "Job")
CRON_JOBS = Resource("batch", "v1", "cronjobs", "CronJob")
PODS = Resource("", "v1", "pods", "Pod")
CONFIG_MAPS = Resource("", "v1", "configmaps", "ConfigMap")
NAMESPACES = Resource("", "v1", "namespaces", "Namespace", clusterwide=True)
WORKLOADS = Resource("kueue.x-k8s.io", "v1beta2", "workloads", "Workload")
EVENTS = Resource("events.k8s.io", "v1", "events", "Event")
LEASES = Resource("coordination.k8s.io", "v1", "leases", "Lease")
TOKEN_REVIEWS = Resource("authentication.k8s.io", "v1", "tokenreviews", "TokenReview", clusterwide=True)
SUBJECT_ACCESS_REVIEWS = Resource(
    "authorization.k8s.io", "v1", "subjectaccessreviews", "SubjectAccessReview", clusterwide=True
)
CRDS = Resource("apiextensions.k8s.io", "v1", "customresourcedefinitions", "CustomResourceDefinition", clusterwide=True)

PARENTS = (BATCHES, FAN_OUTS, SCHEDULES)
"""Our own kinds: objects that are looked at."""
SURROUNDINGS = (BULKHEADS, NAMESPACES)
"""What decides, besides an object itself, whether it may run."""
WATCHED = (*PARENTS, *SURROUNDINGS, CRON_JOBS, JOBS, PODS, CONFIG_MAPS)
"""What the cache holds: our objects, what stands around them, and the children that carry our label."""
OPTIONAL = (WORKLOADS,)
"""What it holds besides, where the cluster has such objects: those of other projects."""
CHILDREN = (CRON_JOBS, FAN_OUTS, BATCHES, JOBS, CONFIG_MAPS)
"""What a plan may create and delete."""


def of(manifest: dict[str, str]) -> Resource:
    """The resource of a child's manifest."""
    return next(r for r in CHILDREN if r.kind == manifest["kind"])


def of_kind(kind: str) -> Resource:
    """The resource of one of our own kinds."""
    return next(r for r in PARENTS if r.kind == kind)
