"""Records that a run has left without a result are taken up by the run after it, where the schedule says so.

A run names the output folder of one run before it, and what it leaves itself includes what it has taken up. So runs are a chain: one
begins when the one before it is over, and no record is taken up twice or lost, whatever dies in between.
"""

from __future__ import annotations

from headrace.api.input import Input, InputFormat
from headrace.api.kinds import OurObject
from headrace.api.reasons import ConditionType
from headrace.core.schedule.observed import ScheduleObserved, tick_of
from headrace.core.schedule.retries import is_over


def must_wait(observed: ScheduleObserved) -> bool:
    """Whether no run may begin, because the one before it may still leave something."""
    carries = observed.schedule.spec.carry_failed_records
    return carries and not all(is_over(observed, run) for run in observed.runs.values())


def carried_from(observed: ScheduleObserved) -> str | None:
    """The output folder of the run whose undone records the next run is to take up; None when there is nothing."""
    last, (work,) = last_begun(observed), observed.schedule.spec.template.work
    if not observed.schedule.spec.carry_failed_records or last is None or _kind(last.spec.input) != _kind(work.input):
        return None
    if not last.status.is_true(ConditionType.INPUT_VALIDATED) or last.status.output is None:
        return last.spec.input.carried_from  # it has read nothing, and so has taken up nothing
    undone = last.status.records.failed or not last.status.is_true(ConditionType.COMPLETE)
    return last.status.output.uri if undone else None


def last_begun(observed: ScheduleObserved) -> OurObject | None:
    """The run that was made last."""
    return max(
        observed.runs.values(),
        key=lambda run: (run.metadata.creation_timestamp or observed.now, tick_of(run) or observed.now),
        default=None,
    )


def _kind(spec: Input) -> tuple[InputFormat, str]:
    """What two inputs must have in common for a worker to read both."""
    return spec.format, (spec.uri or "").partition("://")[0]
