"""What runs depend on: a tick waits for it or is passed over, says for what, and circles are refused."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from builders import NOON, a_batch
from headrace.api.base import JsonObject
from headrace.api.kinds import OurObject
from headrace.api.reasons import ConditionType, Reason
from headrace.api.scheduledgeneration import ScheduledGeneration
from headrace.api.schedulestatus import ScheduledGenerationStatus
from headrace.api.window import DataWindow
from headrace.core.plan import Plan
from headrace.core.schedule.dependencies import cycle_problems
from headrace.core.schedule.observed import Reference, Upstream
from headrace.core.schedule.reconcile import reconcile
from schedule_builders import NOON_RUN, ScheduleBuilder, a_run, a_schedule, a_tick, ended, look_at, once

HOUR = timedelta(hours=1)
BATCH = ("InferenceBatch", "embeddings")
SOURCE = ("ScheduledGeneration", "source")
ON_BATCH = a_schedule().with_spec(dependsOn=[{"kind": BATCH[0], "name": BATCH[1]}])
ON_SOURCE = a_schedule().with_spec(dependsOn=[{"kind": SOURCE[0], "name": SOURCE[1], "sameWindow": True}])


def batches(plan: Plan[Any]) -> dict[str, JsonObject]:
    assert plan.children is not None
    return {child["metadata"]["name"]: child for child in plan.children if child["kind"] == "InferenceBatch"}


def waits(plan: Plan[Any]) -> str:
    found = plan.status.condition(ConditionType.WAITING)
    return f"{found.status} {found.reason}: {found.message}" if found is not None else ""


def on(reference: Reference, **fields: Any) -> ScheduleBuilder:
    """An hourly schedule that depends on that object."""
    return a_schedule().with_spec(dependsOn=[{"kind": reference[0], "name": reference[1], **fields}])


def a_batch_that(reason: Reason | None = None, *, ended_at: datetime | None = None) -> OurObject:
    """The batch `embeddings`: at work, or ended then, well unless a reason is given."""
    batch = a_batch("embeddings").with_meta(creationTimestamp="2026-01-15T00:00:00Z").build()
    if ended_at is None:
        return batch
    return ended(batch, reason, after=(ended_at - (NOON - 12 * HOUR)).total_seconds())


def source(*runs: OurObject, last_success: datetime | None = None) -> dict[Reference, Upstream]:
    """The schedule `source` with those runs."""
    found = a_schedule(name="source").build()
    status = ScheduledGenerationStatus(last_successful_time=last_success)
    return {SOURCE: Upstream(found.model_copy(update={"status": status}), runs)}


def covering(start: datetime, end: datetime, *, complete: bool = True) -> OurObject:
    """A run of `source` about that time."""
    run = a_run(end, f"source-{int(end.timestamp()) // 60}")
    window = DataWindow(start_time=start, end_time=end)
    spec = run.spec.model_copy(update={"input": run.spec.input.model_copy(update={"window": window})})
    run = run.model_copy(update={"spec": spec})
    return ended(run) if complete else run


UNMET = (
    pytest.param(ON_BATCH, {}, "InferenceBatch embeddings does not exist", id="there is no such batch"),
    pytest.param(
        ON_BATCH, {BATCH: Upstream(a_batch_that())}, "InferenceBatch embeddings is not Complete (Pending)", id="it is not over"
    ),
    pytest.param(
        ON_BATCH, {BATCH: Upstream(a_batch_that(Reason.SHARD_FAILED, ended_at=NOON - HOUR))},
        "InferenceBatch embeddings is not Complete (ShardFailed)", id="it has failed",
    ),
    pytest.param(
        on(BATCH, maxAgeSeconds=3599), {BATCH: Upstream(a_batch_that(ended_at=NOON - HOUR))},
        "InferenceBatch embeddings was Complete at 2026-01-15T11:00:00Z, which is more than 3599 s ago", id="it is too old",
    ),
    pytest.param(ON_SOURCE, {}, "ScheduledGeneration source does not exist", id="there is no such schedule"),
    pytest.param(on(SOURCE), source(), "ScheduledGeneration source has not had a complete run", id="it has not run"),
    pytest.param(
        on(SOURCE, maxAgeSeconds=60), source(last_success=NOON - HOUR),
        "ScheduledGeneration source was last Complete at 2026-01-15T11:00:00Z, which is more than 60 s ago", id="its last run is too old",
    ),
    pytest.param(
        ON_SOURCE, source(covering(NOON - HOUR, NOON, complete=False)),
        "ScheduledGeneration source has no complete run that covers 2026-01-15T11:00:00Z "
        "(wanted: 2026-01-15T11:00:00Z to 2026-01-15T12:00:00Z)", id="its run of that hour is not over",
    ),
    pytest.param(
        ON_SOURCE.with_spec(window={"lengthSeconds": 7200}), source(covering(NOON - 2 * HOUR, NOON - HOUR)),
        "ScheduledGeneration source has no complete run that covers 2026-01-15T11:00:00Z "
        "(wanted: 2026-01-15T10:00:00Z to 2026-01-15T12:00:00Z)", id="half of the time is not covered",
    ),
    pytest.param(
        on(SOURCE, sameWindow=True, maxAgeSeconds=60), source(covering(NOON - HOUR, NOON)),
        "ScheduledGeneration source has no complete run of the last 60 s that covers 2026-01-15T11:00:00Z "
        "(wanted: 2026-01-15T11:00:00Z to 2026-01-15T12:00:00Z)", id="its run of that hour is too old",
    ),
)  # fmt: skip


@pytest.mark.parametrize(("schedule", "upstream", "why"), UNMET)
def test_reconcile_lets_a_tick_wait_and_says_for_what(
    schedule: ScheduleBuilder, upstream: Mapping[Reference, Upstream], why: str
) -> None:
    after = 600 if "last 60 s" in why else 0
    plan = reconcile(look_at(schedule, ticks=[a_tick()], upstream=upstream, after=after))
    assert not batches(plan)
    assert not plan.job_statuses
    assert waits(plan) == f"True DependencyNotMet: {NOON_RUN} waits: {why}"
    assert plan.status.summary.state == "DependencyNotMet"


@pytest.mark.parametrize(
    ("schedule", "upstream"),
    [
        pytest.param(ON_BATCH, {BATCH: Upstream(a_batch_that(ended_at=NOON - HOUR))}, id="the batch is complete"),
        pytest.param(
            on(BATCH, maxAgeSeconds=3600), {BATCH: Upstream(a_batch_that(ended_at=NOON - HOUR))}, id="and just recent enough"
        ),
        pytest.param(on(SOURCE), source(last_success=NOON - 99 * HOUR), id="a run was once complete, though it is not kept"),
        pytest.param(on(SOURCE), source(covering(NOON - 9 * HOUR, NOON - 8 * HOUR)), id="a run is complete"),
        pytest.param(ON_SOURCE, source(covering(NOON - HOUR, NOON)), id="the run of that hour is complete"),
        pytest.param(ON_SOURCE, source(covering(NOON - 9 * HOUR, NOON + HOUR)), id="a longer one is"),
        pytest.param(
            ON_SOURCE.with_spec(schedule="0 12 * * *", window={"lengthSeconds": 3 * 3600}),
            source(*(covering(NOON - n * HOUR, NOON - (n - 1) * HOUR) for n in (2, 1, 3))), id="three cover it together",
        ),
    ],
)  # fmt: skip
def test_reconcile_begins_a_run_when_all_that_it_depends_on_is_complete(
    schedule: ScheduleBuilder, upstream: Mapping[Reference, Upstream]
) -> None:
    plan = reconcile(look_at(schedule, ticks=[a_tick()], upstream=upstream))
    assert list(batches(plan)) == [NOON_RUN]
    assert waits(plan) == ""


def test_reconcile_names_each_of_several_and_how_many_more_wait() -> None:
    both = a_schedule().with_spec(dependsOn=[*ON_BATCH.spec["dependsOn"], *on(SOURCE).spec["dependsOn"]])
    ticks = [a_tick(NOON + hours * HOUR) for hours in range(5)]
    told = waits(reconcile(look_at(both, ticks=ticks, after=5 * 3600)))
    one = "InferenceBatch embeddings does not exist, ScheduledGeneration source does not exist"
    assert told.startswith(f"True DependencyNotMet: {NOON_RUN} waits: {one}; ")
    assert told.endswith("; and 2 more")


def test_reconcile_says_when_nothing_waits_any_more() -> None:
    before = reconcile(look_at(ON_BATCH, ticks=[a_tick()])).status
    met = {BATCH: Upstream(a_batch_that(ended_at=NOON))}
    plan = reconcile(look_at(replace(ON_BATCH, status=before), ticks=[a_tick()], upstream=met, after=60))
    assert waits(plan) == "False NothingWaits: nothing waits"
    assert [event.reason for event in plan.events] == ["NothingWaits"]


def test_reconcile_begins_what_a_user_has_asked_for_whatever_it_depends_on() -> None:
    plan = reconcile(look_at(ON_BATCH, ticks=[a_tick(name="now-please", asked_for=True)]))
    assert list(batches(plan)) == ["now-please"]


def test_reconcile_does_not_ask_before_a_tick_is_due() -> None:
    plan = reconcile(look_at(ON_BATCH.with_spec(jitterSeconds=600, onUnmet="Skip"), ticks=[a_tick()], after=268))
    assert not plan.job_statuses
    assert waits(plan) == ""


# passed over, or given up


def test_reconcile_passes_a_tick_over_when_the_schedule_says_so() -> None:
    schedule = ON_BATCH.with_spec(onUnmet="Skip")
    plan = reconcile(look_at(schedule, ticks=[a_tick()]))
    (told,) = plan.job_statuses
    assert [(c["type"], c["reason"], c["message"]) for c in told.status["conditions"]] == [
        (kind, "DependencyNotMet", "it was not run: InferenceBatch embeddings does not exist")
        for kind in ("FailureTarget", "Failed")
    ]
    assert not batches(plan)
    assert waits(plan) == f"False DependencyNotMet: {NOON_RUN} was not run: InferenceBatch embeddings does not exist"
    later = replace(schedule, status=plan.status)
    over = reconcile(look_at(later, ticks=[a_tick(started=True, finished=True)], after=60))
    assert waits(over) == waits(plan), "it stays to be read until something else happens"
    assert not over.events


def test_reconcile_waits_no_longer_than_the_deadline() -> None:
    schedule = ON_BATCH.with_spec(startingDeadlineSeconds=600)
    waiting = reconcile(look_at(schedule, ticks=[a_tick()], after=600))
    assert not waiting.job_statuses
    assert waiting.look_again_after == timedelta(seconds=1)
    (told,) = reconcile(look_at(schedule, ticks=[a_tick()], after=601)).job_statuses
    assert told.status["conditions"][-1]["reason"] == "DependencyNotMet"
    met = {BATCH: Upstream(a_batch_that(ended_at=NOON))}
    late = reconcile(look_at(schedule, ticks=[a_tick()], upstream=met, after=3600))
    assert list(batches(late)) == [NOON_RUN], "what no operator was there for is not given up"


def behind(schedule: ScheduleBuilder) -> ScheduleBuilder:
    """With two missed ticks to make up for."""
    spec = schedule.with_spec(catchUp={"policy": "All"})
    left = {"effective_schedule": "0 * * * * Etc/UTC", "watched_time": NOON - HOUR, "missed": (NOON, NOON + HOUR)}
    return replace(spec, status=spec.status.model_copy(update=left))


def test_reconcile_lets_missed_ticks_wait_and_drops_them_one_after_the_other_when_they_are_passed_over() -> None:
    waiting = reconcile(look_at(behind(ON_BATCH.with_spec(startingDeadlineSeconds=60)), after=7200))
    assert not batches(waiting)
    assert waiting.status.missed == (NOON, NOON + HOUR), "they are late anyway: no deadline counts"
    dropped = reconcile(look_at(behind(ON_BATCH.with_spec(onUnmet="Skip")), after=7200))
    assert not batches(dropped)
    assert dropped.status.missed == (NOON + HOUR,)
    assert dropped.look_again_after == timedelta(0)


def test_reconcile_of_one_run_waits_as_long_as_it_may() -> None:
    wanted = once(NOON, dependsOn=ON_BATCH.spec["dependsOn"], startingDeadlineSeconds=600)
    waiting = reconcile(look_at(wanted, after=60))
    assert waits(waiting).startswith("True DependencyNotMet")
    assert waiting.look_again_after == timedelta(seconds=541)
    missed = reconcile(look_at(replace(wanted, status=waiting.status), after=601)).status
    assert missed.summary.state == "Missed"
    assert list(batches(reconcile(look_at(wanted, upstream={BATCH: Upstream(a_batch_that(ended_at=NOON))}, after=60))))


def test_reconcile_of_one_run_that_is_passed_over_does_not_run_it_later() -> None:
    wanted = once(NOON, dependsOn=ON_BATCH.spec["dependsOn"], onUnmet="Skip")
    passed_over = reconcile(look_at(wanted)).status
    assert passed_over.last_schedule_time == NOON
    met = {BATCH: Upstream(a_batch_that(ended_at=NOON))}
    later = reconcile(look_at(replace(wanted, status=passed_over), upstream=met, after=60))
    assert not batches(later)
    found = later.status.condition(ConditionType.READY)
    assert found is not None
    assert found.reason == "RunAtPassed"


# runs that are not kept long enough


def hourly_source(**spec: Any) -> dict[Reference, Upstream]:
    """The schedule `source`, which runs each hour."""
    return {SOURCE: Upstream(a_schedule(name="source").with_spec(**spec).build())}


ON_A_DAY_OF_SOURCE = ON_SOURCE.with_spec(schedule="0 0 * * *")
ON_WEEKDAYS_OF_SOURCE = ON_SOURCE.with_spec(schedule="0 0 * * 1-5")


def readiness(schedule: ScheduleBuilder, upstream: Mapping[Reference, Upstream], after: float = 0) -> str:
    found = reconcile(look_at(schedule, upstream=upstream, after=after)).status.condition(ConditionType.READY)
    assert found is not None
    return f"{found.status} {found.reason}: {found.message}"


@pytest.mark.parametrize(
    ("schedule", "upstream", "keeps"),
    [
        pytest.param(ON_A_DAY_OF_SOURCE, hourly_source(), 3, id="a day, and three hours are kept"),
        pytest.param(ON_A_DAY_OF_SOURCE, hourly_source(successfulJobsHistoryLimit=23), 23, id="an hour too few"),
        pytest.param(ON_SOURCE, hourly_source(successfulJobsHistoryLimit=0), 0, id="no run is kept"),
        pytest.param(
            ON_A_DAY_OF_SOURCE, hourly_source(successfulJobsHistoryLimit=24, window={"delaySeconds": 60}), 24,
            id="windows that do not fall together need one more",
        ),
        pytest.param(
            ON_SOURCE.with_spec(window={"lengthSeconds": 7 * 86400}), hourly_source(successfulJobsHistoryLimit=100), 100,
            id="a week, of which no schedule keeps each hour",
        ),
    ],
)  # fmt: skip
def test_reconcile_refuses_a_window_that_is_longer_than_what_is_kept(
    schedule: ScheduleBuilder, upstream: Mapping[Reference, Upstream], keeps: int
) -> None:
    said = readiness(schedule, upstream)
    assert said.startswith("False InvalidSpec: spec.dependsOn[0]: the window of a run (2026-01-")
    assert said.endswith(
        f"is longer than what source keeps, which is {keeps} runs: raise its successfulJobsHistoryLimit, or make spec.window shorter"
    )


@pytest.mark.parametrize(
    ("schedule", "upstream"),
    [
        pytest.param(ON_SOURCE, hourly_source(successfulJobsHistoryLimit=1), id="an hour, and one is kept"),
        pytest.param(ON_A_DAY_OF_SOURCE, hourly_source(successfulJobsHistoryLimit=24), id="a day, and all its hours are"),
        pytest.param(
            ON_A_DAY_OF_SOURCE, hourly_source(successfulJobsHistoryLimit=1, window={"lengthSeconds": 86400}), id="one run has it all"
        ),
        pytest.param(
            ON_WEEKDAYS_OF_SOURCE, hourly_source(successfulJobsHistoryLimit=24), id="only that of Monday would be too long"
        ),
        pytest.param(on(SOURCE).with_spec(schedule="0 0 * * *"), hourly_source(), id="any complete run will do"),
        pytest.param(ON_A_DAY_OF_SOURCE, hourly_source(schedule="0 0 30 2 *"), id="the other never fires: that is for it to say"),
        pytest.param(ON_A_DAY_OF_SOURCE, {}, id="nothing is known of the other"),
    ],
)  # fmt: skip
def test_reconcile_takes_a_window_where(schedule: ScheduleBuilder, upstream: Mapping[Reference, Upstream]) -> None:
    assert "InvalidSpec" not in readiness(schedule, upstream)


# circles


def chain(*links: tuple[str, str]) -> dict[str, ScheduledGeneration]:
    """Schedules, the first of each pair depending on the second."""
    names = {name for link in links for name in link}
    return {
        name: a_schedule(name=name)
        .with_spec(dependsOn=[{"kind": "ScheduledGeneration", "name": to} for source, to in links if source == name])
        .build()
        for name in names
    }


@pytest.mark.parametrize(
    ("links", "expected"),
    [
        pytest.param([("a", "b"), ("b", "a")], "a -> b -> a", id="two that wait for each other"),
        pytest.param([("a", "b"), ("b", "c"), ("c", "d"), ("d", "a")], "a -> b -> c -> d -> a", id="four"),
        pytest.param([("a", "x"), ("a", "b"), ("b", "a")], "a -> b -> a", id="beside one that is in no circle"),
    ],
)
def test_cycle_problems_names_the_way_round(links: list[tuple[str, str]], expected: str) -> None:
    schedules = chain(*links)
    (problem,) = cycle_problems(schedules["a"], schedules)
    assert str(problem) == (
        f"spec.dependsOn: must not lead back to this schedule, for then none could begin: {expected}"
    )


@pytest.mark.parametrize(
    "links",
    [
        pytest.param([("a", "b"), ("a", "c"), ("b", "d"), ("c", "d")], id="two ways to one"),
        pytest.param([("a", "b"), ("b", "c"), ("c", "b")], id="a circle that it only waits for"),
        pytest.param([("b", "a"), ("c", "a")], id="others wait for it"),
    ],
)
def test_cycle_problems_finds_none_where(links: list[tuple[str, str]]) -> None:
    schedules = chain(*links)
    assert cycle_problems(schedules["a"], schedules) == ()


@given(st.lists(st.tuples(st.integers(0, 7), st.integers(0, 7)), max_size=20))
def test_cycle_problems_finds_one_just_where_a_schedule_is_beyond_itself(pairs: list[tuple[int, int]]) -> None:
    schedules = chain(*((f"s{a}", f"s{b}") for a, b in pairs if a != b), ("s0", "s8"))
    reached: set[str] = set()
    todo = list(schedules["s0"].upstream)
    while todo:
        name = todo.pop()
        if name not in reached:
            reached.add(name)
            todo += schedules[name].upstream
    assert bool(cycle_problems(schedules["s0"], schedules)) == ("s0" in reached)


def test_reconcile_refuses_a_circle_and_lets_what_runs_go_on() -> None:
    circle = chain(("hourly", "source"), ("source", "hourly"))
    upstream = {("ScheduledGeneration", name): Upstream(found) for name, found in circle.items()}
    plan = reconcile(look_at(circle["hourly"], ticks=[a_tick()], runs=[a_run(NOON - HOUR)], upstream=upstream))
    found = plan.status.condition(ConditionType.READY)
    assert found is not None
    assert (found.status, found.reason) == ("False", "InvalidSpec")
    assert found.message.endswith("hourly -> source -> hourly")
    assert list(batches(plan)) == [a_tick(NOON - HOUR).name]
