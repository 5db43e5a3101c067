"""ScheduledGenerations on a real control plane, with its real CronJob controller: each tick is one run, and ends as the run does."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

import pytest
from aiohttp import web

from builders import a_batch
from headrace.api import labels
from headrace.api.base import JsonObject
from headrace.api.reasons import ConditionType
from headrace.api.scheduledgeneration import ScheduledGeneration
from headrace.api.worker import ExitCode, Role
from headrace.core.election import LeaseTerms
from headrace.shells.kube.resources import BATCHES, CRON_JOBS, EVENTS, FAN_OUTS, JOBS, PODS, SCHEDULES
from schedule_builders import ScheduleBuilder, a_schedule

from .operator_lives import Life, live_and_die
from .operator_rig import RECORDS, Plane, Rig, ask_for_run, plane, rig, second_operator, tick_job, until_ticking
from .operator_workers import Fate
from .proxy import Call, Forward, calls_to

__all__ = ["plane", "rig"]
pytestmark = [pytest.mark.cluster, pytest.mark.xdist_group("waiting")]

INLINE = a_batch().inline(*RECORDS).spec
NEVER = a_schedule("0 0 1 1 *", "reports").of_batch(**INLINE)
"""It does not tick while a test runs; what is to be run is asked for."""
EACH_MINUTE = a_schedule("* * * * *", "reports").of_batch(**INLINE)
MODIFIED = {"uri": "s3://in/*.txt", "format": "text", "objects": "ModifiedInWindow"}


def submit(rig: Rig, schedule: ScheduleBuilder) -> None:
    rig.create(SCHEDULES, schedule.manifest)


def schedule(rig: Rig, name: str = "reports") -> ScheduledGeneration:
    return ScheduledGeneration.parse(rig.get(SCHEDULES, name))


def ready(rig: Rig) -> str:
    condition = schedule(rig).status.condition(ConditionType.READY)
    return f"{condition.status} {condition.reason}: {condition.message}" if condition is not None else ""


def runs(rig: Rig, name: str = "reports") -> list[str]:
    """Names of the runs of a schedule, the earliest first."""
    mine = [run for run in rig.all(BATCHES) if run["metadata"]["labels"].get(labels.SCHEDULED_GENERATION) == name]
    return sorted(run["metadata"]["name"] for run in mine)


def ticks(rig: Rig, name: str = "reports") -> dict[str, JsonObject]:
    """The Jobs of a schedule's ticks."""
    found = rig.jobs().items()
    return {n: job for n, job in found if job["metadata"]["labels"].get(labels.SCHEDULED_GENERATION) == name}


def end_of(job: JsonObject) -> list[str]:
    return [c["type"] for c in job.get("status", {}).get("conditions", ()) if c["status"] == "True"]


def until_run(rig: Rig, name: str) -> None:
    """Wait until a tick has become a run."""
    rig.eventually(lambda: name in runs(rig), f"the run {name}")


def until_ended(rig: Rig, job: str) -> JsonObject:
    rig.eventually(lambda: end_of(rig.get(JOBS, job)), f"the end of {job}")
    return rig.get(JOBS, job)


def runs_of_shards_wait(rig: Rig) -> None:
    rig.script.fate = lambda pod: Fate(waits=pod.role == Role.RUN)


# A CronJob that says that its last tick was hours ago is all that its controller goes by: it makes up for the last tick at once, so that no
# test waits for the clock.


@dataclass(frozen=True)
class Outage:
    """A schedule of one minute of each hour, and the last of its ticks."""

    minute: int
    ticks: tuple[datetime, ...]
    """The oldest first; the outage begins before them, and they are all over for long."""

    @classmethod
    def of_three_hours(cls) -> Outage:
        """Ended some twenty minutes ago."""
        last = (datetime.now(UTC) - timedelta(minutes=20)).replace(second=0, microsecond=0)
        return cls(last.minute, tuple(last - timedelta(hours=hours) for hours in (2, 1, 0)))

    def schedule(self, policy: str, name: str) -> ScheduleBuilder:
        """With that policy for what was missed."""
        made = a_schedule(f"{self.minute} * * * *", name).of_batch(**INLINE)
        return made.with_spec(catchUp={"policy": policy}, successfulJobsHistoryLimit=10)

    def plant(self, rig: Rig, name: str) -> None:
        """Have been away: for our own watch of what was missed, and for the controller's. An operator would write over it."""
        begun = self.ticks[0] - timedelta(minutes=5)
        if schedule(rig, name).status.watched_time is not None:
            set_status(rig, "sg", name, {"watchedTime": f"{begun:%Y-%m-%dT%H:%M:%SZ}"})
        ticked_last(rig, name, begun)


