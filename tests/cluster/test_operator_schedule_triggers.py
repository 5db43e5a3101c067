"""Runs that new objects begin, on a real control plane: looks are Jobs, and each object has one run, whatever dies in between."""

from __future__ import annotations

from pathlib import Path

import pytest

from headrace.api import labels
from headrace.api.base import JsonObject
from headrace.api.reasons import ConditionType
from headrace.api.scheduledgeneration import ScheduledGeneration
from headrace.api.window import DataWindow
from headrace.api.worker import ExitCode, Failure, Role
from headrace.shells.kube.resources import BATCHES, SCHEDULES
from schedule_builders import ScheduleBuilder, triggered

from .operator_lives import Life, live_and_die
from .operator_rig import Plane, Rig, plane, rig
from .operator_workers import Fate
from .proxy import calls_to

__all__ = ["plane", "rig"]
pytestmark = [pytest.mark.cluster, pytest.mark.xdist_group("waiting")]

WANTED = ScheduleBuilder(triggered(10, settleSeconds=1, pollSeconds=10).spec, "reports")


def schedule(rig: Rig) -> ScheduledGeneration:
    return ScheduledGeneration.parse(rig.get(SCHEDULES, "reports"))


def condition(rig: Rig, kind: ConditionType) -> str:
    """What the schedule says of itself."""
    found = schedule(rig).status.condition(kind)
    return f"{found.status} {found.reason}: {found.message}" if found is not None else ""


def runs(rig: Rig) -> list[JsonObject]:
    found = rig.all(BATCHES)
    return [run for run in found if run["metadata"].get("labels", {}).get(labels.SCHEDULED_GENERATION) == "reports"]


def in_the_first_window(window: DataWindow) -> int:
    """Ten objects, which were there from the beginning."""
    return 10 if window.start_time.year == 1970 else 0


def test_new_objects_become_one_run_and_the_cursor_moves(rig: Rig) -> None:
    rig.script.new_objects = in_the_first_window
    rig.operator().start().wait_ready()
    rig.create(SCHEDULES, WANTED.manifest)
    rig.eventually(lambda: schedule(rig).status.last_successful_time, "the end of a run")
    (run,) = runs(rig)
    assert run["metadata"]["name"] == "reports-0"
    window = DataWindow.parse(run["spec"]["input"]["window"])
    trigger = schedule(rig).status.trigger
    assert trigger is not None
    assert trigger.cursor_time == window.end_time
    assert {pod.config.input.window for pod in rig.script.of_role(Role.LIST)} >= {window}
    assert len(rig.jobs()) <= 4, "one look, and what the run has"


def test_too_few_objects_wait(rig: Rig) -> None:
    rig.script.new_objects = lambda _: 9
    rig.operator().start().wait_ready()
    rig.create(SCHEDULES, WANTED.manifest)
    rig.eventually(lambda: condition(rig, ConditionType.INPUT_LISTED).startswith("True ObjectsListed: 9"), "a look")
    assert runs(rig) == []
    rig.change(SCHEDULES, "reports", {"spec": {"trigger": {"newObjects": {"maxWaitSeconds": 1}}}})
    rig.eventually(lambda: [run["metadata"]["name"] for run in runs(rig)] == ["reports-0"], "the oldest has waited")


def test_a_listing_that_fails_is_told_of_and_not_repeated_at_once(rig: Rig) -> None:
    failure = Failure(reason="InputUnreadable", message="there is no such bucket")
    rig.script.fate = lambda _: Fate(exit_code=ExitCode.JOB_FAILED, failure=failure)
    rig.operator().start().wait_ready()
    rig.create(SCHEDULES, WANTED.manifest)
    expected = "False ListingFailed: what is new could not be listed: InputUnreadable: there is no such bucket"
    rig.eventually(lambda: condition(rig, ConditionType.INPUT_LISTED) == expected, "it is told of")
    rig.change(SCHEDULES, "reports", {"spec": {"successfulJobsHistoryLimit": 1}})
    rig.eventually(lambda: schedule(rig).status.observed_generation == 2, "it is looked at again")
    assert len([call for call in rig.proxy.made(calls_to("jobs", "create")) if call.status == 201]) == 1


def begin_with_what_is_new(life: Life) -> None:
    """New objects, one run of them, and no room for it afterwards."""
    rig = life.rig
    rig.script.new_objects = in_the_first_window
    rig.create(SCHEDULES, WANTED.with_spec(successfulJobsHistoryLimit=0).manifest)
    life.until(lambda: schedule(rig).status.last_successful_time and not runs(rig), "the end of the run")
    created = rig.proxy.made(calls_to(BATCHES.plural, "create"))
    assert [call.sent_name for call in created if call.status == 201] == ["reports-0"]


@pytest.mark.parametrize("answered", [False, True], ids=["before it is made", "after it is answered"])
def test_an_operator_killed_between_any_two_writes_begins_one_run_for_what_is_new(
    plane: Plane, tmp_path: Path, *, answered: bool
) -> None:
    killed = live_and_die(plane, tmp_path, begin_with_what_is_new, answered=answered)
    assert killed >= {"create jobs", "create inferencebatches", "patch scheduledgenerations/status"}
