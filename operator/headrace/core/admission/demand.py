"""What one batch asks of its bulkhead and what it holds, read from the object alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import final
from weakref import WeakValueDictionary
from zlib import crc32

from headrace.api.bulkhead import NAMESPACE_NAME
from headrace.api.engines import EngineName
from headrace.api.inferencebatch import InferenceBatch
from headrace.api.reasons import ConditionType, Reason
from headrace.core.stopping import deadline

SHOWN_URLS, MOST_SHOWN = 4, 512
"""How many endpoints the name of a breaker has, and characters of them."""


@final
class Shape:
    """All that decides whether there is room for something to start. Where one of a shape does not fit, no other does.

    Equal ones are the same object. Decisions look shapes up all the time, and by identity that costs next to nothing.
    """

    __slots__ = ("__weakref__", "breakers", "calls", "gpus", "grows", "min_pods", "of_one_pod", "resource", "size")

    resource: str
    """What the cluster calls the GPUs."""
    gpus: int
    """Of one pod."""
    calls: int
    """Endpoint calls of one pod."""
    min_pods: int
    """With fewer it does not start."""
    breakers: tuple[str, ...]
    """Circuit breakers that must let it through."""
    grows: bool
    """It runs, and wants more pods."""
    of_one_pod: tuple[str, int, int]
    """All that one pod takes up."""
    size: Shape
    """The same with no breakers: all that decides whether there is room, where nothing is in doubt."""

    def __new__(
        cls, resource: str, gpus: int, calls: int, min_pods: int, breakers: tuple[str, ...], *, grows: bool = False
    ) -> Shape:
        """The shape of these."""
        parts = (resource, gpus, calls, min_pods, breakers, grows)
        known = _SHAPES.get(parts)
        if known is not None:
            return known
        self = object.__new__(cls)
        self.resource, self.gpus, self.calls, self.min_pods, self.breakers, self.grows = parts
        self.of_one_pod = parts[:3]
        self.size = cls(resource, gpus, calls, min_pods, (), grows=grows) if breakers else self
        return _SHAPES.setdefault(parts, self)

    @property
    def grown(self) -> Shape:
        """Of what runs in this shape, and wants more pods."""
        return Shape(*self.of_one_pod, 1, self.breakers, grows=True)

    def __repr__(self) -> str:
        """For a person who looks for a mistake."""
        return (
            f"Shape({self.resource!r}, {self.gpus}, {self.calls}, {self.min_pods}, {self.breakers}, grows={self.grows})"
        )


_SHAPES: WeakValueDictionary[tuple[str, int, int, int, tuple[str, ...], bool], Shape] = WeakValueDictionary()
"""All that somebody speaks of."""


@dataclass(frozen=True, slots=True)
class Evidence:
    """Something that was seen of a model or an image: it works, or it does not."""

    breaker: str
    ok: bool
    at: datetime
    """In whole seconds, as it is read back from a status: what was seen is known by its moment, before it is written as after."""
    sure: bool = False
    """Whether this alone is enough to know that it does not work."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Demand:
    """One batch, as far as admission is concerned."""

    key: str
    """`namespace/name`."""
    namespace: str
    bulkhead: str
    shape: Shape
    pods: int
    """As many as it can use."""
    priority: int = 0
    created: datetime
    since: datetime
    """Since when it waits, if it waits."""
    wants: bool = True
    """Whether it could run now, were it let."""
    suspended: bool = False
    """Whether it would want to, if its owner had not suspended it."""
    held: int = 0
    """Pods that its status says it may have or still has."""
    admitted: bool = False
    """Whether its status says that it may run."""
    started: datetime | None = None
    """When it was last let start."""
    moving: bool = False
    """Whether it gets records done."""
    deadline: datetime | None = None
    run_seconds: float | None = None
    """How long it is predicted to take with all its pods; None when nothing is known."""
    ends: datetime | None = None
    """When it is predicted to end."""
    tokens: int = 0
    """Used in all so far."""
    gpu_seconds: int = 0
    """Used in all so far."""
    pace: float | None = None
    """Seconds that one pod takes for a record; None while it does not move."""
    evidence: tuple[Evidence, ...] = ()
    said: str = ""
    """The reason that its status gives why it waits."""
    position: int | None = None
    """In the line, as its status says."""
    start: datetime | None = None
    """When it should start, as its status says."""
    namespace_labels: Mapping[str, str] | None = None


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What else is known when a batch is read."""

    now: datetime
    image: str = ""
    """The image that its pods run."""
    paces: Mapping[str, float] | None = None
    """Seconds that one pod takes for a record, by model."""
    namespace_labels: Mapping[str, str] | None = None
    """Labels of its namespace; by default only its name is known."""


def demand_of(batch: InferenceBatch, around: Surroundings) -> Demand:
    """The batch, as far as admission is concerned."""
    spec, status, now = batch.spec, batch.status, around.now
    # Whose last shard is done waits for its Job to say so: until then it is not over, and nothing is taken back.
    pods, created = (
        usable_pods(batch) or min(1, allowed_pods(batch)),
        batch.metadata.creation_timestamp or status.start_time or now,
    )
    gone = status.finished or spec.cancel or batch.metadata.deletion_timestamp is not None
    stopping = status.condition(ConditionType.FAILED)
    ready = not gone and status.is_true(ConditionType.INPUT_VALIDATED) and pods > 0 and spec.queue_name is None
    ready = ready and (stopping is None or stopping.reason == Reason.RETRYING)
    model = model_breaker(batch)
    endpoints = endpoints_breaker(batch)
    breakers = (model, *([endpoints] if endpoints else ()), *([f"image {around.image}"] if around.image else ()))
    run_seconds = _run_seconds(batch, pods, (around.paces or {}).get(model))
    admitted, queue = status.condition(ConditionType.ADMITTED), status.queue
    calls = endpoint_calls(batch)
    return Demand(
        key=batch.key,
        namespace=batch.metadata.namespace,
        bulkhead=spec.bulkhead_name,
        shape=Shape(spec.resources.gpu_resource_name, spec.gpus, calls, min_pods(batch, pods), breakers),
        pods=pods,
        priority=spec.priority,
        created=created,
        since=_waits_since(batch, created),
        wants=ready and not spec.suspend,
        suspended=ready and spec.suspend,
        held=held_pods(batch),
        admitted=status.is_true(ConditionType.ADMITTED),
        started=_started(batch),
        moving=not gone and status.records_per_second is not None and status.parking is None,
        deadline=deadline(batch, now),
        run_seconds=run_seconds,
        ends=status.estimated_completion_time,
        tokens=status.usage.prompt_tokens + status.usage.completion_tokens,
        gpu_seconds=status.usage.gpu_seconds,
        pace=_pace(batch),
        evidence=tuple(_evidence(batch, model, around)),
        said=admitted.reason if admitted is not None else "",
        position=queue.position if queue is not None else None,
        start=queue.estimated_start_time if queue is not None else None,
        namespace_labels={NAMESPACE_NAME: batch.metadata.namespace, **(around.namespace_labels or {})},
    )


def allowed_pods(batch: InferenceBatch) -> int:
    """Pods that the batch may have at once, by its own word."""
    limits, gpus = batch.spec.limits, batch.spec.gpus
    pods = batch.spec.parallelism
    if limits.pods is not None:
        pods = min(pods, limits.pods)
    return min(pods, limits.gpus // gpus) if limits.gpus is not None and gpus else pods


def endpoint_calls(batch: InferenceBatch) -> int:
    """Requests that one pod has in flight to remote endpoints."""
    return batch.spec.batching.size if batch.spec.engine.name == EngineName.OPENAI else 0


def no_pods_allowed(batch: InferenceBatch) -> str:
    """Which word of its own allows the batch no pod, for people."""
    if not batch.spec.parallelism:
        return "spec.parallelism is 0: nothing runs until it is raised"
    return f"spec.limits.gpus must be at least {batch.spec.gpus}, the GPUs of one pod, not {batch.spec.limits.gpus}"


def usable_pods(batch: InferenceBatch) -> int:
    """Pods that the batch may have and has a shard for."""
    shards = batch.status.shards
    return min(allowed_pods(batch), max(0, shards.total - shards.succeeded - shards.failed))


def min_pods(batch: InferenceBatch, pods: int) -> int:
    """Pods that it starts with at least; the last shards may be fewer."""
    return max(1, min(batch.spec.min_parallelism or 1, pods))


def held_pods(batch: InferenceBatch) -> int:
    """Pods that the status says it may have or still has. A status from before that was written down speaks of all.

    What Kueue admits is counted by Kueue.
    """
    status = batch.status
    if status.finished or batch.spec.queue_name is not None:
        return 0
    if status.admission is not None:
        return status.admission.pods
    return allowed_pods(batch) if status.is_true(ConditionType.ADMITTED) else 0


def model_breaker(batch: InferenceBatch) -> str:
    """The breaker of the batch's weights: one model in two places has two."""
    model = batch.spec.model
    where = f" from {model.source.model_dump_json(by_alias=True, exclude_none=True)}" if model.source else ""
    return f"model {model.name}{where}"


