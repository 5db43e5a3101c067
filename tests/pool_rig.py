"""A warm pool over a store in memory, whose workers do what a test says."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

from asking_rig import FakeClock, MemoryPlace, MemoryStore
from headrace.api.asking import QueuedRequest, RequestRecord, RequestRoute
from headrace.api.gateway import ServedModel
from headrace.api.worker import FREE, ExitCode, Failure, MicroBatch, Partial, partial_line
from headrace.gateway.gathering.answers import Answers
from headrace.gateway.gathering.pool import Pool
from headrace.gateway.gathering.poollane import PoolLane
from headrace.gateway.gathering.poolworkers import End, NotStarted
from headrace.gateway.gathering.windows import RouteWindows

SERVED = ServedModel.parse({"model": {"name": "small"}, "engine": {"name": "mock"}})
KILLED = End(137)


def route(**pool: Any) -> RequestRoute:
    return RequestRoute.parse(
        {
            "name": "chat",
            "model": "small",
            "window": {"maxBatchSize": 4, "maxWaitMilliseconds": 150},
            "deadlineSeconds": 1000,
            "target": {"warmPool": {"targetQueuedPerWorker": 4, **pool}},
        }
    )


@dataclass
class ScriptedWorker:
    """A worker that says what the test has it say."""

    name: str
    since: int = 0
    obstacle: Failure | None = None
    told: list[MicroBatch] = field(default_factory=list)
    said: asyncio.Queue[bytes] = field(default_factory=asyncio.Queue)
    ended: asyncio.Future[End] = field(default_factory=lambda: asyncio.get_running_loop().create_future())

    def tell(self, line: bytes) -> None:
        self.told.append(MicroBatch.model_validate_json(line))

    async def lines(self) -> AsyncIterator[bytes]:
        while line := await self.said.get():
            yield line

    async def end(self) -> End:
        return await self.ended

    def stop(self) -> None:
        self.die(End(ExitCode.DRAINED))

    def kill(self) -> None:
        self.die(KILLED)

    def leave(self) -> None:
        self.stop()

    def die(self, end: End = KILLED) -> None:
        if not self.ended.done():
            self.ended.set_result(end)
            self.said.put_nowait(b"")

    def free(self) -> None:
        self.said.put_nowait(FREE)

    @property
    def names(self) -> list[str]:
        """The requests of the micro-batch that it was told last."""
        return [one.custom_id for one in self.told[-1].requests] if self.told else []

    def write(self, name: str, text: str) -> None:
        """Say how far an answer has come."""
        self.said.put_nowait(partial_line(Partial(custom_id=name, text=text, tokens=len(text))))

    def answer(self, *names: str, **error: str) -> None:
        """Answer requests, with their own names; or with an error."""
        for name in names:
            line = {"custom_id": name, "response": {"status_code": 200, "body": {"n": name}}, "error": error or None}
            self.said.put_nowait(json.dumps(line).encode() + b"\n")


@dataclass
class ScriptedWorkers:
    """All that were started, the oldest first."""

    clock: FakeClock
    started: list[ScriptedWorker] = field(default_factory=list)
    strays: list[ScriptedWorker] = field(default_factory=list)
    """Of somebody else, to be found."""
    refusal: NotStarted | None = None

    async def begin(self) -> None:
        pass

    async def close(self) -> None:
        pass

    def found(self) -> list[ScriptedWorker]:
        found, self.strays = self.strays, []
        return found

    async def start(self) -> ScriptedWorker:
        if self.refusal is not None:
            raise self.refusal
        self.started.append(ScriptedWorker(f"w{len(self.started)}", self.clock.now()))
        return self.started[-1]

    @property
    def alive(self) -> list[ScriptedWorker]:
        return [one for one in self.started if not one.ended.done()]


@dataclass
class PoolWorld:
    """A route with a pool, and all that outlives them."""

    route: RequestRoute
    clock: FakeClock = field(default_factory=FakeClock)
    accepted: list[str] = field(default_factory=list)
    grown: list[tuple[str, Partial]] = field(default_factory=list)
    """What was told of answers that are being written."""

    def __post_init__(self) -> None:
        self.store = MemoryStore(self.clock)
        self.processes: list[Pool] = []
        """All that there have been: tasks of one that nobody holds any more would end whenever its garbage is collected."""
        self.process()

    def process(self) -> None:
        """A new process; nothing of an earlier one is left but what is in the store."""
        self.workers = ScriptedWorkers(self.clock)
        answers = Answers(self.store, MemoryPlace(), self.clock)
        self.pool = Pool(self.route, self.workers, self.clock, lambda *grown: self.grown.append(grown))
        self.processes.append(self.pool)
        lane = PoolLane(self.pool, "default", self.store, answers)
        self.windows = RouteWindows(self.route, SERVED, self.store, lane, self.clock)

    async def ask(self, count: int = 1) -> None:
        for _ in range(count):
            name = f"req_chat_{len(self.accepted):024x}"
            body = {"model": "small", "messages": [{"role": "user", "content": "hello"}]}
            await self.store.add(self.route, QueuedRequest(id=name, accepted=self.clock.now(), tokens=1, body=body))
            self.accepted.append(name)

    async def go(self, steps: int = 5) -> None:
        """Let everybody do what there is to do."""
        for _ in range(steps):
            await self.windows.step()
            await self.pool.step()
            for _ in range(40):
                await asyncio.sleep(0)

    async def answer_all(self, worker: ScriptedWorker) -> None:
        worker.answer(*worker.names)
        worker.free()
        await self.go()

    def record(self, number: int) -> RequestRecord:
        return self.store.records[self.accepted[number]].record

    def check(self) -> None:
        """Each that was accepted has ended, once, and nothing is left of its window."""
        assert sorted(self.store.last_words) == sorted(self.accepted)
        assert self.store.closed == {}


def no_model(message: str = "there is no model small") -> End:
    return End(ExitCode.JOB_FAILED, Failure(reason="ModelNotFound", message=message))
