"""Reading what a branch has left: its lines in the order of the input, one at a time, each found by its `custom_id`.

Results and errors of a shard are two files in the order of the input, and shards follow each other. So the line of the next record is
at the head of one of two streams, or the branch has none. Nothing is sorted and nothing is kept; a line that nobody comes for shows
that the branch has read another input.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, closing

import orjson
from pydantic import ValidationError

from headrace.api.base import JsonObject
from headrace.api.output import MANIFEST_FILE, BatchManifest, OutputFile
from headrace_worker.errors import JobFailed
from headrace_worker.outputfiles import Damaged, read_lines
from headrace_worker.stores import join
from headrace_worker.stores.base import NotFound, Store


def branch_uri(output_uri: str, branch: str) -> str:
    """The output folder of a branch."""
    return join(output_uri, "branches", branch)


class BranchOutput:
    """The output of one branch, while it is read. Use it in a `with` block."""

    def __init__(self, store: Store, uri: str) -> None:
        self.manifest = _read_manifest(store, uri)
        self._store, self._uri = store, uri
        self._shards = iter(self.manifest.shards)
        self._streams: tuple[_Lines, ...] = ()
        self._stack = ExitStack()

    def __enter__(self) -> BranchOutput:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def take(self, custom_id: str) -> JsonObject | None:
        """The line of the record that comes next in the input; None when the branch has not taken that record."""
        self._advance()
        for stream in self._streams:
            if stream.head is not None and stream.head["custom_id"] == custom_id:
                return stream.pop()
        return None

    def left_over(self) -> str | None:
        """The `custom_id` of a line that nobody has come for; None when all were taken."""
        self._advance()
        heads = (stream.head for stream in self._streams if stream.head is not None)
        return next((str(head["custom_id"]) for head in heads), None)

    def _advance(self) -> None:
        """Go on with the next shard once this one has been read."""
        while all(stream.head is None for stream in self._streams):
            self._stack.close()
            shard = next(self._shards, None)
            if shard is None:
                return
            files = (shard.results, shard.errors)
            self._streams = tuple(_Lines(self._store, self._uri, file, self._stack) for file in files)


class _Lines:
    """One committed file, line by line; its hash is compared when it has been read."""

    def __init__(self, store: Store, uri: str, file: OutputFile, stack: ExitStack) -> None:
        self._uri, self._file = join(uri, file.path), file
        lines = stack.enter_context(closing(read_lines(store, self._uri, file)))
        self._rows = _rows(self._uri, lines)
        self.head: JsonObject | None = next(self._rows, None)

    def pop(self) -> JsonObject | None:
        """The head; the next line takes its place."""
        row, self.head = self.head, next(self._rows, None)
        return row


def _rows(uri: str, lines: Iterator[bytes]) -> Iterator[JsonObject]:
    try:
        yield from map(orjson.loads, lines)
    except NotFound as error:
        raise _damaged(uri, "is not there any more") from error
    except orjson.JSONDecodeError as error:
        raise _damaged(uri, "has a line that is no JSON") from error
    except Damaged as error:
        raise _damaged(uri, f"is not what was committed: {error}") from error


def _read_manifest(store: Store, uri: str) -> BatchManifest:
    name = join(uri, MANIFEST_FILE)
    try:
        return BatchManifest.model_validate_json(store.read(name))
    except NotFound as error:
        raise _damaged(name, "is not there: the branch has not ended, or its output was deleted") from error
    except ValidationError as error:
        raise _damaged(name, "is not the manifest of a batch") from error


def _damaged(uri: str, what: str) -> JobFailed:
    return JobFailed("BranchOutputDamaged", f"{uri} {what}")
