"""The pods of a warm pool in a cluster: a Job for each worker, rendered as all Jobs are, and what can be seen of it.

A worker is known by its Job. It is never started again: the pool decides whether another follows. Whoever leads later finds it by its
labels, and goes on with it unless it was told something else than a new one would be.
"""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from headrace.api import labels
from headrace.api.asking import RequestRoute
from headrace.api.base import JsonObject
from headrace.api.inferencebatch import InferenceBatch
from headrace.api.worker import Env, ExitCode, Failure, Listening, Role, parse_report
from headrace.core.children import single_job
from headrace.core.observed import Installation, PodSnapshot

SERVE_PORT = 9401
"""Where the worker of a pod listens."""
KEPT_SECONDS = 600
"""How long a Job whose worker has ended by itself is kept, so that somebody can read its log."""
LOST_MILLISECONDS = 120_000
"""How long a worker may be out of reach while its pod is said to run: then it is given up."""
KILLED = 137


def key_of(secret: str, name: str) -> str:
    """What opens the worker of that name. Who knows that of one knows nothing of the others."""
    return hmac.new(secret.encode(), name.encode(), "sha256").hexdigest()


def selector(route: RequestRoute, gateway: str) -> str:
    """The labels that all workers of a pool have; `gateway` is its namespace."""
    return f"{labels.POOL}={route.name},{labels.POOL_GATEWAY}={gateway}"


def pool_job(
    batch: InferenceBatch, place: Installation, route: RequestRoute, gateway: str, owner: JsonObject | None
) -> JsonObject:
    """The Job of a worker, all but what is its own. It is deleted with its `owner`, and some time after its worker has ended."""
    job = single_job(batch, place, Role.SERVE, backoff_limit=0)
    marks = {labels.POOL: route.name, labels.POOL_GATEWAY: gateway, labels.ROLE: str(Role.SERVE)}
    marks |= labels.recommended(route.name, Role.SERVE) | {labels.MANAGED_BY: labels.POOL_MANAGER}
    queue = batch.spec.queue_name
    queued = {labels.QUEUE_NAME: queue} if queue is not None else {}
    template = job["spec"]["template"]
    template["metadata"] = {"labels": marks}
    return {
        "apiVersion": job["apiVersion"],
        "kind": job["kind"],
        "metadata": {
            "namespace": batch.metadata.namespace,
            "labels": marks | queued,
            **({"ownerReferences": [owner]} if owner is not None else {}),
        },
        "spec": {**job["spec"], "ttlSecondsAfterFinished": KEPT_SECONDS, "suspend": queue is not None},
    }


def version_of(job: JsonObject, secret: str) -> str:
    """What a worker is told, in short: of two that have the same version either may serve."""
    said = json.dumps([job["spec"], hashlib.sha256(secret.encode()).hexdigest()], sort_keys=True)
    return hashlib.sha256(said.encode()).hexdigest()[:16]


def named(job: JsonObject, name: str, secret: str) -> JsonObject:
    """The Job of the worker of that name: it listens to whoever has its key, of which its pod has the hash alone."""
    marks = {labels.POOL_VERSION: version_of(job, secret)}
    digest = hashlib.sha256(key_of(secret, name).encode()).hexdigest()
    listening = Listening(port=SERVE_PORT, key_sha256=digest)
    template = job["spec"]["template"]
    (container,) = template["spec"]["containers"]
    told = [
        {"name": Env.LISTEN.value, "value": listening.model_dump_json(by_alias=True)},
        {"name": Env.POD_IP.value, "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
    ]
    ports = [*container["ports"], {"name": "serve", "containerPort": SERVE_PORT}]
    pod = {**template["spec"], "containers": [{**container, "env": [*container["env"], *told], "ports": ports}]}
    return {
        **job,
        "metadata": {**job["metadata"], "name": name, "labels": job["metadata"]["labels"] | marks},
        "spec": {
            **job["spec"],
            "template": {"metadata": {"labels": template["metadata"]["labels"] | marks}, "spec": pod},
        },
    }


@dataclass(frozen=True, slots=True)
class PoolPod:
    """The pod of a worker, as far as it matters to a pool."""

    uid: str
    address: str | None = None
    """Where it can be reached, once it runs."""
    leaving: bool = False
    """It was told to stop, or was taken off its node: for no fault of what it works on."""
    exit_code: int | None = None
    """Once it has ended."""
    failure: Failure | None = None
    obstacle: Failure | None = None
    """What keeps it from starting."""

    @property
    def over(self) -> bool:
        """Whether it answers nothing more."""
        return self.leaving or self.exit_code is not None

    @classmethod
    def from_object(cls, pod: Mapping[str, Any]) -> PoolPod:
        """Read a pod with our labels."""
        metadata, status, seen = pod["metadata"], pod.get("status", {}), PodSnapshot.from_object(pod)
        conditions = status.get("conditions", ())
        disrupted = any(it["type"] == "DisruptionTarget" and it["status"] == "True" for it in conditions)
        code, failure = _end(status) if seen.phase in ("Succeeded", "Failed") else (None, None)
        return cls(
            uid=metadata["uid"],
            address=status.get("podIP") if seen.phase == "Running" else None,
            leaving="deletionTimestamp" in metadata or disrupted,
            exit_code=code,
            failure=failure,
            obstacle=Failure(reason=str(seen.obstacle), message=seen.message) if seen.obstacle is not None else None,
        )


def _end(status: Mapping[str, Any]) -> tuple[int, Failure | None]:
    """How it has ended. One of which nothing is known was killed with its node."""
    states = (it.get("state", {}).get("terminated") for it in status.get("containerStatuses", ()))
    ended = next((it for it in states if it is not None), None)
    if ended is None:
        return KILLED, None
    report = parse_report(ended.get("message", "").encode())
    failure = report.failure if report is not None else None
    if failure is None and ended.get("reason") == "OOMKilled":
        failure = Failure(
            reason="OutOfMemory", message="the worker had less memory than it needed: raise resources.limits.memory"
        )
    return int(ended["exitCode"]), failure


def is_over(job: Mapping[str, Any]) -> bool:
    """Whether no pod of a Job runs any more, or none is to."""
    conditions = job.get("status", {}).get("conditions", ())
    final = any(it["type"] in ("Complete", "Failed", "FailureTarget") and it["status"] == "True" for it in conditions)
    return final or "deletionTimestamp" in job["metadata"]


def can_serve(job: Mapping[str, Any], pods: Iterable[PoolPod]) -> bool:
    """Whether a worker that was found may be told of requests.

    One whose pod is over is on its way out; that of a Job which Kueue has put back into its queue will have another pod.
    """
    gone = any(pod.over for pod in pods) and not job["spec"].get("suspend", False)
    return not is_over(job) and not gone


def is_outdated(job: Mapping[str, Any], version: str) -> bool:
    """Whether a worker was told something else than a new one would be."""
    return bool(job["metadata"]["labels"].get(labels.POOL_VERSION) != version)


def end_of(pod: PoolPod | None) -> tuple[int, Failure | None]:
    """How the worker of a pod that is over has ended, as far as its requests are concerned.

    Who was taken away, or is gone without a word, has drained: its requests are told to another, and no delivery is counted.
    """
    if pod is None or pod.leaving or pod.exit_code is None:
        return int(ExitCode.DRAINED), None
    return pod.exit_code, pod.failure
