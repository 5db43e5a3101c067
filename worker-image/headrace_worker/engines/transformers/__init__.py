"""The engine `transformers`: any causal language model and text encoder of Hugging Face, on a CPU or one GPU.

From a record to its answer:

- `source`, `gguf`, `weights` find and load the model; `limits` says how many threads and how much memory there are
- `parameters` and `tokens` turn a request into token ids and sampling settings, with no weights loaded
- `generation` decides which sequences run in each step, and puts them back when memory is short; `prefixes` finds those that begin alike
- `decoder` makes one forward pass over all of them through `attention` and `kv_cache`; `packed`, `native` and `fused` make it fast on a CPU
- `sampling` draws the next tokens, `logprobs` says how likely they were; `answers` and `responses` end a sequence and write its response
- `embedding` and `pooling` do the same for embeddings
- `classification` is an engine of its own for images and sounds: `readings` fetches them, `classifiers` and `architectures` are the models
- `likelihood` says how likely a model finds texts that are there already

Float32 greedy answers do not depend on batch mates: they are, token for token, those of the model alone. In bfloat16 the rounding of
a batch differs from that of one sequence, as in every engine. A seed makes sampling repeatable within that.
"""

from __future__ import annotations

from importlib import import_module

from transformers.utils import logging

from headrace.api.content import MEDIA_TASKS
from headrace.api.worker import WorkerConfig
from headrace_worker.engines import RequestChecker
from headrace_worker.engines.base import Engine
from headrace_worker.engines.transformers.engine import TransformersEngine
from headrace_worker.engines.transformers.likelihood import TransformersLikelihood

__all__ = ["TransformersEngine", "TransformersLikelihood", "create", "likelihood", "request_checker"]

logging.set_verbosity_error()
logging.disable_progress_bar()


def create(config: WorkerConfig, created: int) -> Engine:
    """The engine of a batch, its weights not yet loaded. Raises `JobFailed` when there is no such model."""
    if config.model.task not in MEDIA_TASKS:
        return TransformersEngine(config, created)
    # Only now: texts are answered where the libraries that decode images and sounds are not installed, too.
    classification = import_module("headrace_worker.engines.transformers.classification")
    found: Engine = classification.ClassificationEngine(config, created)
    return found


def request_checker(config: WorkerConfig) -> RequestChecker:
    """Checks requests with the model's own tokeniser. Raises `JobFailed` when there is no such model."""
    engine = create(config, created=0)
    context = engine.context_tokens if isinstance(engine, TransformersEngine) else None
    return RequestChecker(context, lambda request: engine.prepare(0, request).tokens)


def likelihood(config: WorkerConfig) -> TransformersLikelihood:
    """What says how likely the model finds texts, its weights not yet loaded. Raises `JobFailed` when there is no such model."""
    return TransformersLikelihood(config)
