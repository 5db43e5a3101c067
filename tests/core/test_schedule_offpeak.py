"""Allowed windows: ticks wait for them, and runs keep to them when the schedule says so."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import Any

import pytest

from builders import NOON
from headrace.api import labels
from headrace.api.base import JsonObject
from headrace.api.kinds import OurObject
from headrace.api.reasons import ConditionType
from headrace.core.plan import Plan
from headrace.core.schedule.reconcile import reconcile
from headrace.core.schedule.times import due_after
from schedule_builders import NOON_RUN, ScheduleBuilder, a_run, a_schedule, a_tick, ended, look_at, once

HOUR = timedelta(hours=1)
DAYS = ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"]
EVENINGS = a_schedule().with_spec(allowedWindows=[{"start": "18:00", "end": "20:00"}])
"""In UTC. Noon is outside of them."""
STRICT = EVENINGS.with_spec(onWindowEnd="Suspend")


def seconds(hours: float) -> float:
    """How long after noon that time of the day is."""
    return (hours - 12) * 3600


def batches(plan: Plan[Any]) -> dict[str, JsonObject]:
    assert plan.children is not None
    return {child["metadata"]["name"]: child for child in plan.children if child["kind"] == "InferenceBatch"}


def waits(plan: Plan[Any]) -> str:
    found = plan.status.condition(ConditionType.WAITING)
    return f"{found.status} {found.reason}: {found.message}" if found is not None else ""


def marked(mark: str, **spec: Any) -> OurObject:
    """The run of noon, which keeps to the windows."""
    run = a_run(**spec)
    annotations = {**run.metadata.annotations, labels.ALLOWED_WINDOW: mark}
    return run.model_copy(update={"metadata": run.metadata.model_copy(update={"annotations": annotations})})


def wanted_of(schedule: ScheduleBuilder, run: OurObject, hour: float) -> tuple[str | None, bool]:
    """The mark that is to be put on a run, and whether it is to be suspended."""
    (child,) = batches(reconcile(look_at(schedule, runs=[run], after=seconds(hour)))).values()
    return child["metadata"].get("annotations", {}).get(labels.ALLOWED_WINDOW), child["spec"]["suspend"]


def test_reconcile_lets_a_tick_wait_until_a_window_opens() -> None:
    early = reconcile(look_at(EVENINGS, ticks=[a_tick()]))
    assert not batches(early)
    assert early.look_again_after == timedelta(hours=6)
    assert waits(early) == (
        f"True OutsideWindow: no allowed window is open before 2026-01-15T18:00:00Z: {NOON_RUN} waits"
    )
    assert early.status.summary.state == "OutsideWindow"
    open_ = reconcile(look_at(replace(EVENINGS, status=early.status), ticks=[a_tick()], after=seconds(18)))
    (run,) = batches(open_).values()
    assert run["metadata"]["annotations"] == {
        labels.TICK: "2026-01-15T12:00:00Z",
        labels.DUE: "2026-01-15T18:00:00Z",
        labels.ALLOWED_WINDOW: "open",
    }
    assert run["spec"]["input"]["window"]["endTime"] == "2026-01-15T12:00:00Z", (
        "the window of its data is that of its tick"
    )
    assert waits(open_) == "False NothingWaits: nothing waits"


def test_reconcile_does_not_begin_what_was_due_in_a_window_that_has_ended_since() -> None:
    """No operator was there at half past seven."""
    tick = a_tick(NOON + 7.5 * HOUR)
    assert not batches(reconcile(look_at(EVENINGS, ticks=[tick], after=seconds(21))))
    assert batches(reconcile(look_at(EVENINGS, ticks=[tick], after=seconds(18 + 24))))


def test_reconcile_begins_what_a_user_has_asked_for_at_any_hour_and_leaves_it_alone() -> None:
    plan = reconcile(look_at(STRICT, ticks=[a_tick(name="now-please", asked_for=True)]))
    (run,) = batches(plan).values()
    assert labels.ALLOWED_WINDOW not in run["metadata"]["annotations"]
    assert wanted_of(STRICT, a_run(), 21) == (None, False)


def test_reconcile_lets_what_is_made_up_for_and_what_runs_once_wait_as_well() -> None:
    behind = EVENINGS.with_spec(catchUp={"policy": "All"})
    status = behind.status.model_copy(
        update={"effective_schedule": "0 * * * * Etc/UTC", "watched_time": NOON - 9 * HOUR, "missed": (NOON,)}
    )
    assert not batches(reconcile(look_at(replace(behind, status=status), after=seconds(13))))
    assert list(batches(reconcile(look_at(replace(behind, status=status), after=seconds(18))))) == [NOON_RUN]
    only = once(NOON, allowedWindows=EVENINGS.spec["allowedWindows"], startingDeadlineSeconds=60)
    assert reconcile(look_at(only)).status.next_schedule_times == (NOON + 6 * HOUR,)
    assert not batches(reconcile(look_at(only, after=seconds(13))))
    assert list(batches(reconcile(look_at(only, after=seconds(18))))) == [NOON_RUN]
    assert not batches(reconcile(look_at(only, after=seconds(18) + 61))), "the deadline counts from the opening"


@pytest.mark.parametrize(
    ("schedule", "run", "hour", "expected"),
    [
        pytest.param(STRICT, marked("open"), 20, ("closed", True), id="the window ends: it puts its work away"),
        pytest.param(STRICT, marked("open"), 19, (None, False), id="the window is open: it works"),
        pytest.param(STRICT, marked("closed", suspend=True), 21, (None, True), id="it rests"),
        pytest.param(STRICT, marked("closed", suspend=True), 18, ("open", False), id="a window opens: it goes on"),
        pytest.param(STRICT, marked("open", suspend=True), 21, (None, True), id="its owner has suspended it: that is not ours"),
        pytest.param(STRICT, marked("open", suspend=True), 18, (None, True), id="and so it stays when a window opens"),
        pytest.param(STRICT, marked("closed"), 21, (None, False), id="its owner has resumed it: it works until the next end"),
        pytest.param(STRICT, marked("closed"), 18, ("open", False), id="which is that of this window"),
        pytest.param(EVENINGS, marked("open"), 21, (None, False), id="the schedule lets it go on"),
        pytest.param(EVENINGS, marked("closed", suspend=True), 21, ("open", False), id="the schedule lets it go on from now on"),
        pytest.param(a_schedule(), marked("closed", suspend=True), 21, ("open", False), id="there are no windows any more"),
        pytest.param(STRICT, ended(marked("open")), 21, (None, False), id="it is over"),
    ],
)  # fmt: skip
def test_reconcile_has_runs_keep_to_the_windows(
    schedule: ScheduleBuilder, run: OurObject, hour: float, expected: tuple[str | None, bool]
) -> None:
    assert wanted_of(schedule, run, hour) == expected


def test_reconcile_looks_again_when_the_window_of_a_run_ends() -> None:
    plan = reconcile(look_at(STRICT.with_spec(schedule="0 0 1 1 *"), runs=[marked("open")], after=seconds(19)))
    assert plan.look_again_after == HOUR
    waiting = reconcile(
        look_at(STRICT.with_spec(schedule="0 0 1 1 *"), runs=[marked("closed", suspend=True)], after=seconds(21))
    )
    assert waiting.look_again_after == timedelta(hours=21)
    assert waits(waiting).endswith(f"before 2026-01-16T18:00:00Z: {NOON_RUN} is put away")


def test_reconcile_of_a_spec_that_has_become_wrong_leaves_runs_as_they_are() -> None:
    wrong = STRICT.with_spec(allowedWindows=[{"start": "18:00", "end": "20:00", "timeZone": "Europe/Atlantis"}])
    plan = reconcile(look_at(wrong, runs=[marked("open")], after=seconds(21)))
    found = plan.status.condition(ConditionType.READY)
    assert found is not None
    assert found.message.startswith(
        'spec.allowedWindows[0].timeZone: "Europe/Atlantis" is not in the time zone database'
    )
    assert batches(plan)[NOON_RUN]["spec"]["suspend"] is False


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        pytest.param(a_schedule("0 */2 * * *"), ["14:00", "16:00", "18:00", "20:00"], id="at any time"),
        pytest.param(EVENINGS.with_spec(schedule="0 */2 * * *"), ["18:00"] * 12, id="all ticks since the last evening, at the next"),
        pytest.param(
            EVENINGS.with_spec(schedule="*/30 * * * *", concurrencyPolicy="Forbid"), ["18:00", "18:30", "19:00", "19:30", "18:00"],
            id="Forbid leaves one of those that wait",
        ),
        pytest.param(
            EVENINGS.with_spec(schedule="*/30 * * * *", concurrencyPolicy="Replace"), ["18:00", "18:30", "19:00", "19:30", "18:00"],
            id="Replace leaves one of those that wait, and the tick of the opening itself is the last of them",
        ),
        pytest.param(
            EVENINGS.with_spec(schedule="0 19 * * *", jitterSeconds=3600), ["19:34", "19:34"], id="its share of the jitter comes first"
        ),
        pytest.param(
            EVENINGS.with_spec(timeZone="Asia/Tokyo", allowedWindows=[{"start": "07:00", "end": "09:00", "days": ["Friday"]}]),
            ["22:00"], id="on the clock of the schedule's own zone",
        ),
    ],
)  # fmt: skip
def test_due_after_is_when_runs_may_begin(schedule: ScheduleBuilder, expected: list[str]) -> None:
    found = islice(due_after(schedule.build(), NOON), len(expected))
    assert [f"{due.astimezone(UTC):%H:%M}" for due in found] == expected


def test_due_after_says_when_what_waits_already_will_begin() -> None:
    """The ticks of the night and the morning wait since the last evening."""
    found = list(islice(due_after(EVENINGS.with_spec(schedule="0 6,11 * * *").build(), NOON), 3))
    opening = datetime(2026, 1, 15, 18, tzinfo=UTC)
    assert found == [opening, opening, opening + timedelta(days=1)]
