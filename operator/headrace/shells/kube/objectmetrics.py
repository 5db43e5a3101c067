"""Metrics of the objects: how many there are and how they stand, what has been done for them, and how they have ended.

Labels are bounded: namespace, kind, bulkhead, engine, task and enumerated words. The name of an object is never one, so a thousand
objects more are not one series more.
"""

from __future__ import annotations

from collections import Counter as Multiset
from datetime import datetime
from typing import Any, NamedTuple

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from headrace.api.batchstatus import InferenceBatchStatus
from headrace.api.evaluation import EvaluationStatus, Feature
from headrace.api.fanoutjob import FanOutJob
from headrace.api.fanoutstatus import FanOutJobStatus
from headrace.api.inferencebatch import InferenceBatch
from headrace.api.kinds import OurObject, OurStatus
from headrace.core.accounting import (
    admission_wait,
    done,
    drained,
    end_of,
    ended_branches,
    eviction,
    standing,
    waits_for,
)
from headrace.shells.kube.cache import Parent

_WORK = ("namespace", "bulkhead", "engine", "task")
_WAIT_BUCKETS = (1, 5, 15, 60, 300, 900, 3600, 14_400, 43_200, 86_400)
_PARTS = {"InferenceBatch": "shard", "FanOutJob": "branch"}
_SHARD_OF_A_BRANCH = "/"
"""In the name of a straggler of a fan-out; the shard is counted at the branch's own batch."""
_SCORE_BUCKETS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 1.0)
_PSI_BUCKETS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2)
_EVENNESS_BUCKETS = (0.2, 0.4, 0.5, 0.6, 0.7, 0.8, 0.85, 0.9, 0.95, 1.0)


class _Place(NamedTuple):
    """What is counted of one object that is there."""

    namespace: str
    kind: str
    standing: str
    bulkhead: str
    reason: str
    """Why it waits; empty when it does not."""
    stragglers: int
    """Its own parts that lag behind while it is at work: branches of a fan-out, shards of a batch."""


