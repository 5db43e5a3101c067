"""What becomes of batches, as it happens: a list, then a watch from there, taken up again whenever it breaks."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncGenerator
from dataclasses import dataclass

from headrace.api.base import JsonObject
from headrace.shells.kube.api import Api
from headrace.shells.kube.errors import Gone, TransientFailure
from headrace.shells.kube.resources import BATCHES, Resource

STREAM_SECONDS = 240
PATIENCE_SECONDS = 120.0
"""How long an API server may be away before it is given up."""
_BACKOFF_SECONDS = 1.0
_STEADY_SECONDS = 60.0
"""A stream that held this long was a good one, even if nothing was said on it; no attempt to open one takes so long."""


@dataclass(frozen=True, slots=True)
class Change:
    """A batch as it is now, or as it was when it was deleted."""

    obj: JsonObject
    deleted: bool = False

    @property
    def uid(self) -> str:
        """Of the batch."""
        return str(self.obj["metadata"]["uid"])


class Changes:
    """The objects of a kind in a namespace, or in all of them; or one of them."""

    def __init__(self, api: Api, namespace: str | None, name: str | None = None, resource: Resource = BATCHES) -> None:
        self._api, self._namespace, self.resource = api, namespace, resource
        self._fields = f"metadata.name={name}" if name is not None else ""
        self._known: dict[str, JsonObject] = {}
        self._version = ""
        """Where to go on watching; empty: list first."""

    async def now(self) -> list[JsonObject]:
        """All of them as they are now."""
        found: list[JsonObject] = []
        async for page in self._api.pages(self.resource, self._namespace, fields=self._fields):
            found += page["items"]
            self._version = page["metadata"]["resourceVersion"]
        return found

    async def follow(self) -> AsyncGenerator[Change]:
        """Each as it is now, and from then on each change, for ever. Raises `TransientFailure` when the server stays away."""
        clock = asyncio.get_running_loop().time
        listed, away_since = False, None
        while True:
            began = clock()
            try:
                async for change in self._round():
                    listed, away_since = True, None
                    yield change
                listed, away_since = True, None
            except Gone:
                self._version = ""
            except TransientFailure:
                if away_since is None or clock() - began > _STEADY_SECONDS:
                    away_since = clock()
                if not (listed or self._version) or clock() - away_since > PATIENCE_SECONDS:
                    raise
                await asyncio.sleep(random.uniform(_BACKOFF_SECONDS, 2 * _BACKOFF_SECONDS))

    async def _round(self) -> AsyncGenerator[Change]:
        """Until the stream ends."""
        if not self._version:
            for change in self._compared(await self.now()):
                yield change
        stream = self._api.watch(self.resource, self._namespace, "", self._version, STREAM_SECONDS, self._fields)
        async for event in stream:
            obj = event["object"]
            self._version = obj["metadata"]["resourceVersion"]
            if event["type"] == "BOOKMARK":
                continue
            deleted = event["type"] == "DELETED"
            if deleted:
                self._known.pop(obj["metadata"]["uid"], None)
            else:
                self._known[obj["metadata"]["uid"]] = obj
            yield Change(obj, deleted)

    def _compared(self, found: list[JsonObject]) -> list[Change]:
        """What a list shows that was not known: objects, newer versions, and what is gone."""
        now = {obj["metadata"]["uid"]: obj for obj in found}
        gone = [Change(obj, deleted=True) for uid, obj in self._known.items() if uid not in now]
        news = [Change(obj) for uid, obj in now.items() if self._known.get(uid) != obj]
        self._known = now
        return [*gone, *news]
