"""The candidate for the Lease: it is in time whatever the loop of the process is busy with, and gives the Lease back."""

from __future__ import annotations

import asyncio
import threading
from copy import deepcopy
from typing import cast

import pytest

from headrace.api.base import JsonObject
from headrace.core.election import Candidacy, LeaseTerms
from headrace.shells.kube.api import Api
from headrace.shells.kube.aside import Aside
from headrace.shells.kube.elector import Elector
from headrace.shells.kube.errors import NotFound
from headrace.shells.kube.resources import Resource

PATIENCE_SECONDS = 180.0
HASTY = Candidacy("me", LeaseTerms(lease_seconds=7200, give_up_seconds=3600, renew_seconds=0.001))


class Leases:
    """An API server that knows nothing but one Lease."""

    def __init__(self) -> None:
        self.lease: JsonObject | None = None
        self.written = threading.Semaphore(0)
        self.threads = set[str]()

    async def get(self, _: Resource, __: str, name: str) -> JsonObject:
        if self.lease is None:
            raise NotFound(404, name)
        return deepcopy(self.lease)

    async def create(self, _: Resource, __: str, body: JsonObject) -> JsonObject:
        return self._write(body, 1)

    async def replace(self, _: Resource, __: str, body: JsonObject) -> JsonObject:
        return self._write(body, int(body["metadata"]["resourceVersion"]) + 1)

    def _write(self, body: JsonObject, version: int) -> JsonObject:
        self.lease = deepcopy(body) | {"metadata": {**body["metadata"], "resourceVersion": str(version)}}
        self.threads.add(threading.current_thread().name)
        self.written.release()
        return deepcopy(self.lease)

    @property
    def holder(self) -> str:
        return str(self.lease["spec"]["holderIdentity"]) if self.lease is not None else ""


def test_keep_renews_while_the_loop_of_the_process_is_busy() -> None:
    leases = Leases()

    async def story() -> None:
        async with Aside("lease") as aside:
            elector = Elector(cast("Api", leases), "here", HASTY, aside)
            await elector.acquire()
            keeping = asyncio.create_task(elector.keep())
            await asyncio.sleep(0)
            for _ in range(5):  # the loop does nothing else meanwhile
                assert leases.written.acquire(timeout=PATIENCE_SECONDS)
            assert elector.leads
            keeping.cancel()
            with pytest.raises(asyncio.CancelledError):
                await keeping
            await elector.release()
            assert not elector.leads

    asyncio.run(story())
    assert leases.threads == {"lease"}
    assert leases.holder == ""


def test_keep_returns_when_another_has_the_lease() -> None:
    leases = Leases()

    async def story() -> None:
        async with Aside("lease") as aside:
            elector = Elector(cast("Api", leases), "here", HASTY, aside)
            await elector.acquire()
            assert leases.lease is not None
            leases.lease["spec"]["holderIdentity"] = "another"
            await elector.keep()
            assert not elector.leads
            await elector.release()

    asyncio.run(story())
    assert leases.holder == "another"


def test_aside_cancels_there_what_is_cancelled_here() -> None:
    ended = threading.Event()

    async def for_ever() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    async def story() -> None:
        async with Aside("aside") as aside:
            work = asyncio.create_task(aside.run(for_ever()))
            while not await aside.run(_tasks_beside()):
                await asyncio.sleep(0)
            work.cancel()
            assert await asyncio.to_thread(ended.wait, PATIENCE_SECONDS)

    asyncio.run(story())


async def _tasks_beside() -> int:
    return len(asyncio.all_tasks()) - 1
