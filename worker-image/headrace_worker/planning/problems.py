"""The list of everything that is wrong with an input: all of it in a file, the first few in the report."""

from __future__ import annotations

import orjson

from headrace.api.batchstatus import RecordProblem
from headrace.api.manifest import SHOWN_ERRORS, record_problem
from headrace.api.records import RecordError
from headrace_worker.planning.outputfile import OutputFile
from headrace_worker.stores.base import Store


class ProblemList(OutputFile):
    """The file is there only if there was a problem."""

    def __init__(self, store: Store, uri: str) -> None:
        super().__init__(store, uri)
        self.count = 0
        self.first: list[RecordProblem] = []

    def add(self, error: RecordError, line: int, file: str | None = None) -> None:
        """Write one down. Raises `JobFailed` when there is no room for it."""
        problem = record_problem(error, line, file)
        self.count += 1
        if self.count <= SHOWN_ERRORS:
            self.first.append(problem)
        self.write(orjson.dumps(problem.to_object(), option=orjson.OPT_APPEND_NEWLINE))
