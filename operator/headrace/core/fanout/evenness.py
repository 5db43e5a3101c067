"""How evenly the work was spread: Jain's fairness index, (Σx)² / (n · Σx²). It is 1 when all x are equal, and 1/n when one has all."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from headrace.api.reasons import ConditionType
from headrace.core.fanout.branches import BranchView


def jain_percent(values: Sequence[int]) -> int | None:
    """The index in whole percent, rounded down; None for less than two values, and when all are 0."""
    squares = sum(value * value for value in values)
    if len(values) < 2 or not squares:
        return None
    return 100 * sum(values) ** 2 // (len(values) * squares)


def evenness(branches: Iterable[BranchView]) -> int | None:
    """Over the durations of the branches that are complete, in seconds, each at least one."""
    statuses = [view.child.status for view in branches if view.child is not None]
    done = (status for status in statuses if status.is_true(ConditionType.COMPLETE))
    spans = ((s.completion_time - s.start_time) for s in done if s.start_time and s.completion_time)
    return jain_percent([max(1, round(span.total_seconds())) for span in spans])
