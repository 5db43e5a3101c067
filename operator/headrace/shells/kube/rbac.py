"""The rights that the operator needs, verb by verb. The chart renders them; a test holds them against the calls that are made."""

from __future__ import annotations

from headrace.api.base import JsonObject
from headrace.api.kinds import KINDS
from headrace.shells.kube.elector import LEASE_NAME
from headrace.shells.kube.resources import (
    BATCHES,
    BULKHEADS,
    CONFIG_MAPS,
    CRDS,
    CRON_JOBS,
    EVENTS,
    FAN_OUTS,
    JOBS,
    LEASES,
    NAMESPACES,
    PARENTS,
    PODS,
    SCHEDULES,
    SUBJECT_ACCESS_REVIEWS,
    TOKEN_REVIEWS,
    WORKLOADS,
    Resource,
)


def rules() -> list[JsonObject]:
    """For a ClusterRole that serves all namespaces."""
    return [*namespaced_rules(), *cluster_rules()]


def cluster_rules() -> list[JsonObject]:
    """For a ClusterRole in any case: objects that are in no namespace."""
    return [
        _rule(CRDS, "get") | {"resourceNames": [f"{kind.plural}.{BATCHES.group}" for kind in KINDS]},
        _rule(BULKHEADS, "list", "watch"),
        _rule(BULKHEADS, "patch", part="status"),
        _rule(NAMESPACES, "list", "watch"),
    ]


def namespaced_rules() -> list[JsonObject]:
    """For that ClusterRole, or for a Role in each namespace that is served."""
    return [
        _rule(SCHEDULES, "list", "watch"),
        # Runs of schedules are made, cancelled, and deleted as history has no more room; branches are made and changed.
        *(_rule(work, "get", "list", "watch", "create", "patch", "delete") for work in (FAN_OUTS, BATCHES)),
        *(_rule(resource, "patch", part="status") for resource in PARENTS),
        # Only where the API server enforces who may block a deletion (OpenShift): the children do, of their parent's.
        *(_rule(resource, "update", part="finalizers") for resource in PARENTS),
        _rule(CRON_JOBS, "get", "list", "watch", "create", "patch"),
        _rule(JOBS, "get", "list", "watch", "create", "patch", "delete"),
        _rule(JOBS, "patch", part="status"),  # of the Jobs of ticks, which are ours to begin and to end
        _rule(CONFIG_MAPS, "get", "list", "watch", "create", "delete"),
        _rule(PODS, "list", "watch"),
        # Of Kueue: where a batch stands in its queue; and a batch that is to rest has its Workload made inactive.
        _rule(WORKLOADS, "list", "watch", "patch"),
        _rule(EVENTS, "create"),
    ]


def gateway_rules() -> list[JsonObject]:
    """For a Role of the gateway in each namespace where it makes batches."""
    return [_rule(work, "get", "list", "watch", "create", "patch") for work in (BATCHES, FAN_OUTS)]


def pool_rules(owner: str) -> list[JsonObject]:
    """For a Role of the gateway where the workers of its warm pools are; `owner` is the ConfigMap that they are deleted with."""
    return [
        _rule(JOBS, "list", "watch", "create", "delete"),
        _rule(PODS, "list", "watch"),
        _rule(CONFIG_MAPS, "get") | {"resourceNames": [owner]},
    ]


def review_rules() -> list[JsonObject]:
    """For a ClusterRole of a gateway whose tenants are known by tokens of the cluster."""
    return [_rule(TOKEN_REVIEWS, "create"), _rule(SUBJECT_ACCESS_REVIEWS, "create")]


def lease_rules(name: str = LEASE_NAME) -> list[JsonObject]:
    """For a Role in the namespace of the Lease."""
    return [_rule(LEASES, "create"), _rule(LEASES, "get", "update") | {"resourceNames": [name]}]


def _rule(resource: Resource, *verbs: str, part: str = "") -> JsonObject:
    name = f"{resource.plural}/{part}" if part else resource.plural
    return {"apiGroups": [resource.group], "resources": [name], "verbs": list(verbs)}
