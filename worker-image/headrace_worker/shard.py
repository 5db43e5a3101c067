"""Working on one shard: take records in, hand them over in batches, journal what comes back, and commit when all are done.

The journal is the only truth. Whatever ends this loop (a signal, a full disk, a kill), the next attempt begins by reading it.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

from headrace.api.worker import ManifestHeader, Shard, ShardReport, WorkerConfig
from headrace_worker import engines
from headrace_worker.batcher import Batcher, BatchLimits
from headrace_worker.collecting import rare_collections
from headrace_worker.commit import ShardCommit
from headrace_worker.deadlines import Deadlines
from headrace_worker.engines.base import Engine, Outcome, Work
from headrace_worker.errors import Drained, JobFailed, WorkerError
from headrace_worker.formats.shards import read_shard, verify_shard
from headrace_worker.intake import Intake
from headrace_worker.journal import ShardJournal
from headrace_worker.outputfiles import FileKind
from headrace_worker.recorder import Activity, Recorder, Surroundings, committed_report
from headrace_worker.resuming import resumed
from headrace_worker.retry import RetryQueue
from headrace_worker.sharing import Shared, Sharing
from headrace_worker.stores import open_store

LOOK_AHEAD_BATCHES = 16
"""So many full batches may wait: the batcher finds batch mates among them."""
MOST_WAITING = 16_384
"""But no more records than this, unless two batches are larger."""
MOST_WAITING_BYTES = 256 * 1024 * 1024
"""Nor more than about so many bytes: a record with an image in it is large."""
FENCE_SECONDS = 5.0
"""How often a worker looks whether a newer attempt has taken its shard."""
LONGEST_WAIT_SECONDS = 1.0

log = logging.getLogger(__name__)


def run_shard(config: WorkerConfig, header: ManifestHeader, shard: Shard, around: Surroundings) -> ShardReport:
    """Do one shard, or find that it is done. Raises `WorkerError`, `StoreError`; what is finished is on disk then."""
    claimed = ShardJournal.claim(open_store(config.output_uri), config.output_uri, shard, header, config.round)
    if isinstance(claimed, ShardCommit):
        log.info("shard %d is done: attempt %d has committed it", shard.index, claimed.attempt)
        return committed_report(claimed)
    with rare_collections(), claimed as journal:
        engine = engines.create(config, header.dated)
        try:
            commit = ShardRun(config, shard, journal, engine, around).run()
        finally:
            engine.close()
    log.info(
        "shard %d: %d results and %d errors committed by attempt %d",
        shard.index, commit.records.succeeded, commit.records.failed, commit.attempt,
    )  # fmt: skip
    return committed_report(commit, around)


def look_ahead(shard: Shard, batch_size: int) -> int:
    """How many records of a shard may wait: 16 batches of ordinary ones, fewer of large ones, and never less than two."""
    size = sum(segment.end - segment.start for segment in shard.segments) // shard.records
    return max(2 * batch_size, min(LOOK_AHEAD_BATCHES * batch_size, MOST_WAITING, MOST_WAITING_BYTES // max(1, size)))


class ShardRun:
    """One attempt at a shard."""

    def __init__(
        self, config: WorkerConfig, shard: Shard, journal: ShardJournal, engine: Engine, around: Surroundings
    ) -> None:
        self._config, self._shard, self._journal, self._engine = config, shard, journal, engine
        self._clock, self._drain = around.clock, around.drain
        self._recorder = Recorder(config, shard, journal, engine, around)
        self._input = open_store(shard.segments[0].uri)
        records = read_shard(self._input, shard, config.records, config.model)
        self._intake = Intake(records, journal.ledger, config.parameters, engine.prepare)
        self._batcher = Batcher(BatchLimits.of(config.batching))
        self._retries = RetryQueue(config.retries, seed=config.batch.uid)
        self._deadlines = Deadlines(config.record_deadline_seconds)
        self._sharing = Sharing.of(config)
        self._look_ahead = look_ahead(shard, config.batching.size)
        self._loaded = False
        self._fence_due = self._clock() + FENCE_SECONDS

    def run(self) -> ShardCommit:
        """Work until the shard is committed, by this attempt or by another."""
        self._greet()
        with self._drain.interrupting():
            verify_shard(self._input, self._shard, self._config.records)
        self._resume()
        while not self._done:
            if self._fenced():
                return self._journal.concede()
            self._obey()
            self._take_in()
            self._hand_over()
            self._give_up()
            # Before the step: what is begun is known when the step kills this process.
            self._recorder.keep(self._clock())
            self._step()
        self._obey_limit()
        if self._sharing is not None:
            self._sharing.close()
        self._recorder.close_books(self._clock())
        return self._journal.commit(FileKind.of(self._config))

    @property
    def _done(self) -> bool:
        return self._intake.exhausted and not (self._waiting or self._engine.running)

    @property
    def _waiting(self) -> int:
        return len(self._batcher) + len(self._retries) + (len(self._sharing) if self._sharing is not None else 0)

    def _greet(self) -> None:
        done, total = self._recorder.finished, self._shard.records
        log.info(
            "shard %d, attempt %d: %d of %d records are done", self._shard.index, self._journal.attempt, done, total
        )

    def _fenced(self) -> bool:
        """Whether another worker has taken over; looked up every few seconds."""
        now = self._clock()
        if now < self._fence_due:
            return False
        self._fence_due = now + FENCE_SECONDS
        return self._journal.fenced()

    def _obey(self) -> None:
        """Stop when told to, or when too much has failed; with the books closed."""
        if self._drain.requested:
            self._recorder.close_books(self._clock())
            done, total = self._recorder.finished, self._shard.records
            raise Drained(f"told to stop with {done} of {total} records of shard {self._shard.index} done")
        self._obey_limit()

    def _obey_limit(self) -> None:
        failed, tolerated = self._journal.ledger.counts.failed, self._config.max_failed_records
        if tolerated is not None and failed > tolerated:
            self._recorder.close_books(self._clock())
            raise JobFailed(
                "TooManyFailedRecords",
                f"{failed} of the {self._shard.records} records of shard {self._shard.index} have failed; "
                f"failurePolicy.maxFailedRecords tolerates {tolerated} in the whole batch",
            )

    def _take_in(self) -> None:
        """Wake the parked records whose time has come, and read on until enough records wait."""
        now = self._clock()
        for work in self._retries.due(now):
            self._batcher.add(work, now)
        room = self._look_ahead - self._waiting
        if room > 0 and not self._intake.exhausted:
            taken = self._intake.take(room)
            self._recorder.refuse(taken.refused)
            if self._sharing is None:
                self._queue(taken.work, now)
            else:
                self._share(self._sharing.sift(taken.work), now)

    def _queue(self, works: Iterable[Work], now: float) -> None:
        for work in works:
            self._batcher.add(work, now)

    def _share(self, sifted: tuple[list[Work], list[Shared]], now: float) -> None:
        """What is to be asked waits for its turn; what has an answer is finished."""
        ask, have = sifted
        self._queue(ask, now)
        self._recorder.share(have)

    def _resume(self) -> None:
        """Take over what an earlier batch has answered."""
        config, ledger = self._config, self._journal.ledger
        asked = read_shard(self._input, self._shard, config.records, config.model)
        for entries in resumed(config, self._shard, asked, ledger):
            self._obey()
            self._recorder.resume(entries)
            self._recorder.keep(self._clock())

    def _hand_over(self) -> None:
        """Give the engine as much as it has room for."""
        more_coming = len(self._retries) > 0 or not self._intake.exhausted
        while batch := self._batcher.next_batch(self._clock(), self._engine.room, more_coming=more_coming):
            self._load()
            now = self._clock()
            self._recorder.begin(batch, now, again=self._retries.has_failed)
            self._deadlines.begin(batch, now)
            with self._books_closed():
                self._engine.submit(batch)
        self._recorder.waiting(self._waiting)

    def _give_up(self) -> None:
        """Let go of the records that have had their time, so that the others have their places."""
        overdue = self._deadlines.overdue(self._clock())
        if overdue:
            with self._books_closed():
                given_up = self._engine.give_up(overdue)
            self._settle(self._deadlines.outcomes(given_up))

    def _load(self) -> None:
        """Load the model when there is work for it, and not before."""
        if not self._loaded:
            began = self._clock()
            self._recorder.held(Activity.OTHER, began)
            with self._drain.interrupting():
                self._engine.load()
            self._loaded, ready = True, self._clock()
            self._recorder.held(Activity.LOAD if self._journal.attempt == 1 else Activity.RELOAD, ready)
            log.info("the engine %s was ready after %.1f s", self._config.engine.name, ready - began)

    def _step(self) -> None:
        """Let the engine work; when it has nothing to do, wait until there is something."""
        self._recorder.held(Activity.OTHER, self._clock())
        if self._engine.running:
            self._settle(self._worked())
        elif self._intake.exhausted and not self._done:
            now = self._clock()
            moments = (self._batcher.next_deadline(), self._retries.next_due(), now + LONGEST_WAIT_SECONDS)
            self._drain.wait(min(moment for moment in moments if moment is not None) - now)
            self._recorder.held(Activity.WAIT, self._clock())

    def _worked(self) -> list[Outcome]:
        """What the engine hands back."""
        began = self._clock()
        with self._books_closed():
            outcomes = self._engine.step()
        now = self._clock()
        if self._engine.stats.stalled:
            self._deadlines.hold(now - began)
        self._recorder.held(Activity.WORK, now)
        return outcomes

    @contextmanager
    def _books_closed(self) -> Iterator[None]:
        """The engine may find that nobody can be asked any more, or die: then with the books closed."""
        try:
            yield
        except WorkerError:
            self._recorder.close_books(self._clock())
            raise

    def _settle(self, outcomes: Sequence[Outcome]) -> None:
        """Park what is worth another try; the rest is finished."""
        now = self._clock()
        finished: list[Outcome] = []
        self._recorder.came_back(outcomes, now)
        for outcome in outcomes:
            end = self._deadlines.end(outcome.work.position) if outcome.retriable else None
            if outcome.retriable and self._retries.park(outcome.work, now, end):
                self._recorder.retry()
            else:
                finished.append(outcome)
        self._deadlines.finish(finished)
        self._recorder.finish(finished)
        if self._sharing is not None:
            for outcome in finished:
                self._share(self._sharing.settle(outcome), now)
