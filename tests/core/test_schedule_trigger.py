"""Decisions about runs that begin when there is new input: when to look, when that is enough, and that each object is in one run."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from builders import NOON
from headrace.api import labels
from headrace.api.base import JsonObject
from headrace.api.inferencebatch import InferenceBatch
from headrace.api.kinds import OurObject
from headrace.api.meta import ConditionStatus
from headrace.api.reasons import ConditionType, Reason
from headrace.api.schedulestatus import ScheduledGenerationStatus
from headrace.api.trigger import TriggerStatus
from headrace.api.window import DataWindow
from headrace.api.worker import ListReport
from headrace.core.plan import Plan
from headrace.core.schedule.observed import Listing
from headrace.core.schedule.reconcile import reconcile
from schedule_builders import (
    NOON_RUN,
    ScheduleBuilder,
    a_look,
    a_run,
    a_run_of,
    a_schedule,
    begun,
    ended,
    look_at,
    triggered,
)

HOUR, MINUTE = timedelta(hours=1), timedelta(minutes=1)
ELEVEN = NOON - HOUR
BEFORE_NOON = DataWindow(start_time=ELEVEN, end_time=NOON)
AFTER_NOON = DataWindow(start_time=NOON, end_time=NOON + HOUR)
RUN = f"hourly-{int(ELEVEN.timestamp()) // 60}"
"""What the run of the hour before noon is called."""
SINCE_ELEVEN = triggered(10, maxWaitSeconds=7200, since="2026-01-15T11:00:00Z")


def children(plan: Plan[Any], kind: str) -> dict[str, JsonObject]:
    assert plan.children is not None
    return {child["metadata"]["name"]: child for child in plan.children if child["kind"] == kind}


def made(schedule: ScheduleBuilder, *, runs: tuple[OurObject, ...] = (), **at: Any) -> list[str]:
    """The runs that are begun."""
    plan = reconcile(look_at(schedule, runs=runs, **at))
    return [name for name in children(plan, "InferenceBatch") if name not in {run.metadata.name for run in runs}]


def told(plan: Plan[ScheduledGenerationStatus], kind: ConditionType) -> str:
    found = plan.status.condition(kind)
    assert found is not None
    return f"{found.status} {found.reason}: {found.message}"


def remembering(schedule: ScheduleBuilder, cursor: datetime) -> ScheduleBuilder:
    """With a status that says up to where objects have had their run."""
    return replace(schedule, status=schedule.status.model_copy(update={"trigger": TriggerStatus(cursor_time=cursor)}))


def window_of(job: JsonObject) -> DataWindow:
    (container,) = job["spec"]["template"]["spec"]["containers"]
    config = next(json.loads(it["value"]) for it in container["env"] if it["name"] == "HEADRACE_CONFIG")
    return DataWindow.parse(config["input"]["window"])


# looks


def test_reconcile_looks_at_what_is_new_up_to_a_moment_that_has_settled() -> None:
    plan = reconcile(look_at(triggered(settleSeconds=300), after=30.75, cron=None))
    (name, job), *others = children(plan, "Job").items()
    assert not others
    assert name == f"hourly-list-{int(NOON.timestamp()) - 270}"
    assert window_of(job) == DataWindow(
        start_time=datetime.fromtimestamp(0, NOON.tzinfo), end_time=NOON - timedelta(seconds=270)
    )
    assert not children(plan, "InferenceBatch")
    assert told(plan, ConditionType.READY) == "True Watching: a run begins on 1 new object"
    assert told(plan, ConditionType.INPUT_LISTED) == "Unknown Listing: it is not known yet what is new"
    assert plan.status.next_schedule_times == ()


def test_reconcile_has_the_job_of_a_look_reach_what_the_runs_reach_and_nothing_else() -> None:
    schedule = triggered().of_batch(
        input={"uri": "claim://data/in/*.txt", "format": "text", "objects": "ModifiedInWindow"},
        output={"uri": "claim://results/out/"},
        storage={"secretRef": {"name": "store"}},
        serviceAccountName="reader",
        resources={"gpus": 4},
    )
    (job,) = children(reconcile(look_at(schedule)), "Job").values()
    pod = job["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert container["args"] == ["list"]
    assert container["envFrom"] == [{"secretRef": {"name": "store"}}]
    assert pod["serviceAccountName"] == "reader"
    assert [it["persistentVolumeClaim"]["claimName"] for it in pod["volumes"] if "persistentVolumeClaim" in it] == [
        "data"
    ]
    assert "nvidia.com/gpu" not in container["resources"]["limits"]
    metadata = job["metadata"]
    assert metadata["labels"][labels.SCHEDULED_GENERATION] == "hourly"
    assert job["spec"]["template"]["metadata"]["labels"] == metadata["labels"]
    assert metadata["ownerReferences"][0]["uid"] == "uid-hourly"


def test_reconcile_looks_where_the_trigger_says_if_that_is_elsewhere() -> None:
    plan = reconcile(look_at(triggered(uri="s3://in/ready/*")))
    (job,) = children(plan, "Job").values()
    assert '"uri":"s3://in/ready/*"' in json.dumps(job).replace("\\", "")


NOTHING = a_look(BEFORE_NOON)
"""Asked for a minute after noon."""


@pytest.mark.parametrize(
    ("look", "after", "again"),
    [
        pytest.param(NOTHING, 119, False, id="the last one was less than pollSeconds ago"),
        pytest.param(NOTHING, 120, True, id="it is time"),
        pytest.param(replace(NOTHING, finished=False, report=None), 86_400, False, id="the last one is not over"),
        pytest.param(replace(NOTHING, report=None), 120, True, id="the word of the last one was lost with its pod"),
        pytest.param(replace(NOTHING, failed=True, report=None), 359, False, id="the last one has failed"),
        pytest.param(replace(NOTHING, failed=True, report=None), 360, True, id="it has failed five minutes ago"),
    ],
)
def test_reconcile_looks_again_in_its_time_and_one_look_at_a_time(look: Listing, after: float, again: bool) -> None:
    plan = reconcile(look_at(SINCE_ELEVEN, after=after, looks=[look]))
    (name,) = children(plan, "Job")
    assert (name != look.name) == again


def test_reconcile_says_when_the_next_look_is_due() -> None:
    assert reconcile(look_at(SINCE_ELEVEN, after=90, looks=[NOTHING])).look_again_after == timedelta(seconds=30)


@pytest.mark.parametrize(
    ("schedule", "runs"),
    [
        pytest.param(SINCE_ELEVEN.with_spec(suspend=True), (), id="it is suspended"),
        pytest.param(
            remembering(SINCE_ELEVEN.with_spec(concurrencyPolicy="Forbid"), NOON), (a_run_of(BEFORE_NOON),),
            id="a run is not over that forbids another",
        ),
        pytest.param(
            SINCE_ELEVEN.with_spec(allowedWindows=[{"start": "22:00", "end": "06:00"}]), (), id="no run may begin at this hour"
        ),
    ],
)  # fmt: skip
def test_reconcile_looks_at_nothing_while_no_run_could_begin(
    schedule: ScheduleBuilder, runs: tuple[OurObject, ...]
) -> None:
    assert not children(reconcile(look_at(schedule, runs=runs, after=7200)), "Job")


def test_reconcile_tells_why_nothing_could_be_listed_and_keeps_what_is_known_during_the_next_look() -> None:
    failed = replace(NOTHING, failed=True, report=None, why="InputUnreadable: s3://in: there is no such bucket")
    plan = reconcile(look_at(SINCE_ELEVEN, after=120, looks=[failed]))
    expected = "False ListingFailed: what is new could not be listed: InputUnreadable: s3://in: there is no such bucket"
    assert told(plan, ConditionType.INPUT_LISTED) == expected
    assert plan.status.summary.state == "ListingFailed"
    under_way = replace(NOTHING, name="hourly-list-1768478700", finished=False, report=None)
    plan = reconcile(look_at(replace(SINCE_ELEVEN, status=plan.status), after=400, looks=[under_way]))
    assert told(plan, ConditionType.INPUT_LISTED) == expected


def test_reconcile_tells_that_the_pod_of_a_look_does_not_start() -> None:
    stuck = replace(NOTHING, finished=False, report=None, obstacle=Reason.UNSCHEDULABLE, why="0/3 nodes are available")
    plan = reconcile(look_at(SINCE_ELEVEN, after=120, looks=[stuck]))
    assert told(plan, ConditionType.INPUT_LISTED).startswith("Unknown Unschedulable: the pod of hourly-list-")


# runs


@pytest.mark.parametrize(
    ("objects", "after", "expected"),
    [
        pytest.param(9, 61, [], id="it is not enough, and may wait"),
        pytest.param(10, 61, [RUN], id="it is enough"),
        pytest.param(9, 3599, [], id="the oldest has not waited long enough"),
        pytest.param(9, 3600, [RUN], id="the oldest has waited long enough"),
        pytest.param(0, 86_400, [], id="there is nothing"),
    ],
)
def test_reconcile_begins_a_run_by_count_or_by_time(objects: int, after: float, expected: list[str]) -> None:
    at = NOON + timedelta(seconds=after) - timedelta(seconds=30)
    look = a_look(BEFORE_NOON, objects, made=max(at, NOON + MINUTE))
    assert made(SINCE_ELEVEN, looks=[look], after=after) == expected


def test_reconcile_of_a_trigger_without_a_longest_wait_waits_for_enough() -> None:
    look = a_look(BEFORE_NOON, 9)
    assert made(triggered(10, since="2026-01-15T11:00:00Z"), looks=[look], after=90_000) == []


def test_reconcile_looks_again_when_the_oldest_object_will_have_waited_long_enough() -> None:
    schedule = triggered(10, maxWaitSeconds=7200, pollSeconds=86_400, since="2026-01-15T11:00:00Z")
    plan = reconcile(look_at(schedule, looks=[a_look(BEFORE_NOON, 9)], after=600))
    assert plan.look_again_after == timedelta(seconds=3000)
    assert plan.status.trigger == TriggerStatus(look_time=NOON + MINUTE, objects=9, oldest_time=ELEVEN)
    expected = "True ObjectsListed: 9 new objects were found that were modified before 2026-01-15T12:00:00Z"
    assert told(plan, ConditionType.INPUT_LISTED) == expected


def test_reconcile_gives_the_run_the_window_that_was_listed_and_keeps_what_has_found_it() -> None:
    plan = reconcile(look_at(SINCE_ELEVEN, looks=[a_look(BEFORE_NOON, 10)], after=300))
    (run,) = children(plan, "InferenceBatch").values()
    assert run["spec"]["input"]["window"] == BEFORE_NOON.to_object()
    assert run["metadata"]["annotations"] == {labels.TICK: "2026-01-15T12:00:00Z", labels.DUE: "2026-01-15T12:01:00Z"}
    assert list(children(plan, "Job")) == [a_look(BEFORE_NOON).name]


def test_reconcile_begins_nothing_before_the_status_remembers_the_last_run() -> None:
    run, looks = a_run_of(BEFORE_NOON), [a_look(BEFORE_NOON, 10), a_look(AFTER_NOON, 10)]
    plan = reconcile(look_at(SINCE_ELEVEN, runs=[run], looks=looks, after=3700))
    assert list(children(plan, "InferenceBatch")) == [RUN]
    assert plan.look_again_after == timedelta(0)
    assert plan.status.trigger is not None
    assert (plan.status.trigger.cursor_time, plan.status.trigger.objects) == (NOON, None)
    assert plan.status.last_schedule_time == NOON
    next_one = replace(SINCE_ELEVEN, status=plan.status)
    assert made(next_one, runs=(run,), looks=looks, after=3700) == [NOON_RUN]


def test_reconcile_never_runs_again_what_is_remembered_although_its_run_is_gone() -> None:
    look = a_look(BEFORE_NOON, 10)
    schedule = remembering(SINCE_ELEVEN, NOON)
    assert made(schedule, looks=[look], after=90) == []
    (name,) = children(reconcile(look_at(schedule, looks=[look], after=120)), "Job")
    assert name == f"hourly-list-{int(NOON.timestamp()) + 60}"


def test_reconcile_keeps_a_run_until_the_status_remembers_it() -> None:
    schedule = SINCE_ELEVEN.with_spec(failedJobsHistoryLimit=0)
    run = ended(a_run_of(BEFORE_NOON), Reason.WORKER_FAILED)
    plan = reconcile(look_at(schedule, runs=[run], after=300))
    assert list(children(plan, "InferenceBatch")) == [RUN]
    plan = reconcile(look_at(replace(schedule, status=plan.status), runs=[run], after=300))
    assert not children(plan, "InferenceBatch")


def test_reconcile_has_a_minute_between_two_runs_so_that_each_has_its_name() -> None:
    schedule = remembering(triggered(pollSeconds=10), NOON + timedelta(seconds=20))
    assert not children(reconcile(look_at(schedule, after=119)), "Job")
    (job,) = children(reconcile(look_at(schedule, after=120)), "Job").values()
    assert window_of(job).end_time == NOON + MINUTE


@pytest.mark.parametrize(
    ("policy", "expected"),
    [
        pytest.param("Allow", [NOON_RUN], id="beside each other"),
        pytest.param("Forbid", [], id="one after the other"),
    ],
)
def test_reconcile_of_what_is_new_while_a_run_is_at_work(policy: str, expected: list[str]) -> None:
    schedule = remembering(SINCE_ELEVEN.with_spec(concurrencyPolicy=policy), NOON)
    assert made(schedule, runs=(a_run_of(BEFORE_NOON),), looks=[a_look(AFTER_NOON, 10)], after=3700) == expected


def test_reconcile_waits_with_what_is_new_for_what_it_depends_on() -> None:
    schedule = SINCE_ELEVEN.with_spec(dependsOn=[{"kind": "InferenceBatch", "name": "embeddings"}])
    plan = reconcile(look_at(schedule, looks=[a_look(BEFORE_NOON, 10)], after=90_000))
    assert not children(plan, "InferenceBatch")
    assert list(children(plan, "Job")) == [a_look(BEFORE_NOON).name]
    assert told(plan, ConditionType.WAITING) == (
        f"True DependencyNotMet: {RUN} waits: InferenceBatch embeddings does not exist"
    )


def test_reconcile_tries_a_run_again_that_new_objects_have_begun() -> None:
    schedule = remembering(SINCE_ELEVEN.with_spec(failureBackoff={"limit": 1}, concurrencyPolicy="Forbid"), NOON)
    failed = ended(a_run_of(BEFORE_NOON), Reason.WORKER_FAILED)
    plan = reconcile(look_at(schedule, runs=[failed], looks=[a_look(AFTER_NOON, 10)], after=180))
    (run,) = children(plan, "InferenceBatch").values()
    assert run["metadata"]["annotations"][labels.RETRY] == "1"


def test_reconcile_does_not_try_a_run_again_that_a_tick_has_begun_before_there_was_a_trigger() -> None:
    of_tick = a_run(NOON, input=a_run_of(BEFORE_NOON).spec.input.to_object())
    failed = ended(of_tick, Reason.WORKER_FAILED)
    plan = reconcile(look_at(SINCE_ELEVEN.with_spec(failureBackoff={"limit": 1}), runs=[failed], after=86_400))
    (run,) = children(plan, "InferenceBatch").values()
    assert labels.RETRY not in run["metadata"]["annotations"]


def test_reconcile_has_the_drift_of_a_run_from_when_its_objects_were_enough() -> None:
    run = begun(a_run_of(BEFORE_NOON), 30)
    plan = reconcile(look_at(remembering(SINCE_ELEVEN, NOON), runs=[run], after=300))
    assert plan.status.drift_seconds == 90


# what is wrong


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        pytest.param(
            triggered().of_batch(
                input={"uri": "s3://in/{{ window.start }}/*", "format": "text", "objects": "ModifiedInWindow"}
            ),
            "spec.trigger.newObjects.uri: with a trigger neither this nor input.uri may depend on the window",
            id="a place that moves with the window",
        ),
        pytest.param(
            triggered(uri="s3://in/{% if x %}"),
            "spec.trigger.newObjects.uri: with a trigger neither this nor input.uri may depend on the window",
            id="a place to look at that moves with the window",
        ),
    ],
)
def test_reconcile_refuses_what_would_leave_objects_out(schedule: ScheduleBuilder, expected: str) -> None:
    plan = reconcile(look_at(schedule))
    assert told(plan, ConditionType.READY).startswith(f"False InvalidSpec: {expected}")
    assert not plan.children


def test_reconcile_refuses_a_beginning_whose_run_would_be_called_as_that_of_a_tick() -> None:
    plan = reconcile(look_at(triggered(since="2026-01-15T12:00:30Z"), runs=[a_run()], after=300))
    assert f"the next run would be called {NOON_RUN}, and there is one already, of a tick" in told(
        plan, ConditionType.READY
    )


def test_reconcile_forgets_how_a_look_has_gone_when_the_schedule_has_ticks_instead() -> None:
    plan = reconcile(look_at(SINCE_ELEVEN, looks=[replace(NOTHING, failed=True, report=None)], after=120))
    assert plan.status.condition(ConditionType.INPUT_LISTED) is not None
    plan = reconcile(look_at(replace(a_schedule(), status=plan.status), looks=[NOTHING], after=120))
    assert plan.status.condition(ConditionType.INPUT_LISTED) is None
    assert not children(plan, "Job")


def test_reconcile_accepts_a_beginning_that_is_still_to_come() -> None:
    plan = reconcile(look_at(triggered(since="2026-01-15T14:00:00Z")))
    assert told(plan, ConditionType.READY).startswith("True Watching")
    assert plan.look_again_after == 2 * HOUR + 2 * MINUTE


# each object in one run


@dataclass
class Bucket:
    """What is in a store, and a cluster that is looked at now and then, with an operator that may die between any two writes."""

    schedule: ScheduleBuilder
    now: datetime = NOON
    modified: list[datetime] = field(default_factory=list)
    """The objects, by when they were modified; each is seen from then on."""
    runs: dict[str, OurObject] = field(default_factory=dict)
    windows: list[DataWindow] = field(default_factory=list)
    """Of all runs that were ever made."""
    looks: dict[str, Listing] = field(default_factory=dict)

    def look(self, dies: str) -> None:
        """One look, and what comes of it: all of it, or as far as the operator lives."""
        plan = reconcile(
            replace(
                look_at(self.schedule, runs=self.runs.values(), cron=None),
                now=self.now,
                listings=(*self.looks.values(),),
            )
        )
        jobs, runs = children(plan, "Job"), children(plan, "InferenceBatch")
        if dies == "before anything":
            return
        self.looks = {name: look for name, look in self.looks.items() if name in jobs}
        self.runs = {name: run for name, run in self.runs.items() if name in runs}
        for name in runs.keys() - self.runs.keys():
            run = InferenceBatch.parse(runs[name])
            stamped = run.metadata.model_copy(update={"creation_timestamp": self.now})
            failed = Reason.WORKER_FAILED if len(self.windows) % 2 else None
            self.runs[name] = ended(run.model_copy(update={"metadata": stamped}), failed)
            assert run.spec.input.window is not None
            self.windows.append(run.spec.input.window)
        if dies == "before the look is asked for":
            return
        for name in jobs.keys() - self.looks.keys():
            self.looks[name] = self._listed(name, window_of(jobs[name]))
        if dies != "before the status is written":
            self.schedule = replace(self.schedule, status=plan.status)

    def _listed(self, name: str, window: DataWindow) -> Listing:
        found = [moment for moment in self.modified if window.covers(moment)]
        report = ListReport(window=window, objects=len(found), oldest_time=min(found, default=None))
        return Listing(name=name, made=self.now, finished=True, report=report)


STEPS = st.lists(
    st.tuples(
        st.integers(0, 400),
        st.integers(0, 4),
        st.sampled_from(["", "", "before anything", "before the look is asked for", "before the status is written"]),
        st.booleans(),
    ),
    min_size=5,
    max_size=60,
)


@settings(max_examples=25, deadline=None)
@given(steps=STEPS, at_least=st.integers(1, 6), settle=st.integers(1, 90))
def test_reconcile_has_each_object_in_at_most_one_run_and_leaves_none_behind(
    steps: list[tuple[int, int, str, bool]], at_least: int, settle: int
) -> None:
    wanted = triggered(at_least, maxWaitSeconds=600, pollSeconds=10, settleSeconds=settle)
    bucket = Bucket(wanted.with_spec(successfulJobsHistoryLimit=0, failedJobsHistoryLimit=0))
    for seconds, objects, dies, loses_looks in steps:
        bucket.now += timedelta(seconds=seconds)
        bucket.modified += [bucket.now] * objects
        if loses_looks:
            bucket.looks.clear()
        bucket.look(dies)
    for _ in range(20):
        bucket.now += timedelta(seconds=601)
        bucket.look("")
    in_runs = [[moment for moment in bucket.modified if window.covers(moment)] for window in bucket.windows]
    assert sorted(moment for moments in in_runs for moment in moments) == sorted(bucket.modified)
    assert all(in_runs), "no run is empty"


def test_conditions_of_a_trigger_are_about_what_is() -> None:
    plan = reconcile(look_at(SINCE_ELEVEN.with_spec(suspend=True), after=60))
    suspended = plan.status.condition(ConditionType.SUSPENDED)
    assert suspended is not None
    assert suspended.status == ConditionStatus.TRUE
    assert told(plan, ConditionType.READY) == "True Watching: no run begins: it is suspended"
