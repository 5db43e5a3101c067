"""Decisions about a ScheduledGeneration: one CronJob, one run for each tick, and an end of the tick that is that of the run."""

from __future__ import annotations

import copy
from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import islice, pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from builders import NOON, a_batch
from headrace.api import labels
from headrace.api.base import JsonObject
from headrace.api.batchstatus import OutputStatus
from headrace.api.kinds import OurObject
from headrace.api.meta import Condition, ConditionStatus
from headrace.api.reasons import ConditionType, Reason
from headrace.api.schedulepolicies import FailureBackoff
from headrace.api.schedulestatus import ScheduledGenerationStatus
from headrace.core.plan import Plan
from headrace.core.schedule.drift import just_begun
from headrace.core.schedule.observed import SCHEDULED_TIMESTAMP, Tick
from headrace.core.schedule.reconcile import reconcile
from headrace.core.schedule.retries import delay
from headrace.core.schedule.times import due_after
from schedule_builders import NOON_RUN, ScheduleBuilder, a_run, a_schedule, a_tick, begun, ended, look_at

HOUR = timedelta(hours=1)


def children(plan: Plan[Any], kind: str) -> dict[str, JsonObject]:
    assert plan.children is not None
    return {child["metadata"]["name"]: child for child in plan.children if child["kind"] == kind}


def ready(status: ScheduledGenerationStatus) -> str:
    found = status.condition(ConditionType.READY)
    assert found is not None
    return f"{found.status} {found.reason}: {found.message}"


# the CronJob


def test_reconcile_lets_no_tick_come_before_the_api_server_has_kept_managed_by() -> None:
    plan = reconcile(look_at(a_schedule(), cron=None))
    (cron,) = children(plan, "CronJob").values()
    assert cron["spec"]["suspend"] is True
    assert cron["spec"]["jobTemplate"]["spec"]["managedBy"] == "headrace.dev/schedule"
    assert ready(plan.status).startswith("Unknown CheckingKubernetes")
    assert plan.look_again_after == timedelta(0)


def test_reconcile_has_no_restricted_namespace_warn_of_the_pods_that_a_tick_never_has() -> None:
    (cron,) = children(reconcile(look_at(a_schedule())), "CronJob").values()
    pod = cron["spec"]["jobTemplate"]["spec"]["template"]["spec"]
    assert pod["securityContext"] == {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}}
    (container,) = pod["containers"]
    assert container["securityContext"] == {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}


def test_reconcile_passes_the_fields_of_a_cron_job_on() -> None:
    schedule = a_schedule("H/15 8-10 * * MON-FRI").with_spec(
        timeZone="Europe/Berlin", concurrencyPolicy="Forbid", startingDeadlineSeconds=300, failedJobsHistoryLimit=0
    )
    (cron,) = children(reconcile(look_at(schedule)), "CronJob").values()
    spec = {name: value for name, value in cron["spec"].items() if name != "jobTemplate"}
    minutes, hours, *days = spec.pop("schedule").split()
    assert len(minutes.split(",")) == 4
    assert (hours, days) == ("8,9,10", ["*", "*", "1,2,3,4,5"])
    assert spec == {
        "timeZone": "Europe/Berlin",
        "concurrencyPolicy": "Forbid",
        "startingDeadlineSeconds": 300,
        "suspend": False,
        "successfulJobsHistoryLimit": 3,
        "failedJobsHistoryLimit": 0,
    }


def test_reconcile_refuses_a_kubernetes_that_does_not_keep_managed_by() -> None:
    observed = look_at(a_schedule(), ticks=[a_tick()])
    cron = copy.deepcopy(observed.cron_job)
    assert cron is not None
    del cron["spec"]["jobTemplate"]["spec"]["managedBy"]
    plan = reconcile(look_at(a_schedule(), ticks=[a_tick()], cron=cron))
    assert ready(plan.status).startswith("False KubernetesTooOld: its CronJob has lost")
    assert "1.32" in ready(plan.status)
    assert children(plan, "CronJob")["hourly"]["spec"]["suspend"] is True
    assert not children(plan, "InferenceBatch")


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        pytest.param(a_schedule("0 0 30 2 *"), "spec.schedule: never fires", id="the 30th of February"),
        pytest.param(a_schedule("0 99 * * *"), "spec.schedule: the hour is '99'", id="an hour that does not exist"),
        pytest.param(a_schedule("@often"), "spec.schedule: @often is not known", id="an unknown macro"),
        pytest.param(
            a_schedule().with_spec(timeZone="Europe/Atlantis"), 'spec.timeZone: "Europe/Atlantis" is not', id="no such zone"
        ),
        pytest.param(
            a_schedule().of_batch(input={"uri": "s3://in/x", "format": "text", "prompt": {"template": "{{ text"}}),
            "spec.template.inferenceBatch.input.prompt.template",
            id="a template of a prompt that is not closed",
        ),
        pytest.param(
            a_schedule().of_batch(input={"uri": "s3://in/{{ window.begin }}"}),
            "spec.template.inferenceBatch.input.uri: cannot be made of a window",
            id="a field that the window does not have",
        ),
        pytest.param(
            a_schedule().of_batch(parameters={"false": 2}), "spec.template.inferenceBatch.parameters.false: YAML", id="an unquoted n"
        ),
        pytest.param(
            a_schedule().of_fan_out("one", aggregation={"type": "vote"}, branches=[
                {"name": "one", "model": {"name": "m", "task": "embedding"}, "engine": {"name": "mock"}}
            ]),
            "spec.template.fanOutJob.branches[0].model.task: must be chat or completion",
            id="a fan-out that cannot be joined",
        ),
    ],
)  # fmt: skip
def test_reconcile_says_what_is_wrong_before_the_first_tick(schedule: ScheduleBuilder, expected: str) -> None:
    plan = reconcile(look_at(schedule, cron=None))
    assert ready(plan.status).startswith(f"False InvalidSpec: {expected}")
    assert plan.children == ()
    assert plan.status.summary.state == "InvalidSpec"


