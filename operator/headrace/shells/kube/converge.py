"""The loop: a key comes, one look is taken, the core decides, the plan is applied. All workers of the queue run this."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from headrace.api.base import ApiModel, JsonObject
from headrace.api.batchstatus import InferenceBatchStatus
from headrace.api.fanoutjob import FanOutJob
from headrace.api.fanoutstatus import FanOutJobStatus
from headrace.api.inferencebatch import InferenceBatch
from headrace.api.meta import Named
from headrace.core.observed import Installation
from headrace.core.plan import Event, Plan
from headrace.core.publish import write_due
from headrace.core.refusal import refusal
from headrace.core.tracing.spans import spans
from headrace.shells.kube.admission import Admission
from headrace.shells.kube.apply import Applier
from headrace.shells.kube.cache import Cache, Parent
from headrace.shells.kube.errors import ApiError, Conflict, TransientFailure
from headrace.shells.kube.handlers import HANDLERS
from headrace.shells.kube.kueue import Kueue
from headrace.shells.kube.metrics import Metrics
from headrace.shells.kube.observe import Sight
from headrace.shells.kube.queue import WorkQueue
from headrace.shells.kube.recorder import Recorder
from headrace.shells.kube.reporters import Reporters
from headrace.shells.kube.resources import BATCHES
from headrace.tracing import Silent, Tracer

logger = logging.getLogger(__name__)

REFUSED_BACKOFF_SECONDS = 60.0
"""How long to rest after what the same request would only bring again; a change of the object ends it early."""

FAILED_CREATE = "FailedCreate"
"""Reason of the event that tells a user why a child cannot be made, in the word of the Job controller."""


def utc_now() -> datetime:
    """The wall clock."""
    return datetime.now(UTC)


@dataclass
class Converger:
    """Brings each object one look nearer to what it should be."""

    cache: Cache
    queue: WorkQueue[Parent]
    applier: Applier
    recorder: Recorder
    reporters: Reporters
    admission: Admission
    kueue: Kueue
    installation: Installation
    metrics: Metrics
    tracer: Tracer = field(default_factory=Silent)
    now: Callable[[], datetime] = utc_now
    written_at: dict[Parent, datetime] = field(default_factory=dict)
    """When the status of an object was last written; of one that this process has not written yet, when it was first looked at."""
    in_hand: set[asyncio.Task[None]] = field(default_factory=set)

    async def work(self) -> None:
        """Take keys from the queue until cancelled. A key in hand goes on then; `finish` waits for it."""
        while True:
            key = await self.queue.get()
            task = asyncio.create_task(self._attempt(key))
            self.in_hand.add(task)
            task.add_done_callback(self.in_hand.discard)
            await asyncio.shield(task)

    async def finish(self, seconds: float) -> None:
        """Let the keys in hand come to their end, but not longer than so many seconds."""
        if self.in_hand:
            await asyncio.wait(self.in_hand, timeout=seconds)
        for task in self.in_hand:
            task.cancel()
        await asyncio.gather(*self.in_hand, return_exceptions=True)

    async def _attempt(self, key: Parent) -> None:
        name = str(key)
        try:
            with self.metrics.reconciling():
                await self.converge(key)
        except TransientFailure as failure:
            wait = self.queue.failed(key, retry_after=failure.retry_after)
            self.metrics.failed("transient")
            logger.warning("%s: %s; again in %.1f s", name, failure, wait)
        except Conflict as conflict:
            wait = self.queue.failed(key)
            self.metrics.failed("conflict")
            logger.warning("%s: %s; again in %.1f s", name, conflict, wait)
        except ApiError as error:
            wait = self.queue.failed(key, REFUSED_BACKOFF_SECONDS)
            self.metrics.failed("refused")
            logger.error("%s: the API server refused: %s; again in %.0f s", name, error, wait)
        except Exception:
            wait = self.queue.failed(key, REFUSED_BACKOFF_SECONDS)
            self.metrics.failed("bug")
            logger.exception("%s: this is a bug; again in %.0f s", name, wait)
        else:
            self.queue.done(key)

    async def converge(self, key: Parent) -> None:
        """One look, one decision, one plan carried out."""
        found = self.cache.get(key.resource, key.key)
        if found is None:
            self.queue.forget(key)
            self.metrics.gone(key)
            self.written_at.pop(key, None)
            return
        now = self.now()
        handler = HANDLERS[key.resource]
        parent = handler.parse(found)
        if parent is None:
            if key.resource is BATCHES:
                self.admission.refused(key.key, now)
            await self._refuse(key, found, now)
            return
        sight = Sight(self.cache, self.reporters.live, self.admission.look, self.installation, self.kueue.view)
        plan = handler.decide(sight, parent, now)
        self.metrics.seen(key, parent, plan.status)
        await self.applier.job_statuses(plan.job_statuses)
        await self._apply_children(parent, plan, now)
        # After a restart the workers have not spoken yet: what is known of progress is older than what is written. So it is not due.
        wait = write_due(parent.status, plan.status, self.written_at.setdefault(key, now), now)
        if wait == timedelta(0):
            await self.applier.status(parent, plan.status)
            self.written_at[key] = now
            if self.cache.has(key.resource, key.key):  # else admission has been told that it is gone
                self.admission.written(parent.model_copy(update={"status": plan.status}), now)
            self.metrics.wrote(parent, plan.status, now)
            self.recorder.say(parent, plan.events, now)
            self._trace(parent, plan.status, now)
        elif wait is not None:
            self.queue.add_after(key, wait.total_seconds())
        self.admission.settled(parent, now)
        if plan.look_again_after is not None:
            self.queue.add_after(key, plan.look_again_after.total_seconds())
        else:
            self.written_at.pop(key, None)

    def _trace(self, parent: Named, status: ApiModel, now: datetime) -> None:
        """Tell of what has ended with the status that was written."""
        if isinstance(parent, InferenceBatch | FanOutJob) and isinstance(
            status, InferenceBatchStatus | FanOutJobStatus
        ):
            self.tracer.send(spans(parent, status, now, self.installation.tracing))

    async def _apply_children(self, parent: Named, plan: Plan[Any], now: datetime) -> None:
        try:
            await self.applier.children(parent, plan.children)
            for activation in plan.activations:
                await self.applier.activate(parent, activation)
        except ApiError as error:
            self.recorder.say(parent, (Event(FAILED_CREATE, error.message, "Warning"),), now)
            raise

    async def _refuse(self, key: Parent, found: JsonObject, now: datetime) -> None:
        """An object that the models refuse although the API server took it: an older CRD, or a bug. Say so in its status.

        The API server may refuse even that, when the spec no longer fits its schema; then the event must do.
        """
        named, plan = refusal(found, HANDLERS[key.resource].kind, now)
        if plan.events:
            try:
                await self.applier.status(named, plan.status)
            finally:
                self.recorder.say(named, plan.events, now)
