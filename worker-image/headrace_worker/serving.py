"""A worker of a warm pool: the model is loaded once, and whatever is told is answered, until it is told to stop.

Nothing is kept here. A request whose line was said is answered; any other is told to another worker by whoever has told this one.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager

from headrace.api.batchstatus import RecordCounts
from headrace.api.records import RecordError, Request, error_line, result_line
from headrace.api.worker import FREE, Env, ServeReport, ToldRequest, WorkerConfig
from headrace_worker import engines
from headrace_worker.batcher import Batcher, BatchLimits
from headrace_worker.deadlines import Deadlines
from headrace_worker.engines.base import Engine, Outcome
from headrace_worker.errors import Drained
from headrace_worker.feed import Feed, PipeFeed, private_output
from headrace_worker.listening import SocketFeed, load_listening, open_listener
from headrace_worker.partials import Partials
from headrace_worker.recorder import Surroundings
from headrace_worker.retry import RetryQueue

_LONGEST_WAIT_SECONDS = 60.0

log = logging.getLogger(__name__)


def serve(config: WorkerConfig, around: Surroundings, env: Mapping[str, str]) -> None:
    """Answer what comes. Raises `Drained` when told to stop, and `JobFailed` when there is no such model."""
    with _feed(env) as feed:
        _serve(config, around, feed)


@contextmanager
def _feed(env: Mapping[str, str]) -> Iterator[Feed]:
    listening = load_listening(env)
    if listening is None:
        yield PipeFeed(0, private_output())
        return
    feed = SocketFeed(open_listener(listening, env.get(Env.POD_IP)), listening)
    try:
        yield feed
    finally:
        feed.close()


def _serve(config: WorkerConfig, around: Surroundings, feed: Feed) -> None:
    engine = engines.create(config, int(around.wall().timestamp()))
    try:
        with around.drain.interrupting():
            began = around.clock()
            engine.load()
        log.info("the engine %s was ready after %.1f s", config.engine.name, around.clock() - began)
        Serving(config, around, engine, feed).run()
    finally:
        engine.close()


class Serving:
    """A loaded model and the requests that it has been told."""

    def __init__(self, config: WorkerConfig, around: Surroundings, engine: Engine, feed: Feed) -> None:
        self._parameters, self._around, self._engine, self._feed = config.parameters, around, engine, feed
        self._config, self._said_free = config, False
        self._begin()
        self._partials = Partials(engine, feed, around.clock)
        self._deadlines = Deadlines(config.record_deadline_seconds)
        self._size = config.batching.size
        self._submitted: dict[int, float] = {}
        self._told = 0
        self._answered = RecordCounts()

    def run(self) -> None:
        """Work until told to stop; what is answered by then has been said. Raises `Drained`."""
        while not self._around.drain.requested:
            self._hand_over()
            self._give_up()
            if self._engine.running:
                self._settle(self._step())
                self._partials.say()
            elif not self._said_free:
                self._feed.say(FREE)
                self._said_free = True
            else:
                self._rest()
            self._take_in()
        raise Drained(f"told to stop after {self._answered.total} requests")

    def _begin(self) -> None:
        """With nothing to do. What the engine has in hand is said in any case: whoever listens knows whether it was asked."""
        self._batcher = Batcher(BatchLimits.of(self._config.batching))
        self._retries = RetryQueue(self._config.retries, seed=f"{self._config.batch.uid}/{os.getpid()}")
        self._said_free = False

    def _rest(self) -> None:
        """Nothing is to do until somebody says something, or a failed request is to be tried again."""
        due = self._retries.next_due()
        seconds = _LONGEST_WAIT_SECONDS if due is None else due - self._around.clock()
        self._feed.wait(seconds, self._around.drain)

    def _take_in(self) -> None:
        now = self._around.clock()
        for work in self._retries.due(now):
            self._batcher.add(work, now)
        batches = self._feed.take(self._around.drain)
        if self._feed.begins_anew():
            self._begin()
        for batch in batches:
            self._said_free = False
            self._partials.every(batch.partial_milliseconds)
            for told in batch.requests:
                self._take_one(told, now)
        self._around.metrics.queue_depth.set(len(self._batcher) + len(self._retries))

    def _take_one(self, told: ToldRequest, now: float) -> None:
        request = Request(told.custom_id, {**self._parameters, **told.body})
        try:
            work = self._engine.prepare(self._told, request)
        except RecordError as error:
            self._refuse(told, error)
            return
        self._told += 1
        self._batcher.add(work._replace(attempt=told.attempt), now)

    def _hand_over(self) -> None:
        """Give the engine as much as it has room for: those who are waiting have waited for each other already."""
        while batch := self._batcher.next_batch(self._around.clock(), self._engine.room, more_coming=False):
            now = self._around.clock()
            self._submitted |= {work.position: now for work in batch}
            self._deadlines.begin(batch, now)
            self._engine.submit(batch)
            self._around.metrics.batch_fill.observe(len(batch) / (self._engine.stats.max_num_seqs or self._size))

    def _give_up(self) -> None:
        """Let go of the requests that have had their time."""
        overdue = self._deadlines.overdue(self._around.clock())
        if overdue:
            self._settle(self._deadlines.outcomes(self._engine.give_up(overdue)))

    def _step(self) -> list[Outcome]:
        began = self._around.clock()
        outcomes = self._engine.step()
        if self._engine.stats.stalled:
            self._deadlines.hold(self._around.clock() - began)
        return outcomes

    def _settle(self, outcomes: Iterable[Outcome]) -> None:
        """Say what has come of requests; what is worth another try is parked, and holds up nobody else."""
        now, lines = self._around.clock(), []
        for outcome in outcomes:
            self._measure(outcome, now)
            end = self._deadlines.end(outcome.work.position)
            if outcome.retriable and self._retries.park(outcome.work, now, end):
                self._around.metrics.retries.inc()
            else:
                self._deadlines.finish([outcome])
                lines.append(self._line(outcome))
        if lines:
            self._feed.say(b"".join(lines))

    def _line(self, outcome: Outcome) -> bytes:
        work, name = outcome.work, outcome.work.request.custom_id
        self._count(failed=outcome.error is not None)
        if outcome.error is not None:
            self._around.metrics.errors.labels(outcome.error.code).inc()
            return error_line(name, name, outcome.error, work.attempt)
        body = outcome.body or {}
        if "created" in body:  # the engine has one moment for all of its answers, and it may be long ago
            body = {**body, "created": int(self._around.wall().timestamp())}
        return result_line(name, name, body, work.attempt, outcome.about)

    def _refuse(self, told: ToldRequest, error: RecordError) -> None:
        """The engine would not take it: it is not worked on, and hurts nobody else."""
        self._count(failed=True)
        self._around.metrics.errors.labels(error.code).inc()
        self._feed.say(error_line(told.custom_id, told.custom_id, error, 0))

    def _measure(self, outcome: Outcome, now: float) -> None:
        submitted = self._submitted.pop(outcome.work.position)
        self._around.metrics.latency.observe(now - submitted)
        if outcome.first_token is not None:
            self._around.metrics.first_token.observe(outcome.first_token - submitted)
        self._around.metrics.prompt_tokens.inc(outcome.prompt_tokens)
        self._around.metrics.completion_tokens.inc(outcome.completion_tokens)

    def _count(self, *, failed: bool) -> None:
        counts, metrics = self._answered, self._around.metrics
        (metrics.failed if failed else metrics.succeeded).inc()
        self._answered = RecordCounts(
            total=counts.total + 1, succeeded=counts.succeeded + (not failed), failed=counts.failed + failed
        )
        self._around.live.report = ServeReport(records=self._answered)