def test_reconcile_of_a_spec_that_has_become_wrong_lets_what_has_begun_go_on() -> None:
    cron = look_at(a_schedule()).cron_job
    bad = a_schedule().with_spec(timeZone="Europe/Atlantis")
    plan = reconcile(look_at(bad, ticks=[a_tick(), a_tick(NOON + HOUR)], runs=[a_run()], cron=cron, after=7200))
    assert children(plan, "CronJob")["hourly"]["spec"]["suspend"] is True
    assert list(children(plan, "InferenceBatch")) == [NOON_RUN]
    assert [told.status for told in plan.job_statuses] == [{"startTime": "2026-01-15T12:00:00Z"}]


# ticks and runs


def test_reconcile_makes_one_run_of_a_tick() -> None:
    plan = reconcile(look_at(a_schedule().of_batch(output={"uri": "s3://out/hourly/"}), ticks=[a_tick()]))
    (run,) = children(plan, "InferenceBatch").values()
    assert run["metadata"]["name"] == NOON_RUN
    assert run["metadata"]["annotations"] == {labels.TICK: "2026-01-15T12:00:00Z", labels.DUE: "2026-01-15T12:00:00Z"}
    assert run["metadata"]["labels"][labels.SCHEDULED_GENERATION] == "hourly"
    (owner,) = run["metadata"]["ownerReferences"]
    assert (owner["kind"], owner["name"]) == ("ScheduledGeneration", "hourly")
    assert run["spec"]["output"]["uri"] == f"s3://out/hourly/{NOON_RUN}/"
    assert not plan.job_statuses


def test_reconcile_makes_a_fan_out_of_a_tick() -> None:
    plan = reconcile(look_at(a_schedule().of_fan_out("one", "two"), ticks=[a_tick()]))
    (run,) = children(plan, "FanOutJob").values()
    assert [branch["name"] for branch in run["spec"]["branches"]] == ["one", "two"]
    assert "uri" not in run["spec"].get("output", {})


def test_reconcile_begins_a_run_when_its_share_of_the_jitter_is_over() -> None:
    schedule = a_schedule().with_spec(jitterSeconds=600)
    early = reconcile(look_at(schedule, ticks=[a_tick()], after=268))
    assert not children(early, "InferenceBatch")
    assert early.look_again_after == timedelta(seconds=1)
    assert early.status.effective_schedule == "0 * * * * Etc/UTC + 269 s"
    assert early.status.next_schedule_times[0] == NOON + timedelta(seconds=269)
    assert children(reconcile(look_at(schedule, ticks=[a_tick()], after=269)), "InferenceBatch")


def test_reconcile_begins_what_a_user_has_asked_for_at_once() -> None:
    schedule = a_schedule().with_spec(jitterSeconds=600)
    plan = reconcile(look_at(schedule, ticks=[a_tick(name="now-please", asked_for=True)]))
    assert list(children(plan, "InferenceBatch")) == ["now-please"]


def test_reconcile_refuses_a_job_after_which_no_run_can_be_called() -> None:
    tick = a_tick(name="x" * 53, asked_for=True)
    plan = reconcile(look_at(a_schedule(), ticks=[tick]))
    (told,) = plan.job_statuses
    assert [c["type"] for c in told.status["conditions"]] == ["FailureTarget", "Failed"]
    assert "at most 52 characters" in told.status["conditions"][1]["message"]
    assert not children(plan, "InferenceBatch")


def test_reconcile_says_that_a_tick_has_begun_and_then_nothing_until_its_run_has_ended() -> None:
    (told,) = reconcile(look_at(a_schedule(), ticks=[a_tick()], runs=[a_run()])).job_statuses
    assert (told.name, told.uid, told.status) == (NOON_RUN, f"uid-{NOON_RUN}", {"startTime": "2026-01-15T12:00:00Z"})
    assert not reconcile(look_at(a_schedule(), ticks=[a_tick(started=True)], runs=[a_run()])).job_statuses


def test_reconcile_ends_a_tick_as_its_run_has_ended() -> None:
    (told,) = reconcile(look_at(a_schedule(), ticks=[a_tick(started=True)], runs=[ended(a_run())])).job_statuses
    assert told.status["startTime"] == "2026-01-15T12:00:00Z"
    assert told.status["completionTime"] == "2026-01-15T12:01:00Z"
    assert [(c["type"], c["reason"]) for c in told.status["conditions"]] == [
        ("SuccessCriteriaMet", "RecordsProcessed"), ("Complete", "RecordsProcessed")
    ]  # fmt: skip


def test_reconcile_ends_a_tick_as_failed_with_the_reason_of_its_run() -> None:
    failed = ended(a_run(), Reason.SHARD_FAILED)
    (told,) = reconcile(look_at(a_schedule(), ticks=[a_tick(started=True)], runs=[failed])).job_statuses
    assert "completionTime" not in told.status
    assert [(c["type"], c["reason"], c["message"]) for c in told.status["conditions"]] == [
        ("FailureTarget", "ShardFailed", "it is over"), ("Failed", "ShardFailed", "it is over")
    ]  # fmt: skip


def test_reconcile_leaves_a_finished_tick_without_a_run_alone() -> None:
    """Its run was deleted, by hand or because history has no more room; it is not run again."""
    plan = reconcile(look_at(a_schedule(), ticks=[a_tick(started=True, finished=True)]))
    assert not children(plan, "InferenceBatch")
    assert not plan.job_statuses


def test_reconcile_cancels_the_run_that_was_replaced() -> None:
    schedule = a_schedule().with_spec(concurrencyPolicy="Replace")
    plan = reconcile(look_at(schedule, ticks=[a_tick(NOON + HOUR)], runs=[a_run()], after=3600))
    runs = children(plan, "InferenceBatch")
    assert {name: run["spec"]["cancel"] for name, run in runs.items()} == {
        NOON_RUN: True,
        a_tick(NOON + HOUR).name: False,
    }


