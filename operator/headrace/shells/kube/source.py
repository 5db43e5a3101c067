"""Where events come from: a list, then a watch from there; after a gap a list again, which also tells what is gone.

The port is small, so that another watcher can stand behind it.
"""

from __future__ import annotations

import asyncio
import logging
import random
from typing import Protocol

from headrace.api import labels
from headrace.shells.kube.api import Api
from headrace.shells.kube.errors import ApiError, Gone, NotFound, TransientFailure
from headrace.shells.kube.intake import Intake
from headrace.shells.kube.resources import OPTIONAL, PARENTS, SURROUNDINGS, Resource

logger = logging.getLogger(__name__)

FIRST_BACKOFF_SECONDS = 0.3
LAST_BACKOFF_SECONDS = 30.0
STREAM_SECONDS = 300
"""How long one watch may last. A connection can die without a word; no longer than this does nobody notice."""


ABSENT_SECONDS = 15.0
"""How often to look whether a kind of another project has come to the cluster."""


class EventSource(Protocol):
    """Whatever can watch a cluster."""

    async def run(self, intake: Intake) -> None:
        """Feed the intake until cancelled."""


class ListWatch:
    """Lists and watches as every Kubernetes controller does, over the one connection pool of the operator."""

    def __init__(self, api: Api) -> None:
        self._api = api

    async def run(self, intake: Intake) -> None:
        """Feed the intake until cancelled."""
        async with asyncio.TaskGroup() as streams:
            for resource, namespace in intake.places:
                streams.create_task(_Stream(self._api, intake, resource, namespace).run())


async def watch_optional(api: Api, intake: Intake) -> None:
    """Feed the intake with what the cluster may not have, until cancelled; the same whatever else watches."""
    async with asyncio.TaskGroup() as streams:
        for resource, namespace in intake.optional_places:
            streams.create_task(_Stream(api, intake, resource, namespace).run())


def selector(resource: Resource) -> str:
    """Objects of our kinds, what stands around them, and those of other projects are all looked at; of the rest, what we have made."""
    return "" if resource in (*PARENTS, *SURROUNDINGS, *OPTIONAL) else f"{labels.MANAGED_BY}={labels.MANAGER}"


async def list_all(api: Api, intake: Intake, resource: Resource, namespace: str | None) -> str:
    """List one resource, so that the intake knows what there is and what is gone; returns the version to watch from."""
    seen, version = [], ""
    async for page in api.pages(resource, namespace, selector(resource)):
        version = page["metadata"]["resourceVersion"]
        for obj in page["items"]:
            seen.append(obj["metadata"]["uid"])
            intake.event(resource, None, obj)
    intake.listed(resource, namespace, seen, int(version))
    return str(version)


class _Stream:
    """One resource in one namespace, or in all."""

    def __init__(self, api: Api, intake: Intake, resource: Resource, namespace: str | None) -> None:
        self._api, self._intake, self._resource, self._namespace = api, intake, resource, namespace
        self._version = ""
        """Where to go on watching; empty: list first."""
        self._failures = 0

    async def run(self) -> None:
        while True:
            try:
                if not self._version:
                    self._version = await list_all(self._api, self._intake, self._resource, self._namespace)
                await self._watch()
            except Gone:
                self._version = ""
                await asyncio.sleep(self._backoff())
            except (TransientFailure, ApiError) as failure:
                await asyncio.sleep(self._failed(failure))

    async def _watch(self) -> None:
        """Until the server has had enough, which is no failure: then go on from the last event."""
        seconds = random.randint(STREAM_SECONDS * 4 // 5, STREAM_SECONDS)  # not all streams at once
        stream = self._api.watch(self._resource, self._namespace, selector(self._resource), self._version, seconds)
        async for event in stream:
            obj = event["object"]
            if event["type"] != "BOOKMARK":
                self._intake.event(self._resource, event["type"], obj)
            self._version = obj["metadata"]["resourceVersion"]
            self._failures = 0
        # A server that is about to stop would end the next stream at once, and the next.
        await asyncio.sleep(random.uniform(0, FIRST_BACKOFF_SECONDS))

    def _failed(self, failure: TransientFailure | ApiError) -> float:
        """How long to rest. What need not be there may be missing, or be kept from us: nothing else waits for it."""
        optional = self._resource in OPTIONAL and isinstance(failure, ApiError) and failure.status in (403, 404)
        if optional:
            self._version = ""
            self._intake.absent(self._resource, self._namespace)
        wait = ABSENT_SECONDS if optional else self._backoff(getattr(failure, "retry_after", None))
        if not (optional and isinstance(failure, NotFound)):
            logger.warning("watching %s: %s; again in %.1f s", self._resource.plural, failure, wait)
        return wait

    def _backoff(self, retry_after: float | None = None) -> float:
        self._failures += 1
        own = min(FIRST_BACKOFF_SECONDS * 2.0 ** min(self._failures - 1, 30), LAST_BACKOFF_SECONDS)
        return (own if retry_after is None else retry_after) * random.uniform(1.0, 1.25)
