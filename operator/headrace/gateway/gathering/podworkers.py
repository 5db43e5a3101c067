"""The workers of a warm pool as pods of a cluster. They outlive the gateway that has started them: the next leader finds them."""

from __future__ import annotations

import secrets
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import partial

from headrace.api.asking import RequestRoute
from headrace.api.base import JsonObject
from headrace.api.gateway import ServedModel
from headrace.core.asking.pool import pool_batch
from headrace.core.asking.poolpods import can_serve, is_outdated, key_of, named, pool_job, selector, version_of
from headrace.core.observed import Installation
from headrace.gateway.clocks import Clock
from headrace.gateway.gathering.podsight import PodSight
from headrace.gateway.gathering.podworker import PodWorker
from headrace.gateway.gathering.poolworkers import NotStarted
from headrace.gateway.places.place import PlaceAway
from headrace.shells.kube.api import Api
from headrace.shells.kube.errors import ApiError, NotFound, TransientFailure
from headrace.shells.kube.resources import CONFIG_MAPS, JOBS
from headrace.shells.local.state import StateError

Secret = Callable[[], Awaitable[str]]
"""What the keys of all workers are made of; the same each time, whoever asks. Raises `StoreAway`."""


@dataclass(frozen=True, slots=True)
class PodSettings:
    """Where the pods of all pools are, and what they are like."""

    namespace: str
    gateway: str
    """The namespace of the gateway itself."""
    installation: Installation
    owner: str | None = None
    """The ConfigMap beside them that all of them are deleted with."""


class PodWorkers:
    """`Workers` of one route."""

    def __init__(
        self, api: Api, settings: PodSettings, route: RequestRoute, served: ServedModel, secret: Secret, clock: Clock
    ) -> None:
        self._api, self._settings, self._route, self._secret_of = api, settings, route, secret
        self._batch, self._clock = pool_batch(route, served, settings.namespace), clock
        self._sight = PodSight(api, settings.namespace, selector(route, settings.gateway))
        self._known: dict[str, PodWorker] = {}
        """Those that somebody here tells of requests, by name."""
        self._job: JsonObject
        self._secret = self._version = ""

    async def begin(self) -> None:
        """Find out what workers are told, and which there are. Raises `PlaceAway`, `StateError` and `StoreAway`."""
        self._secret = await self._secret_of()
        try:
            owner, settings = await self._owner(), self._settings
            self._job = pool_job(self._batch, settings.installation, self._route, settings.gateway, owner)
            await self._sight.begin()
        except TransientFailure as error:
            raise PlaceAway(f"the API server does not answer: {error}", error.retry_after) from error
        except ApiError as error:
            raise StateError("Refused", str(error)) from error
        self._version = version_of(self._job, self._secret)

    def found(self) -> Sequence[PodWorker]:
        """Those of an earlier leader. Of those that were told something else than a new one would be, none is; they are deleted."""
        workers = []
        for job in self._sight.jobs():
            if job["metadata"]["name"] in self._known or not can_serve(job, self._sight.pods(job)):
                continue
            if is_outdated(job, self._version):
                self._sight.delete(job)
            else:
                workers.append(self._worker(job))
        return workers

    async def start(self) -> PodWorker:
        """Create a Job. Raises `NotStarted`; should it have been created all the same, it is found."""
        name = f"pool-{self._route.name}-{secrets.token_hex(3)}"
        try:
            made = await self._api.create(JOBS, self._settings.namespace, named(self._job, name, self._secret))
        except TransientFailure as error:
            raise NotStarted("ApiServerAway", str(error)) from error
        except ApiError as error:
            raise NotStarted("Refused", error.said.get("message") or error.message) from error
        return self._worker(made)

    async def close(self) -> None:
        """Look no more."""
        await self._sight.close()
        self._known.clear()

    def _worker(self, job: JsonObject) -> PodWorker:
        name = job["metadata"]["name"]
        gone = partial(self._known.pop, name, None)
        worker = PodWorker(job, self._sight, key_of(self._secret, name), self._clock, gone)
        self._known[name] = worker
        return worker

    async def _owner(self) -> JsonObject | None:
        name = self._settings.owner
        if name is None:
            return None
        try:
            found = await self._api.get(CONFIG_MAPS, self._settings.namespace, name)
        except NotFound as error:
            message = (
                f"there is no ConfigMap {name} in {self._settings.namespace}, which the workers of pools belong to"
            )
            raise StateError("NoOwner", message) from error
        return {"apiVersion": "v1", "kind": "ConfigMap", "name": name, "uid": found["metadata"]["uid"]}
