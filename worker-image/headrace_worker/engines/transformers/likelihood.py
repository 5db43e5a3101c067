"""How likely a language model finds texts that are there already: one forward pass, nothing is generated.

Texts of similar length run together, padded on the right: a causal model does not see what comes later, so padding changes nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import isfinite
from typing import Any

import torch

from headrace.api import engines
from headrace.api.model import Task
from headrace.api.records import ErrorCode, RecordError
from headrace.api.worker import WorkerConfig
from headrace_worker.engines.base import Continuation
from headrace_worker.engines.transformers import limits, weights
from headrace_worker.engines.transformers.memory import is_out_of_memory, release_memory
from headrace_worker.engines.transformers.tokens import Prompts
from headrace_worker.errors import JobFailed

STEP_TOKENS = {"cpu": 512, "cuda": 4096}
"""The most tokens of one forward pass: each has a logit for every word of the vocabulary."""


@dataclass(frozen=True, slots=True)
class _Text:
    """A text after its prompt, as token ids."""

    place: int
    """Where it stands among those that were asked about."""
    ids: list[int]
    start: int
    """The first token that is not the prompt's."""


class TransformersLikelihood:
    """A causal language model. The constructor reads configuration and tokeniser; `load` reads the weights."""

    def __init__(self, config: WorkerConfig) -> None:
        """Raises `JobFailed` when there is no such model, or the task is none of a language model."""
        self._config, self._model = config, config.model
        if self._model.task not in (Task.CHAT, Task.COMPLETION):
            raise JobFailed("TaskNotSupported", f"model.task must be chat or completion, not {self._model.task}")
        self._files = weights.find_files(self._model)
        settings = weights.load_config(self._model, self._files)
        context = weights.context_tokens(self._model, settings)
        tokenizer = weights.load_tokenizer(self._model, self._files)
        self._prompts = Prompts(tokenizer, context=context, answer=1, vocabulary=settings.vocab_size)
        self._loaded: Any = None
        self._device = torch.device("cuda" if config.gpus > 0 and torch.cuda.is_available() else "cpu")

    def load(self) -> None:
        """Load the weights."""
        torch.set_num_threads(limits.threads())
        settings = self._config.engine.transformers or engines.TransformersEngine()
        self._loaded = weights.load_model(self._model, self._files, settings.dtype, self._device)

    def mean(self, texts: Sequence[Continuation]) -> list[float | RecordError]:
        """The mean log-probability of a token of each text, in nats."""
        found: list[float | RecordError] = [0.0] * len(texts)
        readable: list[_Text] = []
        for place, text in enumerate(texts):
            try:
                readable.append(self._read(place, text))
            except RecordError as error:
                found[place] = error
        for batch in self._batches(readable):
            for run, value in zip(batch, self._run(batch), strict=True):
                found[run.place] = value if isinstance(value, RecordError) or isfinite(value) else _without_numbers()
        return found

    def close(self) -> None:
        """Give the memory back."""
        self._loaded = None
        release_memory()

    def _read(self, place: int, text: Continuation) -> _Text:
        read = self._prompts.chat if self._model.task == Task.CHAT else self._prompts.completion
        prompt = read(text.body)
        answer: list[int] = self._prompts.tokenizer(text.text, add_special_tokens=False)["input_ids"]
        if not answer:
            raise RecordError(ErrorCode.INVALID_REQUEST, "an empty text has no likelihood")
        if len(prompt) + len(answer) > self._prompts.context:
            raise RecordError(
                ErrorCode.CONTEXT_LENGTH_EXCEEDED,
                f"question and answer have {len(prompt) + len(answer)} tokens, "
                f"the context of {self._model.name} has {self._prompts.context}",
            )
        return _Text(place, prompt + answer, len(prompt))

    def _batches(self, texts: list[_Text]) -> Iterator[list[_Text]]:
        """The longest first, each batch as long as its longest text times their number."""
        most = min(self._config.batching.tokens, STEP_TOKENS[self._device.type])
        batch: list[_Text] = []
        for text in sorted(texts, key=lambda it: -len(it.ids)):
            full = len(batch) == self._config.batching.size
            if batch and (full or (len(batch) + 1) * len(batch[0].ids) > most):
                yield batch
                batch = []
            batch.append(text)
        if batch:
            yield batch

    def _run(self, batch: list[_Text]) -> list[float | RecordError]:
        """One forward pass; out of memory, two of half the size."""
        values = self._forward(batch)
        if values is not None:
            return list(values)
        release_memory()
        if len(batch) == 1:
            message = f"a text of {len(batch[0].ids)} tokens does not fit into memory: give the worker more memory"
            return [RecordError(ErrorCode.OUT_OF_MEMORY, message)]
        half = len(batch) // 2
        return self._run(batch[:half]) + self._run(batch[half:])

    @torch.inference_mode()
    def _forward(self, batch: list[_Text]) -> list[float] | None:
        """The mean log-probabilities; None when there is no memory for it."""
        width = len(batch[0].ids)
        ids = torch.tensor([text.ids + [0] * (width - len(text.ids)) for text in batch], device=self._device)
        try:
            logits = self._loaded(input_ids=ids, use_cache=False).logits
            return [
                -torch.nn.functional.cross_entropy(
                    logits[row, text.start - 1 : len(text.ids) - 1].float(), ids[row, text.start : len(text.ids)]
                ).item()
                for row, text in enumerate(batch)
            ]
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            return None


def _without_numbers() -> RecordError:
    return RecordError(ErrorCode.ENGINE_ERROR, "the model has no finite likelihood for this text")
