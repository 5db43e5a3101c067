"""Looking on while an operator works on a batch, with the same words as where this process works on it itself."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import aclosing, suppress
from typing import Any

from headrace.api.kinds import OurObject, OurStatus
from headrace.cli.exits import CliError
from headrace.cli.signals import Signals
from headrace.core.conditions import transition_events
from headrace.shells.kube.changes import Change, Changes
from headrace.shells.kube.objects import parsed
from headrace.shells.local.converge import Watcher

LOOK_SECONDS = 0.2
UNSEEN_SECONDS = 15.0
"""After which somebody who waits for the operator is told that it has not even looked."""


async def follow(
    changes: Changes,
    batch: OurObject,
    watcher: Watcher,
    signals: Signals,
    *,
    until: Callable[[OurStatus], bool],
    unseen: Callable[[], None],
) -> OurObject:
    """Tell what becomes of a batch until `until` holds or a signal comes; `unseen` is called once when nobody takes it up.

    Raises `CliError` when it is deleted.
    """
    async with aclosing(changes.follow()) as stream:
        waiting = _Waiting(unseen if not batch.status.conditions else None)
        while not (until(batch.status) or signals.requested):
            change = await waiting.next(stream, signals)
            if change is None:
                continue
            if change.deleted or change.uid != batch.metadata.uid:
                raise CliError("Deleted", f"{batch.metadata.name} has been deleted")
            before, batch = batch, parsed(change.obj, changes.resource)
            for event in transition_events(before.status.conditions, batch.status.conditions):
                watcher.event(batch, event)
            watcher.progress(batch)
        await waiting.close()
    return batch


class _Waiting:
    """For the next change, with an ear for signals, which do not wake the loop."""

    def __init__(self, unseen: Callable[[], None] | None) -> None:
        self._unseen, self._began = unseen, asyncio.get_running_loop().time()
        self._coming: asyncio.Future[Change] | None = None

    async def next(self, stream: Any, signals: Signals) -> Change | None:
        """The next change; None when there was none for a moment."""
        self._coming = self._coming or asyncio.ensure_future(anext(stream))
        while not self._coming.done() and not signals.requested:
            await asyncio.wait([self._coming], timeout=LOOK_SECONDS)
            self._complain()
        if not self._coming.done():
            return None
        change, self._coming = self._coming.result(), None
        if change.obj.get("status", {}).get("conditions"):
            self._unseen = None
        return change

    async def close(self) -> None:
        """Wait no more."""
        if self._coming is not None:
            self._coming.cancel()
            with suppress(asyncio.CancelledError, StopAsyncIteration):
                await self._coming

    def _complain(self) -> None:
        if self._unseen is not None and asyncio.get_running_loop().time() - self._began > UNSEEN_SECONDS:
            self._unseen()
            self._unseen = None