@pytest.mark.parametrize(
    ("schedule", "ticks", "runs"),
    [
        pytest.param(
            a_schedule().with_spec(concurrencyPolicy="Replace"), [], [a_run()], id="no later tick is known: it may only be unheard of"
        ),
        pytest.param(
            a_schedule().with_spec(concurrencyPolicy="Replace"),
            [a_tick(NOON + HOUR)],
            [a_run().model_copy(update={"metadata": a_run().metadata.model_copy(update={"annotations": {
                labels.TICK: "2026-01-15T12:00:00Z", labels.RETRY: "1"}})})],
            id="it is being retried: that is its owner's business",
        ),
        pytest.param(a_schedule(), [a_tick(NOON + HOUR)], [a_run()], id="nothing is ever replaced"),
    ],
)  # fmt: skip
def test_reconcile_does_not_cancel_a_run_whose_tick_is_gone_when(
    schedule: ScheduleBuilder, ticks: list[Tick], runs: list[OurObject]
) -> None:
    plan = reconcile(look_at(schedule, ticks=ticks, runs=runs, after=3600))
    assert children(plan, "InferenceBatch")[NOON_RUN]["spec"]["cancel"] is False


def test_reconcile_leaves_what_a_user_has_changed_of_a_run() -> None:
    plan = reconcile(look_at(a_schedule(), ticks=[a_tick(started=True)], runs=[a_run(suspend=True, parallelism=7)]))
    run = children(plan, "InferenceBatch")[NOON_RUN]
    assert (run["spec"]["suspend"], run["spec"]["parallelism"]) == (True, 7)


# windows


@pytest.mark.parametrize(
    ("schedule", "tick", "expected"),
    [
        pytest.param(a_schedule(), "12:00", ("11:00", "12:00"), id="since the tick before"),
        pytest.param(a_schedule("0 9-17 * * *"), "09:00", ("17:00", "09:00"), id="over the night, when there are no ticks"),
        pytest.param(a_schedule().with_spec(window={"lengthSeconds": 1800}), "12:00", ("11:30", "12:00"), id="the last 30 minutes"),
        pytest.param(
            a_schedule().with_spec(window={"delaySeconds": 300}), "12:00", ("10:55", "11:55"), id="for data that comes late"
        ),
        pytest.param(a_schedule(), "12:25", ("12:00", "12:25"), id="asked for between two ticks"),
    ],
)  # fmt: skip
def test_reconcile_gives_each_run_the_window_of_its_tick(
    schedule: ScheduleBuilder, tick: str, expected: tuple[str, str]
) -> None:
    """Whatever the clock says: here it is two days later."""
    time = datetime.fromisoformat(f"2026-01-15T{tick}:00+00:00")
    (run,) = children(reconcile(look_at(schedule, ticks=[a_tick(time)], after=2 * 86_400)), "InferenceBatch").values()
    window = run["spec"]["input"]["window"]
    assert (window["startTime"][11:16], window["endTime"][11:16]) == expected


def test_reconcile_gives_windows_without_gap_or_overlap_over_a_change_of_the_clock() -> None:
    schedule = a_schedule("30 1-4 * * *").with_spec(timeZone="Europe/Berlin")
    start = datetime(2026, 10, 24, 12, tzinfo=UTC)
    ticks = [a_tick(time) for time in islice(due_after(schedule.build(), start), 6)]
    runs = children(reconcile(look_at(schedule, ticks=ticks, after=400 * 86_400)), "InferenceBatch").values()
    windows = sorted(
        (run["spec"]["input"]["window"]["startTime"], run["spec"]["input"]["window"]["endTime"]) for run in runs
    )
    assert len(windows) == 6
    assert all(before[1] == after[0] for before, after in pairwise(windows))


def test_reconcile_fills_the_window_into_the_uri_of_the_input() -> None:
    schedule = a_schedule().of_batch(input={"uri": "s3://in/{{ window.start.strftime('%Y/%m/%d/%H') }}/*.jsonl"})
    (run,) = children(reconcile(look_at(schedule, ticks=[a_tick()])), "InferenceBatch").values()
    assert run["spec"]["input"]["uri"] == "s3://in/2026/01/15/11/*.jsonl"


def test_reconcile_gives_a_fan_out_its_window() -> None:
    schedule = a_schedule().of_fan_out(
        "one", input={"uri": "s3://in/*.txt", "format": "text", "objects": "ModifiedInWindow"}
    )
    (run,) = children(reconcile(look_at(schedule, ticks=[a_tick()])), "FanOutJob").values()
    assert run["spec"]["input"]["window"] == {"startTime": "2026-01-15T11:00:00Z", "endTime": "2026-01-15T12:00:00Z"}


# catch-up

CATCHING_UP = a_schedule().with_spec(catchUp={"policy": "All"})
OUTAGE = [NOON + number * HOUR for number in range(1, 5)]
"""After noon came an outage of three hours: of these only the last has a Job."""


def since_noon(schedule: ScheduleBuilder, **status: Any) -> ScheduleBuilder:
    """The schedule as it was left at noon."""
    usual = {"effective_schedule": "0 * * * * Etc/UTC", "last_schedule_time": NOON, "watched_time": NOON - 9 * HOUR}
    return replace(schedule, status=schedule.status.model_copy(update=usual | status))


def live_on(schedule: ScheduleBuilder, ticks: list[Tick]) -> list[str]:
    """Look until nothing is to be done any more, with runs that end at once; the names of the runs in the order in which they begin."""
    begun: list[str] = []
    runs: list[OurObject] = []
    for _ in range(20):
        plan = reconcile(look_at(schedule, ticks=ticks, runs=runs, after=4 * 3600))
        new = [name for name in children(plan, "InferenceBatch") if name not in begun]
        if not new and plan.status == schedule.status:
            return begun
        begun += new
        runs += [ended(a_run(time)) for time in OUTAGE if a_tick(time).name in new]
        schedule = replace(schedule, status=plan.status)
    raise AssertionError("it never comes to rest")


