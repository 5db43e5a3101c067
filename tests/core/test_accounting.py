"""What metrics count: the differences of statuses, and how objects stand."""

from __future__ import annotations

import itertools
from dataclasses import replace
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from builders import NOON, BatchBuilder, a_batch, a_job, committed, look
from headrace.api import labels
from headrace.api.batchstatus import Admission, Batched, InferenceBatchStatus, RecordCounts, Usage
from headrace.api.branches import BranchStatus
from headrace.api.fanoutstatus import FanOutJobStatus
from headrace.api.meta import Condition, ConditionStatus
from headrace.api.reasons import ConditionType, Reason
from headrace.api.worker import Role
from headrace.core.accounting import (
    Done,
    Drained,
    Standing,
    admission_wait,
    done,
    drained,
    end_of,
    ended_branches,
    eviction,
    standing,
    waits_for,
)
from headrace.core.reconcile import reconcile

TRUE, FALSE = ConditionStatus.TRUE, ConditionStatus.FALSE


def waiting(reason: Reason = Reason.QUOTA_EXCEEDED) -> BatchBuilder:
    return a_batch().validated().with_condition(ConditionType.ADMITTED, FALSE, reason)


@pytest.mark.parametrize(
    ("batch", "expected"),
    [
        pytest.param(a_batch(), Standing.PLANNING, id="nothing is known of it"),
        pytest.param(a_batch().validated(), Standing.WAITING, id="its input is good"),
        pytest.param(waiting(), Standing.WAITING, id="there is no room for it"),
        pytest.param(a_batch().validated().admitted(), Standing.RUNNING, id="it was let start"),
        pytest.param(
            a_batch().validated().admitted().with_condition(ConditionType.PODS_READY, FALSE, Reason.UNSCHEDULABLE),
            Standing.STUCK,
            id="there is no node for its pods",
        ),
        pytest.param(
            a_batch().validated().admitted().with_condition(ConditionType.SUSPENDED, FALSE, Reason.DRAINING),
            Standing.SUSPENDED,
            id="it is being put away",
        ),
        pytest.param(
            a_batch().validated().admitted().with_condition(ConditionType.SUSPENDED, FALSE, Reason.RESUMED),
            Standing.RUNNING,
            id="it goes on",
        ),
        pytest.param(
            a_batch().validated().with_condition(ConditionType.FAILED, FALSE, Reason.CANCELLED),
            Standing.STOPPING,
            id="its books are being closed",
        ),
        pytest.param(
            a_batch().validated().admitted().with_condition(ConditionType.FAILED, FALSE, Reason.RETRYING),
            Standing.RUNNING,
            id="it is tried again",
        ),
        pytest.param(
            a_batch().validated().with_condition(ConditionType.FAILED, TRUE, Reason.CANCELLED),
            Standing.FAILED,
            id="it was cancelled",
        ),
        pytest.param(
            waiting().with_condition(ConditionType.COMPLETE, TRUE, Reason.RECORDS_PROCESSED),
            Standing.COMPLETE,
            id="it is complete",
        ),
    ],
)
def test_standing_of_a_batch(batch: BatchBuilder, expected: Standing) -> None:
    assert standing(batch.status) == expected


def test_standing_of_a_fan_out_that_was_read_is_running_for_only_its_branches_wait() -> None:
    read = Condition(
        type=ConditionType.INPUT_VALIDATED, status=TRUE, reason=Reason.INPUT_VALID, last_transition_time=NOON
    )
    assert standing(FanOutJobStatus(conditions=(read,))) == Standing.RUNNING


def test_waits_for_names_the_reason_of_a_batch_that_waits_and_of_no_other() -> None:
    assert waits_for(waiting(Reason.BREAKER_OPEN).status) == "BreakerOpen"
    assert waits_for(a_batch().validated().admitted().status) is None
    ended = waiting().with_condition(ConditionType.FAILED, TRUE, Reason.CANCELLED)
    assert waits_for(ended.status) is None


def test_end_of_is_said_once() -> None:
    before = a_batch().validated().admitted().status
    after = a_batch().validated().with_condition(ConditionType.COMPLETE, TRUE, Reason.RECORDS_PROCESSED).status
    found = end_of(before, after)
    assert found is not None
    assert (found.type, found.reason) == ("Complete", "RecordsProcessed")
    assert end_of(after, after) is None


def test_eviction_is_the_loss_of_what_was_held() -> None:
    held = a_batch().validated().admitted().status
    assert eviction(held, waiting(Reason.PREEMPTED).status) == "Preempted"
    assert eviction(waiting().status, waiting(Reason.PREEMPTED).status) is None
    ended = waiting(Reason.PREEMPTED).with_condition(ConditionType.FAILED, TRUE, Reason.CANCELLED).status
    assert eviction(held, ended) is None


