"""Keeping the books of one attempt: outcomes become journal lines, and everything that can be counted is counted once, here."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Sequence
from copy import copy
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from enum import StrEnum
from math import ceil
from time import monotonic

from headrace.api.batchstatus import BatchLimits, RecordCounts, Usage
from headrace.api.records import RecordError, Request, error_line, fingerprinter, result_line
from headrace.api.worker import Shard, ShardReport, WorkerConfig
from headrace_worker.commit import ShardCommit
from headrace_worker.drain import Drain
from headrace_worker.engines.base import Engine, EngineStats, Outcome, Work
from headrace_worker.journal import ShardJournal
from headrace_worker.layout import record_id
from headrace_worker.ledger import CACHED, EQUAL, RESUMED, Entry, Used
from headrace_worker.metrics import Metrics
from headrace_worker.profile import Profile
from headrace_worker.progress import Live, Speed
from headrace_worker.sharing import Shared
from headrace_worker.traces import NOT_TRACED, Playing, Traces

LOG_SECONDS = 30.0
"""How often a worker says in its log how far it is."""

log = logging.getLogger(__name__)


class Activity(StrEnum):
    """What GPUs are held for."""

    WORK = "work"
    """The engine works on records."""
    LOAD = "load"
    """The model is loaded for the first time."""
    RELOAD = "reload"
    """It is loaded again, because an earlier attempt was lost."""
    WAIT = "wait"
    """All records that are left wait for another try."""
    OTHER = "other"
    """Reading and writing."""


@dataclass(slots=True)
class Surroundings:
    """What a shard is worked on with."""

    live: Live
    drain: Drain = field(default_factory=Drain)
    metrics: Metrics = field(default_factory=Metrics)
    clock: Callable[[], float] = monotonic
    """Seconds that do not go back."""
    started: float = field(default_factory=monotonic)
    """When this worker began to hold its GPUs, by the same clock."""
    wall: Callable[[], datetime] = lambda: datetime.now(UTC)
    """What a clock on the wall shows."""
    first_record_time: datetime | None = None
    """When this worker has begun its first record."""
    traces: Traces = NOT_TRACED
    profile: Profile | None = None
    playing: Playing | None = None
    """What this worker does, once it has been told."""


_STEPS = {Activity.LOAD: "load", Activity.RELOAD: "reload"}
"""What is worth a span of its own: once in the life of a worker."""


class Recorder:
    """The journal, the metrics and the live report of one attempt."""

    def __init__(
        self, config: WorkerConfig, shard: Shard, journal: ShardJournal, engine: Engine, around: Surroundings
    ) -> None:
        self._shard, self._journal, self._engine = shard, journal, engine
        self._gpus, self._batching = config.gpus, config.batching
        self._fingerprint = fingerprinter(config.model, config.engine)
        self._around, self._live, self._metrics, self._traces = around, around.live, around.metrics, around.traces
        self._started = self._told = around.started
        self._before = replace(journal.ledger.used)
        self._seen = EngineStats()
        self._submitted: dict[int, float] = {}
        now = around.clock()
        self._speed = Speed(now, self.finished)
        self._logged = now
        self._live.report = self._report("0", now)

    @property
    def finished(self) -> int:
        """Records that have their result or their error."""
        return len(self._journal.ledger) - self._journal.ledger.pending

    def begin(self, batch: Sequence[Work], now: float, *, again: Callable[[int], bool]) -> None:
        """Records go to the engine; `again` says whether this attempt has tried one before."""
        self._around.first_record_time = self._around.first_record_time or self._around.wall()
        counts = self._journal.ledger.counts
        reprocessed, fresh = counts.reprocessed, []
        for work in batch:
            self._submitted[work.position] = now
            if not again(work.position):
                fresh.append(work.position)
        if fresh:
            self._journal.begin(fresh)
        self._metrics.reprocessed.inc(counts.reprocessed - reprocessed)
        self._traces.begin(batch, now)

    def came_back(self, outcomes: Sequence[Outcome], now: float) -> None:
        """The engine has handed back records."""
        together: Counter[float] = Counter()
        for outcome in outcomes:
            submitted = self._submitted.pop(outcome.work.position)
            together[submitted] += 1
            if outcome.first_token is not None:
                self._metrics.first_token.observe(outcome.first_token - submitted)
        for submitted, records in together.items():
            self._metrics.latency.observe(now - submitted, records)
        self._traces.came_back(outcomes, now)

    def held(self, activity: Activity, now: float) -> None:
        """The GPUs were held for this since it was last said what they were held for."""
        if self._around.profile is not None:
            self._around.profile.span(activity, self._told, now)
        if activity in _STEPS:
            self._traces.step(_STEPS[activity], self._told, now)
        self._metrics.gpu_seconds.labels(activity).inc((now - self._told) * self._gpus)
        self._told = now

    def retry(self) -> None:
        """A record has been parked for another try."""
        self._metrics.retries.inc()

    def waiting(self, records: int) -> None:
        """So many records wait in this worker."""
        self._metrics.queue_depth.set(records)
        if self._around.profile is not None:
            now = self._around.clock()
            self._around.profile.count(now, waiting=records, running=self._engine.running, finished=self.finished)

    def finish(self, outcomes: Sequence[Outcome]) -> None:
        """Journal what will not be tried again."""
        self._record([self._entry(outcome) for outcome in outcomes])
        self._traces.finish(outcomes)

    def share(self, shared: Sequence[Shared]) -> None:
        """Journal records that have the answer of another question which was the same. They were never worked on, and have used nothing."""
        self._record([self._shared(one) for one in shared])

    def resume(self, entries: Sequence[Entry]) -> None:
        """Journal records that have their answer from an earlier batch."""
        self._record(entries)

    def refuse(self, refused: Sequence[tuple[int, Request, RecordError]]) -> None:
        """Journal records that the engine would not take; they were never worked on, so they have no attempts."""
        self._record([self._error(*one, attempts=0) for one in refused])
        self._traces.refuse(refused)

    def keep(self, now: float) -> None:
        """Make durable what is due, and only then say that it is done."""
        self._note(now)
        if self._journal.maybe_sync(now):
            self._publish(now)

    def close_books(self, now: float) -> None:
        """Make everything durable now."""
        self._note(now)
        self._journal.sync()
        self._publish(now)

    def _entry(self, outcome: Outcome) -> Entry:
        work = outcome.work
        if outcome.error is not None:
            error = self._error(work.position, work.request, outcome.error, attempts=work.attempt)
            return error._replace(prompt_tokens=outcome.prompt_tokens, completion_tokens=outcome.completion_tokens)
        record = record_id(self._shard, work.position)
        asked = self._fingerprint(work.request.body)
        line = result_line(record, work.request.custom_id, outcome.body or {}, work.attempt, outcome.about, asked)
        return Entry(
            work.position, line, prompt_tokens=outcome.prompt_tokens, completion_tokens=outcome.completion_tokens
        )

    def _shared(self, shared: Shared) -> Entry:
        request, position = shared.work.request, shared.work.position
        asked, record = self._fingerprint(request.body), record_id(self._shard, position)
        line = result_line(record, request.custom_id, shared.body, 0, shared.about, asked)
        return Entry(position, line, reused=shared.origin)

    def _error(self, position: int, request: Request, error: RecordError, *, attempts: int) -> Entry:
        self._metrics.errors.labels(error.code).inc()
        line = error_line(record_id(self._shard, position), request.custom_id, error, attempts)
        return Entry(position, line, failed=True)

    def _record(self, entries: Sequence[Entry]) -> None:
        if not entries:
            return
        counts, metrics = self._journal.ledger.counts, self._metrics
        before = copy(counts)
        self._journal.append(entries)
        metrics.succeeded.inc(counts.succeeded - before.succeeded)
        metrics.failed.inc(counts.failed - before.failed)
        metrics.prompt_tokens.inc(counts.prompt_tokens - before.prompt_tokens)
        metrics.completion_tokens.inc(counts.completion_tokens - before.completion_tokens)
        metrics.reused[RESUMED].inc(counts.resumed - before.resumed)
        metrics.reused[EQUAL].inc(counts.equal - before.equal)
        metrics.reused[CACHED].inc(counts.cached - before.cached)

    def _note(self, now: float) -> None:
        stats, seen, before = self._engine.stats, self._seen, self._before
        new_batches = stats.batches - seen.batches
        if new_batches:
            records = (stats.batched_records - seen.batched_records) / new_batches
            tokens = (stats.batched_tokens - seen.batched_tokens) / new_batches
            for _ in range(new_batches):
                self._metrics.batch_fill.observe(records / (stats.max_num_seqs or self._batching.size))
                self._metrics.token_fill.observe(
                    tokens / (self._batching.max_batch_tokens or stats.max_num_batched_tokens or self._batching.tokens)
                )
            self._seen = replace(stats)
        self._journal.note(
            Used(
                gpu_seconds=before.gpu_seconds + (now - self._started) * self._gpus,
                batches=before.batches + stats.batches,
                batched_records=before.batched_records + stats.batched_records,
            )
        )

    def _publish(self, now: float) -> None:
        self._metrics.endpoints.show(self._engine.stats.endpoints)
        speed = self._speed.measure(now, self.finished)
        self._live.report = self._report(f"{speed:.2f}", now)
        if now - self._logged >= LOG_SECONDS:
            self._logged = now
            log.info("%d of %d records done, %.1f a second", self.finished, self._shard.records, speed)

    @property
    def _limits(self) -> BatchLimits | None:
        found = self._engine.stats
        if not found.max_num_seqs:
            return None
        return BatchLimits(max_batch_size=found.max_num_seqs, max_batch_tokens=found.max_num_batched_tokens)

    def _report(self, speed: str, now: float) -> ShardReport:
        durable, used = self._journal.durable, self._journal.ledger.used
        total = self._shard.records
        return ShardReport(
            shard=self._shard.index,
            attempt=self._journal.attempt,
            records=RecordCounts(
                total=total,
                succeeded=durable.succeeded,
                failed=durable.failed,
                pending=total - durable.succeeded - durable.failed,
            ),
            usage=Usage(
                prompt_tokens=durable.prompt_tokens,
                completion_tokens=durable.completion_tokens,
                gpu_seconds=int(used.gpu_seconds),
            ),
            reused=durable.reused,
            batches=used.batches,
            batched_records=used.batched_records,
            batch_limits=self._limits,
            reprocessed=durable.reprocessed,
            records_per_second=speed,
            seconds=ceil(now - self._started),
            first_record_time=self._around.first_record_time,
            endpoints=tuple(stats.report(name) for name, stats in self._engine.stats.endpoints.items()),
        )


def committed_report(commit: ShardCommit, around: Surroundings | None = None) -> ShardReport:
    """The last word about a shard, of the worker that has worked on it in these surroundings or has found it done."""
    told = around.live.report if around is not None else None
    return ShardReport(
        shard=commit.shard,
        attempt=commit.attempt,
        committed=True,
        records=commit.records,
        usage=commit.usage,
        reused=commit.reused,
        batches=commit.batches,
        batched_records=commit.batched_records,
        batch_limits=told.batch_limits if isinstance(told, ShardReport) else None,
        reprocessed=commit.reprocessed,
        seconds=ceil(around.clock() - around.started) if around is not None else 0,
        first_record_time=around.first_record_time if around is not None else None,
        endpoints=told.endpoints if isinstance(told, ShardReport) else (),
    )