def ticked_last(rig: Rig, name: str, time: datetime) -> None:
    """Have the controller know of no tick since then; it looks at once."""
    set_status(rig, "cronjob", name, {"lastScheduleTime": f"{time:%Y-%m-%dT%H:%M:%SZ}"})


def set_status(rig: Rig, kind: str, name: str, status: JsonObject) -> None:
    patch = ("--subresource=status", "--type=merge", "--patch", json.dumps({"status": status}))
    rig.kubectl("patch", kind, name, "--namespace", rig.namespace, *patch)


def run_names(name: str, times: Iterable[datetime]) -> list[str]:
    return [f"{name}-{int(time.timestamp()) // 60}" for time in times]


def test_a_tick_is_one_run_also_when_the_operator_is_dead_when_it_comes(rig: Rig) -> None:
    outage = Outage.of_three_hours()
    operator = rig.operator().start().wait_ready()
    submit(rig, outage.schedule("Latest", "reports"))
    until_ticking(rig, "reports")
    operator.kill()
    outage.plant(rig, "reports")
    rig.eventually(lambda: ticks(rig), "a tick")
    (tick,) = ticks(rig)
    assert runs(rig) == []
    operator.start().wait_ready()
    job = until_ended(rig, tick)
    assert end_of(job) == ["SuccessCriteriaMet", "Complete"]
    assert runs(rig) == [tick] == run_names("reports", outage.ticks[-1:])
    assert rig.get(BATCHES, tick)["metadata"]["annotations"][labels.TICK] == f"{outage.ticks[-1]:%Y-%m-%dT%H:%M:%SZ}"
    assert [call.sent_name for call in rig.proxy.made(creates_run)] == [tick]
    cron = rig.eventually(
        lambda: (found := rig.get(CRON_JOBS, "reports"))["status"].get("lastSuccessfulTime") and found, "success"
    )
    assert cron["status"]["lastSuccessfulTime"] >= job["status"]["completionTime"]
    assert all(labels.INFERENCE_BATCH in pod["metadata"]["labels"] for pod in rig.all(PODS)), "a tick has no pod"
    rig.eventually(lambda: schedule(rig).status.last_successful_time, "the status")


def test_forbid_and_replace_act_on_the_run(rig: Rig) -> None:
    outage = Outage.of_three_hours()
    runs_of_shards_wait(rig)
    rig.operator().start().wait_ready()
    policies = ("Forbid", "Replace")
    for policy in policies:
        name = policy.lower()
        submit(rig, outage.schedule("Latest", name).with_spec(concurrencyPolicy=policy))
        until_ticking(rig, name)
        ticked_last(rig, name, outage.ticks[0])
    rig.until_at_work(2)
    (only,), (first,) = runs(rig, "forbid"), runs(rig, "replace")
    for policy in policies:
        tick_again(rig, policy.lower(), outage.ticks[-1] + timedelta(minutes=10))
    rig.eventually(lambda: told(rig, "JobAlreadyActive", "forbid"), "a tick is forbidden")
    rig.eventually(lambda: len(runs(rig, "replace")) == 2, "a tick replaces the other")
    rig.until_state("Cancelled", first)
    (second,) = run_names("replace", [outage.ticks[-1] + timedelta(minutes=10)])
    assert set(runs(rig, "replace")) == {first, second}
    rig.eventually(lambda: list(ticks(rig, "replace")) == [second], "the Job of the other is gone")
    assert runs(rig, "forbid") == [only]
    assert end_of(ticks(rig, "forbid")[only]) == []
    assert [it["name"] for it in rig.get(CRON_JOBS, "forbid")["status"]["active"]] == [only]
    assert rig.batch(first).status.records.total == 10
    rig.script.let_go()
    assert end_of(until_ended(rig, only))[-1] == "Complete"
    assert end_of(until_ended(rig, second))[-1] == "Complete"


def tick_again(rig: Rig, name: str, time: datetime) -> None:
    """Let a schedule tick at another minute of the hour, which is over as well, and the controller notice that."""
    rig.change(SCHEDULES, name, {"spec": {"schedule": f"{time.minute} * * * *"}})
    wanted = f"{time.minute} "
    rig.eventually(lambda: rig.get(CRON_JOBS, name)["spec"]["schedule"].startswith(wanted), "the CronJob follows")
    ticked_last(rig, name, time - timedelta(minutes=1))


