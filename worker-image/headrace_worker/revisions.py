"""The revisions of a shard: a retry of the batch works on the failed records of a shard that is committed, and commits it anew.

A commit is never changed. The next revision of the shard has a folder of its own, with journals and a commit like the first, so all that
keeps attempts apart holds there too. It keeps the results of the revision before, and what it has an error for is to be done.
When it is committed the output files of the older ones are deleted; their commits stay, so that a slow worker of an earlier retry
finds that it comes too late.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import orjson

from headrace.api.output import OutputFile
from headrace.api.worker import Shard
from headrace_worker.commit import ShardCommit, read_commit
from headrace_worker.errors import ShardFailed
from headrace_worker.layout import ShardFolder, committed_folder, journal_attempt, record_number
from headrace_worker.ledger import Entry, Ledger, Used
from headrace_worker.outputfiles import Damaged, read_lines
from headrace_worker.stores import join
from headrace_worker.stores.base import Store


class Base(NamedTuple):
    """The revision of a shard whose errors the next one is to mend."""

    store: Store
    folder: ShardFolder
    commit: ShardCommit

    def begin(self, ledger: Ledger, shard: Shard) -> None:
        """Make a new ledger begin with what this revision has, and with what it has cost."""
        ledger.keep_all_but({entry.position: orjson.loads(entry.line)["attempts"] for entry in self.errors(shard)})
        if ledger.counts.succeeded != self.commit.records.succeeded:
            raise self._damaged(self.commit.errors.path)
        usage, counts = self.commit.usage, ledger.counts
        counts.prompt_tokens, counts.completion_tokens = usage.prompt_tokens, usage.completion_tokens
        counts.reprocessed, reused = self.commit.reprocessed, self.commit.reused
        counts.resumed, counts.equal, counts.cached = reused.resumed, reused.equal, reused.cached
        ledger.used = Used(usage.gpu_seconds, self.commit.batches, self.commit.batched_records)

    def errors(self, shard: Shard) -> Iterator[Entry]:
        """The records that have failed, each with its line."""
        for line in self._lines(self.commit.errors):
            yield Entry(record_number(orjson.loads(line)["id"]) - shard.first_record, line, failed=True)

    def results(self) -> Iterator[bytes]:
        """The lines of the others, in the order of the input."""
        return self._lines(self.commit.results)

    def _lines(self, file: OutputFile) -> Iterator[bytes]:
        try:
            yield from read_lines(self.store, self.folder.uri(file.path), file)
        except Damaged as error:
            raise self._damaged(file.path) from error

    def _damaged(self, path: str) -> ShardFailed:
        return ShardFailed("OutputDamaged", f"{self.folder.uri(path)} is not what was committed: its hash differs")


class Revision(NamedTuple):
    """The revision of a shard that counts in a retry of the batch."""

    folder: ShardFolder
    newest: int
    """The newest attempt that has a journal; 0 when there is none."""
    commit: ShardCommit | None
    """Its commit, when nothing is left to be done."""
    base: Base | None
    """The revision before it, if there is one."""


def present_revision(store: Store, output_uri: str, shard: int, round_: int) -> Revision:
    """The revision of the shard that this retry of the batch works on, or that leaves it nothing to do."""
    base: Base | None = None
    for revision in range(round_ + 1):
        folder = ShardFolder(output_uri, shard, revision)
        # Listed before the commit is looked for: journals are swept up only when it is there.
        newest = newest_attempt(store, folder)
        commit = read_commit(store, folder)
        if commit is None or commit.round >= round_ or not commit.records.failed:
            return Revision(folder, newest, commit, base)
        base = Base(store, folder, commit)
    raise AssertionError("each revision is committed in a later retry than the one before it")


def newest_attempt(store: Store, folder: ShardFolder) -> int:
    """The newest attempt at a shard that has a journal; 0 when there is none."""
    attempts = (journal_attempt(found.uri) for found in store.list(folder.private))
    return max((attempt for attempt in attempts if attempt is not None), default=0)


def committed_folders(store: Store, output_uri: str) -> dict[int, ShardFolder]:
    """The newest revision of each shard that is committed, by the shard's index, in their order."""
    found = store.list(join(output_uri, "_headrace", "shards", "*", "commit.json"))
    folders = [folder for folder in (committed_folder(output_uri, stored.uri) for stored in found) if folder]
    return {folder.index: folder for folder in sorted(folders, key=lambda it: (it.index, it.revision))}
