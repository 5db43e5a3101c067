"""Objects of a kind that have some labels, as the API server has last told of them: a list, then a watch from there."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Sequence
from contextlib import suppress
from typing import Never

from headrace.api.base import JsonObject
from headrace.shells.kube.api import Api
from headrace.shells.kube.errors import ApiError, Gone, TransientFailure
from headrace.shells.kube.resources import Resource

logger = logging.getLogger(__name__)

STREAM_SECONDS = 240
_FIRST_BACKOFF_SECONDS, _LAST_BACKOFF_SECONDS = 0.3, 10.0


class Watched:
    """Few objects in one namespace, each as a whole."""

    def __init__(self, api: Api, resource: Resource, namespace: str, selector: str) -> None:
        self._api, self.resource, self._namespace, self._selector = api, resource, namespace, selector
        self._known: dict[str, JsonObject] = {}
        self._version = ""
        """Where to go on watching; empty: list first."""
        self._failures = 0
        self._changed = asyncio.Event()

    async def run(self) -> Never:
        """Follow them until cancelled."""
        while True:
            wait = random.uniform(0, _FIRST_BACKOFF_SECONDS)  # a server that is about to stop ends all streams at once
            try:
                if not self._version:
                    await self.refresh()
                await self._follow()
            except Gone:
                self._version = ""
            except (TransientFailure, ApiError) as failure:
                wait = self._backoff(getattr(failure, "retry_after", None))
                logger.warning(
                    "watching %s of %s: %s; again in %.1f s", self.resource.plural, self._namespace, failure, wait
                )
            await asyncio.sleep(wait)

    async def refresh(self) -> None:
        """List them all now. Raises `TransientFailure` and `ApiError`."""
        found: dict[str, JsonObject] = {}
        version = ""
        async for page in self._api.pages(self.resource, self._namespace, self._selector):
            version = page["metadata"]["resourceVersion"]
            found |= {obj["metadata"]["name"]: obj for obj in page["items"]}
        self._known, self._version = found, version
        self._tell()

    def find(self, made: JsonObject) -> JsonObject | None:
        """An object as it is now; None once it is gone. One of which nothing was told yet is as it was made."""
        name, version = made["metadata"]["name"], int(made["metadata"]["resourceVersion"])
        known = self._known.get(name)
        if known is None and (not self._version or int(self._version) < version):
            return made
        return known if known is not None and known["metadata"]["uid"] == made["metadata"]["uid"] else None

    def all(self) -> Sequence[JsonObject]:
        """All that are known."""
        return [*self._known.values()]

    async def changed(self, seconds: float) -> None:
        """Wait until something has changed, and no longer than so."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._changed.wait()

    async def _follow(self) -> None:
        """Take in what happens, until the server has had enough."""
        stream = self._api.watch(self.resource, self._namespace, self._selector, self._version, STREAM_SECONDS)
        async for event in stream:
            obj = event["object"]
            self._version, self._failures = obj["metadata"]["resourceVersion"], 0
            if event["type"] == "DELETED":
                self._known.pop(obj["metadata"]["name"], None)
            elif event["type"] != "BOOKMARK":
                self._known[obj["metadata"]["name"]] = obj
            self._tell()

    def _tell(self) -> None:
        """Whoever waits goes on; who waits from now on waits for the next change."""
        self._changed.set()
        self._changed = asyncio.Event()

    def _backoff(self, retry_after: float | None) -> float:
        self._failures += 1
        own = min(_FIRST_BACKOFF_SECONDS * 2.0 ** min(self._failures - 1, 30), _LAST_BACKOFF_SECONDS)
        return (own if retry_after is None else retry_after) * random.uniform(1.0, 1.25)
