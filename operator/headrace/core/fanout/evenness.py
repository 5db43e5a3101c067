"""How evenly the work of a fan-out was spread over its branches, and which of them, or of their shards, lag behind."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

from headrace.api.cascade import MAX_STAGES
from headrace.core.evenness import SHOWN_STRAGGLERS, jain_percent, stragglers
from headrace.core.fanout.branches import BranchView


def evenness(branches: Iterable[BranchView], now: datetime) -> int | None:
    """Over the durations of the branches that have succeeded, in seconds, each at least one."""
    ended, _ = _seconds(branches, now)
    return jain_percent([max(1, seconds) for seconds in ended.values()])


def laggards(branches: tuple[BranchView, ...], now: datetime) -> tuple[str, ...]:
    """Stragglers among the branches of each stage, then those among the shards of each branch, as `BRANCH/SHARD`; ten at most."""
    stages = ([view for view in branches if view.branch.stage == stage] for stage in range(MAX_STAGES))
    slow = (name for stage in stages for name in stragglers(*_seconds(stage, now)))
    children = {view.branch.name: view.child for view in branches if view.child is not None}
    shards = (f"{name}/{shard}" for name, child in children.items() for shard in child.status.stragglers)
    return (*slow, *shards)[:SHOWN_STRAGGLERS]


def _seconds(branches: Iterable[BranchView], now: datetime) -> tuple[dict[str, int], dict[str, int]]:
    """How long the branches took that have succeeded, and how long those have been at work that have not ended; since their last retry."""
    ended, running = {}, {}
    for view in branches:
        status = view.child.status if view.child is not None else None
        if status is None or status.start_time is None or view.took_nothing:
            continue
        since = status.retry_time or status.start_time
        if view.succeeded and status.completion_time is not None:
            ended[view.branch.name] = round((status.completion_time - since).total_seconds())
        elif not view.finished:
            running[view.branch.name] = round((now - since).total_seconds())
    return ended, running
