"""kopf as the watcher, in place of `ListWatch`.

It keeps its streams alive and renews credentials; it makes no decision, keeps no state in annotations, and adds no finalizer. What it
cannot tell, such as an object that was deleted during a gap, a list finds once in a while.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable
from typing import Any

import kopf
from kubernetes.aio import client

from headrace.api import labels
from headrace.shells.kube.api import Api
from headrace.shells.kube.errors import ApiError, TransientFailure
from headrace.shells.kube.intake import Intake
from headrace.shells.kube.resources import WATCHED, Resource
from headrace.shells.kube.source import list_all, selector

logger = logging.getLogger(__name__)


RESYNC_SECONDS = 300.0


class KopfSource:
    """kopf's streams, and our lists."""

    def __init__(
        self,
        api: Api,
        configuration: client.Configuration,
        namespaces: tuple[str, ...],
        stopped: Callable[[], None],
        resync_seconds: float = RESYNC_SECONDS,
    ) -> None:
        """Watch some namespaces, or without any the whole cluster.

        kopf takes the signals of the process for itself: `stopped` is called when one has come.
        """
        self._api, self._configuration, self._namespaces = api, configuration, namespaces
        self._stopped, self._resync_seconds = stopped, resync_seconds

    async def run(self, intake: Intake) -> None:
        """Feed the intake until cancelled."""
        registry = kopf.OperatorRegistry()
        for resource in WATCHED:
            watch = kopf.on.event(
                resource.group, resource.version, resource.plural, id=f"watch-{resource.plural}", registry=registry
            )
            watch(_handler(resource, intake))
        kopf.on.login(registry=registry)(self._login)
        logging.getLogger("kopf.objects").setLevel(logging.WARNING)  # one line an event would be most of the log
        scope: dict[str, Any] = {"namespaces": self._namespaces} if self._namespaces else {"clusterwide": True}
        async with asyncio.TaskGroup() as group:
            group.create_task(self._resync(intake))
            await kopf.operator(registry=registry, settings=_settings(), standalone=True, **scope)
            self._stopped()

    async def _resync(self, intake: Intake) -> None:
        while True:
            try:
                for resource, namespace in intake.places:
                    await list_all(self._api, intake, resource, namespace)
                wait = self._resync_seconds
            except (TransientFailure, ApiError) as failure:
                wait = 2.0
                logger.warning("listing: %s; again in %.0f s", failure, wait)
            await asyncio.sleep(wait * random.uniform(0.8, 1.2))

    async def _login(self, **_: Any) -> kopf.ConnectionInfo:
        found = self._configuration
        token = await found.get_api_key_with_prefix("BearerToken") or ""
        return kopf.ConnectionInfo(
            server=found.host,
            ca_path=found.ssl_ca_cert,
            insecure=not found.verify_ssl,
            token=token.split()[-1] if token else None,  # it comes with its scheme
            certificate_path=found.cert_file,
            private_key_path=found.key_file,
        )


def _handler(resource: Resource, intake: Intake) -> Callable[..., Awaitable[None]]:
    async def on_event(event: Any, **_: Any) -> None:
        intake.event(resource, event["type"], dict(event["object"]))

    return on_event


def _settings() -> kopf.OperatorSettings:
    settings = kopf.OperatorSettings()
    settings.peering.standalone = True
    settings.posting.enabled = False
    settings.scanning.disabled = True  # no rights on namespaces and CRDs are needed then
    settings.networking.request_timeout = 30
    settings.networking.connect_timeout = 10
    settings.watching.inactivity_timeout = 300
    settings.persistence.finalizer = f"{labels.GROUP}/finalizer"
    for resource in WATCHED:
        if selector(resource):
            name = f"{resource.plural}.{resource.group}" if resource.group else resource.plural
            settings.watching.label_selectors[name] = selector(resource)
    return settings