def endpoints_breaker(batch: InferenceBatch) -> str | None:
    """The breaker of the endpoints that the batch asks, which is that of all batches which ask the same ones."""
    if batch.spec.engine.openai is None:
        return None
    urls = sorted({it.url.rstrip("/").removesuffix("/v1") for it in batch.spec.engine.openai.asked})
    shown = ", ".join(urls[:SHOWN_URLS])
    if len(urls) <= SHOWN_URLS and len(shown) <= MOST_SHOWN:
        return f"endpoints {shown}"
    return f"endpoints {shown[:MOST_SHOWN]}… ({len(urls)}, {crc32(' '.join(urls).encode()):08x})"


def _waits_since(batch: InferenceBatch, created: datetime) -> datetime:
    """When it could first have started, or stopped running for another."""
    kinds = (ConditionType.INPUT_VALIDATED, ConditionType.ADMITTED, ConditionType.SUSPENDED)
    found = [batch.status.condition(kind) for kind in kinds]
    return max((c.last_transition_time for c in found if c is not None), default=created)


def _pace(batch: InferenceBatch) -> float | None:
    speed, active = batch.status.records_per_second, batch.status.shards.active
    return active / float(speed) if speed is not None and active and float(speed) > 0 else None


def _run_seconds(batch: InferenceBatch, pods: int, known_pace: float | None) -> float | None:
    pace = _pace(batch) or known_pace
    return batch.status.records.pending * pace / pods if pace is not None and pods else None