@pytest.mark.parametrize(
    ("catch_up", "expected"),
    [
        pytest.param({"policy": "All"}, [4, 1, 2, 3], id="each, the oldest first, beside the one that has a Job"),
        pytest.param({"policy": "All", "max": 2}, [4, 2, 3], id="at most two, the latest ones"),
        pytest.param({"policy": "Latest"}, [4], id="the last, which the CronJob makes up for"),
    ],
)
def test_reconcile_makes_up_for_an_outage(catch_up: dict[str, Any], expected: list[int]) -> None:
    schedule = since_noon(a_schedule().with_spec(catchUp=catch_up, successfulJobsHistoryLimit=10))
    assert live_on(schedule, [a_tick(OUTAGE[-1])]) == [a_tick(NOON + number * HOUR).name for number in expected]


def test_reconcile_has_the_cron_job_pass_over_what_is_late_when_nothing_is_made_up_for() -> None:
    schedule = a_schedule().with_spec(catchUp={"policy": "None"})
    assert children(reconcile(look_at(schedule)), "CronJob")["hourly"]["spec"]["startingDeadlineSeconds"] == 60
    patient = schedule.with_spec(startingDeadlineSeconds=300)
    assert children(reconcile(look_at(patient)), "CronJob")["hourly"]["spec"]["startingDeadlineSeconds"] == 300


def test_reconcile_gives_what_it_makes_up_for_the_window_of_its_own_tick() -> None:
    schedule = since_noon(CATCHING_UP, missed=(NOON + HOUR,), last_schedule_time=NOON + 4 * HOUR)
    (run,) = children(reconcile(look_at(schedule, after=4 * 3600)), "InferenceBatch").values()
    assert run["spec"]["input"]["window"] == {"startTime": "2026-01-15T12:00:00Z", "endTime": "2026-01-15T13:00:00Z"}


def test_reconcile_writes_down_what_was_missed_before_it_runs_any() -> None:
    plan = reconcile(look_at(since_noon(CATCHING_UP), ticks=[a_tick(OUTAGE[-1])], after=4 * 3600))
    assert list(children(plan, "InferenceBatch")) == [a_tick(OUTAGE[-1]).name]
    assert plan.status.missed == tuple(OUTAGE[:-1])
    assert plan.look_again_after == timedelta(0)


def test_reconcile_makes_up_for_one_tick_after_the_other() -> None:
    first, second = NOON + HOUR, NOON + 2 * HOUR
    schedule = since_noon(CATCHING_UP, missed=(first, second), last_schedule_time=NOON + 4 * HOUR)
    running = reconcile(look_at(schedule, runs=[a_run(first)], after=4 * 3600))
    assert list(children(running, "InferenceBatch")) == [a_tick(first).name]
    over = reconcile(look_at(schedule, runs=[ended(a_run(first))], after=4 * 3600))
    assert list(children(over, "InferenceBatch")) == [a_tick(first).name, a_tick(second).name]
    assert over.status.missed == (second,)


@pytest.mark.parametrize(
    ("schedule", "ticks"),
    [
        pytest.param(since_noon(CATCHING_UP), list(map(a_tick, OUTAGE)), id="all Jobs are there: only the operator was away"),
        pytest.param(since_noon(CATCHING_UP, effective_schedule="*/5 * * * * Etc/UTC"), [a_tick(OUTAGE[-1])], id="it was changed"),
        pytest.param(since_noon(CATCHING_UP, watched_time=None), [a_tick(OUTAGE[-1])], id="it is looked at for the first time"),
        pytest.param(since_noon(CATCHING_UP, watched_time=NOON + 3.5 * HOUR), [a_tick(OUTAGE[-1])], id="it was suspended until then"),
        pytest.param(since_noon(CATCHING_UP), [a_tick(NOON + 3.5 * HOUR, asked_for=True)], id="a user has asked for a run"),
    ],
)  # fmt: skip
def test_reconcile_misses_nothing_when(schedule: ScheduleBuilder, ticks: list[Tick]) -> None:
    assert reconcile(look_at(schedule, ticks=ticks, after=4 * 3600)).status.missed == ()


def test_reconcile_of_a_suspended_schedule_watches_anew() -> None:
    plan = reconcile(look_at(since_noon(CATCHING_UP.with_spec(suspend=True)), after=3600))
    assert plan.status.watched_time == NOON + HOUR


# failures

PATIENT = a_schedule().with_spec(failureBackoff={"limit": 2, "baseSeconds": 60, "factor": 3, "capSeconds": 100})
OPEN = a_tick(started=True)


def tried_again(run: OurObject, times: int = 1, *, by_somebody: int = 0) -> OurObject:
    """The run as it is after so many tries more, of which the last has begun and ended as the run has."""
    noted = {**run.metadata.annotations, labels.RETRY: str(times + by_somebody)}
    metadata = run.metadata.model_copy(update={"annotations": noted, "labels": {labels.ROUND: str(times)}})
    return run.model_copy(
        update={"metadata": metadata, "status": run.status.model_copy(update={"retries": times + by_somebody})}
    )


def asked_again(plan: Plan[Any], name: str = NOON_RUN) -> tuple[str | None, str | None]:
    """Which try the plan asks for, and how many retries that are in all."""
    metadata = children(plan, "InferenceBatch")[name]["metadata"]
    return metadata.get("labels", {}).get(labels.ROUND), metadata.get("annotations", {}).get(labels.RETRY)


FAILED = ended(a_run(), Reason.WORKER_FAILED)
"""At a minute past noon."""


