"""What metrics count: the differences of statuses, and how objects stand."""

from __future__ import annotations

import itertools
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from builders import NOON, BatchBuilder, a_batch
from headrace.api.fanoutjob import FanOutJobStatus
from headrace.api.inferencebatch import CountedShards, InferenceBatchStatus, RecordCounts, Usage
from headrace.api.meta import Condition, ConditionStatus
from headrace.api.reasons import ConditionType, Reason
from headrace.core.accounting import Done, Standing, admission_wait, done, end_of, eviction, standing, waits_for

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
        counted_shards=CountedShards(batches=batches, batched_records=batched, reprocessed=failed),
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
    assert whole.batch_places == 7 * statuses[-1].counted_shards.batches


def test_done_takes_nothing_back_when_a_retry_does() -> None:
    batch = a_batch().build().model_copy(update={"status": status_of([5, 5, 10, 1, 1, 1])})
    assert done(batch, status_of([5, 0, 10, 1, 1, 1])).failed == 0
