"""The list of everything that is wrong with an input: all of it in a file, the first few in the report."""

from __future__ import annotations

from contextlib import ExitStack
from types import TracebackType
from typing import BinaryIO, Self

import orjson

from headrace.api.batchstatus import RecordProblem
from headrace.api.manifest import SHOWN_ERRORS, record_problem
from headrace.api.records import RecordError
from headrace_worker.failures import output_failures
from headrace_worker.stores.base import Store


class ProblemList:
    """Used in a `with` block. The file is there once the block has ended well, and only if there was a problem."""

    def __init__(self, store: Store, uri: str) -> None:
        self.count = 0
        self.first: list[RecordProblem] = []
        self.uri = uri
        self._store = store
        self._stack = ExitStack()
        self._stream: BinaryIO | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with output_failures():
            self._stack.__exit__(kind, error, trace)

    def add(self, error: RecordError, line: int, file: str | None = None) -> None:
        """Write one down. Raises `JobFailed` when there is no room for it."""
        problem = record_problem(error, line, file)
        self.count += 1
        if self.count <= SHOWN_ERRORS:
            self.first.append(problem)
        with output_failures():
            if self._stream is None:
                self._stream = self._stack.enter_context(self._store.writer(self.uri))
            self._stream.write(orjson.dumps(problem.to_object(), option=orjson.OPT_APPEND_NEWLINE))