@pytest.mark.parametrize(
    ("run", "after", "expected", "next_look"),
    [
        pytest.param(FAILED, 119, (None, None), 1, id="a minute after its end, and not before"),
        pytest.param(FAILED, 120, ("1", "1"), None, id="then it is tried again"),
        pytest.param(tried_again(FAILED), 159, (None, None), 1, id="the next delay is longer, and has a cap"),
        pytest.param(tried_again(FAILED), 160, ("2", "2"), None, id="the second time"),
        pytest.param(tried_again(FAILED, by_somebody=1), 160, ("2", "3"), None, id="what somebody has asked for is not counted"),
    ],
)  # fmt: skip
def test_reconcile_tries_a_failed_run_again(
    run: OurObject, after: float, expected: tuple[str | None, str | None], next_look: float | None
) -> None:
    plan = reconcile(look_at(PATIENT, ticks=[OPEN], runs=[run], after=after))
    assert asked_again(plan) == expected
    assert not plan.job_statuses, "the tick goes on"
    assert plan.status.active == 1
    if next_look is not None:
        assert plan.look_again_after == timedelta(seconds=next_look)
        assert plan.status.runs[0].retry_time == NOON + timedelta(seconds=after + next_look)


@pytest.mark.parametrize(
    ("schedule", "run"),
    [
        pytest.param(a_schedule(), FAILED, id="nothing is tried again"),
        pytest.param(PATIENT, tried_again(FAILED, 2), id="it has had its last try"),
        pytest.param(PATIENT, ended(a_run(), Reason.CANCELLED), id="it was cancelled"),
        pytest.param(PATIENT, ended(a_run(), Reason.INPUT_INVALID), id="its input would be as bad the next time"),
        pytest.param(PATIENT, ended(a_run()), id="it is complete"),
    ],
)
def test_reconcile_ends_a_tick_whose_run_is_not_tried_again(schedule: ScheduleBuilder, run: OurObject) -> None:
    plan = reconcile(look_at(schedule, ticks=[OPEN], runs=[run], after=9000))
    assert asked_again(plan) == (None, None)
    (told,) = plan.job_statuses
    assert told.status["conditions"]
    assert plan.status.active == 0


def test_reconcile_never_tries_a_run_again_whose_tick_has_ended_or_is_gone() -> None:
    """As when failureBackoff is set later than that."""
    for ticks in ([a_tick(started=True, finished=True)], []):
        plan = reconcile(look_at(PATIENT, ticks=ticks, runs=[FAILED], after=9000))
        assert asked_again(plan) == (None, None)
        assert plan.status.runs[0].retry_time is None


def test_reconcile_leaves_a_tick_open_while_its_run_is_being_retried() -> None:
    asked = FAILED.model_copy(
        update={
            "metadata": FAILED.metadata.model_copy(
                update={"annotations": {**FAILED.metadata.annotations, labels.RETRY: "1"}}
            )
        }
    )
    assert not reconcile(look_at(a_schedule(), ticks=[OPEN], runs=[asked], after=9000)).job_statuses


def test_reconcile_cancels_a_run_that_was_replaced_between_two_tries() -> None:
    running = a_run().model_copy(update={"metadata": tried_again(FAILED).metadata})
    schedule = PATIENT.with_spec(concurrencyPolicy="Replace")
    plan = reconcile(look_at(schedule, ticks=[a_tick(NOON + HOUR)], runs=[running], after=3600))
    assert children(plan, "InferenceBatch")[NOON_RUN]["spec"]["cancel"] is True


WARY = a_schedule().with_spec(suspendAfterFailures=2, failedJobsHistoryLimit=0)


def of_hours(*reasons: Reason | None) -> list[OurObject]:
    """A run for each hour from noon on, and how it has ended; None: it is complete."""
    return [ended(a_run(NOON + number * HOUR), reason) for number, reason in enumerate(reasons)]


def suspended(plan: Plan[Any]) -> tuple[bool, str, str]:
    """Whether the CronJob is, and what the condition says."""
    found = plan.status.condition(ConditionType.SUSPENDED)
    said = f"{found.status} {found.reason}" if found is not None else ""
    return children(plan, "CronJob")["hourly"]["spec"]["suspend"], said, plan.status.summary.state


@pytest.mark.parametrize(
    ("runs", "failures"),
    [
        pytest.param(of_hours(Reason.WORKER_FAILED), 1, id="one is not enough"),
        pytest.param(of_hours(Reason.WORKER_FAILED, None, Reason.WORKER_FAILED), 1, id="not in a row"),
        pytest.param(of_hours(Reason.WORKER_FAILED, Reason.CANCELLED), 1, id="who was cancelled has not failed"),
        pytest.param(of_hours(Reason.WORKER_FAILED, Reason.WORKER_FAILED, None), 0, id="the last was complete"),
    ],
)
def test_reconcile_goes_on_when(runs: list[OurObject], failures: int) -> None:
    plan = reconcile(look_at(WARY, runs=runs, after=9 * 3600))
    assert suspended(plan) == (False, "", "Scheduled")
    assert plan.status.failures == failures


def test_reconcile_suspends_a_schedule_after_failures_in_a_row() -> None:
    plan = reconcile(look_at(WARY, runs=of_hours(None, Reason.WORKER_FAILED, Reason.SHARD_FAILED), after=9 * 3600))
    assert suspended(plan) == (True, "True PausedByFailures", "Paused")
    assert plan.status.next_schedule_times == ()
    assert [(event.type, event.reason) for event in plan.events if event.reason == Reason.PAUSED_BY_FAILURES] == [
        ("Warning", "PausedByFailures")
    ]
    assert len(children(plan, "InferenceBatch")) == 3, "the runs that count are kept"


PAUSED = replace(
    WARY,
    status=reconcile(look_at(WARY, runs=of_hours(Reason.WORKER_FAILED, Reason.WORKER_FAILED), after=5000)).status,
)


def test_reconcile_does_not_go_on_because_somebody_has_deleted_the_failed_runs() -> None:
    assert suspended(reconcile(look_at(PAUSED, after=9 * 3600))) == (True, "True PausedByFailures", "Paused")


def test_reconcile_goes_on_after_failures_when_a_run_is_complete() -> None:
    runs = of_hours(Reason.WORKER_FAILED, Reason.WORKER_FAILED, None)
    assert suspended(reconcile(look_at(PAUSED, runs=runs, after=9 * 3600))) == (False, "False Resumed", "Scheduled")


