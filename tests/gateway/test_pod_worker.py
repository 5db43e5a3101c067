"""A worker in a pod, from its gateway's side: what a broken connection, an end and silence mean."""

from __future__ import annotations

import asyncio
import itertools
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, cast

import pytest

from asking_rig import FakeClock
from headrace.api.base import JsonObject
from headrace.api.worker import FREE, ExitCode, Failure, Opening
from headrace.core.asking.poolpods import KILLED, LOST_MILLISECONDS, SERVE_PORT, PoolPod
from headrace.gateway.gathering.podsight import PodSight
from headrace.gateway.gathering.podworker import PodWorker
from headrace.gateway.gathering.poolworkers import End

JOB: JsonObject = {
    "metadata": {"name": "pool-chat-1", "uid": "j", "creationTimestamp": "2026-01-01T00:00:00Z"},
    "spec": {},
}
ADDRESSES = (f"127.9.{os.getpid() % 250}.{number}" for number in itertools.count(1))
"""Others than those of tests that run beside these."""


@dataclass
class Sight:
    """What a test says is seen of the worker."""

    pod: PoolPod | None = None
    deleted: list[str] = field(default_factory=list)

    def job(self, made: JsonObject) -> JsonObject | None:
        return made

    def pods(self, job: JsonObject) -> list[PoolPod]:  # noqa: ARG002 - there is one
        return [self.pod] if self.pod is not None else []

    def delete(self, job: JsonObject) -> None:
        self.deleted.append(job["metadata"]["name"])

    async def changed(self, seconds: float) -> None:  # noqa: ARG002 - something always has
        await asyncio.sleep(0)


@dataclass
class World:
    """A pod that runs, and whoever listens in it."""

    address: str = field(default_factory=lambda: next(ADDRESSES))
    clock: FakeClock = field(default_factory=FakeClock)
    gone: list[str] = field(default_factory=list)
    openings: list[bytes] = field(default_factory=list)
    connections: list[asyncio.StreamWriter] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.sight = Sight(PoolPod("p", self.address))
        sight = cast("PodSight", self.sight)
        self.worker = PodWorker(JOB, sight, "key", self.clock, lambda: self.gone.append("gone"))

    @asynccontextmanager
    async def listening(self) -> AsyncIterator[None]:
        async def come(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            self.connections.append(writer)
            self.openings.append(await reader.readline())
            writer.write(FREE)

        server = await asyncio.start_server(come, self.address, SERVE_PORT)
        try:
            yield
        finally:
            server.close()
            for connection in self.connections:
                connection.close()

    async def lines(self) -> list[bytes]:
        return [line async for line in self.worker.lines()]


def told(story: Callable[[World], Awaitable[Any]]) -> World:
    async def tell() -> World:
        world = World()
        async with asyncio.timeout(60):
            await story(world)
        assert world.gone == ["gone"]
        return world

    return asyncio.run(tell())


def test_connection_that_breaks_is_no_death_and_the_requests_are_told_again() -> None:
    async def story(world: World) -> None:
        async with world.listening():
            heard = world.worker.lines()
            assert await anext(heard) == FREE
            world.connections[0].close()
            assert [line async for line in heard] == []
            assert await world.worker.end() == End(ExitCode.DRAINED)

    world = told(story)
    assert world.openings[0] == Opening(key="key").line()
    assert world.sight.deleted == [], "it is found again"


@pytest.mark.parametrize(
    ("pod", "end"),
    [
        (PoolPod("p", exit_code=137), End(137)),
        (PoolPod("p", exit_code=44, failure=Failure(reason="ModelNotFound", message="no")), None),
        (PoolPod("p", leaving=True), End(ExitCode.DRAINED)),
        (None, End(ExitCode.DRAINED)),
    ],
    ids=["it has crashed", "it has said why", "it is taken off its node", "it is gone"],
)
def test_end_is_known_from_the_pod(pod: PoolPod | None, end: End | None) -> None:
    async def story(world: World) -> None:
        async with world.listening():
            heard = world.worker.lines()
            assert await anext(heard) == FREE
            world.connections[0].close()
            world.sight.pod = pod
            assert [line async for line in heard] == []
            found = await world.worker.end()
            assert found == (end or End(44, Failure(reason="ModelNotFound", message="no")))

    told(story)


def test_worker_that_nobody_can_reach_is_given_up_and_says_so() -> None:
    async def story(world: World) -> None:
        hearing = asyncio.create_task(world.lines())
        while not hearing.done():
            world.clock.milliseconds += LOST_MILLISECONDS // 4
            await asyncio.sleep(0)
        assert await hearing == []
        end = await world.worker.end()
        assert end.exit_code == KILLED
        assert end.failure is not None
        assert end.failure.reason == "WorkerUnreachable"
        assert world.address in end.failure.message

    assert told(story).sight.deleted == ["pool-chat-1"]


@pytest.mark.parametrize(
    ("ending", "code", "deleted"),
    [("stop", ExitCode.DRAINED, 1), ("kill", KILLED, 1), ("leave", ExitCode.DRAINED, 0)],
)
def test_worker_is_ended_by_its_job_and_one_that_is_left_stays(ending: str, code: int, deleted: int) -> None:
    async def story(world: World) -> None:
        async with world.listening():
            heard = world.worker.lines()
            assert await anext(heard) == FREE
            getattr(world.worker, ending)()
            if ending == "stop":
                world.connections[0].write(b"one more\n")
                assert await anext(heard) == b"one more\n", "it says what is done"
                world.connections[0].close()
            world.worker.kill() if ending == "leave" else None  # nobody waits for it any more
            assert [line async for line in heard] == []
            assert (await world.worker.end()).exit_code == code

    assert len(told(story).sight.deleted) == deleted


def test_worker_that_was_told_to_stop_before_it_was_there_ends() -> None:
    async def story(world: World) -> None:
        world.sight.pod = None
        hearing = asyncio.create_task(world.lines())
        await asyncio.sleep(0)
        world.worker.stop()
        assert await hearing == []
        assert (await world.worker.end()).exit_code == ExitCode.DRAINED

    told(story)
