"""A Workload: what Kueue has made of a run Job, as far as it matters to us."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from headrace.api import labels


class Turn(NamedTuple):
    """Kueue's order: the higher priority, then whoever was put in line first."""

    minus_priority: int
    since: str
    """In RFC 3339, so that earlier times are smaller strings."""
    uid: str


@dataclass(frozen=True, slots=True)
class Workload:
    """One Workload, as Kueue's controllers have left it."""

    name: str
    uid: str
    job_uid: str
    """The Job that it stands for."""
    queue: str
    """Its LocalQueue."""
    turn: Turn
    active: bool = True
    """Whether it may be admitted at all, as `spec.active` says."""
    rests_for_us: bool = False
    """Whether it is inactive because its batch is to rest."""
    admitted: bool = False
    reserved: bool = False
    """Whether there is quota for it; admission checks may still be open then."""
    finished: bool = False
    cluster_queue: str = ""
    """Which ClusterQueue has quota for it."""
    says: str = ""
    """Why it is not admitted, in Kueue's own words."""

    @property
    def waits(self) -> bool:
        """Whether it stands in the line of its LocalQueue."""
        return self.active and not self.reserved and not self.finished

    @classmethod
    def from_object(cls, found: Mapping[str, Any]) -> Workload:
        """Read a `kueue.x-k8s.io` Workload."""
        metadata, spec, status = found["metadata"], found["spec"], found.get("status", {})
        conditions = {it["type"]: it for it in status.get("conditions", ())}
        return cls(
            name=metadata["name"],
            uid=metadata["uid"],
            job_uid=next((it["uid"] for it in metadata.get("ownerReferences", ()) if it.get("controller")), ""),
            queue=spec.get("queueName", ""),
            turn=Turn(-spec.get("priority", 0), _since(metadata, conditions), metadata["uid"]),
            active=spec.get("active", True),
            rests_for_us=labels.DEACTIVATED in metadata.get("annotations", {}),
            admitted=_holds(conditions, "Admitted"),
            reserved=_holds(conditions, "QuotaReserved"),
            finished=_holds(conditions, "Finished"),
            cluster_queue=(status.get("admission") or {}).get("clusterQueue", ""),
            says=_says(status, conditions, active=spec.get("active", True)),
        )


@dataclass(frozen=True, slots=True)
class KueueView:
    """What can be seen of Kueue for one batch with a `queueName`."""

    installed: bool
    """Whether the cluster knows Workloads at all."""
    workload: Workload | None = None
    """That of the run Job."""
    position: int | None = None
    """In the line of its LocalQueue, 1 is next; None when it does not stand in it."""


_BACK_OF_THE_LINE = ("PodsReadyTimeout", "AdmissionCheck")
"""Who was evicted for one of these lines up anew; whoever was evicted otherwise keeps the place of his creation."""


def _since(metadata: Mapping[str, Any], conditions: Mapping[str, Mapping[str, Any]]) -> str:
    evicted = conditions.get("Evicted", {})
    moved = _holds(conditions, "Evicted") and evicted.get("reason") in _BACK_OF_THE_LINE
    return str(evicted["lastTransitionTime"] if moved else metadata.get("creationTimestamp", ""))


def _holds(conditions: Mapping[str, Mapping[str, Any]], kind: str) -> bool:
    return conditions.get(kind, {}).get("status") == "True"


def _says(status: Mapping[str, Any], conditions: Mapping[str, Mapping[str, Any]], *, active: bool) -> str:
    """An eviction, what the quota lacks, and the checks that are open; each once."""
    said = [_evicted(conditions)]
    if not active:
        said.append("its spec.active is false")
    elif _holds(conditions, "QuotaReserved"):
        said += _open_checks(status)
    else:
        said.append(conditions.get("QuotaReserved", {}).get("message", ""))
    again = (status.get("requeueState") or {}).get("requeueAt")
    said.append(f"it is put in line again at {again}" if again else "")
    return "; ".join(dict.fromkeys(text.rstrip(". ") for text in said if text)) or "Kueue has not looked at it yet"


def _evicted(conditions: Mapping[str, Mapping[str, Any]]) -> str:
    evicted = conditions.get("Evicted", {})
    return f"evicted ({evicted['reason']}): {evicted.get('message', '')}" if _holds(conditions, "Evicted") else ""


def _open_checks(status: Mapping[str, Any]) -> list[str]:
    checks = (it for it in status.get("admissionChecks", ()) if it.get("state") != "Ready")
    said = [f"admission check {it['name']} is {it.get('state')}: {it.get('message', '')}".rstrip(": ") for it in checks]
    return said or ["its quota is reserved; it is about to be admitted"]