def test_reconcile_goes_on_after_failures_when_the_spec_was_changed_and_counts_anew() -> None:
    runs = of_hours(Reason.WORKER_FAILED, Reason.WORKER_FAILED)
    changed = replace(PAUSED, meta={"generation": 2})
    on = reconcile(look_at(changed, runs=runs, after=9 * 3600))
    assert suspended(on) == (False, "False Resumed", "Scheduled")
    assert (on.status.failures, on.status.failures_since) == (0, NOON + 9 * HOUR)
    later = replace(changed, status=on.status)
    more = [*runs, ended(a_run(NOON + 10 * HOUR), Reason.WORKER_FAILED)]
    assert reconcile(look_at(later, runs=more, after=11 * 3600)).status.failures == 1


def test_reconcile_misses_no_tick_while_it_is_suspended_after_failures() -> None:
    waiting = replace(PAUSED, status=since_noon(PAUSED).status).with_spec(catchUp={"policy": "All"})
    assert reconcile(look_at(waiting, ticks=[a_tick(OUTAGE[-1])], after=4 * 3600)).status.missed == ()


@given(base=st.integers(1, 86_400), factor=st.integers(1, 100), cap=st.integers(1, 604_800), tries=st.integers(0, 99))
def test_delay_grows_to_its_cap_and_never_shrinks(base: int, factor: int, cap: int, tries: int) -> None:
    wanted = FailureBackoff(base_seconds=min(base, cap), factor=factor, cap_seconds=cap)
    assert delay(wanted, 0) == timedelta(seconds=wanted.base_seconds)
    assert delay(wanted, tries) <= delay(wanted, tries + 1) <= timedelta(seconds=cap)
    assert delay(wanted, tries) == timedelta(seconds=min(cap, wanted.base_seconds * factor**tries))


# carrying what has failed

CHAIN = a_schedule().with_spec(carryFailedRecords=True, concurrencyPolicy="Forbid")
NEXT = a_tick(NOON + HOUR)


def left(run: OurObject, failed: int, *, read: bool = True) -> OurObject:
    """The run with so many failed records, and its output; `read`: whether it has read its input."""
    condition = Condition(
        type=ConditionType.INPUT_VALIDATED,
        status=ConditionStatus.TRUE if read else ConditionStatus.FALSE,
        reason=Reason.INPUT_VALID,
        last_transition_time=NOON,
    )
    records = run.status.records.model_copy(update={"failed": failed})
    uri = f"s3://out/{run.metadata.name}/"
    changes = {
        "conditions": (*run.status.conditions, condition),
        "records": records,
        "output": OutputStatus(uri=uri) if read else None,
    }
    return run.model_copy(update={"status": run.status.model_copy(update=changes)})


def that_took_up(run: OurObject, uri: str) -> OurObject:
    """The run, made to take up what there is in that folder."""
    source = run.spec.input.model_copy(update={"carried_from": uri})
    return run.model_copy(update={"spec": run.spec.model_copy(update={"input": source})})


@pytest.mark.parametrize(
    ("last", "expected"),
    [
        pytest.param(left(ended(a_run()), 3), f"s3://out/{NOON_RUN}/", id="the last run has failed records"),
        pytest.param(left(ended(a_run()), 0), None, id="all have their result"),
        pytest.param(
            left(ended(a_run(), Reason.WORKER_FAILED), 0), f"s3://out/{NOON_RUN}/", id="it has failed before they had a line"
        ),
        pytest.param(
            that_took_up(left(ended(a_run(), Reason.INPUT_INVALID), 0, read=False), "s3://out/earlier/"),
            "s3://out/earlier/",
            id="it could read nothing: what it was to take up is taken up by the next",
        ),
        pytest.param(that_took_up(left(ended(a_run()), 0), "s3://out/earlier/"), None, id="it has taken up all"),
        pytest.param(
            left(ended(a_run(input={"uri": "s3://in/x", "format": "jsonl"})), 3), None, id="its records are of another format"
        ),
        pytest.param(
            left(ended(a_run(input={"uri": "gs://in/x", "format": "openai"})), 3), None, id="they are in another kind of store"
        ),
    ],
)  # fmt: skip
def test_reconcile_has_the_next_run_take_up_what_the_last_has_left(last: OurObject, expected: str | None) -> None:
    over = a_tick(started=True, finished=True)
    plan = reconcile(look_at(CHAIN, ticks=[over, NEXT], runs=[last], after=3600))
    assert children(plan, "InferenceBatch")[NEXT.name]["spec"]["input"].get("carriedFrom") == expected
    loose = a_schedule().with_spec(concurrencyPolicy="Forbid")
    alone = reconcile(look_at(loose, ticks=[over, NEXT], runs=[last], after=3600))
    assert "carriedFrom" not in children(alone, "InferenceBatch")[NEXT.name]["spec"]["input"]


def test_reconcile_has_a_fan_out_take_up_what_the_last_has_left() -> None:
    last = left(ended(a_run()), 3)
    plan = reconcile(
        look_at(CHAIN.of_fan_out("one", input=dict(a_batch().spec["input"])), ticks=[NEXT], runs=[last], after=3600)
    )
    assert children(plan, "FanOutJob")[NEXT.name]["spec"]["input"]["carriedFrom"] == f"s3://out/{NOON_RUN}/"


def test_reconcile_begins_no_run_that_takes_up_before_the_last_is_over() -> None:
    """A run that was replaced, or asked for by hand, may be at its end only later than the next tick."""
    asked = a_tick(NOON + HOUR, name="now", asked_for=True)
    running = reconcile(look_at(CHAIN, ticks=[OPEN, asked, NEXT], runs=[a_run()], after=3600))
    assert list(children(running, "InferenceBatch")) == [NOON_RUN]
    over = reconcile(look_at(CHAIN, ticks=[OPEN, asked, NEXT], runs=[left(ended(a_run()), 1)], after=3600))
    assert len(children(over, "InferenceBatch")) == 2, "one after the other"


