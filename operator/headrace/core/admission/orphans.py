"""Pods whose batch is gone: they take their time to end, and hold until then what they held.

A running process knows what it was. One that starts finds it written on the pods and on their Job, for the batch cannot be asked any more.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Container, Iterable
from dataclasses import dataclass
from datetime import datetime

from headrace.api import labels
from headrace.api.base import JsonObject
from headrace.api.inferencebatch import InferenceBatch
from headrace.core.admission.demand import Demand, Shape, endpoint_calls

ENDED = ("Succeeded", "Failed")


def mark(batch: InferenceBatch) -> str:
    """What each pod of the batch counts for, as it is written on the pod."""
    spec = batch.spec
    holds = {
        "bulkhead": spec.bulkhead_name,
        "resource": spec.resources.gpu_resource_name,
        "gpus": spec.gpus,
        "calls": endpoint_calls(batch),
    }
    return json.dumps(holds, separators=(",", ":"))


@dataclass(slots=True)
class _Left:
    """What is left of one batch."""

    mark: str
    pods: int = 0
    may_start: int = 0
    """What its Job may have at once."""


def orphans(
    jobs: Iterable[JsonObject], pods: Iterable[JsonObject], batches: Container[tuple[str, str]], now: datetime
) -> list[Demand]:
    """What is held by pods of batches (namespace and name) that are not there any more."""
    left: defaultdict[tuple[str, str], _Left] = defaultdict(lambda: _Left(""))
    for job in jobs:
        if (key := _orphan(job, batches)) is not None and not job["spec"].get("suspend"):
            left[key].may_start += job["spec"].get("parallelism", 1)
            left[key].mark = _mark_of(job)
    for pod in pods:
        if (key := _orphan(pod, batches)) is not None and pod.get("status", {}).get("phase") not in ENDED:
            left[key].pods += 1
            left[key].mark = _mark_of(pod)
    return [_demand(key, it, now) for key, it in left.items() if max(it.pods, it.may_start)]


def _orphan(child: JsonObject, batches: Container[tuple[str, str]]) -> tuple[str, str] | None:
    """The batch that it was of; None for one that is there, and for what holds nothing."""
    metadata = child["metadata"]
    key = (metadata["namespace"], metadata.get("labels", {}).get(labels.INFERENCE_BATCH, ""))
    return key if key[1] and key not in batches and _mark_of(child) else None


def _mark_of(child: JsonObject) -> str:
    return str(child["metadata"].get("annotations", {}).get(labels.HOLDS, ""))


def _demand(key: tuple[str, str], left: _Left, now: datetime) -> Demand:
    holds, pods = json.loads(left.mark), max(left.pods, left.may_start)
    return Demand(
        key="/".join(key),
        namespace=key[0],
        bulkhead=holds["bulkhead"],
        shape=Shape(holds["resource"], holds["gpus"], holds["calls"], 1, ()),
        pods=pods,
        created=now,
        since=now,
        wants=False,
        held=pods,
    )
