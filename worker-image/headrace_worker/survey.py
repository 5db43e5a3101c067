"""One reading of a whole input, record by record, in constant memory: the inner loop of `plan`.

Everything is found in one pass: what is wrong with each record, which ids may be used twice, where the shards are cut, their
hashes, and about how many tokens there are.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from headrace.api.base import JsonObject
from headrace.api.common import InputFormat
from headrace.api.manifest import duplicate
from headrace.api.records import Reader, RecordError, Request, estimate_prompt_tokens
from headrace.api.sharding import ShardCutter
from headrace.api.worker import PlanReport, WorkerConfig
from headrace_worker.customids import Place, SeenIds
from headrace_worker.formats import locate, readers
from headrace_worker.problems import ProblemList
from headrace_worker.stores import relative_name
from headrace_worker.stores.base import Store, StoredObject

TEMPLATE_TOKENS = 256
"""More than a chat template adds to a prompt."""
PROGRESS_RECORDS = 65536

Progress = Callable[[PlanReport], None]


@dataclass(frozen=True, slots=True)
class PromptLimit:
    """How long a prompt may be, and who can tell its true length."""

    check: Callable[[Request], int]
    """Tokens of the prompt of a request that has the batch's parameters merged in; slow. Raises `RecordError`."""
    context_tokens: int
    """Longest sequence of the model, prompt and completion together."""


class Survey:
    """A reading, and what it has found. `suspects` are hashes of ids that an earlier reading has found more than once."""

    def __init__(
        self,
        config: WorkerConfig,
        objects: Sequence[StoredObject],
        limit: PromptLimit | None,
        suspects: frozenset[int] = frozenset(),
    ) -> None:
        self.records = 0
        """All records so far, bad ones included."""
        self.prompt_tokens = 0
        self.seen = SeenIds(suspects)
        self.cutter = ShardCutter(config.shards, sum(found.size for found in objects), config.input.limit)
        self._input, self._objects, self._limit, self._suspects = config.input, objects, limit, suspects
        self._parameters = config.parameters
        self._reader_for = readers(config.input, config.model if config.fan_out is None else None)

    def read(self, store: Store, problems: ProblemList, progress: Progress) -> None:
        """Read the objects, up to the input's limit. Raises `StoreError` when one cannot be read."""
        for found in self._objects:
            if self.records == self._input.limit:
                return
            name = relative_name(self._input.uri or "", found.uri)
            self.cutter.begin(found.uri, found.size, name if self._input.format == InputFormat.TEXT else None)
            self._read_object(store, found, name, problems, progress)

    def _read_object(
        self, store: Store, found: StoredObject, name: str, problems: ProblemList, progress: Progress
    ) -> None:
        file = name if len(self._objects) > 1 else None
        check, add, limit = self._checker(self._reader_for(name), file), self.cutter.add, self._input.limit
        pass_over = self.cutter.pass_over
        with store.open(found.uri) as stream:
            for start, end, number, raw in locate(stream, self._input):
                try:
                    if isinstance(raw, RecordError):
                        raise raw
                    tokens = check(raw, number)
                    if tokens is None:
                        pass_over(end, raw)
                    else:
                        self.prompt_tokens += tokens
                        add(start, end, number, raw)
                except RecordError as error:
                    problems.add(error, number, file)
                self.records += 1
                if not self.records % PROGRESS_RECORDS:
                    progress(PlanReport(records=self.records, error_count=problems.count))
                if self.records == limit:
                    return

    def _checker(self, read: Reader, file: str | None) -> Callable[[bytes, int], int | None]:
        """A function from a record's bytes and line to its prompt tokens, None for one that is not for this batch.

        It raises `RecordError` for whatever is wrong.
        """
        record, suspects, limit = self.seen.recorder(), self._suspects, self._limit

        def check(raw: bytes, number: int) -> int | None:
            request = read(raw)
            if record(request.custom_id) in suspects:
                self._check_first_use(request.custom_id, (file, number))
            if not request.taken:
                return None
            if limit is not None and self._may_be_too_long(request, raw, limit.context_tokens):
                return limit.check(Request(request.custom_id, {**self._parameters, **request.body}))
            return estimate_prompt_tokens(request.body)

        return check

    def _check_first_use(self, custom_id: str, place: Place) -> None:
        first = self.seen.first_use(custom_id, place)
        if first is not None:
            file, line = first
            raise duplicate(custom_id, f"line {line} of {file}" if file else f"line {line}")

    def _may_be_too_long(self, request: Request, raw: bytes, context_tokens: int) -> bool:
        """Only then is it worth counting: a token has at least one byte, and JSON is never shorter than the text in it."""
        size = len(raw) if self._input.format == InputFormat.OPENAI else len(orjson.dumps(request.body))
        return size + TEMPLATE_TOKENS + _max_tokens(request.body, self._parameters) > context_tokens


def _max_tokens(body: JsonObject, parameters: Mapping[str, Any]) -> int:
    """The most that may be generated; no end of them when it is no number, so that the check will say so."""
    asked = (body.get(name, parameters.get(name)) for name in ("max_tokens", "max_completion_tokens"))
    return max((one if isinstance(one, int) else sys.maxsize for one in asked if one is not None), default=0)
