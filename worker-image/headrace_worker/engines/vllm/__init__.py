"""The engine `vllm`: vLLM as a library, for the speed of its kernels. What is around it (records, journal, metrics) is as with any engine.

- `arguments` are what vLLM is started with: those of the spec, and those that follow from it
- `parameters` turn a request into vLLM's sampling parameters, with no weights loaded and no GPU
- `engine` feeds it records and hands back answers as they finish; `answers` writes them in OpenAI's form
- `library` is the only place that imports vLLM

Prompts are tokenised by the code of the engine `transformers`: what is refused before a GPU is asked for is the same, and a model may come
from every source that engine knows.
"""

from __future__ import annotations

from headrace.api.worker import WorkerConfig
from headrace_worker.engines import RequestChecker
from headrace_worker.engines.base import Engine, Likelihood
from headrace_worker.engines.vllm.engine import VllmEngine
from headrace_worker.engines.vllm.library import require
from headrace_worker.errors import JobFailed

__all__ = ["VllmEngine", "create", "likelihood", "request_checker"]


def create(config: WorkerConfig, created: int) -> Engine:
    """The engine of a batch, its weights not yet loaded. Raises `JobFailed` without vLLM, without the model, and for a wrong argument."""
    require()
    return VllmEngine(config, created)


def request_checker(config: WorkerConfig) -> RequestChecker:
    """Checks requests with the model's own tokeniser. Raises `JobFailed` like `create`."""
    require()
    engine = VllmEngine(config, created=0)
    return RequestChecker(engine.context_tokens, lambda request: engine.prepare(0, request).tokens)


def likelihood(config: WorkerConfig) -> Likelihood:
    """Raises `JobFailed`: that is the engine transformers' work."""
    del config
    raise JobFailed("EngineNotSuitable", "logLikelihood.engine.name must be transformers, not vllm")