def test_reconcile_keeps_the_run_that_the_next_takes_up() -> None:
    schedule = CHAIN.with_spec(successfulJobsHistoryLimit=0, failedJobsHistoryLimit=0)
    runs = [left(ended(a_run(NOON + number * HOUR)), 1) for number in range(3)]
    known = replace(schedule, status=reconcile(look_at(schedule, runs=runs, after=9000)).status)
    assert list(children(reconcile(look_at(known, runs=runs, after=9000)), "InferenceBatch")) == [runs[2].metadata.name]


# drift

STRICT = a_schedule().with_spec(maxDriftSeconds=300)
AN_HOUR_LATER = NOON + HOUR


def drifting(status: ScheduledGenerationStatus) -> str:
    found = status.condition(ConditionType.DRIFT_EXCEEDED)
    return f"{found.status} {found.reason}" if found is not None else ""


@pytest.mark.parametrize(
    ("schedule", "runs", "after", "expected"),
    [
        pytest.param(STRICT, [begun(a_run(), 301)], 400, "True BegunLate", id="its first record was begun too late"),
        pytest.param(STRICT, [begun(a_run(), 300)], 400, "False BegunInTime", id="just in time"),
        pytest.param(STRICT, [a_run()], 300, "", id="not begun, and there is time left"),
        pytest.param(STRICT, [a_run()], 301, "True NotBegun", id="not begun, and the time is over"),
        pytest.param(STRICT, [ended(a_run())], 400, "", id="it is over without a record, as with an empty window"),
        pytest.param(
            STRICT, [begun(a_run(), 301), begun(a_run(AN_HOUR_LATER), 5)], 3700, "False BegunInTime", id="the last one counts"
        ),
        pytest.param(
            STRICT, [begun(a_run(), 301), a_run(AN_HOUR_LATER)], 3700, "True BegunLate", id="as long as the next has time left"
        ),
        pytest.param(
            STRICT, [begun(a_run(), 5), a_run(AN_HOUR_LATER)], 4000, "True NotBegun", id="the next was in time, this one is not"
        ),
        pytest.param(a_schedule(), [begun(a_run(), 9000)], 9999, "", id="nothing is too late"),
    ],
)  # fmt: skip
def test_reconcile_says_whether_runs_begin_too_late(
    schedule: ScheduleBuilder, runs: list[OurObject], after: float, expected: str
) -> None:
    assert drifting(reconcile(look_at(schedule, runs=runs, after=after)).status) == expected


def test_reconcile_forgets_that_a_run_was_late_when_nothing_is_too_late_any_more() -> None:
    late = reconcile(look_at(STRICT, runs=[begun(a_run(), 301)], after=400)).status
    lenient = replace(STRICT.with_spec(maxDriftSeconds=None), status=late)
    assert drifting(reconcile(look_at(lenient, runs=[begun(a_run(), 301)], after=500)).status) == "False NoLimit"


def test_reconcile_does_not_count_jitter_as_drift() -> None:
    schedule = STRICT.with_spec(jitterSeconds=600)
    (made,) = children(reconcile(look_at(schedule, ticks=[a_tick()], after=269)), "InferenceBatch").values()
    assert made["metadata"]["annotations"][labels.DUE] == "2026-01-15T12:04:29Z"
    run = begun(a_run(), 270)
    noted = run.metadata.model_copy(update={"annotations": made["metadata"]["annotations"]})
    status = reconcile(look_at(schedule, runs=[run.model_copy(update={"metadata": noted})], after=400)).status
    assert status.drift_seconds == status.runs[0].drift_seconds == 1


def test_a_hundred_schedules_of_one_minute_are_spread_over_their_jitter() -> None:
    """By what `status` says, and so for ever: the offset of one of them stands above as a number."""
    schedules = [a_schedule(name=f"report-{number}").with_spec(jitterSeconds=600) for number in range(100)]
    starts = [reconcile(look_at(it, after=1)).status.next_schedule_times[0] for it in schedules]
    assert all(NOON < start < NOON + HOUR + timedelta(seconds=600) for start in starts)
    assert max(Counter(start.minute for start in starts).values()) <= 20


