"""The engine `transformers`: PyTorch and any causal language model or text encoder of Hugging Face."""

from __future__ import annotations

import logging
from collections.abc import Collection, Sequence
from typing import Any

import torch

from headrace.api import engines
from headrace.api.model import Task
from headrace.api.records import Request
from headrace.api.worker import WorkerConfig
from headrace_worker.engines.base import EngineStats, Outcome, Unfinished, Work
from headrace_worker.engines.transformers import limits, weights
from headrace_worker.engines.transformers.answers import Answers
from headrace_worker.engines.transformers.decoder import PackedDecoder
from headrace_worker.engines.transformers.embedding import Embedding, Encoder, Inputs
from headrace_worker.engines.transformers.generation import Generation
from headrace_worker.engines.transformers.kv_cache import KVCache
from headrace_worker.engines.transformers.memory import release_memory
from headrace_worker.engines.transformers.parameters import sampling
from headrace_worker.engines.transformers.pooling import read_pooling
from headrace_worker.engines.transformers.preparing import read_prompts, wants_base64
from headrace_worker.engines.transformers.responses import Responses
from headrace_worker.engines.transformers.sequences import Prompt
from headrace_worker.engines.transformers.sizing import Footprint, StepLimits, step_limits
from headrace_worker.engines.transformers.whole import written_out
from headrace_worker.errors import JobFailed

log = logging.getLogger(__name__)
_TASKS = (Task.CHAT, Task.COMPLETION, Task.EMBEDDING)


class TransformersEngine:
    """Answers chats, completions and embeddings. The constructor reads configuration and tokeniser; `load` reads the weights."""

    def __init__(self, config: WorkerConfig, created: int) -> None:
        """Raises `JobFailed` when there is no such model, or the task is none of this engine."""
        self._model, self._task = config.model, config.model.task
        if self._task not in _TASKS:
            raise JobFailed(
                "TaskNotSupported",
                f"model.task must be one of {', '.join(_TASKS)} for the engine transformers, not {self._task}",
            )
        self.stats = EngineStats()
        self._config = config
        self._responses = Responses(config, created)
        self._files = weights.find_files(self._model)
        self._prompts = read_prompts(self._model, self._files)
        self._runner: Generation | Embedding | None = None

    @property
    def context_tokens(self) -> int:
        """Longest sequence in tokens."""
        return self._prompts.context

    def prepare(self, position: int, request: Request) -> Work:
        """Check and tokenise one record. Raises `RecordError`."""
        if self._task == Task.EMBEDDING:
            inputs = Inputs(self._prompts.inputs(request.body), wants_base64(request.body))
            return Work(position, request, sum(map(len, inputs.ids)), prepared=inputs)
        read = self._prompts.chat if self._task == Task.CHAT else self._prompts.completion
        ids = read(request.body)
        chosen = sampling(request, self._task, self._prompts.context - len(ids))
        return Work(position, request, len(ids), chosen.max_tokens, Prompt(ids, chosen))

    def load(self) -> None:
        """Load the weights."""
        torch.set_num_threads(limits.threads())
        on_gpu = self._config.gpus > 0 and torch.cuda.is_available()
        device = torch.device("cuda" if on_gpu else "cpu")
        settings = self._config.engine.transformers or engines.TransformersEngine()
        generates = self._task != Task.EMBEDDING
        model = weights.load_model(self._model, self._files, settings.dtype, device, to_generate=generates)
        most = self._sized(model, device)
        if self._task == Task.EMBEDDING:
            encoder = Encoder(model, read_pooling(self._files))
            self._runner = Embedding(encoder, self._responses, most, self.stats)
        else:
            decoder = PackedDecoder(model, KVCache(limits.cache_budget(device)), written_out(model))
            answers = Answers(self._prompts, self._end_tokens(model.generation_config), self._task, self._responses)
            self._runner = Generation(decoder, answers, most, self.stats)

    @property
    def room(self) -> int:
        """How many more records it would take now; before the weights are loaded, a whole batch."""
        return self._config.batching.size if self._runner is None else self._runner.room

    @property
    def running(self) -> int:
        """Records submitted and not yet handed back."""
        return 0 if self._runner is None else self._runner.running

    def submit(self, batch: Sequence[Work]) -> None:
        """Take records, at most `room` of them."""
        self._loaded.submit(batch)

    def step(self) -> list[Outcome]:
        """One forward pass."""
        return self._loaded.step()

    def unfinished(self) -> list[Unfinished]:
        """Of texts that are generated; vectors come whole."""
        return self._runner.unfinished() if isinstance(self._runner, Generation) else []

    def give_up(self, positions: Collection[int]) -> list[Work]:
        """Let go of records; their places are free in the next step."""
        return self._loaded.give_up(positions)

    def close(self) -> None:
        """Give the memory back."""
        self._runner = None
        release_memory()

    @property
    def _loaded(self) -> Generation | Embedding:
        assert self._runner is not None, "load() comes before the first submit"
        return self._runner

    def _sized(self, model: Any, device: torch.device) -> StepLimits:
        """How much one step may do, as the spec says or as there is memory for."""
        batching, free = self._config.batching, limits.free_bytes(device)
        generates = self._task != Task.EMBEDDING
        config, number_bytes = model.config.get_text_config(), model.dtype.itemsize
        takes = Footprint.of(config, number_bytes, self.context_tokens, generates=generates)
        most = step_limits(takes, free, device.type, batching.max_batch_size, batching.max_batch_tokens)
        log.info(
            "max_num_seqs %d (%s), max_num_batched_tokens %d (%s): %d MiB are free, and a token takes %d bytes of the KV cache",
            most.max_sequences, _source(batching.max_batch_size, "maxBatchSize"),
            most.max_tokens, _source(batching.max_batch_tokens, "maxBatchTokens"), free >> 20, takes.cached_token,
        )  # fmt: skip
        self.stats.max_num_seqs, self.stats.max_num_batched_tokens = most.max_sequences, most.max_tokens
        return most

    def _end_tokens(self, generation: object) -> frozenset[int]:
        """The ids that end an answer, as the model's generation settings say, else its tokeniser."""
        found = getattr(generation, "eos_token_id", None)
        if found is None:
            found = self._prompts.tokenizer.eos_token_id
        return frozenset(() if found is None else found if isinstance(found, list) else [found])


def _source(given: int | None, field: str) -> str:
    """Where a limit comes from."""
    return "by free memory" if given is None else f"batching.{field}"
