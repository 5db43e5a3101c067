"""Evenness and stragglers, as tables."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from builders import a_batch, a_job, committed, live, look
from headrace.api.worker import Role, ShardReport
from headrace.core.evenness import jain_percent, stragglers
from headrace.core.observed import WorkerReport
from headrace.core.reconcile import reconcile


@pytest.mark.parametrize(
    ("values", "percent"),
    [
        pytest.param([5, 5, 5], 100, id="all alike"),
        pytest.param([1, 0, 0, 0], 25, id="one has all"),
        pytest.param([2, 1], 90, id="twice as long"),
        pytest.param([7], None, id="one alone is neither even nor uneven"),
        pytest.param([0, 0], None, id="nothing at all"),
    ],
)
def test_jain_percent_tells_how_even_values_are(values: list[int], percent: int | None) -> None:
    assert jain_percent(values) == percent


@pytest.mark.parametrize(
    ("ended", "running", "expected"),
    [
        pytest.param([10, 10, 10], [], (), id="all alike"),
        pytest.param([10, 10, 20], [], (), id="twice the median is not more than that"),
        pytest.param([10, 10, 21], [], ("e2",), id="one took longer"),
        pytest.param([30, 10, 10, 50], [], ("e3", "e0"), id="two did, the slowest first"),
        pytest.param([10, 90], [], ("e1",), id="of two the one that took longer"),
        pytest.param([10, 12], [25], ("r0",), id="one is still at it"),
        pytest.param([60, 60], [5, 5], (), id="what has just begun does not make the others slow"),
        pytest.param([10], [500], (), id="one that has ended is no measure"),
        pytest.param([], [1, 500], (), id="nothing has ended"),
        pytest.param([1, 1, 4], [], (), id="three seconds are chance"),
        pytest.param([0, 0, 5], [], ("e2",), id="five are not"),
        pytest.param([1] * 20, range(101, 120), tuple(f"r{n}" for n in range(18, 8, -1)), id="no more than ten"),
    ],
)
def test_stragglers_take_far_longer_than_half_of_the_others(
    ended: list[int], running: list[int], expected: tuple[str, ...]
) -> None:
    names = {f"e{n}": seconds for n, seconds in enumerate(ended)}
    assert stragglers(names, {f"r{n}": seconds for n, seconds in enumerate(running)}) == expected


@given(st.lists(st.integers(0, 1000), min_size=2, max_size=30))
def test_never_does_half_of_all_lag_behind(seconds: list[int]) -> None:
    assert len(stragglers({str(n): value for n, value in enumerate(seconds)}, {})) <= len(seconds) / 2


def after(report: WorkerReport, seconds: int) -> WorkerReport:
    """The same word of a pod that has been at work so long."""
    assert isinstance(report.report, ShardReport)
    return replace(report, report=report.report.model_copy(update={"seconds": seconds}))


def test_status_names_the_shards_that_lag_behind() -> None:
    running = a_batch().with_spec(shards=4).validated().admitted()
    job = a_job(Role.RUN, active=1)
    done = [after(committed(0, 25), 10), after(committed(1, 25), 12), after(committed(2, 25), 11)]
    seen = reconcile(look(running, jobs=[job], reports=[*done, after(live(3, 5), 40)])).status
    assert (seen.evenness_percent, seen.stragglers) == (99, ("3",))
    later = running.with_status(**dict(seen))
    kept = reconcile(look(later, jobs=[job], reports=[])).status
    assert kept.stragglers == ("3",), "pods that are gone tell nothing new"
