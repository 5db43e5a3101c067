"""Work that goes on whatever happens to it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import Any, Never, TypeVar

from headrace.gateway.clocks import Clock
from headrace.gateway.places.place import PlaceAway
from headrace.gateway.queues.store import StoreAway
from headrace.shells.local.state import StateError

logger = logging.getLogger(__name__)

Result = TypeVar("Result")

AFTER_FAILURE_MILLISECONDS = 1000
_MAY_PASS = (StoreAway, PlaceAway, StateError, OSError)


def end_if_cancelled() -> None:
    """Raise `CancelledError` in a task that was cancelled and has not ended of it.

    Before Python 3.12 `asyncio.wait_for` keeps a cancellation to itself when what it waits for happens at the same moment; NATS's client
    waits by it. A loop that does not look would then go on for ever, and whoever has cancelled it would wait as long.
    """
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError


async def forever(step: Callable[[], Coroutine[Any, Any, None]]) -> Never:
    """One step after the other, until cancelled."""
    while True:
        await step()
        end_if_cancelled()


async def beside(
    work: Callable[[], Coroutine[Any, Any, Never]], *others: Callable[[], Coroutine[Any, Any, Never]]
) -> Never:
    """Do it until cancelled, and the others meanwhile; they end after it, which builds on them."""
    tasks = [asyncio.create_task(other()) for other in others]
    try:
        await work()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    raise AssertionError("it has no end")


async def keep_on(name: str, work: Callable[[], Coroutine[Any, Any, Result]], clock: Clock) -> Result:
    """Do it until it is done, which most never is. Whatever fails is said under that name; after a rest all of the work begins anew."""
    while True:
        try:
            return await work()
        except _MAY_PASS as error:
            logger.warning("%s: %s; it is tried again", name, error)
        except Exception:
            logger.exception("%s: this should not have happened; it is tried again", name)
        end_if_cancelled()
        await clock.rest(AFTER_FAILURE_MILLISECONDS)
