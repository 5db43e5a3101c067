"""One reading of a whole input, record by record, in constant memory: the inner loop of `plan`.

Everything is found in one pass: what is wrong with each record, which ids may be used twice, where the shards are cut, their
hashes, and about how many tokens there are.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import orjson

from headrace.api.base import JsonObject
from headrace.api.expected import expected_answer
from headrace.api.input import InputFormat
from headrace.api.manifest import duplicate
from headrace.api.records import RecordError, Request, estimate_prompt_tokens, record_fields
from headrace.api.sharding import ShardCutter
from headrace.api.splitting import parent_of
from headrace.api.worker import PlanReport, Segment, WorkerConfig
from headrace_worker.formats import part_readers, readers, records_in
from headrace_worker.formats.lines import Line
from headrace_worker.planning.customids import Place, SeenIds
from headrace_worker.planning.partsfile import PartsFile
from headrace_worker.planning.problems import ProblemList
from headrace_worker.stores import relative_name
from headrace_worker.stores.base import Store, StoredObject

TEMPLATE_TOKENS = 256
"""More than a chat template adds to a prompt."""
PROGRESS_RECORDS = 65536

Progress = Callable[[PlanReport], None]
Taker = Callable[[int, int, int, bytes], None]
"""Takes in a record: its first byte, the one after its last, its line, and its bytes. It raises `RecordError` for whatever is wrong."""


@dataclass(frozen=True, slots=True)
class PromptLimit:
    """How long a prompt may be, and who can tell its true length."""

    check: Callable[[Request], int]
    """Tokens of the prompt of a request that has the batch's parameters merged in; slow. Raises `RecordError`."""
    context_tokens: int
    """Longest sequence of the model, prompt and completion together."""


class _Noted(NamedTuple):
    """Where to write down what is found."""

    problems: ProblemList
    file: str | None
    """What messages call the file."""
    progress: Progress