def _evidence(batch: InferenceBatch, model: str, around: Surroundings) -> list[Evidence]:
    """What the batch tells about its model and its image."""
    status, found = batch.status, list[Evidence]()
    failed, ready = status.condition(ConditionType.FAILED), status.condition(ConditionType.PODS_READY)
    if failed is not None and status.is_true(ConditionType.FAILED) and failed.reason == Reason.WORKER_FAILED:
        found.append(Evidence(model, ok=False, at=_as_written(failed.last_transition_time)))
    elif status.is_true(ConditionType.COMPLETE) and status.completion_time is not None:
        found.append(Evidence(model, ok=True, at=_as_written(status.completion_time)))
    elif status.records_per_second is not None and not status.finished:
        found.append(Evidence(model, ok=True, at=_as_written(around.now)))
    endpoints = endpoints_breaker(batch)
    if endpoints is not None and status.parking is not None:
        found.append(Evidence(endpoints, ok=False, at=_as_written(status.parking.time), sure=True))
    elif endpoints is not None and found and found[0].ok:
        found.append(Evidence(endpoints, ok=True, at=found[0].at))
    if not around.image:
        return found
    image = f"image {around.image}"
    if ready is not None and ready.reason == Reason.IMAGE_PULL_FAILED:
        found.append(Evidence(image, ok=False, at=_as_written(ready.last_transition_time)))
    elif found and found[0].ok:
        found.append(Evidence(image, ok=True, at=found[0].at))
    return found


def _started(batch: InferenceBatch) -> datetime | None:
    admission = batch.status.admission
    return _as_written(admission.time) if admission is not None and admission.time is not None else None


def _as_written(moment: datetime) -> datetime:
    """As it is read back from a status."""
    return moment.replace(microsecond=0)


LONG_AGO = timedelta(days=1)
"""A batch without a deadline is ordered as if it had to start within this time, so that no stream of urgent ones passes it for ever."""


def latest_start(demand: Demand) -> datetime:
    """When it must start so as to be done in time."""
    if demand.deadline is None:
        return demand.created + LONG_AGO
    return demand.deadline - timedelta(seconds=demand.run_seconds or 0.0)
