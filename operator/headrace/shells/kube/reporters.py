"""Live progress: what running workers say on their metrics ports. Nothing of it is kept anywhere but here."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable

import aiohttp

from headrace.api import labels
from headrace.api.base import JsonObject
from headrace.api.worker import Report, Role, parse_report
from headrace.shells.kube.cache import Cache, Parent, owner_of
from headrace.shells.kube.resources import PODS

INTERVAL_SECONDS = 4.0
TIMEOUT_SECONDS = 2.0
AT_ONCE = 64
MOST_BYTES = 65536
"""More than any report has: a pod can answer with what it likes."""


class Reporters:
    """Asks every running worker how far it is, about every four seconds."""

    def __init__(self, cache: Cache, port: int, changed: Callable[[Parent], None]) -> None:
        self._cache, self._port, self._changed = cache, port, changed
        self.live: dict[str, Report] = {}
        """The last word of each running pod, by its uid."""

    async def run(self) -> None:
        """Ask until cancelled."""
        timeout = aiohttp.ClientTimeout(total=TIMEOUT_SECONDS)
        async with aiohttp.ClientSession(timeout=timeout) as session:
            while True:
                pods = [pod for pod in self._cache.all(PODS) if _running(pod)]
                await self._ask_all(session, pods)
                self._forget({pod["metadata"]["uid"] for pod in pods})
                await asyncio.sleep(INTERVAL_SECONDS)

    async def _ask_all(self, session: aiohttp.ClientSession, pods: Iterable[JsonObject]) -> None:
        gate = asyncio.Semaphore(AT_ONCE)

        async def ask(pod: JsonObject) -> None:
            async with gate:
                await self._ask(session, pod)

        await asyncio.gather(*(ask(pod) for pod in pods))

    async def _ask(self, session: aiohttp.ClientSession, pod: JsonObject) -> None:
        try:
            url = f"http://{_host(pod)}:{self._port}/progress"
            async with session.get(url, allow_redirects=False) as response:
                report = parse_report(await response.content.read(MOST_BYTES))
        except (aiohttp.ClientError, TimeoutError, OSError):
            return  # not up yet, or gone: the next look will tell, and the last word is in the pod's status
        uid, key = pod["metadata"]["uid"], owner_of(pod)
        if report is not None and key is not None and self.live.get(uid) != report:
            self.live[uid] = report
            self._changed(key)

    def _forget(self, alive: set[str]) -> None:
        for uid in self.live.keys() - alive:
            del self.live[uid]


def _running(pod: JsonObject) -> bool:
    is_run = pod["metadata"]["labels"].get(labels.ROLE) == Role.RUN
    return is_run and pod.get("status", {}).get("phase") == "Running" and bool(pod["status"].get("podIP"))


def _host(pod: JsonObject) -> str:
    address = pod["status"]["podIP"]
    return f"[{address}]" if ":" in address else str(address)
