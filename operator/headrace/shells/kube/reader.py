"""Reading the output of a batch from outside the cluster: a pod beside it, for as long as that takes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from kubernetes.aio import client

from headrace.api import labels
from headrace.api.base import JsonObject
from headrace.api.results import ResultsReport, parse_results_report
from headrace.core.reader import Reader, Start, last_warning, start_of
from headrace.shells.kube.api import Api
from headrace.shells.kube.errors import ApiError, TransientFailure
from headrace.shells.kube.execute import Command, Take, execute
from headrace.shells.kube.resources import PODS, Resource

CORE_EVENTS = Resource("", "v1", "events", "Event")
START_SECONDS = 120.0
"""How long a pod may take to start: an image of some gigabytes is pulled in that time, or is on its way."""
LOOK_SECONDS = 0.5
TELL_SECONDS = 5.0
"""After which whoever waits is told what for."""
_KEPT_BYTES = 65536


class NoReader(Exception):
    """The pod that was to read did not start, or did not end well; the message says why."""


class ReaderPod:
    """One reader's pod, from its creation to its deletion."""

    def __init__(self, api_client: client.ApiClient, api: Api, reader: Reader, tell: Callable[[str], None]) -> None:
        self._api_client, self._api, self._reader, self._tell = api_client, api, reader, tell
        self._namespace: str = reader.pod["metadata"]["namespace"]
        self._name: str = reader.pod["metadata"]["name"]

    async def start(self) -> None:
        """Make it, and return when it runs. Raises `NoReader` with what its status or its events say."""
        await self._api.create(PODS, self._namespace, self._reader.pod)
        clock = asyncio.get_running_loop().time
        began, told = clock(), ""
        while not (found := start_of(await self._api.get(PODS, self._namespace, self._name))).running:
            waited = clock() - began
            if found.hopeless or waited > START_SECONDS:
                raise NoReader(await self._excuse(found, waited))
            if found.why not in ("", told) and waited > TELL_SECONDS:
                told = found.why
                self._tell(f"waiting for the pod {self._name}: {told}")
            await asyncio.sleep(LOOK_SECONDS)

    async def run(self, words: Sequence[str], out: Take) -> ResultsReport:
        """Run `headrace_worker results` in it. Raises `NoReader` when that could not even say what went wrong."""
        said = bytearray()

        def keep(data: bytes) -> None:
            said.extend(data)
            del said[:-_KEPT_BYTES]

        command = Command(self._namespace, self._name, labels.CONTAINER, words)
        exit_code = await execute(self._api_client, command, out, keep)
        report = parse_results_report(bytes(said))
        if report is None:
            last = said.decode(errors="replace").strip().splitlines()[-1:]
            raise NoReader(
                f"headrace_worker results ended with exit code {exit_code}: {''.join(last) or 'without a word'}"
            )
        return report

    async def delete(self) -> None:
        """Make it go; one that was never made, or is gone, is left in peace."""
        await self._api.delete(PODS, self._namespace, self._name, None)

    async def _excuse(self, found: Start, waited: float) -> str:
        why = found.why
        if not found.hopeless:
            why = await self._warning() or why or "nobody has said why"
        slow = "" if found.hopeless else f" within {waited:.0f} s"
        return f"the pod {self._name}, which was to read the output, has not started{slow}: {why}"

    async def _warning(self) -> str:
        """What the newest warning about the pod says. Whoever may make pods need not be allowed to read events."""
        events: list[JsonObject] = []
        try:
            async for page in self._api.pages(
                CORE_EVENTS, self._namespace, fields=f"involvedObject.name={self._name},involvedObject.kind=Pod"
            ):
                events += page["items"]
        except (ApiError, TransientFailure):
            return ""
        return last_warning(events)
