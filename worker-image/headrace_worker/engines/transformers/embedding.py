"""Embeddings: texts of similar length together, so that hardly anything is padding.

A record may have several inputs; they are spread over batches as their lengths suit, and the record is finished with its last one.
"""

from __future__ import annotations

from bisect import insort
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from headrace.api.records import ErrorCode, RecordError
from headrace_worker.engines.base import EngineStats, Outcome, Work
from headrace_worker.engines.transformers.memory import is_out_of_memory, release_memory
from headrace_worker.engines.transformers.pooling import Pooling
from headrace_worker.engines.transformers.responses import Responses
from headrace_worker.engines.transformers.sizing import StepLimits


@dataclass(frozen=True, slots=True)
class Inputs:
    """What `prepare` makes of a record whose inputs are to be embedded."""

    ids: list[list[int]]
    as_base64: bool


@dataclass(slots=True, eq=False)
class _Record:
    """A record with the vectors that it has so far, by the number of the input."""

    work: Work
    inputs: Inputs
    vectors: dict[int, Tensor] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, eq=False)
class _Text:
    """One input of a record."""

    record: _Record
    index: int

    @property
    def ids(self) -> list[int]:
        return self.record.inputs.ids[self.index]


class Encoder:
    """A model that gives a vector for each text."""

    def __init__(self, model: Any, pooling: Pooling) -> None:
        self._model = model
        self._pooling = pooling
        self._device = next(model.parameters()).device

    @torch.inference_mode()
    def encode(self, texts: list[list[int]]) -> Tensor:
        """Vectors of shape [texts, size], float32, on the CPU. Padding is on the right and hidden from the model."""
        width = max(map(len, texts))
        ids = torch.tensor([text + [0] * (width - len(text)) for text in texts], device=self._device)
        mask = torch.tensor([[1] * len(text) + [0] * (width - len(text)) for text in texts], device=self._device)
        hidden = self._model(input_ids=ids, attention_mask=mask).last_hidden_state
        return self._pooling(hidden, mask).cpu()


class Embedding:
    """Runs texts in batches of similar length, the longest first."""

    def __init__(self, encoder: Encoder, responses: Responses, limits: StepLimits, stats: EngineStats) -> None:
        self._encoder = encoder
        self._responses = responses
        self._most = self._limits = limits
        self._stats = stats
        self._records = 0
        self._texts: list[_Text] = []
        """Those that wait, the shortest first."""

    @property
    def room(self) -> int:
        """How many more records may be submitted."""
        return self._most.max_sequences - self._records

    @property
    def running(self) -> int:
        """Records that are not finished."""
        return self._records

    def submit(self, batch: Iterable[Work]) -> None:
        """Take prepared records."""
        for work in batch:
            record = _Record(work, work.prepared)
            self._records += 1
            for index in range(len(record.inputs.ids)):
                insort(self._texts, _Text(record, index), key=lambda text: len(text.ids))

    def step(self) -> list[Outcome]:
        """One batch; the outcomes of the records that it finished."""
        batch = self._next_batch()
        if not batch:
            return []
        vectors = self._encode(batch)
        if vectors is None:
            return self._back_off(batch)
        self._stats.batches += 1
        self._stats.batched_records += len({id(text.record) for text in batch})
        self._stats.batched_tokens += sum(len(text.ids) for text in batch)
        return self._store(batch, vectors)

    def give_up(self, positions: Collection[int]) -> list[Work]:
        """Take records out, with all of their texts that wait."""
        records = dict.fromkeys(text.record for text in self._texts if text.record.work.position in positions)
        self._texts = [text for text in self._texts if text.record not in records]
        self._records -= len(records)
        return [record.work for record in records]

    def _next_batch(self) -> list[_Text]:
        """The longest texts that wait: as many as the limits allow, each counted as long as the longest."""
        size = 0
        while size < min(len(self._texts), self._limits.max_sequences):
            if size and (size + 1) * len(self._texts[-1].ids) > self._limits.max_tokens:
                break
            size += 1
        batch = self._texts[len(self._texts) - size :]
        del self._texts[len(self._texts) - size :]
        return batch

    def _encode(self, batch: list[_Text]) -> Tensor | None:
        """The vectors of a batch; None when there is no memory for it."""
        try:
            return self._encoder.encode([text.ids for text in batch])
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            return None

    def _store(self, batch: list[_Text], vectors: Tensor) -> list[Outcome]:
        outcomes = []
        for text, vector in zip(batch, vectors, strict=True):
            record = text.record
            record.vectors[text.index] = vector
            if len(record.vectors) == len(record.inputs.ids):
                outcomes.append(self._finished(record))
        return outcomes

    def _finished(self, record: _Record) -> Outcome:
        self._records -= 1
        vectors = [record.vectors[index] for index in range(len(record.inputs.ids))]
        for index, vector in enumerate(vectors):
            if not bool(vector.isfinite().all()):
                message = f"the model has no finite vector for input[{index}]"
                return Outcome(record.work, error=RecordError(ErrorCode.ENGINE_ERROR, message))
        tokens = sum(map(len, record.inputs.ids))
        body = self._responses.embeddings(vectors, tokens, as_base64=record.inputs.as_base64)
        return Outcome(record.work, body, prompt_tokens=tokens)

    def _back_off(self, batch: list[_Text]) -> list[Outcome]:
        """Out of memory: put the texts back and halve the limits; the record of a text that is alone has failed."""
        release_memory()
        if len(batch) > 1:
            self._limits = self._limits.halved(len(batch))
            self._texts += batch
            return []
        self._limits = self._most
        record = batch[0].record
        self._texts = [text for text in self._texts if text.record is not record]
        self._records -= 1
        message = (
            f"a text of {len(batch[0].ids)} tokens does not fit into memory: shorten it, or give the worker more memory"
        )
        return [Outcome(record.work, error=RecordError(ErrorCode.OUT_OF_MEMORY, message))]
