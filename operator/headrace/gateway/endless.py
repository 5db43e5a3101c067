"""Work that goes on whatever happens to it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from headrace.gateway.clocks import Clock
from headrace.gateway.places.place import PlaceAway
from headrace.gateway.queues.store import StoreAway
from headrace.shells.local.state import StateError

logger = logging.getLogger(__name__)

Result = TypeVar("Result")

AFTER_FAILURE_MILLISECONDS = 1000
_MAY_PASS = (StoreAway, PlaceAway, StateError, OSError)


async def keep_on(name: str, work: Callable[[], Coroutine[Any, Any, Result]], clock: Clock) -> Result:
    """Do it until it is done, which most never is. Whatever fails is said under that name; after a rest all of the work begins anew."""
    while True:
        try:
            return await work()
        except _MAY_PASS as error:
            logger.warning("%s: %s; it is tried again", name, error)
        except Exception:
            logger.exception("%s: this should not have happened; it is tried again", name)
        await clock.rest(AFTER_FAILURE_MILLISECONDS)
