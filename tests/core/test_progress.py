"""What people read, and when a status is worth writing."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from builders import NOON, BatchBuilder, a_batch, a_job, committed, live, look
from headrace.api.batchstatus import BatchLimits, InferenceBatchStatus, RecordCounts
from headrace.api.meta import ConditionStatus
from headrace.api.reasons import ConditionType, Reason
from headrace.api.worker import Role
from headrace.core.progress import summary
from headrace.core.publish import write_due
from headrace.core.reconcile import reconcile

RUNNING = a_batch().sharded(2).validated(200).admitted()


def ending_in(seconds: float) -> InferenceBatchStatus:
    return InferenceBatchStatus(estimated_completion_time=NOON + timedelta(seconds=seconds))


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (0, "0s"),
        (45, "45s"),
        (60, "1m"),
        (200, "3m20s"),
        (7500, "2h5m"),
        (3600, "1h"),
        (3601, "1h"),
        (270_000, "3d3h"),
        (-5, "0s"),
    ],
)
def test_summary_writes_the_rest_of_the_time_as_kubectl_writes_ages(seconds: float, shown: str) -> None:
    assert summary(ending_in(seconds), NOON).eta == shown


@pytest.mark.parametrize(
    ("batch", "state"),
    [
        pytest.param(a_batch(), "Planning", id="planning"),
        pytest.param(a_batch().validated(), "Waiting", id="waiting"),
        pytest.param(RUNNING, "Starting", id="starting"),
        pytest.param(
            RUNNING.with_condition(ConditionType.SUSPENDED, ConditionStatus.TRUE, Reason.SUSPENDED),
            "Suspended",
            id="suspended",
        ),
        pytest.param(
            RUNNING.with_condition(ConditionType.SUSPENDED, ConditionStatus.FALSE, Reason.DRAINING),
            "Draining",
            id="draining",
        ),
        pytest.param(
            RUNNING.with_condition(ConditionType.SUSPENDED, ConditionStatus.FALSE, Reason.RESUMED),
            "Starting",
            id="resumed",
        ),
        pytest.param(
            RUNNING.with_condition(ConditionType.FAILED, ConditionStatus.FALSE, Reason.CANCELLED),
            "Stopping",
            id="stopping",
        ),
        pytest.param(
            RUNNING.with_condition(ConditionType.FAILED, ConditionStatus.FALSE, Reason.RETRYING),
            "Starting",
            id="retrying",
        ),
        pytest.param(
            RUNNING.with_condition(ConditionType.FAILED, ConditionStatus.TRUE, Reason.CANCELLED),
            "Cancelled",
            id="cancelled",
        ),
        pytest.param(
            RUNNING.with_condition(ConditionType.COMPLETE, ConditionStatus.TRUE, Reason.RECORDS_PROCESSED),
            "Complete",
            id="complete",
        ),
    ],
)
def test_summary_state(batch: BatchBuilder, state: str) -> None:
    assert summary(batch.status, NOON).state == state


def test_reconcile_shows_progress_fill_and_the_rest_of_the_time() -> None:
    status = reconcile(look(RUNNING, jobs=[a_job(Role.RUN, active=2)], reports=[live(0, 48, 2), live(1, 50)])).status
    assert status.records == RecordCounts(total=200, succeeded=98, failed=2, pending=100)
    assert (status.summary.progress, status.summary.state, status.summary.eta) == ("100/200", "Running", "5s")
    assert status.batch_fill_percent == round(100 * 100 / (4 * 64))
    assert status.records_per_second == "20.0"


def test_reconcile_fill_is_of_what_workers_have_found_where_the_spec_does_not_say() -> None:
    found = BatchLimits(max_batch_size=25, max_batch_tokens=512)
    words = [live(0, 48, 2), live(1, 50)]
    words[1] = replace(words[1], report=words[1].report.model_copy(update={"batch_limits": found}))
    job = a_job(Role.RUN, active=2)
    status = reconcile(look(RUNNING, jobs=[job], reports=words)).status
    assert (status.batch_limits, status.batch_fill_percent) == (found, 100)
    later = reconcile(look(RUNNING.with_status(batch_limits=found), jobs=[job], reports=words[:1])).status
    assert later.batch_limits == found, "the pod that has said it is gone"
    said = RUNNING.with_spec(batching={"maxBatchSize": 50})
    assert reconcile(look(said, jobs=[job], reports=words)).status.batch_fill_percent == 50


def test_reconcile_at_the_end_has_no_speed_and_no_estimate() -> None:
    done = a_job(Role.RUN, complete=True)
    status = reconcile(look(RUNNING, jobs=[done], reports=[committed(0, 100), committed(1, 100)])).status
    assert (status.records_per_second, status.estimated_completion_time, status.summary.eta) == (None, None, "")
    assert status.output is not None
    assert status.output.manifest == "file:///out/default/reviews/manifest.json"


def test_reconcile_remembers_when_the_first_record_was_begun() -> None:
    """Whatever becomes of the pod that has told it, and however early the next attempt says it was."""
    later, earlier = NOON + timedelta(seconds=20), NOON + timedelta(seconds=10)
    running = [a_job(Role.RUN, active=2)]
    first = reconcile(
        look(RUNNING, jobs=running, reports=[committed(0, 10, begun=later), committed(1, 5, begun=earlier)])
    ).status
    assert first.first_record_time == earlier
    assert reconcile(look(RUNNING, jobs=running, reports=[live(0, 48)])).status.first_record_time is None
    again = replace(RUNNING, status=first)
    assert (
        reconcile(look(again, jobs=running, reports=[committed(0, 10, begun=later)])).status.first_record_time
        == earlier
    )


def test_write_due_is_never_for_nothing_new() -> None:
    assert write_due(RUNNING.status, RUNNING.status, None, NOON) is None


def test_write_due_is_at_once_for_a_transition() -> None:
    assert write_due(a_batch().status, RUNNING.status, NOON, NOON) == timedelta(0)


@pytest.mark.parametrize(("age", "wait"), [(0, 5), (2, 3), (5, 0), (60, 0)])
def test_write_due_for_mere_progress_is_at_most_every_five_seconds(age: int, wait: int) -> None:
    further = RUNNING.with_status(records=RecordCounts(total=200, succeeded=10, pending=190)).status
    last = NOON - timedelta(seconds=age)
    assert write_due(RUNNING.status, further, last, NOON) == timedelta(seconds=wait)


def test_write_due_is_not_held_back_by_a_clock_that_was_set_back() -> None:
    further = RUNNING.with_status(records=RecordCounts(total=200, succeeded=10, pending=190)).status
    an_hour_ahead = NOON + timedelta(hours=1)
    assert write_due(RUNNING.status, further, an_hour_ahead, NOON) == timedelta(seconds=5)


@pytest.mark.parametrize("jump", [-10_800, 10_800], ids=["set back", "set forward"])
def test_reconcile_when_the_clock_jumps_changes_no_decision(jump: float) -> None:
    """Nothing but the deadline asks what time it is: a batch that works goes on, one that is done stays as it is."""
    working, after = (look(RUNNING, jobs=[a_job(Role.RUN, active=2)], after=seconds) for seconds in (0, jump))
    before, then = reconcile(working), reconcile(after)
    assert then.children == before.children
    assert [(c.type, c.status, c.reason) for c in then.status.conditions] == [
        (c.type, c.status, c.reason) for c in before.status.conditions
    ]
    done = reconcile(
        look(RUNNING, jobs=[a_job(Role.RUN, complete=True)], reports=[committed(0, 100), committed(1, 100)])
    )
    ended = RUNNING.with_status(**{name: getattr(done.status, name) for name in type(done.status).model_fields})
    assert reconcile(look(ended, after=jump)).status == done.status
