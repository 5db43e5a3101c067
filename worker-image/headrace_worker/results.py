"""`headrace_worker results`: the records of a batch as JSON lines, in the order of its input, as far as its shards are committed.

The records go to standard output. The last line on standard error is a `ResultsReport`: how much that was, or why not all of it.
"""

from __future__ import annotations

import argparse
import heapq
import os
import signal
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

import orjson

from headrace.api.output import OutputFile
from headrace.api.results import ResultsReport, Wanted
from headrace.api.worker import ExitCode, Failure
from headrace_worker.commit import ShardCommit, read_commit
from headrace_worker.errors import JobFailed, WorkerError
from headrace_worker.layout import ShardFolder
from headrace_worker.outputfiles import Damaged, read_lines
from headrace_worker.revisions import committed_folders
from headrace_worker.stores import join, open_store
from headrace_worker.stores.base import NotFound, Store, StoreError

BROKEN_PIPE = 141
"""As a shell counts a process that writes to nobody: 128 + SIGPIPE."""


def main(argv: Sequence[str]) -> int:
    """Write what the words ask for; returns the exit code."""
    asked, told = _parsed(argv), _Told()
    try:
        _write(asked, told)
    except BrokenPipeError:  # the reader has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return BROKEN_PIPE
    except WorkerError as error:
        return told.end(error.failure)
    except (StoreError, OSError) as error:
        return told.end(Failure(reason="OutputUnreadable", message=str(error)))
    return told.end()


def hold() -> int:
    """Wait to be told to stop, for a pod in which others run `headrace_worker results`."""
    told = {signal.SIGTERM, signal.SIGINT}
    signal.pthread_sigmask(
        signal.SIG_BLOCK, told
    )  # the first process of a container gets no signal that is not blocked or caught
    sys.stderr.write("waiting for somebody to read\n")
    sys.stderr.flush()
    signal.sigwait(told)
    return ExitCode.DONE


@dataclass
class _Told:
    """How much has been written."""

    shards: int = 0
    records: int = 0

    def end(self, failure: Failure | None = None) -> int:
        """Say the last word; returns the exit code."""
        sys.stdout.buffer.flush()
        report = ResultsReport(shards=self.shards, records=self.records, failure=failure)
        sys.stderr.buffer.write(orjson.dumps(report.to_object(), option=orjson.OPT_APPEND_NEWLINE))
        sys.stderr.buffer.flush()
        return ExitCode.DONE if failure is None else ExitCode.JOB_FAILED


def _write(asked: argparse.Namespace, told: _Told) -> None:
    store, write = open_store(asked.output), sys.stdout.buffer.write
    shards = committed_folders(store, asked.output)
    told.shards = len(shards)
    for line in islice(records(store, asked.output, shards.values(), asked.wanted), asked.limit):
        write(line)
        told.records += 1
    sys.stdout.buffer.flush()


def _parsed(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        "headrace_worker results", description="Write the records of a batch as JSON lines."
    )
    parser.add_argument("--output", required=True, metavar="URI", help="the batch's output folder")
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--errors", dest="wanted", action="store_const", const=Wanted.FAILED, default=Wanted.SUCCEEDED)
    which.add_argument("--all", dest="wanted", action="store_const", const=Wanted.ALL)
    parser.add_argument("--limit", type=int, metavar="N", help="at most so many records, the first ones")
    return parser.parse_args(argv)


def records(store: Store, output_uri: str, shards: Iterable[ShardFolder], wanted: Wanted) -> Iterator[bytes]:
    """The lines of some shards, as a stream. Raises `WorkerError`, `StoreError` when what was committed is not there any more."""
    for folder in shards:
        commit = read_commit(store, folder)
        if commit is not None:  # else it went a moment ago, with its batch
            yield from _lines_of(store, output_uri, commit, wanted)


def _lines_of(store: Store, output_uri: str, commit: ShardCommit, wanted: Wanted) -> Iterator[bytes]:
    """An output line's `id` counts the records of the whole input, so sorting by it gives their order."""
    if wanted == Wanted.SUCCEEDED:
        return _lines(store, output_uri, commit.results)
    if wanted == Wanted.FAILED:
        return _lines(store, output_uri, commit.errors)
    both = (_lines(store, output_uri, file) for file in (commit.results, commit.errors))
    return heapq.merge(*both, key=lambda line: orjson.loads(line)["id"])


def _lines(store: Store, output_uri: str, file: OutputFile) -> Iterator[bytes]:
    if ".." in file.path.split("/"):  # whoever may write there does not choose what else is read
        raise JobFailed("OutputDamaged", f"{file.path} is not a path in the output")
    try:
        yield from read_lines(store, join(output_uri, file.path), file)
    except Damaged as error:
        raise JobFailed("OutputDamaged", f"{file.path} is not what was committed: {error}") from error
    except NotFound as error:
        raise JobFailed("OutputDamaged", f"{file.path} is not there any more, but was committed: {error}") from error
