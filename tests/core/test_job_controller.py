"""The Job controller: what it starts and stops, and what it says, for every feature that we render."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from builders import NOON
from headrace.api.ranges import parse_ranges
from headrace.core.job_controller import JobStep, PodPhase, PodState, RestartDelay, step

RULES = [
    {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]},
    {"action": "Ignore", "onExitCodes": {"operator": "In", "values": [42]}},
    {"action": "FailIndex", "onExitCodes": {"operator": "In", "values": [43]}},
    {"action": "FailJob", "onExitCodes": {"operator": "In", "values": [44]}},
]
LATER = NOON + timedelta(hours=1)


def a_job(**spec: Any) -> dict[str, Any]:
    """An Indexed Job of three indexes, two at once, with the exit codes of a worker."""
    indexed = {"completionMode": "Indexed", "completions": 3, "parallelism": 2, "backoffLimitPerIndex": 1}
    rules = {"podFailurePolicy": {"rules": RULES}}
    return {"metadata": {"name": "reviews-run"}, "spec": {**indexed, **rules, **spec}}


def a_single_job(**spec: Any) -> dict[str, Any]:
    """A Job of one pod that is not Indexed."""
    return {"metadata": {"name": "reviews-plan"}, "spec": {"completions": 1, "parallelism": 1, **spec}}


def running(index: int, *, terminating: bool = False) -> PodState:
    """A pod that runs."""
    return PodState(f"pod-{index}", index, terminating=terminating)


def ended(index: int, exit_code: int | None, *, disrupted: bool = False) -> PodState:
    """A pod that ended at noon."""
    phase = PodPhase.SUCCEEDED if exit_code == 0 else PodPhase.FAILED
    return PodState(
        f"pod-{index}-{exit_code}", index, phase, exit_code=exit_code, disrupted=disrupted, finished_at=NOON
    )


def condition(done: JobStep) -> tuple[str, str] | None:
    """Type and reason of the condition of a finished Job."""
    return next(((c["type"], c["reason"]) for c in done.status["conditions"]), None)


@pytest.mark.parametrize(
    ("pods", "spec", "start"),
    [
        pytest.param([], {}, (0, 1), id="a new job starts as many as may run at once"),
        pytest.param([running(0)], {}, (1,), id="room for one more"),
        pytest.param([running(0), running(1)], {}, (), id="no room"),
        pytest.param([running(0, terminating=True), running(1)], {}, (), id="a terminating pod takes up room"),
        pytest.param([ended(0, 0), running(1)], {}, (2,), id="the next index follows a finished one"),
        pytest.param([ended(0, 42), running(1)], {}, (0,), id="a drained index starts again"),
        pytest.param([ended(0, None, disrupted=True), running(1)], {}, (0,), id="a lost pod is replaced"),
        pytest.param([ended(0, 1), running(1)], {}, (0,), id="a crashed pod is replaced after its rest"),
        pytest.param([ended(0, 1), ended(0, 137), running(1)], {}, (2,), id="an index over its limit is left alone"),
        pytest.param([ended(0, 43), running(1)], {}, (2,), id="an index that cannot be done is left alone"),
        pytest.param([ended(0, 44)], {}, (), id="nothing starts when the job cannot be done"),
        pytest.param([], {"suspend": True}, (), id="nothing starts while it is suspended"),
        pytest.param([], {"parallelism": 0}, (), id="nothing starts with a parallelism of zero"),
        pytest.param([], {"parallelism": 9}, (0, 1, 2), id="never more pods than indexes"),
    ],
)
def test_step_starts(pods: Sequence[PodState], spec: dict[str, Any], start: tuple[int, ...]) -> None:
    assert step(a_job(**spec), pods, LATER).start == start


@pytest.mark.parametrize(
    ("pods", "spec", "stop"),
    [
        pytest.param([running(0), running(1)], {}, (), id="all may run"),
        pytest.param([running(0), running(1)], {"suspend": True}, ("pod-0", "pod-1"), id="suspending stops all"),
        pytest.param([running(0, terminating=True)], {"suspend": True}, (), id="nobody is told twice"),
        pytest.param([running(0), running(1)], {"parallelism": 1}, ("pod-1",), id="fewer pods: the highest index goes"),
        pytest.param([running(0), ended(1, 44)], {}, ("pod-0",), id="a job that cannot be done stops all"),
    ],
)
def test_step_stops(pods: Sequence[PodState], spec: dict[str, Any], stop: tuple[str, ...]) -> None:
    assert step(a_job(**spec), pods, LATER).stop == stop


@pytest.mark.parametrize(
    ("pods", "spec", "end"),
    [
        pytest.param([ended(i, 0) for i in range(3)], {}, ("Complete", "CompletionsReached"), id="all indexes done"),
        pytest.param([ended(0, 0), ended(1, 0)], {}, None, id="one index to go"),
        pytest.param([ended(0, 44)], {}, ("Failed", "PodFailurePolicy"), id="a pod that fails the job"),
        pytest.param([ended(0, 44), running(1)], {}, None, id="it fails only once nothing runs any more"),
        pytest.param(
            [ended(0, 0), ended(1, 0), ended(2, 43)], {}, ("Failed", "FailedIndexes"), id="an index that cannot be done"
        ),
        pytest.param([ended(2, 43)], {}, None, id="the other indexes go on"),
        pytest.param(
            [ended(0, 1), ended(1, 1)],
            {"backoffLimitPerIndex": 9, "backoffLimit": 1},
            ("Failed", "BackoffLimitExceeded"),
            id="too many failures in all",
        ),
        pytest.param(
            [ended(i, 0) for i in range(3)],
            {"suspend": True},
            ("Complete", "CompletionsReached"),
            id="done and suspended",
        ),
    ],
)
def test_step_ends(pods: Sequence[PodState], spec: dict[str, Any], end: tuple[str, str] | None) -> None:
    assert condition(step(a_job(**spec), pods, LATER)) == end


@pytest.mark.parametrize(
    ("pods", "spec", "start", "end"),
    [
        pytest.param([], {}, (0,), None, id="a new job starts its pod"),
        pytest.param([ended(0, 0)], {}, (), ("Complete", "CompletionsReached"), id="its pod is done"),
        pytest.param([ended(0, 1)] * 2, {"backoffLimit": 2}, (0,), None, id="failures up to the limit"),
        pytest.param(
            [ended(0, 1)] * 3, {"backoffLimit": 2}, (), ("Failed", "BackoffLimitExceeded"), id="over the limit"
        ),
        pytest.param(
            [ended(0, 0)], {"completions": 3, "parallelism": 3}, (0, 0), None, id="three completions, one done"
        ),
    ],
)
def test_step_of_a_job_that_is_not_indexed(
    pods: Sequence[PodState], spec: dict[str, Any], start: tuple[int, ...], end: tuple[str, str] | None
) -> None:
    done = step(a_single_job(**spec), pods, LATER)
    assert (done.start, condition(done)) == (start, end)
    assert "completedIndexes" not in done.status


def test_step_counts_in_the_words_of_a_job_status() -> None:
    pods = [ended(0, 0), ended(1, 43), ended(1, 42), running(2), running(3, terminating=True)]
    assert step(a_job(completions=5, parallelism=4), pods, LATER).status == {
        "active": 1,
        "terminating": 1,
        "succeeded": 1,
        "failed": 1,
        "completedIndexes": "0",
        "failedIndexes": "1",
        "conditions": [],
    }


@pytest.mark.parametrize(
    ("failures", "rest"),
    [
        pytest.param(1, 10, id="ten seconds after the first failure"),
        pytest.param(2, 20, id="twice as long after the second"),
        pytest.param(3, 40, id="and so on"),
        pytest.param(20, 600, id="ten minutes at most"),
    ],
)
def test_step_lets_a_crashed_index_rest(failures: int, rest: int) -> None:
    job, pods = a_job(completions=1, backoffLimitPerIndex=99), [ended(0, 1)] * failures
    due = NOON + timedelta(seconds=rest)
    early = step(job, pods, due - timedelta(seconds=1))
    assert (early.start, early.retry_at) == ((), due)
    assert step(job, pods, due).start == (0,)


def test_step_starts_a_drained_index_at_once() -> None:
    assert step(a_job(completions=1), [ended(0, 42)], NOON) == JobStep(
        step(a_job(completions=1), [ended(0, 42)], NOON).status, start=(0,)
    )


def test_step_takes_the_delay_that_it_is_given() -> None:
    delay = RestartDelay(timedelta(seconds=1), timedelta(seconds=2))
    job = a_job(completions=1, backoffLimitPerIndex=99)
    assert step(job, [ended(0, 1)] * 9, NOON, delay).retry_at == NOON + timedelta(seconds=2)


def test_step_of_a_finished_job_never_changes_its_mind() -> None:
    job = a_job(completions=1)
    done = step(job, [ended(0, 0)], NOON)
    again = step({**job, "status": done.status, "spec": {**job["spec"], "suspend": True}}, [], LATER)
    assert (again.start, again.stop, again.status["conditions"]) == ((), (), done.status["conditions"])


def test_step_names_a_field_that_it_does_not_know() -> None:
    with pytest.raises(ValueError, match=r"Job reviews-run: spec\.successPolicy is not supported outside a cluster"):
        step(a_job(successPolicy={}), [], NOON)


exit_codes = st.sampled_from([0, 1, 42, 43, 44, 137, None])
pod_lists = st.lists(
    st.one_of(
        st.builds(running, st.integers(0, 4), terminating=st.booleans()),
        st.builds(lambda i, code: ended(i, code, disrupted=code is None), st.integers(0, 4), exit_codes),
    ),
    max_size=12,
)
specs = st.fixed_dictionaries(
    {
        "completions": st.integers(1, 5),
        "parallelism": st.integers(0, 5),
        "suspend": st.booleans(),
        "backoffLimitPerIndex": st.integers(0, 3),
    }
)


@given(spec=specs, pods=pod_lists)
def test_step_never_runs_an_index_twice_at_once(spec: dict[str, Any], pods: list[PodState]) -> None:
    done = step(a_job(**spec), pods, LATER)
    busy = {pod.index for pod in pods if pod.phase == PodPhase.RUNNING}
    assert len(set(done.start)) == len(done.start)
    assert not busy & set(done.start)
    assert all(index < spec["completions"] for index in done.start)


@given(spec=specs, pods=pod_lists)
def test_step_never_runs_more_than_its_parallelism(spec: dict[str, Any], pods: list[PodState]) -> None:
    done = step(a_job(**spec), pods, LATER)
    active = [pod.name for pod in pods if pod.phase == PodPhase.RUNNING]
    assert not done.start or len(active) + len(done.start) <= spec["parallelism"]


@given(spec=specs, pods=pod_lists)
def test_step_starts_nothing_while_suspended(spec: dict[str, Any], pods: list[PodState]) -> None:
    assert step(a_job(**{**spec, "suspend": True}), pods, LATER).start == ()


@given(spec=specs, pods=pod_lists)
def test_step_that_is_complete_has_accounted_for_every_index(spec: dict[str, Any], pods: list[PodState]) -> None:
    done = step(a_job(**spec), pods, LATER)
    completed, failed = (parse_ranges(done.status[key]) for key in ("completedIndexes", "failedIndexes"))
    assert not completed & failed
    end = condition(done)
    if end == ("Complete", "CompletionsReached"):
        assert completed == set(range(spec["completions"]))
    if end == ("Failed", "FailedIndexes"):
        assert completed | failed == set(range(spec["completions"]))
    if end is not None:
        assert done.start == ()


@given(spec=specs, codes=st.lists(exit_codes, max_size=60))
def test_step_by_step_every_job_ends(spec: dict[str, Any], codes: list[int | None]) -> None:
    """Whatever the pods do, as long as they end well in the long run, the Job ends."""
    job = a_job(**{**spec, "suspend": False, "parallelism": max(1, spec["parallelism"])})
    script, now = iter(codes), NOON
    pods: list[PodState] = []
    for number in range(500):
        done = step(job, pods, now)
        if condition(done) is not None:
            return
        assert done.start or done.retry_at is not None, "nothing runs, and nothing is waited for"
        now = done.retry_at or now
        for index in done.start:
            code = next(script, 0)
            phase = PodPhase.SUCCEEDED if code == 0 else PodPhase.FAILED
            pods.append(PodState(f"{number}-{index}", index, phase, False, code, code is None, now))
    pytest.fail("the Job has not ended")