class ObjectMetrics:
    """What is told of the objects that this operator serves."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._places: dict[Parent, _Place] = {}

        def counter(name: str, documentation: str, *labels: str) -> Counter:
            return Counter(name, documentation, labels, registry=registry)

        self._objects = Gauge(
            "headrace_objects", "Objects, by how they stand", ["namespace", "kind", "state"], registry=registry
        )
        self._waiting = Gauge(
            "headrace_batches_waiting",
            "Batches that wait to be admitted, by reason",
            ["bulkhead", "reason"],
            registry=registry,
        )
        self._stragglers = Gauge(
            "headrace_stragglers",
            "Parts of objects at work that take more than twice as long as half of the others",
            ["namespace", "part"],
            registry=registry,
        )
        self._records = counter("headrace_records", "Records finished", *_WORK, "outcome")
        self._reprocessed = counter("headrace_records_reprocessed", "Records begun again after a loss", *_WORK)
        self._tokens = counter(
            "headrace_tokens", "Tokens read (prompt) and generated (completion)", *_WORK, "direction"
        )
        self._gpu_seconds = counter("headrace_gpu_seconds", "GPUs times the seconds that they were held", *_WORK)
        self._batched = counter("headrace_batched_records", "Records in the batches of finished shards", *_WORK)
        self._room = counter("headrace_batch_places", "Records that those batches had room for", *_WORK)
        self._finished = counter(
            "headrace_finished", "Objects that have ended", "namespace", "kind", "condition", "reason"
        )
        self._evictions = counter("headrace_evictions", "Batches that lost what they held", "bulkhead", "reason")
        self._lost = counter(
            "headrace_lost_gpu_seconds",
            "GPUs times the seconds from the loss of an admission until they were free",
            "bulkhead",
            "reason",
        )
        self._branches = counter("headrace_fanout_branches", "Branches of ended fan-outs", "namespace", "outcome")
        self._wait = Histogram(
            "headrace_admission_wait_seconds",
            "How long batches have waited to be admitted",
            ["bulkhead"],
            buckets=_WAIT_BUCKETS,
            registry=registry,
        )
        self._evenness = Histogram(
            "headrace_fanout_evenness_ratio",
            "Jain's index over the durations of the branches of ended fan-outs",
            ["namespace"],
            buckets=_EVENNESS_BUCKETS,
            registry=registry,
        )
        self._shard_evenness = Histogram(
            "headrace_batch_evenness_ratio",
            "Jain's index over the durations of the shards of ended batches",
            ["namespace"],
            buckets=_EVENNESS_BUCKETS,
            registry=registry,
        )

        self._evaluated = counter(
            "headrace_evaluated_records", "Records that said what is expected, by verdict", *_WORK, "verdict"
        )
        self._scores = Histogram(
            "headrace_evaluation_score_ratio",
            "Scores of the answers of ended batches",
            ["namespace", "task", "score"],
            buckets=_SCORE_BUCKETS,
            registry=registry,
        )
        self._psi = Histogram(
            "headrace_data_drift_psi",
            "Population stability index of ended batches against their references",
            ["namespace", "feature"],
            buckets=_PSI_BUCKETS,
            registry=registry,
        )
        self._drifts = counter("headrace_data_drifts", "Ended batches that have drifted", "namespace", "feature")

    def seen(self, key: Parent, parent: OurObject, status: OurStatus) -> None:
        """An object stands like this now."""
        bulkhead = parent.spec.bulkhead_name if isinstance(parent, InferenceBatch) else ""
        reason = waits_for(status) or ""
        lagging = 0 if status.finished else sum(_SHARD_OF_A_BRANCH not in name for name in status.stragglers)
        self._places[key] = _Place(key.namespace, parent.kind, standing(status), bulkhead, reason, lagging)

    def gone(self, key: Parent) -> None:
        """There is no such object any more."""
        self._places.pop(key, None)

    def wrote(self, parent: OurObject, status: OurStatus, now: datetime) -> None:
        """A status has been written in place of the one that the object had."""
        end = end_of(parent.status, status)
        if end is not None:
            self._finished.labels(parent.metadata.namespace, parent.kind, end.type, end.reason).inc()
        if isinstance(parent, InferenceBatch) and isinstance(status, InferenceBatchStatus):
            self._wrote_batch(parent, status, now)
            if end is not None and status.evenness_percent is not None:
                self._shard_evenness.labels(parent.metadata.namespace).observe(status.evenness_percent / 100)
            if end is not None and status.evaluation is not None:
                self._ended_evaluated(parent, status.evaluation)
        elif isinstance(parent, FanOutJob) and isinstance(status, FanOutJobStatus) and end is not None:
            self._ended_fan_out(parent, status)

    def refresh(self) -> None:
        """Bring up to date what says how many there are; of what there is none any more nothing is said."""
        standings = Multiset((place.namespace, place.kind, place.standing) for place in self._places.values())
        reasons = Multiset((place.bulkhead, place.reason) for place in self._places.values() if place.reason)
        stragglers: Multiset[tuple[str, str]] = Multiset()
        for place in self._places.values():
            stragglers[place.namespace, _PARTS[place.kind]] += place.stragglers
        _set(self._stragglers, stragglers)
        _set(self._objects, standings)
        _set(self._waiting, reasons)

    def _wrote_batch(self, batch: InferenceBatch, status: InferenceBatchStatus, now: datetime) -> None:
        spec, more = batch.spec, done(batch, status)
        work = (batch.metadata.namespace, spec.bulkhead_name, spec.engine.name, spec.model.task)
        for outcome, records in (("succeeded", more.succeeded), ("failed", more.failed)):
            self._records.labels(*work, outcome).inc(records)
        for direction, tokens in (("prompt", more.prompt_tokens), ("completion", more.completion_tokens)):
            self._tokens.labels(*work, direction).inc(tokens)
        self._gpu_seconds.labels(*work).inc(more.gpu_seconds)
        self._batched.labels(*work).inc(more.batched_records)
        self._room.labels(*work).inc(more.batch_places)
        self._reprocessed.labels(*work).inc(more.reprocessed)
        wait, lost = admission_wait(batch.status, status, now), eviction(batch.status, status)
        if wait is not None:
            self._wait.labels(spec.bulkhead_name).observe(wait.total_seconds())
        if lost is not None:
            self._evictions.labels(spec.bulkhead_name, lost).inc()
        freed = drained(batch, status, now)
        if freed is not None:
            self._lost.labels(spec.bulkhead_name, freed.reason).inc(freed.gpu_seconds)
        if spec.evaluation is not None and spec.evaluation.reference is not None:
            for feature in Feature:  # counted from 0 on: the first one to drift is seen as an increase, too
                self._drifts.labels(work[0], feature)

    def _ended_evaluated(self, batch: InferenceBatch, found: EvaluationStatus) -> None:
        namespace, spec, scores = batch.metadata.namespace, batch.spec, found.scores
        if scores is not None:
            work = (namespace, spec.bulkhead_name, spec.engine.name, spec.model.task)
            self._evaluated.labels(*work, "correct").inc(scores.correct)
            self._evaluated.labels(*work, "wrong").inc(scores.expected - scores.correct)
            for score in ("accuracy", "precision", "recall", "f1"):
                self._scores.labels(namespace, spec.model.task, score).observe(float(getattr(scores, score)))
        for one in found.drift:
            self._psi.labels(namespace, one.feature).observe(float(one.psi))
            self._drifts.labels(namespace, one.feature).inc(one.drifted)

    def _ended_fan_out(self, fan_out: FanOutJob, status: FanOutJobStatus) -> None:
        namespace, ended = fan_out.metadata.namespace, ended_branches(status)
        for outcome, branches in zip(ended._fields, ended, strict=True):
            self._branches.labels(namespace, outcome).inc(branches)
        if status.evenness_percent is not None:
            self._evenness.labels(namespace).observe(status.evenness_percent / 100)


def _set(gauge: Gauge, counts: Multiset[Any]) -> None:
    gauge.clear()
    for labels, count in counts.items():
        gauge.labels(*labels).set(count)
