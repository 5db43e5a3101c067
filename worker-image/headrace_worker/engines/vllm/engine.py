"""The engine around vLLM: records go in as long as it has room, and come out as they finish.

vLLM batches by itself, iteration by iteration. It is kept fed with twice as many records as it runs at once, so that a place that
becomes free is taken in the very next iteration, while this process writes the journal.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from headrace.api.model import Task
from headrace.api.records import ErrorCode, RecordError, Request
from headrace.api.worker import WorkerConfig
from headrace_worker.engines.base import EngineStats, Outcome, Work
from headrace_worker.engines.transformers import weights
from headrace_worker.engines.transformers.preparing import read_prompts, wants_base64
from headrace_worker.engines.transformers.responses import Responses
from headrace_worker.engines.vllm import answers, library
from headrace_worker.engines.vllm.arguments import engine_arguments, most_sequences
from headrace_worker.engines.vllm.parameters import sampling
from headrace_worker.errors import EngineDied, JobFailed

log = logging.getLogger(__name__)
TASKS = (Task.CHAT, Task.COMPLETION, Task.EMBEDDING)
FED = 2
"""Records in hand, as a multiple of those that run at once."""
LONGEST_STEP_SECONDS = 0.2
"""So often the shard loop is heard at least, even if nothing has finished."""


@dataclass(frozen=True, slots=True)
class Prepared:
    """What `prepare` makes of a record: one request of vLLM, or one for each input of an embedding."""

    ids: list[list[int]]
    parameters: dict[str, Any] = field(default_factory=dict)
    as_base64: bool = False


@dataclass(slots=True)
class _Running:
    """A record in hand, with what has come back of it by the number of the request."""

    work: Work
    found: dict[int, Any] = field(default_factory=dict)


class VllmEngine:
    """Answers chats, completions and embeddings. The constructor reads configuration and tokeniser; `load` starts vLLM."""

    def __init__(
        self,
        config: WorkerConfig,
        created: int,
        start: Callable[..., library.Core] = library.start,
        known: Callable[[], frozenset[str]] = library.known_arguments,
    ) -> None:
        """Raises `JobFailed` when there is no such model, the task is none of this engine, or an argument of vLLM is wrong.

        `start` and `known` are vLLM's own.
        """
        self._model, self._task = config.model, config.model.task
        if self._task not in TASKS:
            raise JobFailed(
                "TaskNotSupported",
                f"model.task must be one of {', '.join(TASKS)} for the engine vllm, not {self._task}",
            )
        self.stats = EngineStats()
        self._start = start
        self._most = most_sequences(config)
        self._responses = Responses(config, created)
        self._files = weights.find_files(self._model)
        self._prompts = read_prompts(self._model, self._files)
        files = self._files
        self._arguments = engine_arguments(
            config, files.location, files.revision, self._prompts.context, known(), library.release()
        )
        self._core: library.Core | None = None
        self._in_hand: dict[int, _Running] = {}
        self._requests = 0
        self._failed: list[Outcome] = []

    @property
    def context_tokens(self) -> int:
        """Longest sequence in tokens."""
        return self._prompts.context

    def prepare(self, position: int, request: Request) -> Work:
        """Check and tokenise one record. Raises `RecordError`."""
        if self._task == Task.EMBEDDING:
            prepared = Prepared(self._prompts.inputs(request.body), as_base64=wants_base64(request.body))
            return Work(position, request, sum(map(len, prepared.ids)), prepared=prepared)
        ids = (self._prompts.chat if self._task == Task.CHAT else self._prompts.completion)(request.body)
        chosen = sampling(request, self._task, self._prompts.context - len(ids))
        return Work(position, request, len(ids), chosen["max_tokens"], Prepared([ids], chosen))

    def load(self) -> None:
        """Start vLLM with the model. Raises `JobFailed`, `EngineDied`."""
        weights.fetch(self._model, self._files)
        with weights.model_errors(self._model.name), _deaths():
            self._core = self._start(self._arguments, pooling=self._task == Task.EMBEDDING)
        self._most = self.stats.max_num_seqs = self._core.max_num_seqs
        self.stats.max_num_batched_tokens = self._core.max_num_batched_tokens
        log.info(
            "max_num_seqs %d, max_num_batched_tokens %d: as vLLM runs", self._most, self._core.max_num_batched_tokens
        )

    @property
    def room(self) -> int:
        """How many more records it would take now."""
        return max(0, FED * self._most - self.running)

    @property
    def running(self) -> int:
        """Records submitted and not yet handed back."""
        return len(self._in_hand) + len(self._failed)

    def submit(self, batch: Sequence[Work]) -> None:
        """Hand records over to vLLM; what it refuses comes back with the next step. Raises `EngineDied`."""
        for work in batch:
            try:
                with _deaths():
                    for index, ids in enumerate(work.prepared.ids):
                        self._loaded.add(_name(work.position, index), ids, work.prepared.parameters)
            except library.Refused as error:
                self._abort(work)
                self._failed.append(Outcome(work, error=RecordError(ErrorCode.INVALID_REQUEST, f"vLLM: {error}")))
            else:
                self._in_hand[work.position] = _Running(work)
                self._requests += len(work.prepared.ids)
                self.stats.batched_tokens += work.tokens

    def step(self) -> list[Outcome]:
        """Wait until something has finished, or a moment. Raises `EngineDied`."""
        outcomes, self._failed = self._failed, []
        over = time.monotonic() + LONGEST_STEP_SECONDS
        while not outcomes and self._in_hand and (left := over - time.monotonic()) > 0:
            running = min(self._requests, self._most)
            with _deaths():
                finished = self._loaded.step(left)
            if finished is None:
                break
            self.stats.batches += 1
            self.stats.batched_records += running
            self.stats.batched_tokens += running
            outcomes = [found for output in finished if (found := self._take(output)) is not None]
        return outcomes

    def give_up(self, positions: Collection[int]) -> list[Work]:
        """Abort the requests of records: vLLM frees their blocks before its next iteration. Raises `EngineDied`."""
        given_up = [self._in_hand.pop(position) for position in positions if position in self._in_hand]
        for running in given_up:
            with _deaths():
                self._loaded.abort([_name(running.work.position, index) for index in _open(running)])
            self._requests -= len(_open(running))
        return [running.work for running in given_up]

    def close(self) -> None:
        """Give up what is under way, and end vLLM."""
        core, self._core = self._core, None
        if core is not None:
            core.abort([_name(it.work.position, i) for it in self._in_hand.values() for i in _open(it)])
            core.close()

    def _take(self, output: Any) -> Outcome | None:
        """The outcome of the record that a request belongs to, when it is its last one."""
        position, index = map(int, output.request_id.partition(".")[::2])
        running = self._in_hand.get(position)
        if running is None:  # was given up
            return None
        running.found[index] = output
        self._requests -= 1
        work = running.work
        if len(running.found) < len(work.prepared.ids):
            return None
        del self._in_hand[position]
        if self._task == Task.EMBEDDING:
            outputs = [running.found[number] for number in range(len(running.found))]
            return answers.embedded(work, outputs, self._responses, as_base64=work.prepared.as_base64)
        return answers.generated(work, output, self._task, self._responses)

    def _abort(self, work: Work) -> None:
        self._loaded.abort([_name(work.position, index) for index in range(len(work.prepared.ids))])

    @property
    def _loaded(self) -> library.Core:
        assert self._core is not None, "load() comes before the first submit"
        return self._core


@contextmanager
def _deaths() -> Iterator[None]:
    """The end of vLLM is that of this worker: raises `EngineDied`."""
    try:
        yield
    except library.Died as error:
        raise EngineDied(str(error)) from error


def _open(running: _Running) -> list[int]:
    return [index for index in range(len(running.work.prepared.ids)) if index not in running.found]


def _name(position: int, index: int) -> str:
    """What vLLM calls a request."""
    return f"{position}.{index}"
