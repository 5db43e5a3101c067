"""The journals of one shard: how a worker claims the shard, goes on where another stopped, and commits it exactly once.

Each attempt has a journal of its own, and only the worker that created it appends to it. The head of a journal says how many
bytes of each older journal it adopts; what a zombie appends later lies beyond them and never counts.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from copy import copy
from types import TracebackType
from typing import Self

from headrace.api.batchstatus import RecordCounts, Usage
from headrace.api.output import OutputFile
from headrace.api.worker import ManifestHeader, Shard
from headrace_worker.commit import ShardCommit, commit_bytes, read_commit, same_batch, sweep, write_outputs
from headrace_worker.errors import Drained, ShardFailed
from headrace_worker.layout import ShardFolder
from headrace_worker.ledger import Counts, Entry, Ledger, Used, begun_line, entry_line, used_line
from headrace_worker.outputfiles import JSON_LINES, FileKind
from headrace_worker.revisions import Base, Revision, present_revision
from headrace_worker.stores.base import AlreadyExists, NotFound, Store, StoreError
from headrace_worker.takeover import JournalHead, head_line, take_over

SYNC_RECORDS = 16
"""So many finished records are made durable without waiting for the second to be over."""
SYNC_SECONDS = 1.0
"""The longest that a finished record waits to be made durable."""
IDLE_PAUSES, IDLE_SECONDS = 10, 10.0
"""So many times longer is the pause while nothing happens and only the GPU seconds grow, but not longer than this."""
_CLAIM_TRIES = 100


class ShardJournal:
    """A claimed shard: what is finished, and the file in which the rest will be. Use it in a `with` block."""

    def __init__(
        self, store: Store, folder: ShardFolder, head: JournalHead, ledger: Ledger, base: Base | None = None
    ) -> None:
        self.attempt = head.attempt
        self.base = base
        """The revision before, whose results are kept."""
        self.ledger = ledger
        self.durable: Counts = copy(ledger.counts)
        """The counts as of the last sync; only these may be reported."""
        self._store, self._folder, self._head = store, folder, head
        self._size = len(head_line(head))
        self._synced_size = self._size
        self._unsynced = 0
        self._synced_at: float | None = None
        self._stack = ExitStack()
        self._log = self._stack.enter_context(store.append(folder.journal(head.attempt)))

    @classmethod
    def claim(
        cls, store: Store, output_uri: str, shard: Shard, header: ManifestHeader, round_: int = 0
    ) -> ShardJournal | ShardCommit:
        """Take over a shard: from now on this attempt alone can commit it. The commit, if it has one that this retry leaves as it is.

        Raises `JobFailed` when the folder belongs to another batch or another plan.
        """
        lost: StoreError
        for _ in range(_CLAIM_TRIES):
            try:
                return cls._claim_once(
                    store, present_revision(store, output_uri, shard.index, round_), shard, header, round_
                )
            except (AlreadyExists, NotFound) as error:
                lost = error  # somebody else was faster, or has just committed and sweeps up: look again
        raise ShardFailed(
            "JournalMissing", f"shard {shard.index} cannot be claimed after {_CLAIM_TRIES} tries: {lost}"
        ) from lost

    @classmethod
    def _claim_once(
        cls, store: Store, revision: Revision, shard: Shard, header: ManifestHeader, round_: int
    ) -> ShardJournal | ShardCommit:
        folder, commit = revision.folder, revision.commit
        if commit is not None:
            same_batch(commit.batch, header.batch, folder.commit)
            sweep(store, folder, commit)
            return commit
        if revision.base is not None:
            same_batch(revision.base.commit.batch, header.batch, revision.base.folder.commit)
        head, ledger = take_over(store, revision, shard, header, round_)
        return cls(store, folder, head, ledger, revision.base)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def begin(self, positions: Sequence[int]) -> None:
        """Note that work on these records begins, so that work that is lost can be counted. Once a record and attempt."""
        self._append(begun_line(positions))
        self.ledger.begin(positions)

    def append(self, entries: Iterable[Entry]) -> None:
        """Add finished records. They survive a sync; in a file, the death of this process alone at once.

        Raises `NoSpace`, `NotWritable`: then nothing more may be appended, and none of these records may count as finished.
        """
        finished = list(entries)
        lines = [entry_line(entry) for entry in finished]
        offset = self._size
        self._append(b"".join(lines))
        for entry, line in zip(finished, lines, strict=True):
            self.ledger.finish(entry, self.attempt, offset)
            offset += len(line)
        self._unsynced += len(lines)

    def note(self, used: Used) -> None:
        """Say what the shard has used so far, its older attempts included; it is written with the next sync."""
        self.ledger.used = copy(used)

    def maybe_sync(self, now: float) -> bool:
        """Sync when it is time to (`now` in seconds of any steady clock); returns whether it did."""
        if self._synced_at is not None and now - self._synced_at < self._enough:
            return False
        self.sync()
        self._synced_at = now
        return True

    @property
    def _enough(self) -> float:
        """How long after a sync the next one is due, in seconds; when nothing has happened, later."""
        pause = self._log.sync_pause
        if self._unsynced >= SYNC_RECORDS:
            return pause
        idle = self._size == self._synced_size
        return max(SYNC_SECONDS, pause, min(IDLE_PAUSES * pause, IDLE_SECONDS) if idle else 0)

    def sync(self) -> None:
        """Make everything durable, and only then let it count."""
        self._append(used_line(self.ledger.used))
        self._log.sync()
        self._synced_size = self._size
        self.durable = copy(self.ledger.counts)
        self._unsynced = 0

    def fenced(self) -> bool:
        """Whether a newer attempt has claimed the shard, or somebody has committed it.

        Attempts leave no number out, so the next journal is there if any newer one is. Journals are swept up only after a
        commit, so the commit is looked for last.
        """
        return any(map(self._store.exists, (self._folder.journal(self.attempt + 1), self._folder.commit)))

    def concede(self) -> ShardCommit:
        """The commit of whoever has fenced this attempt off. Raises `Drained` while they are still at work."""
        commit = read_commit(self._store, self._folder)
        if commit is None:
            raise Drained(f"a newer attempt works on shard {self._head.shard}; attempt {self.attempt} ends here")
        sweep(self._store, self._folder, commit)
        return commit

    def commit(self, kind: FileKind = JSON_LINES) -> ShardCommit:
        """Write the shard's files, in this form, and its manifest; every record must be finished. The other's commit if one was faster.

        Raises `Drained` when a newer attempt has claimed the shard, `NoSpace` and `NotWritable` with nothing lost.
        """
        if self.ledger.pending:
            raise ValueError(f"{self.ledger.pending} records of shard {self._head.shard} are not finished")
        if self.fenced():
            return self.concede()
        self.sync()
        try:
            kept = self.base.results() if self.base is not None else iter(())
            paths = self._folder.outputs(self.attempt, kind.ending)
            results, errors = write_outputs(self._store, self._folder, self.ledger, paths, kept, kind)
        except NotFound:
            return self.concede()  # the winner has swept up the journals
        if self.fenced():
            self._withdraw(results, errors)
            return self.concede()
        return self._publish(self._manifest(results, errors))

    def _publish(self, commit: ShardCommit) -> ShardCommit:
        try:
            self._store.put(self._folder.commit, commit_bytes(commit), if_absent=True)
        except AlreadyExists:
            winner = self.concede()
            if winner.attempt != self.attempt:  # else a store has repeated our own request, whose answer was lost
                self._withdraw(commit.results, commit.errors)
            return winner
        sweep(self._store, self._folder, commit)
        return commit

    def _withdraw(self, *files: OutputFile) -> None:
        for file in files:
            self._store.delete(self._folder.uri(file.path))

    def _manifest(self, results: OutputFile, errors: OutputFile) -> ShardCommit:
        counts, used = self.ledger.counts, self.ledger.used
        return ShardCommit(
            batch=self._head.batch,
            shard=self._head.shard,
            attempt=self.attempt,
            round=self._head.round,
            results=results,
            errors=errors,
            records=RecordCounts(total=len(self.ledger), succeeded=counts.succeeded, failed=counts.failed),
            usage=Usage(
                prompt_tokens=counts.prompt_tokens,
                completion_tokens=counts.completion_tokens,
                gpu_seconds=int(used.gpu_seconds),
            ),
            reused=counts.reused,
            batches=used.batches,
            batched_records=used.batched_records,
            reprocessed=counts.reprocessed,
        )

    def _append(self, data: bytes) -> None:
        self._log.append(data)
        self._size += len(data)
