"""What a batch holds of its bulkhead while its Job hears of what was decided, which takes its time."""

from __future__ import annotations

from headrace.core.observed import JobSnapshot


def holding(held: int, granted: int, job: JobSnapshot | None, shards: int) -> int:
    """Pods that the batch holds from now on: what it may have, and of what it held what it still has above that."""
    return max(granted, min(held, _may_have(job, shards)) if job is not None else 0)


def _may_have(job: JobSnapshot, shards: int) -> int:
    """Pods that a Job has or may still start, before what is decided now has come to the Job controller."""
    if job.finished:
        return 0
    if job.suspended and job.parked:
        return job.active
    left = shards - len(job.succeeded_indexes) - len(job.failed_indexes)
    return max(job.active, min(job.parallelism, left))
