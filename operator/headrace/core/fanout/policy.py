"""When a FanOutJob has enough of its branches, and when they are over: one small table."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

from headrace.api.branches import CompletionMode
from headrace.api.fanoutjob import FanOutJob
from headrace.core.fanout.branches import BranchView
from headrace.core.fanout.observed import FanOutObserved


def enough(fan_out: FanOutJob, branches: Sequence[BranchView]) -> bool:
    """Whether as many branches have succeeded as the completion policy asks for, with all that are required."""
    succeeded = sum(view.succeeded for view in branches)
    required = all(view.succeeded for view in branches if view.branch.required)
    return required and succeeded >= _needed(fan_out)


def _needed(fan_out: FanOutJob) -> int:
    policy = fan_out.spec.completion_policy
    if policy.mode == CompletionMode.ALL:
        return len(fan_out.spec.branches)
    return policy.min_succeeded or 1


def deadline(fan_out: FanOutJob, now: datetime) -> datetime | None:
    """When the branches are ended, on the wall clock: counted from the creation or the last retry, so that suspending gains nothing."""
    seconds = fan_out.spec.completion_deadline_seconds
    if seconds is None:
        return None
    begun = fan_out.status.retry_time or fan_out.metadata.creation_timestamp or fan_out.status.start_time or now
    return begun + timedelta(seconds=seconds)


def expired(observed: FanOutObserved) -> bool:
    """Whether the deadline has passed."""
    at = deadline(observed.fan_out, observed.now)
    return at is not None and observed.now >= at


def decided(observed: FanOutObserved, branches: Sequence[BranchView]) -> bool:
    """Whether the branches that are not done are no longer wanted: the mode is Any, and one has succeeded."""
    fan_out = observed.fan_out
    return fan_out.spec.completion_policy.mode == CompletionMode.ANY and enough(fan_out, branches)


def over(observed: FanOutObserved, branches: Sequence[BranchView]) -> bool:
    """Whether no branch will come to anything more in this round."""
    last_call = observed.fan_out.spec.cancel or expired(observed) or decided(observed, branches)
    return all(view.finished or (view.child is None and last_call) for view in branches)
