"""The decision: from one look at an InferenceBatch to what there should be.

`reconcile` is the life of a batch, top to bottom. Each step answers from what was observed and never from what is about to be
done, so that any of them may be repeated, and a process may die between any two.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any
from zlib import crc32

from headrace.api.batchstatus import Admission, CountedShards, InferenceBatchStatus, ShardCounts
from headrace.api.inferencebatch import InferenceBatch
from headrace.api.ranges import format_ranges, parse_ranges
from headrace.api.reasons import ConditionType, Reason
from headrace.api.worker import Role
from headrace.core.admission.demand import held_pods
from headrace.core.admission.ranking import NEAR
from headrace.core.check import spec_problems
from headrace.core.conditions import transition_events, with_findings
from headrace.core.counts import tally
from headrace.core.ending import ending
from headrace.core.endpoints import endpoint_events
from headrace.core.holding import holding
from headrace.core.inline import lay_out
from headrace.core.observed import Observed
from headrace.core.plan import Plan
from headrace.core.planning import planning
from headrace.core.progress import summary
from headrace.core.resuming import find_earlier
from headrace.core.step import Step, failed, retrying
from headrace.core.stopping import deadline, find_stop
from headrace.core.working import closing, working

PROGRESS_LOOK = timedelta(seconds=5)
WAITING_LOOK = timedelta(seconds=15)
IN_LINE_LOOK = timedelta(minutes=10)
"""Whoever stands far back in the line of a bulkhead is looked at when it has moved; this is for what nobody has thought of."""


def reconcile(observed: Observed) -> Plan:
    """What there should be: children, status, events, and when to look again."""
    batch = observed.batch
    if batch.metadata.deletion_timestamp is not None:
        return Plan(status=batch.status, children=None)  # owner references take the children along
    if batch.status.finished and not batch.retry_asked:
        return _plan(observed, Step())
    problems = spec_problems(batch, observed.installation)
    if problems:
        return _plan(observed, failed(Reason.INVALID_SPEC, "; ".join(map(str, problems))))
    if batch.retry_asked:
        return _plan(observed, _retry(observed))
    return _plan(observed, _next_step(observed))


def _next_step(observed: Observed) -> Step:
    batch, job = observed.batch, observed.job(Role.RUN)
    inline = lay_out(batch, observed.installation)
    counts = tally(batch.status, observed.shard_reports, batch.status.records.total)
    settled = job is None or job.finished or not job.active
    if settled and counts.all_counted(batch.status.shards.total):
        return closing(observed, counts, inline)
    stop = find_stop(observed, counts)
    if stop is not None:
        return ending(observed, counts, stop, inline)
    if not batch.status.is_true(ConditionType.INPUT_VALIDATED):
        return find_earlier(observed) or planning(observed, inline)
    return working(observed, counts, inline)


def _retry(observed: Observed) -> Step:
    """Begin anew with what is on disk: the Jobs of the last round go, those of this round follow at the next look.

    Shards in which records have failed are not done any more. Those that are stay counted, and get no pod.
    """
    batch, records = observed.batch, observed.batch.status.records
    changes: dict[str, Any] = {
        "retries": batch.retries_asked,
        "retry_time": observed.now,
        "completion_time": None,
        "validation": None,
        "evaluation": None,
        "records": records.model_copy(update={"failed": 0, "pending": records.pending + records.failed}),
        **_shards_of_retry(batch.status),
    }
    return Step((), retrying(batch), changes)


def _shards_of_retry(status: InferenceBatchStatus) -> dict[str, Any]:
    """The status fields that say which shards a retry works on: all but those that are known to be done without a failed record."""
    total, counted = status.shards.total, status.counted_shards
    done = parse_ranges(counted.indexes) if not counted.failed else frozenset[int]()
    return {
        "counted_shards": counted if done else CountedShards(),
        "failing_shards": CountedShards(),
        "retried_shards": format_ranges(set(range(total)) - done) if done else None,
        "shards": ShardCounts(total=total, succeeded=len(done)),
    }


def _plan(observed: Observed, step: Step) -> Plan:
    """Turn a step into the whole answer."""
    before, generation, now = observed.batch.status, observed.batch.metadata.generation, observed.now
    conditions = with_findings(before.conditions, step.findings, generation, now)
    common = {
        "observed_generation": generation,
        "conditions": conditions,
        "start_time": before.start_time or now,
        "deadline_time": deadline(observed.batch, now),
    }
    status = before.model_copy(update=common | dict(step.changes))
    if status.finished:
        end = {
            "completion_time": before.completion_time or now,
            "estimated_completion_time": None,
            "records_per_second": None,
        }
        status = status.model_copy(update=end)
    status = status.model_copy(update={"admission": _admission(observed, 0 if status.finished else step.pods)})
    status = status.model_copy(update={"summary": summary(status, now)})
    return Plan(
        status=status,
        children=None if status.finished else step.children,
        events=(
            *transition_events(before.conditions, conditions),
            *endpoint_events(before.endpoints, status.endpoints),
        ),
        look_again_after=_look_again(observed, status),
        activations=step.activations,
    )


def _admission(observed: Observed, pods: int) -> Admission | None:
    """What the batch holds of its bulkhead from now on: what it may have, and what it still has above that."""
    before, held = observed.batch.status.admission, held_pods(observed.batch)
    holds = holding(held, pods, observed.job(Role.RUN), observed.batch.status.shards.total)
    if before is None and not holds:
        return None
    started = observed.now if pods and not held else before.time if before is not None else None
    return Admission(pods=holds, time=started)


def _look_again(observed: Observed, status: InferenceBatchStatus) -> timedelta | None:
    if status.finished:
        return None
    if _opens_next_step(observed.batch, status):
        return timedelta(0)
    looks = [_usual_look(observed.batch, status)]
    if status.deadline_time is not None:
        looks.append(max(timedelta(0), status.deadline_time - observed.now))
    return min(looks)


def _usual_look(batch: InferenceBatch, status: InferenceBatchStatus) -> timedelta:
    if status.shards.active:
        return PROGRESS_LOOK
    near = status.queue is None or status.queue.position <= NEAR
    if near or batch.spec.queue_name is not None:  # nobody tells of a step in a line of Kueue's
        return WAITING_LOOK
    # Those that were made together should not be looked at together.
    return IN_LINE_LOOK * (1 + crc32(batch.metadata.uid.encode()) / 2**32)


def _opens_next_step(batch: InferenceBatch, after: InferenceBatchStatus) -> bool:
    """Whether this status, once it is written, lets the next step begin at once."""
    before, holds = batch.status, after.admission.pods if after.admission is not None else 0
    opening = (ConditionType.INPUT_VALIDATED, ConditionType.ADMITTED)
    changed = any(before.is_true(kind) != after.is_true(kind) for kind in opening)
    found = before.resumed_from != after.resumed_from
    return changed or found or holds > held_pods(batch) or before.retries != after.retries
