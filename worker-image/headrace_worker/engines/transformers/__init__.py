"""The engine `transformers`: any causal language model and text encoder of Hugging Face, on a CPU or one GPU.

From a record to its answer:

- `source`, `gguf`, `weights` find and load the model; `limits` says how many threads and how much memory there are
- `parameters` and `tokens` turn a request into token ids and sampling settings, with no weights loaded
- `generation` decides which sequences run in each step, and puts them back when memory is short
- `decoder` makes one forward pass over all of them through `attention` and `kv_cache`; `packed` makes it fast on a CPU
- `sampling` draws the next tokens; `answers` and `responses` end a sequence and write its response
- `embedding` and `pooling` do the same for embeddings

Float32 greedy answers do not depend on batch mates: they are, token for token, those of the model alone. In bfloat16 the rounding of
a batch differs from that of one sequence, as in every engine. A seed makes sampling repeatable within that.
"""

from __future__ import annotations

from transformers.utils import logging

from headrace.api.worker import WorkerConfig
from headrace_worker.engines import RequestChecker
from headrace_worker.engines.transformers.engine import TransformersEngine

__all__ = ["TransformersEngine", "create", "request_checker"]

logging.set_verbosity_error()
logging.disable_progress_bar()


def create(config: WorkerConfig, created: int) -> TransformersEngine:
    """The engine of a batch, its weights not yet loaded. Raises `JobFailed` when there is no such model."""
    return TransformersEngine(config, created)


def request_checker(config: WorkerConfig) -> RequestChecker:
    """Checks requests with the model's own tokeniser. Raises `JobFailed` when there is no such model."""
    engine = TransformersEngine(config, created=0)
    return RequestChecker(engine.context_tokens, lambda request: engine.prepare(0, request).tokens)
