"""What a worker is told about its batch."""

from __future__ import annotations

from headrace.api.inferencebatch import InferenceBatch
from headrace.api.records import ErrorCode
from headrace.api.worker import BatchIdentity, WorkerConfig
from headrace.core.observed import Installation
from headrace.core.volumes import Volumes


def identity(batch: InferenceBatch) -> BatchIdentity:
    """Which batch this is, for good: a namesake that is made later has another uid."""
    return BatchIdentity(namespace=batch.metadata.namespace, name=batch.metadata.name, uid=batch.metadata.uid)


def worker_config(
    batch: InferenceBatch, place: Installation, volumes: Volumes | None = None, stop_reason: ErrorCode | None = None
) -> WorkerConfig:
    """The configuration of the batch's workers at that place."""
    spec, volumes = batch.spec, volumes or Volumes.of(batch, place)
    return WorkerConfig(
        batch=identity(batch),
        model=volumes.model,
        engine=spec.engine,
        input=volumes.input,
        plan_uri=volumes.plan_uri,
        output_uri=volumes.output_uri,
        output_format=spec.output.format,
        output_compression=spec.output.compression,
        resume_from=volumes.resume_from,
        dedup=volumes.dedup,
        parameters=spec.parameters,
        batching=spec.batching,
        shards=spec.shards,
        retries=spec.retries,
        record_deadline_seconds=spec.record_deadline_seconds,
        max_failed_records=spec.failure_policy.tolerated(batch.status.records.total),
        gpus=spec.gpus,
        round=batch.retries_asked,
        retried_shards=batch.status.retried_shards,
        stop_reason=stop_reason,
        evaluation=volumes.evaluation,
    )
