"""Queues of Kueue for one namespace: a LocalQueue, and a ClusterQueue behind it that nobody else is in."""

from __future__ import annotations

from typing import Any

from headrace.api.base import JsonObject
from headrace.shells.kube.resources import Resource

from .operator_rig import Rig

QUEUE = "team-a"
FLAVORS = Resource("kueue.x-k8s.io", "v1beta2", "resourceflavors", "ResourceFlavor", clusterwide=True)
CLUSTER_QUEUES = Resource("kueue.x-k8s.io", "v1beta2", "clusterqueues", "ClusterQueue", clusterwide=True)
LOCAL_QUEUES = Resource("kueue.x-k8s.io", "v1beta2", "localqueues", "LocalQueue")
PRIORITY_CLASSES = Resource(
    "kueue.x-k8s.io", "v1beta2", "workloadpriorityclasses", "WorkloadPriorityClass", clusterwide=True
)


def make(rig: Rig, resource: Resource, name: str, spec: JsonObject) -> None:
    head = {"apiVersion": resource.api_version, "kind": resource.kind, "metadata": {"name": name}}
    rig.create(resource, {**head, **spec})


def queue_up(rig: Rig, gpus: int, **spec: Any) -> None:
    """A LocalQueue with a ClusterQueue of its own, which has so many GPUs on nodes of one kind."""
    make(rig, FLAVORS, rig.namespace, {"spec": {"nodeLabels": {"gpu": "h200"}}})
    amounts = {"cpu": "100", "memory": "1000Gi", "nvidia.com/gpu": gpus}
    quota = [{"name": name, "nominalQuota": amount} for name, amount in amounts.items()]
    group = {"coveredResources": list(amounts), "flavors": [{"name": rig.namespace, "resources": quota}]}
    make(rig, CLUSTER_QUEUES, rig.namespace, {"spec": {"namespaceSelector": {}, "resourceGroups": [group], **spec}})
    make(rig, LOCAL_QUEUES, QUEUE, {"spec": {"clusterQueue": rig.namespace}})
