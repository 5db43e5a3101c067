"""Connections to a NATS server: one that is lost comes back by itself, and what is asked of it meanwhile fails in one way."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

import nats
from nats.aio.client import Client
from nats.errors import Error as NatsError
from nats.js.errors import APIError

from headrace.gateway.queues.natscredentials import opening
from headrace.gateway.queues.natsserver import PATIENCE_SECONDS, Address, NoServer
from headrace.gateway.queues.store import StoreAway, StoreFull

logger = logging.getLogger(__name__)

_FULL = (10023, 10047)
"""Error codes of a server that keeps as much as it may."""
_RECONNECT_SECONDS = 0.25


@asynccontextmanager
async def connection(address: Address, patience_seconds: float = PATIENCE_SECONDS) -> AsyncIterator[Client]:
    """A connection while the block lasts. A server that goes away is waited for. Raises `NoServer` when it is not there now."""
    try:
        async with asyncio.timeout(patience_seconds):
            client = await nats.connect(
                address.url,
                name="headrace-gateway",
                **opening(address),
                max_reconnect_attempts=-1,
                reconnect_time_wait=_RECONNECT_SECONDS,
                error_cb=_told,
            )
    except (TimeoutError, NatsError, OSError) as error:
        why = str(error) or "it does not answer"
        raise NoServer(f"there is no NATS server that lets us in at {address.host}: {why}") from error
    try:
        yield client
    finally:
        await client.close()


@contextmanager
def away() -> Iterator[None]:
    """What a server that does not answer raises, as one thing: `StoreAway`; `StoreFull` where it says that this is why."""
    try:
        yield
    except APIError as error:
        if error.err_code in _FULL or "no space" in (error.description or ""):
            raise StoreFull(f"NATS has no room: {error.description}") from error
        raise StoreAway(f"NATS does not answer: {error}") from error
    except (TimeoutError, NatsError, OSError) as error:
        raise StoreAway(f"NATS does not answer: {str(error) or type(error).__name__}") from error


async def _told(error: Exception) -> None:
    logger.warning("NATS: %s", str(error) or type(error).__name__)
