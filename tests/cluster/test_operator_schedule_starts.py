"""When runs of schedules begin, on a real control plane: once at a moment, in allowed windows, and after what they depend on."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from builders import BatchBuilder, a_batch
from headrace.api import labels
from headrace.api.reasons import ConditionType
from headrace.api.scheduledgeneration import ScheduledGeneration
from headrace.api.worker import Role
from headrace.shells.kube.resources import BATCHES, CRON_JOBS, JOBS, PODS, SCHEDULES
from schedule_builders import ScheduleBuilder, a_schedule, once

from .operator_lives import Life, live_and_die
from .operator_rig import RECORDS, Plane, Rig, ask_for_run, plane, rig, tick_job, until_ticking
from .operator_workers import Fate
from .proxy import calls_to

__all__ = ["plane", "rig"]
pytestmark = [pytest.mark.cluster, pytest.mark.xdist_group("waiting")]

INLINE = a_batch().inline(*RECORDS).spec
NEVER = a_schedule("0 0 1 1 *", "reports").of_batch(**INLINE)
"""Its CronJob does not tick while a test runs."""


def schedule(rig: Rig, name: str = "reports") -> ScheduledGeneration:
    return ScheduledGeneration.parse(rig.get(SCHEDULES, name))


def condition(rig: Rig, kind: ConditionType, name: str = "reports") -> str:
    """What a schedule says of itself."""
    found = schedule(rig, name).status.condition(kind)
    return f"{found.status} {found.reason}: {found.message}" if found is not None else ""


def runs(rig: Rig, name: str = "reports") -> list[str]:
    """Names of the runs of a schedule, the earliest first."""
    found = (run["metadata"] for run in rig.all(BATCHES))
    return sorted(it["name"] for it in found if it.get("labels", {}).get(labels.SCHEDULED_GENERATION) == name)


def once_in(seconds: float, **spec: object) -> ScheduleBuilder:
    """A schedule `reports` of one run, so many seconds from now."""
    built = once(datetime.now(UTC) + timedelta(seconds=seconds), **spec).of_batch(**INLINE)
    return ScheduleBuilder(built.spec, "reports")


def name_of_run(builder: ScheduleBuilder) -> str:
    return f"reports-{int(datetime.fromisoformat(builder.spec['runAt']).timestamp()) // 60}"


def window(begins: float, ends: float) -> dict[str, str]:
    """An allowed window from so many minutes from now to so many."""
    now = datetime.now(UTC)
    start, end = (f"{now + timedelta(minutes=minutes):%H:%M}" for minutes in (begins, ends))
    return {"start": start, "end": end}


def tick(rig: Rig, name: str = "reports") -> str:
    """Let the last minute be a tick, as the CronJob controller would; the name of its Job and of its run."""
    time = datetime.now(UTC).replace(second=0, microsecond=0)
    run = f"{name}-{int(time.timestamp()) // 60}"
    rig.create(JOBS, tick_job(rig.get(CRON_JOBS, name), run, time))
    return run


def made(rig: Rig) -> list[str]:
    """The runs that were made, each as often as it was."""
    asked = rig.proxy.made(calls_to(BATCHES.plural, "create"))
    return [call.sent_name for call in asked if call.status == 201]


def test_what_is_to_run_once_runs_at_its_moment_and_not_again(rig: Rig) -> None:
    operator = rig.operator().start().wait_ready()
    rig.create(SCHEDULES, once_in(3600, successfulJobsHistoryLimit=0).manifest)
    rig.eventually(lambda: condition(rig, ConditionType.READY).startswith("True Scheduled"), "it is looked at")
    assert schedule(rig).status.summary.next == rig.get(SCHEDULES, "reports")["spec"]["runAt"]
    wanted = once_in(2)
    rig.change(SCHEDULES, "reports", {"spec": {"runAt": wanted.spec["runAt"]}})
    rig.eventually(lambda: condition(rig, ConditionType.READY).startswith("True RunAtPassed"), "its moment")
    rig.eventually(lambda: schedule(rig).status.last_successful_time, "its end")
    rig.eventually(lambda: runs(rig) == [], "history has no room for it")
    operator.stop()
    operator.start().wait_ready()
    rig.change(SCHEDULES, "reports", {"metadata": {"annotations": {"touched": "yes"}}})
    rig.change(SCHEDULES, "reports", {"spec": {"successfulJobsHistoryLimit": 1}})
    rig.eventually(lambda: looked_at(rig), "it is looked at again")
    assert made(rig) == [name_of_run(wanted)]
    assert not rig.proxy.made(calls_to("cronjobs", "create"))


def looked_at(rig: Rig) -> bool:
    """Whether the status of the schedule `reports` is about what its spec says now."""
    found = rig.get(SCHEDULES, "reports")
    return bool(found["status"].get("observedGeneration") == found["metadata"]["generation"])


def test_a_moment_that_was_missed_is_told_of_and_not_run(rig: Rig) -> None:
    rig.operator().start().wait_ready()
    rig.create(SCHEDULES, once_in(-3600, startingDeadlineSeconds=60).manifest)
    rig.eventually(lambda: condition(rig, ConditionType.READY).startswith("False Missed"), "it is told of")
    assert runs(rig) == []
    rig.change(SCHEDULES, "reports", {"spec": {"startingDeadlineSeconds": 7200}})
    rig.eventually(lambda: len(runs(rig)) == 1, "a longer deadline lets it run")


def test_a_run_keeps_to_the_allowed_windows_and_gives_its_pods_back_between_them(rig: Rig) -> None:
    rig.script.fate = lambda pod: Fate(waits=pod.role == Role.RUN)
    closed, open_ = [window(120, 180)], [window(-60, 60)]
    rig.operator().start().wait_ready()
    rig.create(SCHEDULES, NEVER.with_spec(allowedWindows=closed, onWindowEnd="Suspend").manifest)
    until_ticking(rig, "reports")
    run = tick(rig)
    rig.eventually(lambda: condition(rig, ConditionType.WAITING).startswith("True OutsideWindow"), "it waits")
    assert f"{run} waits" in condition(rig, ConditionType.WAITING)
    assert runs(rig) == []
    rig.change(SCHEDULES, "reports", {"spec": {"allowedWindows": open_}})
    rig.until_at_work(1)
    rig.change(SCHEDULES, "reports", {"spec": {"allowedWindows": closed}})
    rig.until_state("Suspended", run)
    rig.eventually(lambda: not [pod for pod in rig.all(PODS) if pod["status"]["phase"] == "Running"], "no pod is held")
    rig.eventually(lambda: f"{run} is put away" in condition(rig, ConditionType.WAITING), "it is told of")
    assert schedule(rig).status.summary.state == "OutsideWindow"
    rig.script.fate = lambda _: Fate()
    ask_for_run(rig, "reports", "now")
    rig.eventually(lambda: "now" in runs(rig), "what was asked for")
    rig.until_state("Complete", "now")
    assert rig.batch(run).spec.suspend, "only what was asked for works now"
    rig.change(SCHEDULES, "reports", {"spec": {"allowedWindows": open_}})
    rig.until_state("Complete", run)
    rig.eventually(lambda: condition(rig, ConditionType.WAITING).startswith("False NothingWaits"), "nothing waits")


def end_of(rig: Rig, job: str) -> list[str]:
    """The conditions of the Job of a tick."""
    return [c["type"] for c in rig.get(JOBS, job).get("status", {}).get("conditions", ()) if c["status"] == "True"]


def depending(name: str, *upstream: tuple[str, str], **fields: object) -> ScheduleBuilder:
    """A schedule whose runs wait for those objects."""
    found = [{"kind": kind, "name": other, **fields} for kind, other in upstream]
    return ScheduleBuilder(NEVER.spec, name).with_spec(dependsOn=found, window={"lengthSeconds": 60})


def test_a_run_waits_until_what_it_depends_on_is_complete(rig: Rig) -> None:
    """The runs of one schedule wait for those of another, of the same window, and that one's for a batch."""
    rig.script.fate = lambda pod: Fate(waits=pod.role == Role.RUN)
    rig.operator().start().wait_ready()
    rig.create(SCHEDULES, depending("first", ("InferenceBatch", "embeddings")).manifest)
    rig.create(SCHEDULES, depending("second", ("ScheduledGeneration", "first"), sameWindow=True).manifest)
    for name in ("first", "second"):
        until_ticking(rig, name)
    upstream = tick(rig, "first")
    minute = datetime.fromtimestamp(int(upstream.removeprefix("first-")) * 60, UTC)
    downstream = f"second-{upstream.removeprefix('first-')}"
    rig.create(JOBS, tick_job(rig.get(CRON_JOBS, "second"), downstream, minute))
    rig.eventually(lambda: "does not exist" in condition(rig, ConditionType.WAITING, "first"), "the first waits")
    expected = f"True DependencyNotMet: {downstream} waits: ScheduledGeneration first has no complete run"
    rig.eventually(lambda: condition(rig, ConditionType.WAITING, "second").startswith(expected), "the second waits")
    rig.submit(BatchBuilder("embeddings", INLINE))
    rig.eventually(
        lambda: "embeddings is not Complete" in condition(rig, ConditionType.WAITING, "first"), "it is told of"
    )
    assert runs(rig, "first") == runs(rig, "second") == []
    rig.script.let_go()
    rig.eventually(lambda: runs(rig, "second") == [downstream], "the second runs")
    assert rig.state(BATCHES, upstream) == "Complete"
    rig.eventually(lambda: end_of(rig, downstream) == ["SuccessCriteriaMet", "Complete"], "its tick is over")
    rig.eventually(
        lambda: condition(rig, ConditionType.WAITING, "second").startswith("False NothingWaits"), "nothing waits"
    )