def told(rig: Rig, reason: str, name: str) -> bool:
    """Whether the controller has posted an event about the CronJob of a schedule."""
    found = [event for event in rig.all(EVENTS) if event["regarding"].get("kind") == "CronJob"]
    return any((event["reason"], event["regarding"]["name"]) == (reason, name) for event in found)


@pytest.mark.parametrize(
    ("policy", "made_up_for"),
    [
        pytest.param("None", 0, id="nothing"),
        pytest.param("Latest", 1, id="the last tick"),
        pytest.param("All", 3, id="each tick"),
    ],
)
def test_after_an_outage_of_three_hours_is_run(rig: Rig, policy: str, made_up_for: int) -> None:
    outage, name = Outage.of_three_hours(), policy.lower()
    operator = rig.operator().start().wait_ready()
    submit(rig, outage.schedule(policy, name))
    until_ticking(rig, name)
    rig.eventually(lambda: policy != "All" or schedule(rig, name).status.watched_time, "the schedule is watched")
    operator.kill()
    outage.plant(rig, name)
    operator.start().wait_ready()
    expected = run_names(name, outage.ticks[3 - made_up_for :])
    rig.eventually(lambda: runs(rig, name) == expected, "a run of each")
    ask_for_run(rig, name, "zz-asked")  # when it is over, whatever else there was to be done has been begun
    assert end_of(until_ended(rig, "zz-asked"))[-1] == "Complete"
    rig.eventually(lambda: not schedule(rig, name).status.missed and not schedule(rig, name).status.active, "all over")
    succeeded = partial(
        rig.get, CRON_JOBS, name
    )  # written by a look of the controller that has made up for what there was
    rig.eventually(lambda: succeeded()["status"].get("lastSuccessfulTime"), "the controller has looked")
    assert runs(rig, name) == [*expected, "zz-asked"]
    begun = [call.sent_name for call in rig.proxy.made(creates_run)]
    if policy == "All":  # beside the last, which has a Job, the oldest first
        assert [run for run in begun if run in expected[:-1]] == expected[:-1]
    assert sorted(begun) == [*expected, "zz-asked"], "once each"
    windows = [rig.get(BATCHES, run)["spec"]["input"]["window"]["endTime"] for run in expected]
    assert windows == [f"{time:%Y-%m-%dT%H:%M:%SZ}" for time in outage.ticks[3 - made_up_for :]]


def creates_run(call: Call) -> bool:
    """A run was made."""
    return call.verb == "create" and call.resource == BATCHES.plural and call.status == 201


THREE = [datetime(2026, 1, 15, hour, tzinfo=UTC) for hour in (12, 13, 14)]


def test_three_ticks_that_come_while_no_operator_is_there_are_one_run_each(rig: Rig) -> None:
    operator = rig.operator().start().wait_ready()
    submit(rig, NEVER.with_spec(successfulJobsHistoryLimit=10))
    until_ticking(rig, "reports")
    operator.kill()
    names = run_names("reports", THREE)
    for name, time in zip(names, THREE, strict=True):
        rig.create(JOBS, tick_job(rig.get(CRON_JOBS, "reports"), name, time))
    operator.start().wait_ready()
    for name in names:
        assert end_of(until_ended(rig, name))[-1] == "Complete"
    assert runs(rig) == names
    assert sorted(call.sent_name for call in rig.proxy.made(creates_run)) == names


def test_two_operators_make_one_run_of_a_tick_also_when_the_one_takes_over_from_the_other(rig: Rig) -> None:
    """The one that leads is stopped among three ticks; both have seen them."""
    first = rig.operator().start().wait_ready()
    submit(rig, NEVER.with_spec(successfulJobsHistoryLimit=10))
    until_ticking(rig, "reports")
    second, proxy = second_operator(rig)
    names = run_names("reports", THREE)
    cron = rig.get(CRON_JOBS, "reports")
    rig.create(JOBS, tick_job(cron, names[0], THREE[0]))
    rig.eventually(lambda: names[0] in runs(rig), "a run by the first")
    for name, time in zip(names[1:], THREE[1:], strict=True):
        rig.create(JOBS, tick_job(cron, name, time))
    first.stop()
    second.wait_ready()
    for name in names:
        assert end_of(until_ended(rig, name))[-1] == "Complete"
    made = [call.sent_name for each in (rig.proxy, proxy) for call in each.made(creates_run)]
    assert sorted(made) == names
    assert runs(rig) == names


