"""A cluster, as far as a gateway needs it: a place for each namespace, and who of several gateways has the windows."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from urllib.parse import unquote, urlsplit

from kubernetes.aio import client

from headrace.api.asking import RequestRoute
from headrace.api.gateway import ServedModels
from headrace.api.tenancy import TenantLimits
from headrace.core.election import Candidacy, LeaseTerms
from headrace.gateway.clocks import WallClock
from headrace.gateway.gathering.podworkers import PodSettings, PodWorkers
from headrace.gateway.places.bucketfiles import BucketFiles
from headrace.gateway.places.buckets import is_bucket, joined
from headrace.gateway.places.filestore import ABANDONED_SECONDS, FileStore, NoFiles
from headrace.gateway.places.folderfiles import FolderFiles
from headrace.gateway.places.outputs import Outputs
from headrace.gateway.places.there import FIELD_MANAGER, There
from headrace.gateway.queues.leading import Leader, leader
from headrace.gateway.queues.store import Secrets
from headrace.gateway.tenants.reviewed import Reviewed
from headrace.shells.kube.api import Api
from headrace.shells.local.converge import utc_now
from headrace.shells.local.uploads import Uploads

KEYS_OF_POOLS = "pools"
REQUEST_TIMEOUT_SECONDS = 15.0
"""Somebody waits for the answer."""


@dataclass(frozen=True, slots=True)
class Settings:
    """Where things are."""

    namespace: str
    """That of the gateway itself: of its Lease, and of the claims that it has mounted."""
    files: str
    """URI of the folder of uploaded files; each namespace has one in it."""
    mounted: Mapping[str, Path] = field(default_factory=dict)
    """Claims of that namespace that are mounted, each with its folder."""
    identity: str = "gateway"
    """Names this process in the Lease."""
    lease_terms: LeaseTerms = field(default_factory=LeaseTerms)
    pods: PodSettings | None = None
    """Those of warm pools; None where no route has one."""


def check_settings(settings: Settings) -> None:
    """Raise `StateError` when the files have no place at all."""
    found = _files(settings, settings.namespace)
    if isinstance(found, NoFiles):
        raise found.error


class Theres:
    """`Places`. A namespace is watched from when it is first asked for."""

    def __init__(self, api: Api, models: ServedModels, settings: Settings) -> None:
        self.models = models
        self._api, self._settings = api, settings
        self._known: dict[str, There] = {}
        self._watches: list[asyncio.Task[None]] = []

    def of(self, namespace: str) -> There:
        """The same each time."""
        if namespace not in self._known:
            mounted = self._settings.mounted if namespace == self._settings.namespace else {}
            files, outputs = _files(self._settings, namespace), Outputs(mounted)
            place = self._known[namespace] = There(namespace, self._api, self.models, files, outputs)
            self._watches.append(asyncio.create_task(place.watch()))
        return self._known[namespace]

    async def close(self) -> None:
        """Watch no more."""
        for task in self._watches:
            task.cancel()
        await asyncio.gather(*self._watches, return_exceptions=True)


@dataclass(frozen=True, slots=True)
class Cluster:
    """What a gateway is given."""

    places: Theres
    owner: Leader
    workers: Callable[[RequestRoute, Secrets], PodWorkers]


@asynccontextmanager
async def cluster(
    configuration: client.Configuration, models: ServedModels, settings: Settings
) -> AsyncIterator[Cluster]:
    """The cluster while the block lasts. Raises `StateError` when the files have no place."""
    async with AsyncExitStack() as stack:
        api_client = client.ApiClient(configuration)
        stack.push_async_callback(api_client.close)
        api = Api(api_client, REQUEST_TIMEOUT_SECONDS, manager=FIELD_MANAGER)
        places = Theres(api, models, settings)
        stack.push_async_callback(places.close)
        candidacy = Candidacy(settings.identity, settings.lease_terms)
        owner = await stack.enter_async_context(leader(configuration, settings.namespace, candidacy))
        yield Cluster(places, owner, partial(_workers, api, models, settings))


@asynccontextmanager
async def reviewed(configuration: client.Configuration, audiences: tuple[str, ...]) -> AsyncIterator[Reviewed]:
    """Those who are known by tokens of the cluster, each with the limits that are the default."""
    api_client = client.ApiClient(configuration)
    try:
        api = Api(api_client, REQUEST_TIMEOUT_SECONDS, manager=FIELD_MANAGER)
        yield Reviewed(api, WallClock(), audiences, TenantLimits())
    finally:
        await api_client.close()


def _workers(api: Api, models: ServedModels, settings: Settings, route: RequestRoute, kept: Secrets) -> PodWorkers:
    assert settings.pods is not None, "a route has a pool"
    secret = partial(kept.secret, KEYS_OF_POOLS)
    return PodWorkers(api, settings.pods, route, models.served(route), secret, WallClock())


def _files(settings: Settings, namespace: str) -> FileStore:
    """The uploaded files of a namespace. Raises `StateError` when the URI is none."""
    uri, parts = joined(settings.files, namespace), urlsplit(settings.files)
    if is_bucket(uri):
        return BucketFiles(uri, utc_now)
    folder = settings.mounted.get(parts.netloc) if parts.scheme == "claim" else None
    if folder is None:
        return NoFiles(
            f"{settings.files} must be s3://, gs:// or az://, or claim://NAME/PATH of a claim that is mounted here"
        )
    if namespace != settings.namespace:
        return NoFiles(
            f"files of the namespace {namespace} have no place: {settings.files} is a claim of {settings.namespace}, and pods "
            "mount claims of their own namespace alone; the gateway must keep its files in an object store"
        )
    uploads = Uploads(folder / unquote(parts.path).strip("/") / namespace, utc_now)
    return FolderFiles(uploads.clean(ABANDONED_SECONDS), uri)