def test_a_tick_is_passed_over_while_what_it_depends_on_is_not_complete(rig: Rig) -> None:
    rig.operator().start().wait_ready()
    wanted = depending("reports", ("FanOutJob", "answers")).with_spec(onUnmet="Skip")
    rig.create(SCHEDULES, wanted.manifest)
    until_ticking(rig, "reports")
    run = tick(rig)
    rig.eventually(lambda: end_of(rig, run) == ["FailureTarget", "Failed"], "its Job ends")
    told = rig.get(JOBS, run)["status"]["conditions"][-1]
    assert (told["reason"], told["message"]) == ("DependencyNotMet", "it was not run: FanOutJob answers does not exist")
    assert runs(rig) == []
    rig.eventually(
        lambda: condition(rig, ConditionType.WAITING).startswith("False DependencyNotMet"), "the status says so"
    )


def test_schedules_that_wait_for_each_other_are_refused_until_one_does_not(rig: Rig) -> None:
    rig.operator().start().wait_ready()
    rig.create(SCHEDULES, depending("first", ("ScheduledGeneration", "second")).manifest)
    until_ticking(rig, "first")
    rig.create(SCHEDULES, depending("second", ("ScheduledGeneration", "first")).manifest)
    for name in ("first", "second"):
        rig.eventually(lambda: "InvalidSpec" in condition(rig, ConditionType.READY, name), f"{name} is refused")  # noqa: B023
    assert condition(rig, ConditionType.READY, "first").endswith("first -> second -> first")
    rig.change(SCHEDULES, "second", {"spec": {"dependsOn": []}})
    for name in ("first", "second"):
        until_ticking(rig, name)


def run_once(life: Life) -> None:
    """A schedule of one run, at a moment that has come, and no room for it afterwards."""
    rig, wanted = life.rig, once_in(-1, successfulJobsHistoryLimit=0)
    rig.create(SCHEDULES, wanted.manifest)
    life.until(lambda: schedule(rig).status.last_successful_time and runs(rig) == [], "the end of the run")
    assert made(rig) == [name_of_run(wanted)]


@pytest.mark.parametrize("answered", [False, True], ids=["before it is made", "after it is answered"])
def test_an_operator_killed_between_any_two_writes_makes_the_only_run_once(
    plane: Plane, tmp_path: Path, *, answered: bool
) -> None:
    killed = live_and_die(plane, tmp_path, run_once, answered=answered)
    assert killed >= {"create inferencebatches", "patch scheduledgenerations/status", "delete inferencebatches"}