class Survey:
    """A reading, and what it has found. `suspects` are hashes of ids that an earlier reading has found more than once."""

    def __init__(
        self,
        config: WorkerConfig,
        objects: Sequence[StoredObject],
        limit: PromptLimit | None,
        suspects: frozenset[int] = frozenset(),
        carried: Sequence[Segment] = (),
    ) -> None:
        self.records = 0
        """All records so far, bad ones included."""
        self.carried = 0
        """Those that an earlier batch has left."""
        self.prompt_tokens = 0
        self.seen = SeenIds(suspects)
        self.parts = PartsFile(config)
        """Where the parts of images go."""
        times = [int(found.modified.timestamp()) for found in objects if found.modified is not None]
        self.modified = max(times, default=None)
        """When the newest of the objects was last modified, in seconds since the epoch."""
        size = sum(found.size for found in objects) + sum(segment.end - segment.start for segment in carried)
        self.cutter = ShardCutter(config.shards, size, config.input.limit)
        self._input, self._objects, self._limit, self._suspects = config.input, objects, limit, suspects
        self._carried = carried
        self._parameters = config.parameters
        self._model = config.model if config.fan_out is None else None
        self._check_expected = _expected_checker(config)
        self._taker_for = self._whole_takers() if config.input.split is None else self._part_takers()

    def read(self, store: Store, problems: ProblemList, progress: Progress) -> None:
        """Read what an earlier batch has left, then the objects, up to the input's limit. Raises `StoreError` when one cannot be read."""
        for segment in self._carried:
            self._read_segment(store, segment, problems, progress)
        self.carried = self.records
        for found in self._objects:
            if self.records == self._input.limit:
                return
            name = relative_name(self._input.uri or "", found.uri)
            self.cutter.begin(found.uri, found.size, name if self._input.format == InputFormat.TEXT else None)
            self._read_object(store, found, name, problems, progress)

    def _read_segment(self, store: Store, segment: Segment, problems: ProblemList, progress: Progress) -> None:
        if self.records == self._input.limit:
            return
        self.cutter.begin(segment.uri, segment.end - segment.start, segment.custom_id, segment.start)
        take = self._taker_for(segment.custom_id or "", segment.uri)
        lines = records_in(store, segment.uri, self._input, segment.start, segment.line, segment.end)
        self._read_lines(lines, take, _Noted(problems, segment.uri, progress))

    def _read_object(
        self, store: Store, found: StoredObject, name: str, problems: ProblemList, progress: Progress
    ) -> None:
        file = name if len(self._objects) > 1 else None
        lines = records_in(store, found.uri, self._input)
        self._read_lines(lines, self._taker_for(name, file), _Noted(problems, file, progress))

    def _read_lines(self, lines: Iterable[Line], take: Taker, noted: _Noted) -> None:
        limit = self._input.limit
        for start, end, number, raw in lines:
            try:
                if isinstance(raw, RecordError):
                    raise raw
                take(start, end, number, raw)
            except RecordError as error:
                noted.problems.add(error, number, noted.file)
            self.records += 1
            if not self.records % PROGRESS_RECORDS:
                noted.progress(PlanReport(records=self.records, error_count=noted.problems.count))
            if self.records == limit:
                return

    def _whole_takers(self) -> Callable[[str, str | None], Taker]:
        """From the name of an object, and what messages call its file, to what takes in its records."""
        reader_for, cutter = readers(self._input, self._model), self.cutter

        def taker_for(name: str, file: str | None) -> Taker:
            read, note = reader_for(name), self._id_noter(file)

            def take(start: int, end: int, number: int, raw: bytes) -> None:
                request = read(raw)
                note(request.custom_id, number)
                if request.taken:
                    self._check_expected(raw)
                    self.prompt_tokens += self._tokens(request, raw)
                    cutter.add(start, end, number, raw)
                else:
                    cutter.pass_over(end, raw)

            return take

        return taker_for

    def _part_takers(self) -> Callable[[str, str | None], Taker]:
        """The same for an input that is split. A part's id is used twice when that of its record is."""
        reader_for, cutter = part_readers(self._input, self._model), self.cutter

        def taker_for(name: str, file: str | None) -> Taker:
            read, note = reader_for(name), self._id_noter(file)

            def parts(raw: bytes, number: int) -> Iterator[tuple[float, bool]]:
                for position, (request, middle, fields) in enumerate(read(raw, 0)):
                    if not position:
                        note(parent_of(request.custom_id), number)
                    if request.taken:
                        self.prompt_tokens += self._tokens(request, raw)
                        self.parts.add(fields)
                    yield middle, request.taken

            return lambda start, end, number, raw: cutter.add_parts(start, end, number, raw, parts(raw, number))

        return taker_for

    def _id_noter(self, file: str | None) -> Callable[[str, int], None]:
        """A function that keeps the id of a record in a line. It raises `RecordError` when the id was used before."""
        record, suspects = self.seen.recorder(), self._suspects

        def note(custom_id: str, number: int) -> None:
            if record(custom_id) in suspects:
                self._check_first_use(custom_id, (file, number))

        return note

    def _tokens(self, request: Request, raw: bytes) -> int:
        """The tokens of its prompt, roughly. Raises `RecordError` when it is too long."""
        if self._limit is not None and self._may_be_too_long(request, raw, self._limit.context_tokens):
            return self._limit.check(Request(request.custom_id, {**self._parameters, **request.body}))
        return estimate_prompt_tokens(request.body)

    def _check_first_use(self, custom_id: str, place: Place) -> None:
        first = self.seen.first_use(custom_id, place)
        if first is not None:
            file, line = first
            raise duplicate(custom_id, f"line {line} of {file}" if file else f"line {line}")

    def _may_be_too_long(self, request: Request, raw: bytes, context_tokens: int) -> bool:
        """Only then is it worth counting: a token has at least one byte, and JSON is never shorter than the text in it."""
        size = len(raw) if self._input.format == InputFormat.OPENAI else len(orjson.dumps(request.body))
        return size + TEMPLATE_TOKENS + _max_tokens(request.body, self._parameters) > context_tokens


def _expected_checker(config: WorkerConfig) -> Callable[[bytes], None]:
    """A function that raises `RecordError` when a record's `expected` can be no answer, where answers are to be evaluated."""
    evaluation, task = config.evaluation, config.model.task
    if evaluation is None or config.input.format == InputFormat.TEXT:
        return lambda _: None

    def check(raw: bytes) -> None:
        if b'"expected"' in raw:
            expected_answer(record_fields(raw), evaluation, task)

    return check


def _max_tokens(body: JsonObject, parameters: Mapping[str, Any]) -> int:
    """The most that may be generated; no end of them when it is no number, so that the check will say so."""
    asked = (body.get(name, parameters.get(name)) for name in ("max_tokens", "max_completion_tokens"))
    return max((one if isinstance(one, int) else sys.maxsize for one in asked if one is not None), default=0)