def test_a_hundred_runs_of_one_tick_begin_when_the_status_has_promised_also_after_a_restart() -> None:
    """An operator that starts anew, and one that has lost the status besides, decide the same."""
    starts: Counter[int] = Counter()
    for number in range(100):
        schedule, tick = a_schedule(name=f"report-{number}").with_spec(jitterSeconds=600), a_tick(name=f"run-{number}")
        before = reconcile(look_at(schedule, after=-60)).status
        share = (before.next_schedule_times[0] - NOON).total_seconds()
        for known in (schedule, replace(schedule, status=before)):
            looks = [reconcile(look_at(known, ticks=[tick], after=after)) for after in (share - 1, share)]
            assert [list(children(plan, "InferenceBatch")) for plan in looks] == [[], [tick.name]]
        starts[int(share // 60)] += 1
    assert max(starts.values()) <= 20


def test_reconcile_looks_again_when_a_run_will_be_too_late() -> None:
    plan = reconcile(look_at(STRICT, runs=[a_run()], after=100))
    assert plan.look_again_after == timedelta(seconds=201)
    said = reconcile(look_at(STRICT, runs=[a_run()], after=301))
    assert [(event.type, event.reason) for event in said.events if event.reason == Reason.NOT_BEGUN] == [
        ("Warning", "NotBegun")
    ]


def test_drift_is_known_once_and_never_negative() -> None:
    run = a_run()
    assert just_begun(run, begun(run, 90).status) == timedelta(seconds=90)
    assert just_begun(begun(run, 90), begun(run, 90).status) is None
    assert just_begun(run, begun(run, -3).status) == timedelta(0), "clocks differ"
    by_hand = run.model_copy(update={"metadata": run.metadata.model_copy(update={"annotations": {}})})
    assert just_begun(by_hand, begun(run, 90).status) is None


# history and status


def test_reconcile_keeps_as_many_runs_as_the_spec_says() -> None:
    hours = [NOON + number * HOUR for number in range(6)]
    runs = [ended(a_run(time), Reason.CANCELLED if number % 2 else None) for number, time in enumerate(hours)]
    schedule = a_schedule().with_spec(successfulJobsHistoryLimit=1, failedJobsHistoryLimit=2)
    ticks = [a_tick(hours[4], started=True, finished=True)]
    known = replace(schedule, status=reconcile(look_at(schedule, ticks=ticks, runs=runs)).status)
    plan = reconcile(look_at(known, ticks=ticks, runs=runs))
    assert set(children(plan, "InferenceBatch")) == {a_tick(hours[number]).name for number in (4, 3, 5)}


def test_reconcile_keeps_a_run_until_the_job_of_its_tick_tells_of_its_end() -> None:
    schedule = a_schedule().with_spec(successfulJobsHistoryLimit=0)
    untold = reconcile(look_at(schedule, ticks=[a_tick(started=True)], runs=[ended(a_run())]))
    assert list(children(untold, "InferenceBatch")) == [NOON_RUN]
    known = replace(schedule, status=untold.status)
    told = reconcile(look_at(known, ticks=[a_tick(started=True, finished=True)], runs=[ended(a_run())]))
    assert not children(told, "InferenceBatch")


def test_reconcile_keeps_a_run_until_the_status_tells_of_its_success() -> None:
    """Whoever dies before it is written has not lost it."""
    schedule, over = a_schedule().with_spec(successfulJobsHistoryLimit=0), a_tick(started=True, finished=True)
    plan = reconcile(look_at(schedule, ticks=[over], runs=[ended(a_run())]))
    assert list(children(plan, "InferenceBatch")) == [NOON_RUN]
    assert plan.look_again_after == timedelta(0)


def test_reconcile_tells_of_the_last_runs() -> None:
    later = a_tick(NOON + HOUR, started=True)
    observed = look_at(
        a_schedule(), ticks=[a_tick(finished=True), later], runs=[ended(a_run()), a_run(NOON + HOUR)], after=3700
    )
    status = reconcile(observed).status
    assert [(run.name, run.state) for run in status.runs] == [(later.name, "Pending"), (NOON_RUN, "Complete")]
    assert status.active == 1
    assert status.last_schedule_time == NOON + HOUR
    assert status.last_successful_time == NOON + timedelta(seconds=60)
    assert [f"{time:%H:%M}" for time in status.next_schedule_times] == ["14:00", "15:00", "16:00"]
    assert status.summary.to_object() == {"state": "Running", "next": "2026-01-15T14:00:00Z"}


def test_reconcile_of_a_suspended_schedule_promises_no_times() -> None:
    plan = reconcile(look_at(a_schedule().with_spec(suspend=True)))
    assert children(plan, "CronJob")["hourly"]["spec"]["suspend"] is True
    assert plan.status.next_schedule_times == ()
    assert plan.status.is_true(ConditionType.SUSPENDED)
    assert plan.status.summary.state == "Suspended"


def test_reconcile_looks_again_when_the_next_tick_is_due() -> None:
    assert reconcile(look_at(a_schedule(), after=600)).look_again_after == timedelta(minutes=50)


def test_reconcile_of_a_schedule_that_is_being_deleted_leaves_the_rest_to_owner_references() -> None:
    plan = reconcile(look_at(replace_meta(a_schedule(), deletionTimestamp="2026-01-15T12:00:00Z"), ticks=[a_tick()]))
    assert plan.children is None
    assert not plan.job_statuses


def replace_meta(schedule: ScheduleBuilder, **meta: Any) -> ScheduleBuilder:
    return ScheduleBuilder(schedule.spec, schedule.name, {**schedule.meta, **meta}, schedule.status)


# names, and the Job of a tick


def test_the_longest_names_leave_room_for_the_pods_of_a_branch() -> None:
    schedule = a_schedule(name="x" * 32).of_fan_out("y" * 10)
    (run,) = children(reconcile(look_at(schedule, ticks=[a_tick(name=f"{'x' * 32}-29474640")])), "FanOutJob").values()
    assert len(f"{run['metadata']['name']}-{'y' * 10}") == 52


def test_tick_from_object_knows_the_tick_and_not_when_the_job_was_made() -> None:
    metadata = {
        "name": "hourly-29474640",
        "namespace": "default",
        "uid": "u",
        "creationTimestamp": "2026-01-15T12:00:07Z",
    }
    told = {**metadata, "annotations": {SCHEDULED_TIMESTAMP: "2026-01-15T13:00:00+01:00"}}
    tick = Tick.from_object({"metadata": told, "status": {"startTime": "2026-01-15T12:00:09Z"}})
    assert (tick.time, tick.asked_for, tick.started, tick.finished) == (NOON, False, True, False)
    by_hand = Tick.from_object({"metadata": metadata, "status": {"conditions": [{"type": "Failed", "status": "True"}]}})
    assert (by_hand.time, by_hand.asked_for, by_hand.finished) == (NOON + timedelta(seconds=7), True, True)


# whatever is seen


@given(data=st.data())
def test_reconcile_makes_no_second_run_and_loses_none(data: st.DataObject) -> None:
    """Applied to any state that can be reached, the plan has one run for each tick that is due and open, and takes no open run away."""
    hours = data.draw(st.lists(st.integers(0, 20), unique=True, max_size=8))
    ticks, runs = [], []
    for hour in hours:
        time = NOON + hour * HOUR
        finished = data.draw(st.booleans())
        ticks.append(a_tick(time, started=finished, finished=finished))
        if finished or data.draw(st.booleans()):
            run = a_run(time)
            runs.append(ended(run) if finished or data.draw(st.booleans()) else run)
    after = data.draw(st.integers(0, 90_000))
    plan = reconcile(look_at(a_schedule(), ticks=ticks, runs=runs, after=after))
    wanted, begun = set(children(plan, "InferenceBatch")), {run.metadata.name for run in runs}
    now_open = {tick.name for tick in ticks if not tick.finished}
    due = {tick.name for tick in ticks if tick.time <= NOON + timedelta(seconds=after)}
    assert wanted - begun == (now_open & due) - begun
    assert now_open & begun <= wanted
