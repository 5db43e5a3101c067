"""The engine that asks endpoints: it keeps as many requests under way as they bear, and hands back answers as they come.

One thread and one event loop, which runs inside `step` alone. So nothing here happens at the same time as anything of the shard loop.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections import defaultdict, deque
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace

import orjson

from headrace.api.records import ErrorCode, RecordError, Request, estimate_prompt_tokens
from headrace.api.worker import Env, WorkerConfig
from headrace_worker.engines.base import EngineStats, Outcome, Work
from headrace_worker.engines.openai.board import Board
from headrace_worker.engines.openai.client import Client, url_of
from headrace_worker.engines.openai.endpoint import EndpointState, Ticket
from headrace_worker.engines.openai.endpoints import Fleet
from headrace_worker.engines.openai.flights import Flight, Flights, Waiting
from headrace_worker.engines.openai.keys import Key
from headrace_worker.engines.openai.parked import Parked
from headrace_worker.engines.openai.pods import Pods
from headrace_worker.engines.openai.replies import Question
from headrace_worker.engines.openai.verdicts import TASKS, Kind, Unusable, Verdict, judge
from headrace_worker.engines.openai.weights import Weights
from headrace_worker.errors import JobFailed

LONGEST_STEP_SECONDS = 0.5
"""So often the shard loop is heard at least, even if no answer comes."""
KEY_PAUSE_SECONDS = 2.0
"""How long an endpoint is left alone whose key may be about to be replaced."""


@dataclass(frozen=True, slots=True)
class _Web:
    """What there is from `load` to `close`."""

    loop: asyncio.AbstractEventLoop
    client: Client


class EndpointsEngine:
    """Answers chats, completions and embeddings by asking others."""

    def __init__(
        self, config: WorkerConfig, clock: Callable[[], float] = time.monotonic, env: Mapping[str, str] = os.environ
    ) -> None:
        """Raises `JobFailed` for a task that endpoints cannot be asked for."""
        task = config.model.task
        if task not in TASKS:
            offered = ", ".join(TASKS)
            raise JobFailed(
                "TaskNotSupported", f"model.task must be one of {offered} for the engine openai, not {task}"
            )
        settings = config.engine.openai
        assert settings is not None, "a rule of the spec"
        self._model, self._retries, self._clock = config.model, config.retries.limit, clock
        self._seconds = settings.request_timeout_seconds
        self._fleet = Fleet(settings, config.batching.size, clock(), env.get(Env.ZONE) or None)
        self._keys = {it.name: Key(it.api_key_secret_ref, env) for it in settings.endpoints}
        self._pods = Pods(Board.of(config, env), self._fleet, Parked.of(config, env))
        self._weights = Weights(settings.weights_config_map_ref, self._keys, env)
        self.stats = EngineStats(endpoints={it.spec.name: it.stats for it in self._fleet.endpoints})
        self._lines: defaultdict[int, deque[Waiting]] = defaultdict(deque)
        """Records that wait for an endpoint, by the lowest tier that they may go to."""
        self._parked: dict[int, Waiting] = {}
        """What is known of records that were handed back for another try, by position."""
        self._running = self._tokens = 0
        self._done: list[Outcome] = []
        self._news = asyncio.Event()
        self._flights = Flights(config.record_deadline_seconds, self._news)
        self._web: _Web | None = None

    def prepare(self, position: int, request: Request) -> Work:
        """Check what can be checked here; the server says the rest."""
        if request.body.get("stream"):
            message = "stream must be false or left out: the answer of a record is one line of the output"
            raise RecordError(ErrorCode.INVALID_REQUEST, message, "body.stream")
        return Work(position, request, estimate_prompt_tokens(request.body))

    def load(self) -> None:
        """Look for the keys. Raises `JobFailed` when one is missing."""
        for key in self._keys.values():
            key.read()
        self._pods.begin(self._clock())
        loop = asyncio.new_event_loop()
        self._web = _Web(loop, loop.run_until_complete(Client.open(self._seconds)))

    @property
    def room(self) -> int:
        """How many more records the endpoints bear."""
        return max(0, self._fleet.capacity(self._clock()) - self._running)

    @property
    def running(self) -> int:
        """Records under way, or waiting for an endpoint."""
        return self._running

    def submit(self, batch: Sequence[Work]) -> None:
        """Take records; they are sent in the next step."""
        if not self._running:
            self._fleet.alive(self._clock())
        for work in batch:
            known = self._parked.pop(work.position, None)
            waiting = Waiting(work) if known is None or work.attempt == 1 else replace(known, work=work)
            self._lines[waiting.tier].append(waiting)
            self._tokens += work.tokens
        self._running += len(batch)

    def step(self) -> list[Outcome]:
        """Send what can be sent, and wait a moment for answers. Raises `JobFailed` when no endpoint can be used any more."""
        assert self._web is not None, "load comes before"
        sent = self._sent
        self.stats.batches += 1
        self.stats.batched_records += self._running
        self.stats.batched_tokens += self._tokens
        self._web.loop.run_until_complete(self._work())
        if self._flights.raised is not None:
            raise self._flights.raised
        outcomes, self._done = self._done, []
        self._fleet.show(self._clock())
        idle = not outcomes and not self._flights
        self.stats.stalled = idle and self._sent == sent
        if idle:
            self._despair()
        return outcomes

    def give_up(self, positions: Collection[int]) -> list[Work]:
        """Break off the requests of records, and forget those that wait for an endpoint."""
        given = self._flights.break_off(positions, self._clock())
        for tier, line in self._lines.items():
            given += [waiting.work for waiting in line if waiting.work.position in positions]
            self._lines[tier] = deque(waiting for waiting in line if waiting.work.position not in positions)
        self._running -= len(given)
        self._tokens -= sum(work.tokens for work in given)
        return given

    def close(self) -> None:
        """Break off what is under way."""
        web, self._web = self._web, None
        if web is None:
            return
        web.loop.run_until_complete(self._flights.end())
        web.loop.run_until_complete(web.client.close())
        web.loop.close()
        self._pods.close()

    def _despair(self) -> None:
        why = self._fleet.hopeless(self._clock())
        if why is not None:
            raise JobFailed(*why)

    async def _work(self) -> None:
        """Until there is something to hand back, or the moment is over."""
        over = self._clock() + LONGEST_STEP_SECONDS
        while not self._done and self._flights.raised is None and (now := self._clock()) < over:
            self._dispatch(now)
            moment = self._fleet.next_moment(now) if any(self._lines.values()) else None
            await self._wait(min(over, moment or over) - now)

    async def _wait(self, seconds: float) -> None:
        """Until a request has ended, or so long."""
        self._news.clear()
        timer = asyncio.get_running_loop().call_later(seconds, self._news.set)
        await self._news.wait()
        timer.cancel()

    def _dispatch(self, now: float) -> None:
        """Send as many of the records that wait as the endpoints take."""
        if (weights := self._weights.changed(now)) is not None:
            self._fleet.weigh(weights)
        self._pods.share(now, waits=any(self._lines.values()))
        for tier, line in sorted(self._lines.items()):
            while line and (endpoint := self._fleet.choose(tier, line[0].avoid, now)) is not None:
                self._flights.begin(Flight(line.popleft(), endpoint, endpoint.send(now)), self._ask)

    async def _ask(self, flight: Flight) -> None:
        """One try of one record."""
        assert self._web is not None, "no task outlives it"
        waiting, endpoint = flight.waiting, flight.endpoint
        spec, model = endpoint.spec, endpoint.spec.model or self._model.name
        key = self._keys[spec.name].read()
        body = orjson.dumps({**waiting.work.request.body, "model": model})
        said = await self._web.client.post(url_of(spec, self._model.task), body, key)
        if not self._flights.land(flight):  # given up, and yet the answer was faster
            return
        asked = Question(spec.name, self._model.task, (spec.response_model or model,), key)
        self._settle(waiting, endpoint, flight.ticket, self._with_key(judge(said, asked), asked))

    def _with_key(self, verdict: Verdict, asked: Question) -> Verdict:
        """The verdict, in the light of what is known about the key: one that was refused may have been replaced, or soon be."""
        key, now = self._keys[asked.endpoint], self._clock()
        if verdict.kind == Kind.ANSWERED:
            key.worked()
        elif (
            verdict.kind == Kind.UNUSABLE and verdict.reason == Unusable.KEY_REFUSED and key.may_change(asked.key, now)
        ):
            return replace(verdict, kind=Kind.BUSY, pause_seconds=KEY_PAUSE_SECONDS)
        return verdict

    def _settle(self, waiting: Waiting, endpoint: EndpointState, ticket: Ticket, verdict: Verdict) -> None:
        """A try has ended."""
        now, work, name = self._clock(), waiting.work, endpoint.spec.name
        verdict = endpoint.settle(ticket, verdict, now)
        if verdict.kind in _SIGNS_OF_LIFE:
            self._fleet.alive(now)
        match verdict.kind:
            case Kind.ANSWERED:
                read, written = verdict.prompt_tokens, verdict.completion_tokens
                about = {
                    "endpoint": name,
                    **({"degraded": True} if endpoint.spec.tier > self._fleet.lowest_tier else {}),
                }
                self._hand_back(Outcome(work, verdict.body, prompt_tokens=read, completion_tokens=written, about=about))
            case Kind.REFUSED:
                self._hand_back(Outcome(work, error=verdict.error))
            case Kind.FAILED:
                self._failed(replace(waiting, failures=waiting.failures + 1, avoid=name), verdict)
            case Kind.BUSY | Kind.UNREACHED | Kind.UNUSABLE:
                self._lines[waiting.tier].appendleft(replace(waiting, avoid=name))
        self._news.set()

    def _failed(self, waiting: Waiting, verdict: Verdict) -> None:
        """To the worker, which tries again; a record that has had all its tries gets one more in each tier above."""
        above = self._fleet.next_tier(waiting.tier)
        if waiting.failures > self._retries and above is not None:
            again = waiting.work._replace(attempt=waiting.work.attempt + 1)
            self._lines[above].append(Waiting(again, above, failures=self._retries))
            return
        if waiting.failures <= self._retries:
            self._parked[waiting.work.position] = waiting
        self._hand_back(Outcome(waiting.work, error=verdict.error, retriable=True))

    @property
    def _sent(self) -> int:
        return sum(it.sent for it in self.stats.endpoints.values())

    def _hand_back(self, outcome: Outcome) -> None:
        self._done.append(outcome)
        self._running -= 1
        self._tokens -= outcome.work.tokens


_SIGNS_OF_LIFE = frozenset({Kind.ANSWERED, Kind.REFUSED, Kind.BUSY})
