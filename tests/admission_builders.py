"""Builders for tests of admission: bulkheads, and what batches ask of them."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from builders import NOON
from headrace.api.bulkhead import NAMESPACE_NAME, Bulkhead
from headrace.core.admission.demand import Demand, Evidence, Shape

GPU = "nvidia.com/gpu"
MODEL = "model mock"
IMAGE = "image worker"


def a_bulkhead(name: str = "prod", status: dict[str, Any] | None = None, **spec: Any) -> Bulkhead:
    """A Bulkhead; spec fields in camelCase."""
    return Bulkhead.parse(
        {
            "apiVersion": "headrace.dev/v1alpha1",
            "kind": "Bulkhead",
            "metadata": {"name": name},
            "spec": spec,
            "status": status or {},
        }
    )


def with_gpus(gpus: int, **spec: Any) -> Bulkhead:
    """A Bulkhead `prod` of so many GPUs."""
    return a_bulkhead(capacity={"gpus": gpus, **spec.pop("capacity", {})}, **spec)


def wants(
    key: str = "team/a",
    pods: int = 1,
    *,
    gpus: int = 1,
    at_least: int | None = None,
    resource: str = GPU,
    calls: int = 0,
    breakers: tuple[str, ...] = (MODEL, IMAGE),
    waited: float = 0,
    **fields: Any,
) -> Demand:
    """A batch that waits since so many seconds before noon, for all of its pods at once unless `at_least` says otherwise."""
    namespace = key.partition("/")[0]
    since = NOON - timedelta(seconds=waited)
    defaults: dict[str, Any] = {
        "key": key,
        "namespace": namespace,
        "bulkhead": "prod",
        "shape": Shape(resource, gpus, calls, pods if at_least is None else at_least, breakers),
        "pods": pods,
        "created": since,
        "since": since,
        "namespace_labels": {NAMESPACE_NAME: namespace},
    }
    return Demand(**{**defaults, **fields})


def holds(key: str = "team/a", pods: int = 1, held: int | None = None, **fields: Any) -> Demand:
    """A batch that runs, since an hour before noon."""
    pods_held = pods if held is None else held
    running = {"held": pods_held, "admitted": True, "started": NOON - timedelta(hours=1), "waited": 7200}
    return wants(key, pods, **{**running, **fields})


def failed(key: str, after: float, *, started: float | None = None, breaker: str = MODEL) -> Demand:
    """A batch that ended in failure so many seconds after noon."""
    return _ended(key, after, started, breaker, ok=False)


def succeeded(key: str, after: float, *, started: float | None = None, breaker: str = MODEL) -> Demand:
    """A batch that was complete so many seconds after noon."""
    return _ended(key, after, started, breaker, ok=True)


def _ended(key: str, after: float, started: float | None, breaker: str, *, ok: bool) -> Demand:
    seen = Evidence(breaker, ok=ok, at=NOON + timedelta(seconds=after))
    begun = NOON + timedelta(seconds=after if started is None else started)
    return wants(key, wants=False, evidence=(seen,), started=begun if started is not None else None)
