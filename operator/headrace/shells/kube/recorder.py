"""Events are posted beside the work, one after the other: nothing waits for them, and a burst of them takes nothing from the work."""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections import deque
from datetime import datetime

from headrace.api import labels
from headrace.api.base import JsonObject
from headrace.api.meta import Named
from headrace.core.plan import Event
from headrace.shells.kube.api import Api
from headrace.shells.kube.errors import ApiError, Conflict, LeaseLost, TransientFailure
from headrace.shells.kube.resources import EVENTS

logger = logging.getLogger(__name__)

MOST_WAITING = 10_000
"""Then the oldest are dropped: news is worth more."""
TRIES = 5
REST_SECONDS = 1.0


class Recorder:
    """A line of events, and who posts them."""

    def __init__(self, api: Api, identity: str) -> None:
        self._api, self._identity = api, identity
        self._line: deque[JsonObject] = deque(maxlen=MOST_WAITING)
        self._more, self._empty = asyncio.Event(), asyncio.Event()
        self._empty.set()

    def say(self, about: Named, events: tuple[Event, ...], now: datetime) -> None:
        """Have these events posted some time soon."""
        for event in events:
            if len(self._line) == MOST_WAITING:
                logger.warning("an event is dropped: %d wait to be posted", MOST_WAITING)
            self._line.append(self._manifest(about, event, now))
        if self._line:
            self._empty.clear()
            self._more.set()

    async def run(self) -> None:
        """Post until cancelled."""
        while True:
            await self._more.wait()
            self._more.clear()
            while self._line:
                await self._post(self._line.popleft())
            self._empty.set()

    async def finish(self) -> None:
        """Wait until all is posted that has been said."""
        await self._empty.wait()

    async def _post(self, event: JsonObject) -> None:
        name = f"the event {event['reason']} about {event['regarding']['name']}"
        for _ in range(TRIES):
            try:
                await self._api.create(EVENTS, event["metadata"]["namespace"], event)
                return
            except (Conflict, LeaseLost):
                return  # it was posted before we died, or is for the next leader to post
            except TransientFailure as failure:
                logger.warning("%s: %s", name, failure)
                await asyncio.sleep(failure.retry_after or REST_SECONDS)
            except ApiError as error:
                logger.warning("%s is lost: %s", name, error)
                return
        logger.warning("%s is lost: tried %d times", name, TRIES)

    def _manifest(self, about: Named, event: Event, now: datetime) -> JsonObject:
        """Its name follows from what it says and from the version of the object that it was seen in: it is posted once."""
        metadata = about.metadata
        essence = f"{metadata.uid}/{metadata.resource_version}/{event.reason}/{event.message}"
        name = f"{metadata.name}.{hashlib.sha256(essence.encode()).hexdigest()[:16]}"
        regarding = {
            "apiVersion": labels.API_VERSION,
            "kind": about.kind,
            "name": metadata.name,
            "namespace": metadata.namespace,
            "uid": metadata.uid,
        }
        return {
            "apiVersion": EVENTS.api_version,
            "kind": EVENTS.kind,
            "metadata": {"name": name, "namespace": metadata.namespace},
            "regarding": regarding,
            "type": event.type,
            "reason": event.reason,
            "note": event.message[:1024],
            "action": event.reason,
            "eventTime": now.strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
            "reportingController": f"{labels.GROUP}/operator",
            "reportingInstance": self._identity[:128],
        }
