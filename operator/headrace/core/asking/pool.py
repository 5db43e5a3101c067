"""How many workers a warm pool has, what they are told next, and what becomes of a request over which one has died.

The pool is a queue in front of workers that each work on one micro-batch at a time. A micro-batch is a window; once a worker has died over
it, each request of it that has no answer is one by itself, so that the one that kills workers is found and hurts nobody else.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from math import ceil

from headrace.api.asking import ClosedWindow, QueuedRequest, RequestError, RequestRoute, RequestState
from headrace.api.base import JsonObject
from headrace.api.gateway import ServedModel
from headrace.api.inferencebatch import InferenceBatch
from headrace.api.targets import WarmPool
from headrace.api.worker import ExitCode, Failure
from headrace.core.asking.batches import failed
from headrace.core.asking.life import Outcome

LONGEST_PAUSE_MILLISECONDS = 60_000
STARTS_TRIED = 3
"""With so many workers that ended one after the other before they were ready, who waits is told."""


@dataclass(frozen=True, slots=True)
class PoolWorker:
    """What is known of a worker that has not ended."""

    name: str
    idle_since: int | None = None
    """Since when it has nothing to do; None while it starts or works."""
    ready: bool = False
    """Whether its model is loaded."""
    since: int = 0
    """When it was started."""


@dataclass(frozen=True, slots=True)
class Scaling:
    """What is to be done about the number of workers."""

    start: int = 0
    stop: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Trouble:
    """Why a pool has no worker that is ready, and what follows from it."""

    reason: str
    message: str
    starts: int
    """Workers that have ended before they were ready, one after the other."""
    not_before: int
    """When another is started."""
    final: bool
    """Whether those who wait are told so now, and wait no longer."""

    @property
    def outcome(self) -> Outcome:
        """What they are told."""
        return failed(self.reason, self.message)


def scaling(
    pool: WarmPool, workers: Sequence[PoolWorker], waiting: int, now: int, trouble: Trouble | None = None
) -> Scaling:
    """Enough workers for those who wait, at least `min` and at most `max`; those with nothing to do for long enough are stopped.

    `waiting`: requests that no worker has been told of. One who waits is enough for a worker, however many may wait for each. After
    `trouble` there is a pause, and then one worker alone, to see whether it is over. One that is stale is stopped as soon as it is free.
    """
    stale = tuple(one.name for one in workers if one.idle_since is not None and is_stale(pool, one.since, now))
    if stale:
        return Scaling(stop=stale)
    wanted = min(pool.max, max(pool.min, ceil(waiting / pool.target_queued_per_worker)))
    if len(workers) < wanted:
        missing = wanted - len(workers)
        if trouble is None:
            return Scaling(start=missing)
        is_tried = any(one.idle_since is None for one in workers)
        return Scaling(start=int(now >= trouble.not_before and not is_tried))
    idle = [one for one in workers if one.idle_since is not None and now >= one.idle_since + pool.idle_seconds * 1000]
    spare = len(workers) - wanted
    longest = sorted(idle, key=lambda one: (one.idle_since, one.name))
    return Scaling(stop=tuple(one.name for one in longest[:spare]))


def is_stale(pool: WarmPool, since: int, now: int) -> bool:
    """Whether a worker is told of nothing more: the model that it has loaded is to be looked up anew, by the one that follows it."""
    return pool.refresh_seconds is not None and now >= since + pool.refresh_seconds * 1000


@dataclass(frozen=True, slots=True)
class Chunk:
    """Requests of one window that a worker is told together."""

    window: str
    members: tuple[QueuedRequest, ...]
    deadline: int
    """When nobody waits for their answers any more."""


def chunks(window: ClosedWindow, waiting: Iterable[QueuedRequest], route: RequestRoute) -> list[Chunk]:
    """What those requests of a window that have no answer are told as: those over which workers have died by themselves, one at a time."""
    deadline, members = window.closed + route.deadline_seconds * 1000, [*waiting]
    sound = tuple(one for one in members if one.id not in window.lost)
    alone = [Chunk(window.batch, (one,), deadline) for one in members if one.id in window.lost]
    return [Chunk(window.batch, sound, deadline), *alone] if sound else alone


def after_loss(window: ClosedWindow, unanswered: Iterable[QueuedRequest]) -> ClosedWindow:
    """The window after a worker has died that had been told of these requests."""
    return window.model_copy(
        update={"lost": {**window.lost, **{one.id: window.lost.get(one.id, 0) + 1 for one in unanswered}}}
    )


def given_up(window: ClosedWindow, request: QueuedRequest, pool: WarmPool) -> Outcome | None:
    """What becomes of a request over which too many workers have died; None while it is tried again."""
    times = window.lost.get(request.id, 0)
    if times < pool.max_deliveries:
        return None
    return failed("worker_lost", f"{times} workers have ended over it, one after the other, without an answer")


def expired(route: RequestRoute) -> Outcome:
    """What becomes of a request that no worker has answered in time."""
    message = f"it was not answered within deadlineSeconds, {route.deadline_seconds}"
    return Outcome(RequestState.EXPIRED, error=RequestError(code="deadline_exceeded", message=message))


def pool_object(waiting: int, workers: Sequence[PoolWorker], trouble: Trouble | None) -> JsonObject:
    """How a pool is: requests that no worker has been told of, its workers, and why none of them is ready."""
    ready = sum(one.ready for one in workers)
    return {
        "waiting": waiting,
        "workers": {"starting": len(workers) - ready, "busy": ready - _idle(workers), "idle": _idle(workers)},
        "error": {"code": trouble.reason, "message": trouble.message} if trouble is not None else None,
    }


def _idle(workers: Iterable[PoolWorker]) -> int:
    return sum(one.idle_since is not None for one in workers)


def after_failed_start(before: Trouble | None, exit_code: int, failure: Failure | None, now: int) -> Trouble:
    """After a worker has ended before it was ready. What no retry mends is said at once, anything else the third time."""
    starts = (before.starts if before is not None else 0) + 1
    reason = failure.reason if failure is not None else "WorkerCrashed"
    message = (
        failure.message if failure is not None else f"a worker has ended with exit code {exit_code} before it was ready"
    )
    pause = min(LONGEST_PAUSE_MILLISECONDS, 1000 * 2 ** min(starts - 1, 10))
    final = exit_code == ExitCode.JOB_FAILED or starts >= STARTS_TRIED
    return Trouble(reason, message, starts, now + pause, final)


def after_refused_start(before: Trouble | None, failure: Failure, now: int) -> Trouble:
    """After no worker could be started at all. That may pass, such as a quota that is used up: who waits goes on waiting."""
    found = after_failed_start(before, ExitCode.DONE, failure, now)
    return replace(found, final=False)


def standing_in_the_way(workers: Sequence[PoolWorker], obstacles: Sequence[Failure | None]) -> Trouble | None:
    """What is said of a pool none of whose workers is ready, when something is known to keep one from it; it may go away by itself."""
    found = next((one for one in obstacles if one is not None), None)
    if found is None or any(one.ready for one in workers):
        return None
    return Trouble(found.reason, found.message, starts=0, not_before=0, final=False)


def pool_batch(route: RequestRoute, served: ServedModel, namespace: str) -> InferenceBatch:
    """The batch that a worker of the pool is told it works for: it has the model and its settings, and neither input nor output."""
    said = served.model_dump(mode="json", by_alias=True, exclude_none=True, exclude_unset=True)
    nothing = (
        "file:///dev/null/requests"  # below which nothing can be: a URL in a request that is relative leads nowhere
    )
    spec = {**said, "shards": 1, "parallelism": 1, "input": {"uri": nothing}, "output": {"uri": nothing}}
    return InferenceBatch.parse({"metadata": {"name": f"pool-{route.name}", "namespace": namespace}, "spec": spec})
