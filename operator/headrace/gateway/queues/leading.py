"""Who has the windows of all routes, where several gateways share one queue: the one that has the Lease.

All of them accept, and all of them answer. Two that have the windows at once would not harm a request, for what decides is the version of
its record; but each would take the queue away from the other. So one has them, and gives the Lease back when it stops.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Never

from kubernetes.aio import client

from headrace.core.election import Candidacy
from headrace.gateway.queues.taking import Work
from headrace.shells.kube.api import Api
from headrace.shells.kube.aside import Aside
from headrace.shells.kube.elector import Elector

LEASE_NAME = "headrace-gateway"


class Leader:
    """An `Owner`, while it has the Lease."""

    def __init__(self, elector: Elector) -> None:
        self._elector = elector

    async def own(self, work: Work) -> Never:
        """Do it while the Lease is ours, and begin again when it is ours again."""
        try:
            while True:
                await self._elector.acquire()
                async with asyncio.TaskGroup() as group:
                    task = group.create_task(work())
                    await self._elector.keep()
                    task.cancel()
        finally:
            await self._elector.release()


@asynccontextmanager
async def leader(configuration: client.Configuration, namespace: str, candidacy: Candidacy) -> AsyncIterator[Leader]:
    """One that competes for the Lease in a namespace, on a loop and over a connection of its own."""
    async with Aside("lease") as aside:
        api_client = await aside.run(_connected(configuration))
        try:
            yield Leader(Elector(Api(api_client), namespace, candidacy, aside, LEASE_NAME))
        finally:
            await aside.run(api_client.close())


async def _connected(configuration: client.Configuration) -> client.ApiClient:
    return client.ApiClient(configuration)
