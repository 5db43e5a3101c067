"""What is seen of the workers of a pool in a cluster: their Jobs, and the pods of these."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence
from typing import Any

from headrace.api.base import JsonObject
from headrace.core.asking.poolpods import PoolPod
from headrace.shells.kube.api import Api
from headrace.shells.kube.cache import controller_uid
from headrace.shells.kube.errors import ApiError, TransientFailure
from headrace.shells.kube.resources import JOBS, PODS
from headrace.shells.kube.watched import Watched

logger = logging.getLogger(__name__)

_REST_SECONDS = 1.0


class PodSight:
    """Of one pool. It is followed from `begin` to `close`."""

    def __init__(self, api: Api, namespace: str, selector: str) -> None:
        self._api, self._namespace = api, namespace
        self._jobs, self._pods = (Watched(api, resource, namespace, selector) for resource in (JOBS, PODS))
        self._following: list[asyncio.Task[None]] = []
        self._deleting: dict[str, asyncio.Task[None]] = {}
        """By uid."""

    async def begin(self) -> None:
        """Look what there is, and go on looking. Raises `TransientFailure` and `ApiError`."""
        if self._following:
            return
        await self._jobs.refresh()
        await self._pods.refresh()
        self._following = [asyncio.create_task(one.run()) for one in (self._jobs, self._pods)]

    async def close(self) -> None:
        """Look no more; what was to be deleted is left to whoever looks next."""
        tasks = [*self._following, *self._deleting.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._following, self._deleting = [], {}

    def jobs(self) -> Sequence[JsonObject]:
        """Those that nobody here is deleting."""
        there = {job["metadata"]["uid"] for job in self._jobs.all()}
        self._deleting = {uid: it for uid, it in self._deleting.items() if uid in there or not it.done()}
        return [job for job in self._jobs.all() if job["metadata"]["uid"] not in self._deleting]

    def job(self, made: Mapping[str, Any]) -> JsonObject | None:
        """A Job as it is now; None once it is gone."""
        return self._jobs.find(dict(made))

    def pods(self, job: Mapping[str, Any]) -> list[PoolPod]:
        """The pods that a Job has."""
        uid = job["metadata"]["uid"]
        return [PoolPod.from_object(pod) for pod in self._pods.all() if controller_uid(pod) == uid]

    async def changed(self, seconds: float) -> None:
        """Wait until something may have changed, and no longer than so."""
        await self._pods.changed(seconds)

    def delete(self, job: Mapping[str, Any]) -> None:
        """Have a Job deleted, and its pod told to stop; it is tried until it is done."""
        name, uid = job["metadata"]["name"], job["metadata"]["uid"]
        if uid not in self._deleting:
            self._deleting[uid] = asyncio.create_task(self._delete(name, uid))

    async def _delete(self, name: str, uid: str) -> None:
        while True:
            try:
                await self._api.delete(JOBS, self._namespace, name, uid)
            except (TransientFailure, ApiError) as error:
                logger.warning("deleting the worker %s: %s; it is tried again", name, error)
                await asyncio.sleep(_REST_SECONDS)
            else:
                return
