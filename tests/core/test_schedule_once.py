"""Decisions about a run that is wanted once: it is made once, at its moment or at once when that has passed, or it is said to be missed."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from builders import NOON
from headrace.api import labels
from headrace.api.base import JsonObject
from headrace.api.kinds import OurObject
from headrace.api.reasons import ConditionType, Reason
from headrace.api.schedulestatus import ScheduledGenerationStatus
from headrace.core.plan import Plan
from headrace.core.schedule.reconcile import reconcile
from schedule_builders import NOON_RUN, ScheduleBuilder, a_run, a_schedule, a_tick, ended, look_at, once

HOUR = timedelta(hours=1)
AT_NOON = once(NOON)


def batches(plan: Plan[Any]) -> dict[str, JsonObject]:
    assert plan.children is not None
    return {child["metadata"]["name"]: child for child in plan.children if child["kind"] == "InferenceBatch"}


def ready(status: ScheduledGenerationStatus) -> str:
    found = status.condition(ConditionType.READY)
    assert found is not None
    return f"{found.status} {found.reason}: {found.message}"


def begun(schedule: ScheduleBuilder, *, after: float, runs: tuple[OurObject, ...] = ()) -> list[str]:
    """The runs that are made so many seconds after noon."""
    plan = reconcile(look_at(schedule, runs=runs, after=after, cron=None))
    return [name for name in batches(plan) if name not in {run.metadata.name for run in runs}]


def test_reconcile_of_one_run_has_no_cron_job_and_begins_it_at_its_moment() -> None:
    early = reconcile(look_at(AT_NOON, after=-3600, cron=None))
    assert early.children == ()
    assert early.look_again_after == HOUR
    assert ready(early.status) == "True Scheduled: it is run once"
    assert early.status.effective_schedule == "once, 2026-01-15T12:00:00Z"
    assert early.status.next_schedule_times == (NOON,)
    assert early.status.summary.to_object() == {"state": "Scheduled", "next": "2026-01-15T12:00:00Z"}
    (run,) = batches(reconcile(look_at(AT_NOON, cron=None))).values()
    assert run["metadata"]["name"] == NOON_RUN
    assert run["metadata"]["annotations"] == {labels.TICK: "2026-01-15T12:00:00Z", labels.DUE: "2026-01-15T12:00:00Z"}


@pytest.mark.parametrize(
    ("schedule", "after", "expected"),
    [
        pytest.param(AT_NOON, 90_000, [NOON_RUN], id="it was a day ago, and no deadline is said"),
        pytest.param(once(NOON, startingDeadlineSeconds=600), 600, [NOON_RUN], id="the deadline is just reached"),
        pytest.param(once(NOON, startingDeadlineSeconds=600), 601, [], id="the deadline is over"),
        pytest.param(once(NOON, jitterSeconds=600), 268, [], id="its share of the jitter is not over"),
        pytest.param(once(NOON, jitterSeconds=600, startingDeadlineSeconds=10), 279, [NOON_RUN], id="the deadline counts from there"),
        pytest.param(once(NOON, suspend=True), 60, [], id="it is suspended"),
    ],
)  # fmt: skip
def test_reconcile_of_one_run_whose_moment_has_passed(
    schedule: ScheduleBuilder, after: float, expected: list[str]
) -> None:
    assert begun(schedule, after=after) == expected


def test_reconcile_says_that_the_moment_was_missed() -> None:
    plan = reconcile(look_at(once(NOON, startingDeadlineSeconds=600), after=601, cron=None))
    assert ready(plan.status).startswith(
        "False Missed: it could not begin within startingDeadlineSeconds (600) of runAt"
    )
    assert plan.status.summary.to_object() == {"state": "Missed", "next": ""}
    assert [(event.type, event.reason) for event in plan.events] == [("Warning", "Missed")]


def test_reconcile_makes_the_only_run_once_also_when_it_was_deleted() -> None:
    seen = reconcile(look_at(AT_NOON, runs=[a_run()], after=1, cron=None))
    assert seen.status.last_schedule_time == NOON
    assert ready(seen.status).startswith("True RunAtPassed")
    assert seen.status.summary.state == "Running"
    after_it = replace(AT_NOON, status=seen.status)
    assert begun(after_it, after=10) == []
    late = once(NOON, startingDeadlineSeconds=10)
    gone = reconcile(look_at(replace(late, status=seen.status), after=3600, cron=None)).status
    assert gone.summary.state == "RunAtPassed", "it was not missed"


def test_reconcile_makes_another_run_when_another_moment_is_set() -> None:
    done = reconcile(look_at(AT_NOON, runs=[ended(a_run())], after=120, cron=None)).status
    again = replace(once(NOON + HOUR), status=done)
    assert begun(again, after=120, runs=(ended(a_run()),)) == []
    assert begun(again, after=3600, runs=(ended(a_run()),)) == [a_tick(NOON + HOUR).name]
    earlier = replace(once(NOON - HOUR), status=done)
    assert begun(earlier, after=120) == [a_tick(NOON - HOUR).name]


@pytest.mark.parametrize(
    "run", [pytest.param(ended(a_run()), id="complete"), pytest.param(ended(a_run(), Reason.SHARD_FAILED), id="failed")]
)
def test_reconcile_keeps_the_only_run_until_the_status_says_that_it_was_there(run: OurObject) -> None:
    schedule = once(NOON, successfulJobsHistoryLimit=0, failedJobsHistoryLimit=0)
    first = reconcile(look_at(schedule, runs=[run], after=120, cron=None))
    assert list(batches(first)) == [NOON_RUN]
    assert not batches(reconcile(look_at(replace(schedule, status=first.status), runs=[run], after=120, cron=None)))


def test_reconcile_of_a_schedule_that_has_become_one_run_lets_no_tick_come() -> None:
    """What the Jobs of its CronJob say of later ticks is not taken for its moment."""
    cron = look_at(a_schedule()).cron_job
    ticks = [a_tick(NOON + HOUR, started=True, finished=True)]
    plan = reconcile(look_at(AT_NOON, cron=cron, ticks=ticks, runs=[a_run()], after=7200))
    assert plan.children is not None
    assert [child["spec"]["suspend"] for child in plan.children if child["kind"] == "CronJob"] == [True]
    assert plan.status.last_schedule_time == NOON


@pytest.mark.parametrize(
    ("window", "expected"),
    [
        pytest.param({}, ("1970-01-01T00:00:00Z", "2026-01-15T12:00:00Z"), id="all that was before"),
        pytest.param({"lengthSeconds": 1800, "delaySeconds": 60}, ("2026-01-15T11:29:00Z", "2026-01-15T11:59:00Z"), id="half an hour"),
    ],
)  # fmt: skip
def test_reconcile_gives_the_only_run_its_window(window: dict[str, int], expected: tuple[str, str]) -> None:
    (run,) = batches(reconcile(look_at(once(NOON, window=window), after=3600, cron=None))).values()
    found = run["spec"]["input"]["window"]
    assert (found["startTime"], found["endTime"]) == expected


def test_reconcile_takes_a_moment_within_a_second_as_the_second() -> None:
    schedule = AT_NOON.with_spec(runAt="2026-01-15T13:00:00.750+01:00")
    seen = reconcile(look_at(schedule, runs=[a_run()], after=1, cron=None)).status
    assert begun(replace(schedule, status=seen), after=60) == []