@pytest.mark.parametrize(
    ("left", "expected"),
    [
        pytest.param(0, Drained("Preempted", 3 * 2 * 40), id="all pods are gone"),
        pytest.param(1, Drained("Preempted", 2 * 2 * 40), id="one is still there"),
        pytest.param(3, None, id="none has gone yet"),
    ],
)
def test_drained_is_what_pods_have_cost_since_their_batch_lost_its_admission(
    left: int, expected: Drained | None
) -> None:
    draining = waiting(Reason.PREEMPTED).with_spec(resources={"gpus": 2}).with_status(admission=Admission(pods=3))
    after = draining.with_status(admission=Admission(pods=left)).build().status
    assert drained(draining.build(), after, NOON + timedelta(seconds=40)) == expected


def test_drained_is_nothing_of_a_batch_that_may_run() -> None:
    runs = a_batch().validated().admitted().with_spec(resources={"gpus": 2}).with_status(admission=Admission(pods=3))
    after = runs.with_status(admission=Admission(pods=1)).build().status
    assert drained(runs.build(), after, NOON + timedelta(seconds=40)) is None


def test_admission_wait_is_from_the_refusal_to_the_admission() -> None:
    later = NOON + timedelta(minutes=5)
    admitted = a_batch().validated().admitted().status
    assert admission_wait(waiting().status, admitted, later) == timedelta(minutes=5)
    assert admission_wait(admitted, admitted, later) is None
    assert admission_wait(a_batch().status, admitted, NOON) == timedelta(0)


def status_of(numbers: list[int]) -> InferenceBatchStatus:
    succeeded, failed, tokens, seconds, batches, batched = numbers
    return InferenceBatchStatus(
        records=RecordCounts(total=10**6, succeeded=succeeded, failed=failed),
        usage=Usage(prompt_tokens=tokens, completion_tokens=tokens // 2, gpu_seconds=seconds),
        batched=Batched(batches=batches, records=batched, reprocessed=failed),
    )


@given(st.lists(st.lists(st.integers(0, 10**5), min_size=6, max_size=6), min_size=2, max_size=6))
def test_done_in_steps_is_done_at_once_for_whatever_never_goes_back(steps: list[list[int]]) -> None:
    """Who counts each difference of statuses that grow has counted the last status."""
    rising = [[max(column[: n + 1]) for column in zip(*steps, strict=True)] for n in range(len(steps))]
    statuses = [InferenceBatchStatus(), *map(status_of, rising)]
    batch = a_batch().with_spec(batching={"maxBatchSize": 7}).build()

    def between(before: InferenceBatchStatus, after: InferenceBatchStatus) -> Done:
        return done(batch.model_copy(update={"status": before}), after)

    parts = [between(before, after) for before, after in itertools.pairwise(statuses)]
    whole = between(statuses[0], statuses[-1])
    for field in Done.__dataclass_fields__:
        assert sum(getattr(part, field) for part in parts) == getattr(whole, field)
    assert whole.batch_places == 7 * statuses[-1].batched.batches


def test_a_retry_of_records_counts_no_batch_and_no_loss_twice() -> None:
    """Two shards, of which one is worked on once more: what it says then includes what it has said before."""
    words = [committed(0, 100), committed(1, 90, 10)]
    run = a_job(Role.RUN, complete=True, succeeded_indexes=frozenset({0, 1}))
    running = a_batch().sharded(2).validated(200).admitted()
    end = reconcile(look(running, jobs=[run], reports=words)).status
    asked = running.with_meta(annotations={labels.RETRY: "1"}).build()
    begun = reconcile(look(asked.model_copy(update={"status": end}))).status
    word = committed(1, 100)
    again = word.report.model_copy(update={"batches": 3, "batched_records": 110})
    once_more = a_job(Role.RUN, name="reviews-run-r1", round=1, complete=True, succeeded_indexes=frozenset({0}))
    retried = look(asked.model_copy(update={"status": begun}), jobs=[once_more], reports=[replace(word, report=again)])
    last = reconcile(retried).status
    statuses = [running.status, end, begun, last]
    steps = [done(asked.model_copy(update={"status": a}), b) for a, b in itertools.pairwise(statuses)]
    assert last.is_true(ConditionType.COMPLETE)
    assert sum(step.batched_records for step in steps) == 210
    assert sum(step.batch_places for step in steps) == 5 * asked.spec.batching.size


def test_ended_branches_are_those_of_the_last_round_alone() -> None:
    def branch(name: str, reason: str | None, round_: int = 0) -> BranchStatus:
        return BranchStatus(name=name, reason=reason, round=round_)

    others = (branch("two", "RecordsProcessed"), branch("three", "not_routed"), branch("four", None))
    first = FanOutJobStatus(branches=(branch("one", "WorkerFailed"), *others))
    assert ended_branches(first) == (2, 1)
    second = FanOutJobStatus(branches=(branch("one", "RecordsProcessedWithErrors", 1), *others), retries=1)
    assert ended_branches(second) == (1, 0)


def test_done_takes_nothing_back_when_a_retry_does() -> None:
    batch = a_batch().build().model_copy(update={"status": status_of([5, 5, 10, 1, 1, 1])})
    assert done(batch, status_of([5, 0, 10, 1, 1, 1])).failed == 0
