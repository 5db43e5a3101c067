"""The manifest of one shard, and how its two files are put together from the journals.

`commit.json` is written last and by one worker only; the files that it names are whole by then. Until it is there nothing of
another attempt may be swept up: a slow worker could be about to commit it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, suppress
from typing import Annotated, BinaryIO, Literal

import orjson
from pydantic import Field, ValidationError

from headrace.api.base import ApiModel, Count
from headrace.api.batchstatus import RecordCounts, Usage
from headrace.api.output import OutputFile
from headrace.api.reuse import Reused
from headrace.api.worker import BatchIdentity
from headrace_worker.errors import JobFailed, ShardFailed
from headrace_worker.layout import ShardFolder, journal_attempt
from headrace_worker.ledger import Ledger, Place, output_line
from headrace_worker.outputfiles import FileKind, OutputWriter
from headrace_worker.stores.base import NotFound, Store

WINDOW_BYTES = 32 * 1024 * 1024
"""So many bytes of lines are brought into the order of the input at a time."""


class ShardCommit(ApiModel):
    """What `commit.json` says: the last word about a shard."""

    version: Literal[1] = 1
    batch: BatchIdentity
    shard: Count
    attempt: Annotated[int, Field(ge=1)]
    """Which attempt has committed."""
    round: Count = 0
    """In which retry of the batch."""
    results: OutputFile
    errors: OutputFile
    records: RecordCounts
    usage: Usage
    reused: Reused = Field(default_factory=Reused)
    batches: Count
    batched_records: Count
    reprocessed: Count
    """Times that a record was begun again because the attempt before had lost it."""


def read_commit(store: Store, folder: ShardFolder) -> ShardCommit | None:
    """The commit of a shard; None when there is none yet. Raises `ShardFailed` when it is damaged."""
    try:
        raw = store.read(folder.commit)
    except NotFound:
        return None
    try:
        return ShardCommit.model_validate_json(raw)
    except ValidationError as error:
        raise ShardFailed("CommitDamaged", f"{folder.commit} is not the manifest of a shard: {error}") from error


def same_batch(found: BatchIdentity, wanted: BatchIdentity, uri: str) -> None:
    """Refuse to touch the output of another batch: raises `JobFailed`."""
    if found != wanted:
        raise JobFailed(
            "OutputInUse",
            f"{uri} belongs to the batch {found.namespace}/{found.name} (uid {found.uid}): "
            f"output.uri of {wanted.namespace}/{wanted.name} (uid {wanted.uid}) must be a folder of its own",
        )


def sweep(store: Store, folder: ShardFolder, commit: ShardCommit) -> None:
    """Delete what the commit of a shard has made superfluous: older revisions, the files of attempts that lost, and last its journals.

    Where nothing of a journal is left, all this has been done. The beginning of a journal goes before the rest of it, so that
    nobody takes what is left for the whole.
    """
    with suppress(NotFound):  # another worker sweeps up as well
        journals = [found.uri for found in store.list(folder.private) if found.uri != folder.commit]
        kept = {folder.uri(commit.results.path), folder.uri(commit.errors.path)}
        patterns = (pattern for one in (*folder.older, folder) for pattern in one.output_patterns)
        for pattern in patterns if journals else ():
            store.delete(*(found.uri for found in store.list(pattern) if found.uri not in kept))
        beginnings = [uri for uri in journals if journal_attempt(uri) is not None]
        store.delete(*beginnings)
        store.delete(*set(journals).difference(beginnings))


def write_outputs(
    store: Store, folder: ShardFolder, ledger: Ledger, paths: tuple[str, str], kept: Iterator[bytes], kind: FileKind
) -> tuple[OutputFile, OutputFile]:
    """Write the results and the errors of a shard in the order of the input; returns what was written, results first.

    `kept` are the lines of the results that an older revision has, in their order.
    """
    with ExitStack() as stack:
        journals = _Journals(store, folder, stack)
        results, errors = (OutputWriter(store, folder.uri(path), path, stack, kind) for path in paths)
        for window in _windows(ledger):
            found = {
                position: journals.line(position, ledger.place(position)) for position in _by_place(window, ledger)
            }
            for position in window:
                if ledger.is_kept(position):
                    results.write(next(kept))
                    continue
                line, failed = found[position]
                (errors if failed else results).write(line)
        for _ in kept:
            raise ValueError(f"shard {folder.index} keeps more lines than records")
    return results.file(), errors.file()


def _windows(ledger: Ledger) -> Iterator[range]:
    """The positions in runs whose lines fit into memory together."""
    records = len(ledger)
    average = max(1, ledger.line_bytes // max(1, records - ledger.kept))
    size = max(1, WINDOW_BYTES // average)
    for first in range(0, records, size):
        yield range(first, min(first + size, records))


def _by_place(window: range, ledger: Ledger) -> list[int]:
    """The positions that have a line in a journal, in the order of these lines, so that each journal is read forwards."""
    return sorted((position for position in window if not ledger.is_kept(position)), key=ledger.order)


class _Journals:
    """The journals of a shard, open for reading; best read forwards."""

    def __init__(self, store: Store, folder: ShardFolder, stack: ExitStack) -> None:
        self._store, self._folder, self._stack = store, folder, stack
        self._open: dict[int, BinaryIO] = {}
        self._at: dict[int, int] = {}
        """Where each stream stands: to ask it costs more than to read a line."""

    def line(self, position: int, place: Place) -> tuple[bytes, bool]:
        """The output line of a finished record, and whether it is an error's."""
        journal = self._open.get(place.attempt)
        if journal is None:
            journal = self._stack.enter_context(self._store.read_log(self._folder.journal(place.attempt)))
            self._open[place.attempt] = journal
        if self._at.get(place.attempt) != place.offset:
            journal.seek(place.offset)
        line = journal.readline()
        self._at[place.attempt] = place.offset + len(line)
        found = output_line(line, position)
        if found is None:
            raise ShardFailed(
                "JournalDamaged",
                f"{self._folder.journal(place.attempt)} has changed at byte {place.offset}, where record {position} was",
            )
        return found


def commit_bytes(commit: ShardCommit) -> bytes:
    """`commit.json` of a commit."""
    return orjson.dumps(commit.to_object(), option=orjson.OPT_APPEND_NEWLINE)