def test_two_operators_that_both_begin_a_tick_make_one_run_of_it(rig: Rig) -> None:
    """What the one has asked for is on its way while it is frozen; it comes when the other leads, and has made the run."""
    rig.lease_terms = LeaseTerms(lease_seconds=30, give_up_seconds=15, renew_seconds=2)
    first = rig.operator().start().wait_ready()
    submit(rig, NEVER)
    until_ticking(rig, "reports")
    second, proxy = second_operator(rig)
    made = calls_to(BATCHES.plural, "create")

    async def hold_up(_: Call, forward: Forward) -> web.StreamResponse:
        await rig.script.go.wait()
        return await forward()

    rig.proxy.on(made, hold_up, times=1)
    ask_for_run(rig, "reports", "now")
    rig.eventually(lambda: rig.proxy.made(made), "the first asks for a run")
    os.kill(first.pid, signal.SIGSTOP)
    second.wait_until(lambda health: health["leading"] and health["ready"])
    assert end_of(until_ended(rig, "now"))[-1] == "Complete"
    rig.script.let_go()
    late = rig.eventually(lambda: [call for call in rig.proxy.made(made) if call.status], "it comes late")
    os.kill(first.pid, signal.SIGCONT)
    assert first.wait() == 1
    assert [(call.sent_name, call.status) for call in late] == [("now", 409)]
    assert [call.sent_name for call in proxy.made(creates_run)] == ["now"]
    assert runs(rig) == ["now"]


def test_a_planted_delay_is_drift_in_the_status_the_condition_and_the_metric(rig: Rig) -> None:
    operator = rig.operator().start().wait_ready()
    submit(rig, NEVER.with_spec(maxDriftSeconds=300))
    until_ticking(rig, "reports")
    ask_for_run(rig, "reports", "in-time")
    until_ended(rig, "in-time")
    rig.script.fate = lambda _: Fate(begins_late_seconds=400)
    ask_for_run(rig, "reports", "late")
    rig.eventually(lambda: schedule(rig).status.is_true(ConditionType.DRIFT_EXCEEDED), "it is late")
    status = schedule(rig).status
    assert {run.name: (run.drift_seconds or 0) >= 400 for run in status.runs} == {"late": True, "in-time": False}
    assert status.drift_seconds == status.runs[0].drift_seconds
    operator.until_metric(f'headrace_schedules{{namespace="{rig.namespace}",state="Late"}} 1.0')
    operator.until_metric(f'headrace_schedule_drift_seconds_count{{namespace="{rig.namespace}"}} 2.0')
    sums = f'headrace_schedule_drift_seconds_sum{{namespace="{rig.namespace}"}} '
    (total,) = [line.removeprefix(sums) for line in operator.metrics() if line.startswith(sums)]
    assert float(total) >= 400


def test_a_failed_run_is_a_failed_tick(rig: Rig) -> None:
    rig.script.fate = lambda _: Fate(exit_code=ExitCode.JOB_FAILED)
    rig.operator().start().wait_ready()
    submit(rig, NEVER)
    until_ticking(rig, "reports")
    ask_for_run(rig, "reports", "now")
    job = until_ended(rig, "now")
    assert end_of(job) == ["FailureTarget", "Failed"]
    assert job["status"]["conditions"][-1]["reason"] == "WorkerFailed"

    def told() -> list[tuple[str, str]]:
        return [(run.name, run.state) for run in schedule(rig).status.runs]

    rig.eventually(lambda: told() == [("now", "WorkerFailed")], "the status tells of it")


def test_a_failed_run_is_tried_again_and_its_tick_lasts_as_long(rig: Rig) -> None:
    fates = iter([Fate(exit_code=ExitCode.JOB_FAILED), Fate()])
    rig.script.fate = lambda pod: next(fates) if pod.role == Role.RUN else Fate()
    rig.operator().start().wait_ready()
    submit(rig, NEVER.with_spec(failureBackoff={"limit": 3, "baseSeconds": 1, "capSeconds": 1}))
    until_ticking(rig, "reports")
    ask_for_run(rig, "reports", "now")
    assert end_of(until_ended(rig, "now")) == ["SuccessCriteriaMet", "Complete"]
    run = rig.batch("now")
    assert (run.status.retries, run.retries_asked) == (1, 1)
    assert sorted(name for name in rig.jobs() if name.startswith("now-")) == ["now-run-r1"]


