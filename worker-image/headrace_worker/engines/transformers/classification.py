"""Classification of images and sounds: a record's media are fetched and decoded in threads, and put into batches as they come.

The engine takes up to two batches of records at once, so that the next one is on its way while the model works on this one. A file that
cannot be had or read is an error of its record; the others of the batch go on.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Sequence
from time import monotonic
from typing import Any

import torch
from torch import Tensor

from headrace.api import engines
from headrace.api.base import JsonObject
from headrace.api.content import MEDIA_TASKS, MediaPart, media_parts
from headrace.api.records import ErrorCode, RecordError, Request, estimate_prompt_tokens
from headrace.api.worker import WorkerConfig
from headrace_worker.engines.base import EngineStats, Outcome, Work
from headrace_worker.engines.transformers import classifiers, limits
from headrace_worker.engines.transformers.memory import is_out_of_memory, release_memory
from headrace_worker.engines.transformers.parameters import whole_number
from headrace_worker.engines.transformers.readings import Reading, Readings
from headrace_worker.engines.transformers.responses import Responses
from headrace_worker.media.errors import MediaError
from headrace_worker.media.library import MediaLibrary

TOP_K = 5
"""Labels in an answer when the record does not say how many."""
STEP_SECONDS = 0.5
"""The longest that a step waits for a file."""
FILES_ON_THEIR_WAY = 16
"""Twice as many as there are threads, so that no thread waits for a step."""
READY_BYTES = 256 * 1024 * 1024
"""Once so much is decoded and waits for the model, no more is fetched; a batch is no larger either, unless one file alone is."""


class _Record:
    """A record with what it has so far."""

    def __init__(self, work: Work) -> None:
        self.work = work
        self.media: tuple[MediaPart, ...] = work.prepared
        self.scores: dict[int, Tensor] = {}
        """By the number of the image or sound."""
        self.failed = False


class _Item:
    """An image or a sound that is ready for the model."""

    def __init__(self, record: _Record, index: int, tensor: Tensor, key: Any) -> None:
        self.record, self.index, self.tensor, self.key = record, index, tensor, key
        self.since = monotonic()


class ClassificationEngine:
    """Answers image-classification and audio-classification. The constructor looks at the model's files; `load` reads the weights."""

    def __init__(self, config: WorkerConfig, created: int) -> None:
        """Raises `JobFailed` when there is no such model."""
        self.stats = EngineStats()
        self._config, self._modality = config, MEDIA_TASKS[config.model.task]
        self._responses = Responses(config, created)
        self._library = MediaLibrary(config.input)
        self._most = self._size = config.batching.size
        self._records: dict[int, _Record] = {}
        """Those that are not handed back, by position."""
        self._unread: deque[tuple[_Record, int]] = deque()
        self._ready: list[_Item] = []
        self._readings = Readings(self._read)
        self._classifier: classifiers.Classifier | None = None
        classifiers.check_files(config.model)

    def prepare(self, position: int, request: Request) -> Work:
        """Look at one record's parts and parameters. Raises `RecordError`."""
        _top_k(request.body)
        media = tuple(media_parts(request.body, self._modality))
        return Work(position, request, estimate_prompt_tokens(request.body), prepared=media)

    def load(self) -> None:
        """Load the weights."""
        torch.set_num_threads(limits.threads())
        on_gpu = self._config.gpus > 0 and torch.cuda.is_available()
        settings = self._config.engine.transformers or engines.TransformersEngine()
        device = torch.device("cuda" if on_gpu else "cpu")
        self._classifier = classifiers.load_classifier(self._config.model, settings.dtype, device)

    @property
    def room(self) -> int:
        """How many more records it would take now: two batches, for one is fetched while the other is worked on."""
        return 2 * self._most - len(self._records)

    @property
    def running(self) -> int:
        """Records submitted and not yet handed back."""
        return len(self._records)

    def submit(self, batch: Sequence[Work]) -> None:
        """Take records, and begin to fetch what they name."""
        for record in map(_Record, batch):
            self._records[record.work.position] = record
            self._unread.extend((record, index) for index in range(len(record.media)))
        self._fetch()

    def step(self) -> list[Outcome]:
        """Take in the files that have come, and run one batch if it is time."""
        outcomes = self._take_in(self._readings.come(self._patience()))
        self._fetch()
        batch = self._next_batch()
        return outcomes + self._run(batch) if batch else outcomes

    def give_up(self, positions: Collection[int]) -> list[Work]:
        """Let go of records; a file of theirs that comes later is thrown away."""
        records = [self._records.pop(position) for position in positions if position in self._records]
        for record in records:
            record.failed = True
        self._ready = [item for item in self._ready if not item.record.failed]
        return [record.work for record in records]

    def close(self) -> None:
        """Give back memory and threads."""
        self._readings.close()
        self._classifier = None
        self._ready = []
        self._unread.clear()
        release_memory()

    @property
    def _loaded(self) -> classifiers.Classifier:
        assert self._classifier is not None, "load() comes before the first submit"
        return self._classifier

    def _read(self, url: str) -> Tensor:
        return self._loaded.read(self._library.read(url))

    def _fetch(self) -> None:
        """Have more files fetched, as many as there is room for."""
        while self._unread and self._readings.running < FILES_ON_THEIR_WAY and not self._has_plenty:
            record, index = self._unread.popleft()
            if not record.failed:
                self._readings.begin((record, index), record.media[index].url)

    @property
    def _has_plenty(self) -> bool:
        """Whether what is ready fills two batches, or as much memory as it may."""
        return len(self._ready) >= 2 * self._size or sum(item.tensor.nbytes for item in self._ready) >= READY_BYTES

    def _patience(self) -> float:
        """How long to wait for files: not at all once a batch is full, or has waited long enough."""
        if not self._ready:
            return STEP_SECONDS
        if len(self._ready) >= self._size or self._has_plenty:
            return 0
        longest = self._config.batching.max_wait_milliseconds / 1000
        return min(STEP_SECONDS, max(0.0, self._ready[0].since + longest - monotonic()))

    def _take_in(self, readings: list[Reading]) -> list[Outcome]:
        outcomes: list[Outcome] = []
        for reading in readings:
            record, index = reading.whose
            found = reading.found
            if isinstance(found, Tensor):
                self._ready.append(_Item(record, index, found, self._loaded.key(found)))
            elif not isinstance(found, MediaError):
                raise found
            elif not record.failed:
                error = RecordError(
                    found.code, f"{record.media[index].param} {found.message}", record.media[index].param
                )
                outcomes.append(self._fail(record, error, retriable=found.retriable))
        self._ready = [item for item in self._ready if not item.record.failed]
        return outcomes

    def _next_batch(self) -> list[_Item]:
        """Items that go together with the one that has waited longest; none while it is better to wait for more."""
        if not self._ready or (self._readings.running and self._patience() > 0):
            return []
        batch: list[_Item] = []
        room = READY_BYTES
        for item in self._ready:
            if item.key != self._ready[0].key:
                continue
            room -= item.tensor.nbytes
            if len(batch) == self._size or (batch and room < 0):
                break
            batch.append(item)
        return batch

    def _run(self, batch: list[_Item]) -> list[Outcome]:
        scores = self._classify(batch)
        if scores is None:
            return self._back_off(batch)
        self.stats.batches += 1
        self.stats.batched_records += len({id(item.record) for item in batch})
        taken = set(map(id, batch))
        self._ready = [item for item in self._ready if id(item) not in taken]
        return [outcome for item, row in zip(batch, scores, strict=True) for outcome in self._store(item, row)]

    def _classify(self, batch: list[_Item]) -> Tensor | None:
        """The scores of a batch; None when there is no memory for it."""
        try:
            return self._loaded.classify([item.tensor for item in batch])
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            return None

    def _store(self, item: _Item, row: Tensor) -> list[Outcome]:
        """Keep a row of scores; the outcome of its record when that was its last."""
        record = item.record
        if record.failed:
            return []
        if not bool(row.isfinite().all()):
            message = f"the model has no finite scores for {record.media[item.index].param}"
            return [self._fail(record, RecordError(ErrorCode.ENGINE_ERROR, message), retriable=False)]
        record.scores[item.index] = row
        if len(record.scores) < len(record.media):
            return []
        del self._records[record.work.position]
        rows = [record.scores[index] for index in range(len(record.media))]
        body = self._responses.classified(rows, self._loaded.labels, _top_k(record.work.request.body))
        return [Outcome(record.work, body)]

    def _fail(self, record: _Record, error: RecordError, *, retriable: bool) -> Outcome:
        record.failed = True
        del self._records[record.work.position]
        return Outcome(record.work, error=error, retriable=retriable)

    def _back_off(self, batch: list[_Item]) -> list[Outcome]:
        """Out of memory: halve the batch; what does not fit alone has failed."""
        release_memory()
        if len(batch) > 1:
            self._size = max(1, len(batch) // 2)
            return []
        self._size = self._most
        record = batch[0].record
        part = record.media[batch[0].index]
        message = f"{part.param} does not fit into memory: make it smaller, or give the worker more memory"
        outcome = self._fail(record, RecordError(ErrorCode.OUT_OF_MEMORY, message, part.param), retriable=False)
        self._ready = [item for item in self._ready if not item.record.failed]
        return [outcome]


def _top_k(body: JsonObject) -> int:
    return whole_number(body, "top_k", at_least=1) or TOP_K
