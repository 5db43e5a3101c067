"""The batches or fan-outs of one namespace, as the API server has last told of them: a list in pages, then a watch from there."""

from __future__ import annotations

import asyncio
import logging
import random
from collections import OrderedDict
from collections.abc import Sequence
from typing import NamedTuple, Never

from headrace.api.base import JsonObject
from headrace.api.kinds import OurObject
from headrace.shells.kube.api import Api
from headrace.shells.kube.errors import ApiError, Gone, TransientFailure
from headrace.shells.kube.objects import OtherVersion, parsed
from headrace.shells.kube.resources import Resource

logger = logging.getLogger(__name__)

STREAM_SECONDS = 240
LISTED_AT_ONCE = 100
"""A batch may have a quarter of a mebibyte of records in it: with all of a page in memory, this is 25 MiB."""
_FIRST_BACKOFF_SECONDS, _LAST_BACKOFF_SECONDS = 0.3, 10.0
_TOMBSTONES = 10_000
_RECORD = {"custom_id": "-", "body": {}}


class _Known(NamedTuple):
    """A batch, and the version of it that was read."""

    version: int
    batch: OurObject


class WorkWatch:
    """All objects of a kind, but for their inline records, which would be most of the memory that they take."""

    def __init__(self, api: Api, resource: Resource, namespace: str) -> None:
        self._api, self.resource, self.namespace = api, resource, namespace
        self._known: dict[str, _Known] = {}
        self._gone: OrderedDict[str, None] = OrderedDict()
        """Uids of what was deleted: a late answer does not bring it back."""
        self._version = ""
        """Where to go on watching; empty: list first."""
        self._failures = 0
        self.is_live = False
        """Whether news come in. While they do not, what is known may be old."""

    async def run(self) -> Never:
        """Follow them until cancelled."""
        while True:
            wait = random.uniform(0, _FIRST_BACKOFF_SECONDS)  # a server that is about to stop ends all streams at once
            try:
                if not self._version:
                    await self.refresh()
                self.is_live = True
                await self._follow()
            except Gone:
                self._version = ""
            except (TransientFailure, ApiError) as failure:
                self.is_live, self._version = False, ""  # only a list that has come shows that somebody is there again
                wait = self._backoff(getattr(failure, "retry_after", None))
                logger.warning(
                    "watching %s of %s: %s; again in %.1f s", self.resource.plural, self.namespace, failure, wait
                )
            await asyncio.sleep(wait)

    async def refresh(self) -> None:
        """List them all now. Raises `TransientFailure` and `ApiError`."""
        listed: set[str] = set()
        version = ""
        async for page in self._api.pages(self.resource, self.namespace, limit=LISTED_AT_ONCE):
            version = version or page["metadata"]["resourceVersion"]
            for obj in page["items"]:
                listed.add(obj["metadata"]["name"])
                self.put(obj)
        for name in [
            name for name, known in self._known.items() if name not in listed and known.version <= int(version)
        ]:
            self._bury(self._known.pop(name).batch)
        self._version = version

    def put(self, obj: JsonObject) -> OurObject | None:
        """Take in a version of a batch, unless a newer one is known; None for one of another version of Headrace."""
        try:
            batch = parsed(_lightened(obj), self.resource)
        except OtherVersion as error:
            logger.warning("left out of lists: %s", error)
            return None
        known, version = self._known.get(batch.metadata.name), int(obj["metadata"]["resourceVersion"])
        if batch.metadata.uid not in self._gone and (known is None or known.version < version):
            self._known[batch.metadata.name] = _Known(version, batch)
        return batch

    def find(self, name: str) -> OurObject | None:
        """The batch of that name, if it is known."""
        known = self._known.get(name)
        return known.batch if known is not None else None

    def all(self) -> Sequence[OurObject]:
        """All that are known."""
        return [known.batch for known in self._known.values()]

    async def _follow(self) -> None:
        """Take in what happens, until the server has had enough."""
        async for event in self._api.watch(self.resource, self.namespace, "", self._version, STREAM_SECONDS):
            obj = event["object"]
            self._version = obj["metadata"]["resourceVersion"]
            self._failures = 0
            if event["type"] == "DELETED":
                self._remove(obj)
            elif event["type"] != "BOOKMARK":
                self.put(obj)

    def _remove(self, obj: JsonObject) -> None:
        known = self._known.get(obj["metadata"]["name"])
        if known is not None and known.batch.metadata.uid == obj["metadata"]["uid"]:
            self._bury(self._known.pop(obj["metadata"]["name"]).batch)

    def _bury(self, batch: OurObject) -> None:
        self._gone[batch.metadata.uid] = None
        if len(self._gone) > _TOMBSTONES:
            self._gone.popitem(last=False)

    def _backoff(self, retry_after: float | None) -> float:
        self._failures += 1
        own = min(_FIRST_BACKOFF_SECONDS * 2.0 ** min(self._failures - 1, 30), _LAST_BACKOFF_SECONDS)
        return (own if retry_after is None else retry_after) * random.uniform(1.0, 1.25)


def _lightened(obj: JsonObject) -> JsonObject:
    """The object without the records in it."""
    spec = obj.get("spec", {})
    if "inline" not in spec.get("input", {}):
        return obj
    return {**obj, "spec": {**spec, "input": {**spec["input"], "inline": [_RECORD]}}}