def test_each_run_takes_up_what_the_one_before_it_has_left(rig: Rig) -> None:
    """A run that is asked for while another is at work begins when that is over, and not before."""
    rig.script.fate = lambda pod: Fate(failed_records=2, waits=pod.role == Role.RUN)
    rig.operator().start().wait_ready()
    carrying = NEVER.with_spec(carryFailedRecords=True, concurrencyPolicy="Forbid").of_batch(**a_batch().spec)
    submit(rig, carrying)
    until_ticking(rig, "reports")
    ask_for_run(rig, "reports", "first")
    rig.until_at_work(1)
    ask_for_run(rig, "reports", "second")
    rig.eventually(lambda: "second" in ticks(rig), "a second tick")
    assert runs(rig) == ["first"]
    rig.script.let_go()
    for name in ("first", "second"):
        until_ended(rig, name)
    output = rig.batch("first").status.output
    assert output is not None
    first, second = (rig.get(BATCHES, name) for name in ("first", "second"))
    assert second["metadata"]["creationTimestamp"] >= first["status"]["completionTime"]
    assert "carriedFrom" not in first["spec"]["input"]
    assert second["spec"]["input"]["carriedFrom"] == output.uri
    (plan,) = [pod.config.input for pod in rig.script.of_role(Role.PLAN) if pod.config.batch.name == "second"]
    assert plan.carried_from == output.uri


def test_a_schedule_is_suspended_after_failures_and_goes_on_after_a_success(rig: Rig) -> None:
    rig.script.fate = lambda _: Fate(exit_code=ExitCode.JOB_FAILED)
    rig.operator().start().wait_ready()
    submit(rig, NEVER.with_spec(suspendAfterFailures=2, failedJobsHistoryLimit=0))
    until_ticking(rig, "reports")
    for name in ("first", "second"):
        ask_for_run(rig, "reports", name)
        until_run(rig, name)
        rig.until_state("WorkerFailed", name)
    rig.eventually(lambda: rig.get(CRON_JOBS, "reports")["spec"]["suspend"], "it is suspended")
    rig.eventually(lambda: schedule(rig).status.summary.state == "Paused", "the status says so")
    assert rig.until_event("PausedByFailures", about="reports")["type"] == "Warning"
    rig.script.fate = lambda _: Fate()
    ask_for_run(rig, "reports", "third")
    until_ended(rig, "third")
    rig.eventually(lambda: not rig.get(CRON_JOBS, "reports")["spec"]["suspend"], "it goes on")
    rig.eventually(lambda: schedule(rig).status.failures == 0, "its failures are forgotten")
    assert [event["reason"] for event in rig.events("reports")].count("PausedByFailures") == 1


def test_a_fan_out_on_a_schedule_is_joined_and_told_of(rig: Rig) -> None:
    rig.operator().start().wait_ready()
    submit(rig, NEVER.of_fan_out("one", "two", input=INLINE["input"]))
    until_ticking(rig, "reports")
    ask_for_run(rig, "reports", "now")
    assert end_of(until_ended(rig, "now"))[-1] == "Complete"
    assert rig.state(FAN_OUTS, "now") == "Complete"
    rig.eventually(lambda: schedule(rig).status.summary.state == "Scheduled", "nothing runs any more")
    header, row = rig.kubectl("get", "sg", "--namespace", rig.namespace).splitlines()
    assert header.split() == ["NAME", "SCHEDULE", "ZONE", "STATE", "ACTIVE", "NEXT", "LAST", "DRIFT", "AGE"]
    assert "Etc/UTC" in row
    assert "Scheduled" in row


@pytest.mark.parametrize(
    "wanted",
    [
        pytest.param(NEVER.of_batch(input=MODIFIED), id="of a batch"),
        pytest.param(NEVER.of_fan_out("one", "two", input=MODIFIED), id="of a fan-out"),
    ],
)
def test_an_empty_window_is_a_success_for_which_one_pod_has_looked(rig: Rig, wanted: ScheduleBuilder) -> None:
    rig.script.records = rig.script.shards = 0
    rig.operator().start().wait_ready()
    submit(rig, wanted)
    until_ticking(rig, "reports")
    ask_for_run(rig, "reports", "now")
    last = until_ended(rig, "now")["status"]["conditions"][-1]
    assert (last["type"], last["reason"]) == ("Complete", "NoData")
    assert [pod.role for pod in rig.script.pods] == [Role.PLAN]


