"""A worker of a warm pool in a pod of its own, at the other end of a socket.

What is said on the socket is what is said on the pipes of a worker on this machine. A connection that breaks ends nothing but itself: the
worker is found again, and told anew. That it has ended is known from its pod.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import suppress
from datetime import datetime
from typing import Any

from headrace.api.worker import ExitCode, Failure, Opening
from headrace.core.asking.poolpods import KILLED, LOST_MILLISECONDS, SERVE_PORT, PoolPod, end_of, is_over
from headrace.gateway.clocks import Clock
from headrace.gateway.gathering.podsight import PodSight
from headrace.gateway.gathering.poolworkers import End

_LONGEST_LINE_BYTES = 256 * 1024 * 1024
_CONNECT_SECONDS = 5.0
_TRY_SECONDS = 0.5
_KEEPALIVE = {"TCP_KEEPIDLE": 10, "TCP_KEEPINTVL": 5, "TCP_KEEPCNT": 3}
"""A node that has died says nothing about it."""
_DRAINED = End(int(ExitCode.DRAINED))

_Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class PodWorker:
    """One of them, for as long as it can be told anything."""

    def __init__(
        self, job: Mapping[str, Any], sight: PodSight, key: str, clock: Clock, gone: Callable[[], object]
    ) -> None:
        """`gone` is called when it has ended."""
        self.name: str = job["metadata"]["name"]
        self.since = int(datetime.fromisoformat(job["metadata"]["creationTimestamp"]).timestamp() * 1000)
        self._job, self._sight, self._key, self._clock, self._gone = job, sight, key, clock, gone
        self._pod: str | None = None
        """The uid of the pod that it is in, once there is one."""
        self._writer: asyncio.StreamWriter | None = None
        self._end: End | None = None
        """How it ends, where that is decided here."""
        self._out_of_reach: tuple[int, str] | None = None
        """Since when nobody answers where it should be, and what is said instead."""

    @property
    def obstacle(self) -> Failure | None:
        """Why its pod does not start; or that nobody answers there."""
        pod = self._look()
        if pod is None:
            queued = (self._sight.job(self._job) or {}).get("spec", {}).get("suspend", False)
            return Failure(reason="WaitingForQuota", message="Kueue has not admitted it yet") if queued else None
        return pod.obstacle

    def tell(self, line: bytes) -> None:
        """Say it; what a broken connection loses is told to another."""
        if self._writer is not None:
            self._writer.write(line)

    async def lines(self) -> AsyncIterator[bytes]:
        """Wait until it can be reached, and hear it. A line that was cut off is none."""
        streams = await self._connected()
        if streams is None:
            return
        reader, self._writer = streams
        with suppress(OSError):  # as good as its end: what it is is found out then
            while (line := await reader.readline()).endswith(b"\n"):
                yield line

    async def end(self) -> End:
        """Find out how it has ended; one that can be reached again has not, but all that it was told is to be told again."""
        try:
            while self._end is None and not self._is_over():
                streams = await self._try() if self._writer is not None else None
                if streams is not None:
                    streams[1].close()
                    return _DRAINED
                self._give_up_if_lost()
                await self._sight.changed(_TRY_SECONDS)
            return self._end or End(*end_of(self._look()))
        finally:
            self._hang_up()
            self._gone()

    def stop(self) -> None:
        """Delete its Job, so that its pod is told to stop; until then it is heard."""
        self._end = self._end or _DRAINED
        self._sight.delete(self._job)

    def kill(self) -> None:
        """Delete its Job, and hear it no more."""
        if self._end is None or self._writer is not None:
            self._end = self._end or End(KILLED)
            self._sight.delete(self._job)
            self._hang_up()

    def leave(self) -> None:
        """Hear it no more; its Job stays."""
        self._end = _DRAINED
        self._hang_up()

    async def _connected(self) -> _Streams | None:
        """A connection to it; None when it has ended first."""
        while self._end is None and not self._is_over():
            if (streams := await self._try()) is not None:
                return streams
            self._give_up_if_lost()
            await self._sight.changed(_TRY_SECONDS)
        return None

    async def _try(self) -> _Streams | None:
        """A connection on which its key was said; None while there is none to be had."""
        pod = self._look()
        if pod is None or pod.address is None:
            return None
        try:
            async with asyncio.timeout(_CONNECT_SECONDS):
                reader, writer = await asyncio.open_connection(pod.address, SERVE_PORT, limit=_LONGEST_LINE_BYTES)
        except OSError as error:
            since = self._out_of_reach[0] if self._out_of_reach is not None else self._clock.now()
            self._out_of_reach = since, f"{pod.address} port {SERVE_PORT}: {error.strerror or 'no answer'}"
            return None
        self._out_of_reach = None
        _keep_alive(writer.get_extra_info("socket"))
        writer.write(Opening(key=self._key).line())
        return reader, writer

    def _give_up_if_lost(self) -> None:
        if self._out_of_reach is None or self._clock.now() < self._out_of_reach[0] + LOST_MILLISECONDS:
            return
        message = (
            f"the worker {self.name} cannot be reached at {self._out_of_reach[1]}; a NetworkPolicy may be in the way"
        )
        self._end = End(KILLED, Failure(reason="WorkerUnreachable", message=message))
        self._sight.delete(self._job)

    def _look(self) -> PoolPod | None:
        """Its pod as it is now."""
        pods = self._sight.pods(self._job)
        if self._pod is None:
            self._pod = next((pod.uid for pod in pods if not pod.over), None)
        return next((pod for pod in pods if pod.uid == self._pod), None)

    def _is_over(self) -> bool:
        """Whether it will say nothing more: its pod is over or gone, or there will be none."""
        pod = self._look()
        if self._pod is not None:
            return pod is None or pod.over
        job = self._sight.job(self._job)
        return job is None or is_over(job)

    def _hang_up(self) -> None:
        if self._writer is not None:
            self._writer.close()
            self._writer = None


def _keep_alive(connection: socket.socket) -> None:
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in _KEEPALIVE.items():
        if hasattr(socket, name):
            connection.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
