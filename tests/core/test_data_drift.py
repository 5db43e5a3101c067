"""Runs that drift: what their schedule does, and what a fan-out says of its branches."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from builders import NOON
from fanout_builders import a_fan_out, drifted
from fanout_builders import ended as ended_branch
from headrace.api.kinds import OurObject
from headrace.api.meta import Condition, ConditionStatus
from headrace.api.reasons import ConditionType, Reason
from headrace.core.fanout.datadrift import data_drift
from headrace.core.plan import Plan
from headrace.core.schedule.reconcile import reconcile
from schedule_builders import ScheduleBuilder, a_run, a_schedule, ended, look_at

HOUR = timedelta(hours=1)
COMPARED: dict[str, Any] = {
    "model": {"name": "m"},
    "input": {"uri": "s3://in/x.jsonl"},
    "evaluation": {"reference": "s3://out/january/"},
}
TRUE, FALSE, UNKNOWN = ConditionStatus.TRUE, ConditionStatus.FALSE, ConditionStatus.UNKNOWN
CAREFUL = a_schedule().with_spec(template={"inferenceBatch": COMPARED}, onDrift="Pause")


def compared(hour: int, status: ConditionStatus | None, reason: Reason | None = None) -> OurObject:
    """The run of an hour after noon at its end, and what it has found when it was compared; None: nothing was."""
    run = ended(a_run(NOON + hour * HOUR), reason)
    if status is None:
        return run
    assert run.status.completion_time is not None
    said = Condition(
        type=ConditionType.DATA_DRIFT,
        status=status,
        reason=Reason.DISTRIBUTION_CHANGED,
        message="Language has a PSI of 0.5000, above 0.20",
        last_transition_time=run.status.completion_time,
    )
    conditions = (*run.status.conditions, said)
    return run.model_copy(update={"status": run.status.model_copy(update={"conditions": conditions})})


def told(plan: Plan[Any]) -> tuple[bool, str, str]:
    """Whether the CronJob is suspended, what the condition says, and the state."""
    (cron,) = (child for child in plan.children or () if child["kind"] == "CronJob")
    found = plan.status.condition(ConditionType.SUSPENDED)
    return (
        cron["spec"]["suspend"],
        f"{found.status} {found.reason}" if found is not None else "",
        plan.status.summary.state,
    )


def after(before: Plan[Any], schedule: ScheduleBuilder = CAREFUL) -> ScheduleBuilder:
    """The schedule with the status that a plan has asked for."""
    return replace(schedule, status=before.status)


PAUSED = reconcile(look_at(CAREFUL, runs=[compared(0, TRUE)], after=4000))


@pytest.mark.parametrize(
    "runs",
    [
        pytest.param([compared(0, FALSE)], id="a run is as its reference was"),
        pytest.param([compared(0, TRUE), compared(1, FALSE)], id="the last run is"),
        pytest.param([compared(0, UNKNOWN)], id="nobody knows"),
        pytest.param([compared(0, None)], id="nothing was compared"),
        pytest.param([compared(0, TRUE, Reason.CANCELLED)], id="a run that was not complete says nothing"),
    ],
)
def test_schedule_goes_on_when(runs: list[OurObject]) -> None:
    assert told(reconcile(look_at(CAREFUL, runs=runs, after=9000))) == (False, "", "Scheduled")


def test_schedule_whose_last_run_has_drifted_lets_no_more_ticks_come() -> None:
    assert told(PAUSED) == (True, "True PausedByDrift", "Drifted")
    assert PAUSED.status.next_schedule_times == ()
    found = PAUSED.status.condition(ConditionType.SUSPENDED)
    assert found is not None
    assert "hourly-" in found.message
    assert found.message.endswith("Language has a PSI of 0.5000, above 0.20")
    assert [(event.type, event.reason) for event in PAUSED.events if event.reason == Reason.PAUSED_BY_DRIFT] == [
        ("Warning", "PausedByDrift")
    ]


def test_schedule_that_is_only_to_warn_goes_on() -> None:
    warned = CAREFUL.with_spec(onDrift="Warn")
    assert told(reconcile(look_at(warned, runs=[compared(0, TRUE)], after=4000))) == (False, "", "Scheduled")


def test_schedule_stays_paused_when_the_run_that_has_drifted_is_deleted() -> None:
    assert told(reconcile(look_at(after(PAUSED), after=9000))) == (True, "True PausedByDrift", "Drifted")


def test_schedule_stays_paused_when_a_run_that_could_not_be_compared_is_complete() -> None:
    runs = [compared(0, TRUE), compared(1, UNKNOWN)]
    assert told(reconcile(look_at(after(PAUSED), runs=runs, after=9000))) == (True, "True PausedByDrift", "Drifted")


def test_schedule_goes_on_when_a_run_is_complete_that_has_not_drifted() -> None:
    runs = [compared(0, TRUE), compared(1, FALSE)]
    assert told(reconcile(look_at(after(PAUSED), runs=runs, after=9000))) == (False, "False Resumed", "Scheduled")


def test_schedule_goes_on_when_its_spec_was_changed_and_what_had_drifted_is_not_held_against_it() -> None:
    changed = replace(after(PAUSED), meta={**CAREFUL.meta, "generation": 2})
    runs = [compared(0, TRUE)]
    resumed = reconcile(look_at(changed, runs=runs, after=5000))
    assert told(resumed) == (False, "False Resumed", "Scheduled")
    later = reconcile(look_at(after(resumed, changed), runs=runs, after=6000))
    assert told(later) == (False, "False Resumed", "Scheduled")
    again = reconcile(look_at(after(later, changed), runs=[*runs, compared(3, TRUE)], after=20_000))
    assert told(again) == (True, "True PausedByDrift", "Drifted")


def test_schedule_that_its_owner_suspends_and_resumes_holds_nothing_against_itself() -> None:
    held = replace(after(PAUSED, CAREFUL.with_spec(suspend=True)), meta={**CAREFUL.meta, "generation": 2})
    resting = reconcile(look_at(held, runs=[compared(0, TRUE)], after=5000))
    assert told(resting) == (True, "True SuspendedBySpec", "Suspended")
    free = replace(after(resting), meta={**CAREFUL.meta, "generation": 3})
    assert told(reconcile(look_at(free, runs=[compared(0, TRUE)], after=6000))) == (False, "False Resumed", "Scheduled")


@pytest.mark.parametrize(
    ("one", "two", "said"),
    [
        pytest.param(FALSE, FALSE, (FALSE, Reason.DISTRIBUTION_UNCHANGED), id="none has drifted"),
        pytest.param(FALSE, TRUE, (TRUE, Reason.DISTRIBUTION_CHANGED), id="one has drifted"),
        pytest.param(TRUE, UNKNOWN, (TRUE, Reason.DISTRIBUTION_CHANGED), id="one has, of another nobody knows"),
        pytest.param(FALSE, UNKNOWN, (UNKNOWN, Reason.NOT_COMPARED), id="of one nobody knows"),
    ],
)
def test_fan_out_says_what_its_branches_say(
    one: ConditionStatus, two: ConditionStatus, said: tuple[ConditionStatus, Reason]
) -> None:
    children = {"one": drifted(ended_branch("one"), one), "two": drifted(ended_branch("two"), two)}
    (found,) = data_drift(children)
    assert (found.status, found.reason) == said
    assert f"{'two' if two == said[0] else 'one'}: it is {said[0]}" in found.message


def test_fan_out_whose_branches_are_not_compared_says_nothing_of_drift() -> None:
    assert data_drift({"one": ended_branch("one")}) == ()
    assert a_fan_out("one").build().status.condition(ConditionType.DATA_DRIFT) is None