def test_history_keeps_as_many_runs_as_it_is_told_and_all_outputs(rig: Rig) -> None:
    rig.operator().start().wait_ready()
    submit(rig, NEVER.with_spec(successfulJobsHistoryLimit=1))
    until_ticking(rig, "reports")
    for name in ("first", "second"):
        ask_for_run(rig, "reports", name)
        until_ended(rig, name)
    rig.eventually(lambda: runs(rig) == ["second"], "only the last run is kept")
    rig.eventually(lambda: list(ticks(rig)) == ["second"], "only its Job is kept")
    assert not rig.proxy.made(calls_to("jobs", "delete", name="first")), "that is for the CronJob controller"
    assert len(rig.script.committed) == 2, "what was put out stays"


def test_a_deleted_tick_leaves_its_run_and_what_that_has_put_out(rig: Rig) -> None:
    rig.operator().start().wait_ready()
    submit(rig, NEVER)
    until_ticking(rig, "reports")
    ask_for_run(rig, "reports", "first")
    until_ended(rig, "first")
    output = rig.batch("first").status.output
    rig.kubectl(
        "delete", "job", "first", "--cascade=foreground", "--namespace", rig.namespace
    )  # waits for what belongs to it
    ask_for_run(rig, "reports", "second")
    until_ended(rig, "second")
    assert runs(rig) == ["first", "second"]
    assert output is not None
    assert rig.batch("first").status.output == output
    assert rig.state(BATCHES, "first") == "Complete"


def test_a_deleted_schedule_takes_its_runs_along(rig: Rig) -> None:
    runs_of_shards_wait(rig)
    rig.operator().start().wait_ready()
    submit(rig, NEVER)
    until_ticking(rig, "reports")
    ask_for_run(rig, "reports", "now")
    rig.eventually(lambda: "now" in runs(rig), "a run")
    rig.delete(SCHEDULES, "reports")
    rig.eventually(lambda: not rig.all(BATCHES) and not rig.all(CRON_JOBS) and not rig.jobs(), "all gone")


def test_a_kubernetes_that_drops_managed_by_is_refused(rig: Rig) -> None:
    async def forget(call: Call, forward: Forward) -> web.StreamResponse:
        body = json.loads(call.body)
        del body["spec"]["jobTemplate"]["spec"]["managedBy"]
        call.body = json.dumps(body).encode()
        return await forward()

    rig.proxy.on(calls_to("cronjobs", "create"), forget)
    rig.operator().start().wait_ready()
    submit(rig, EACH_MINUTE)
    rig.eventually(lambda: ready(rig).startswith("False KubernetesTooOld"), "a refusal")
    assert "1.32" in ready(rig)
    assert rig.get(CRON_JOBS, "reports")["spec"]["suspend"] is True
    assert not ticks(rig)


def test_a_schedule_that_never_fires_says_so_and_makes_nothing(rig: Rig) -> None:
    rig.operator().start().wait_ready()
    submit(rig, a_schedule("0 0 30 2 *", "reports").of_batch(**INLINE))
    rig.eventually(lambda: ready(rig).startswith("False InvalidSpec: spec.schedule: never fires"), "a refusal")
    assert not rig.all(CRON_JOBS)
    rig.change(SCHEDULES, "reports", {"spec": {"schedule": "0 0 28 2 *"}})
    until_ticking(rig, "reports")
    rig.change(SCHEDULES, "reports", {"spec": {"schedule": "30 6 * * *", "timeZone": "Europe/Berlin"}})
    rig.eventually(lambda: rig.get(CRON_JOBS, "reports")["spec"]["schedule"] == "30 6 * * *", "the CronJob follows")


def ask_once(life: Life) -> None:
    """A schedule, and one run that somebody asks for."""
    rig = life.rig
    submit(rig, NEVER)
    life.until(lambda: not rig.gone(CRON_JOBS, "reports"), "the CronJob")
    ask_for_run(rig, "reports", "now")
    life.until(lambda: end_of(rig.get(JOBS, "now")), "the end of its Job")
    assert end_of(rig.get(JOBS, "now")) == ["SuccessCriteriaMet", "Complete"]
    assert [call.sent_name for call in rig.proxy.made(creates_run)] == ["now"]
    assert runs(rig) == ["now"]


@pytest.mark.parametrize("answered", [False, True], ids=["before it is made", "after it is answered"])
def test_an_operator_killed_between_any_two_writes_makes_one_run_of_a_tick(
    plane: Plane, tmp_path: Path, *, answered: bool
) -> None:
    killed = live_and_die(plane, tmp_path, ask_once, answered=answered)
    assert killed >= {
        "create cronjobs",
        "create inferencebatches",
        "patch jobs/status",
        "patch inferencebatches/status",
    }
