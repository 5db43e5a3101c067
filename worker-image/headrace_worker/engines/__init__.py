"""The engines by name. An engine's module is imported only when it is asked for: torch costs seconds and is not everywhere.

A module of an engine offers `create`, `request_checker` and `likelihood` with the signatures of the functions below.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from types import ModuleType

from headrace.api.engines import EngineName
from headrace.api.records import Request
from headrace.api.worker import WorkerConfig
from headrace_worker.engines.base import Engine, Likelihood
from headrace_worker.errors import JobFailed

_MODULES = {
    EngineName.MOCK: "headrace_worker.engines.mock",
    EngineName.OPENAI: "headrace_worker.engines.openai",
    EngineName.TRANSFORMERS: "headrace_worker.engines.transformers",
    EngineName.VLLM: "headrace_worker.engines.vllm",
}


@dataclass(frozen=True, slots=True)
class RequestChecker:
    """What `plan` asks about each record, so that bad input costs no GPU."""

    context_tokens: int | None
    """Longest sequence in tokens; None when the engine knows no limit."""
    check: Callable[[Request], int]
    """The prompt's length in tokens, estimated where the engine does not tokenise. The request's body has the batch's parameters
    merged in. Raises `RecordError` for a request that the engine would refuse."""


def create(config: WorkerConfig, created: int) -> Engine:
    """The engine of a batch, not yet loaded; `created` goes into every response (seconds since the epoch).

    Raises `JobFailed` when this worker cannot run it.
    """
    engine: Engine = _module(config.engine.name).create(config, created)
    return engine


def request_checker(config: WorkerConfig) -> RequestChecker | None:
    """The checker of a batch's requests; None when the engine can check nothing without its weights."""
    checker: RequestChecker | None = _module(config.engine.name).request_checker(config)
    return checker


def likelihood(config: WorkerConfig) -> Likelihood:
    """What says how likely the model of a configuration finds texts, not yet loaded. Raises `JobFailed` like `create`."""
    found: Likelihood = _module(config.engine.name).likelihood(config)
    return found


def _module(name: EngineName) -> ModuleType:
    try:
        return import_module(_MODULES[name])
    except ModuleNotFoundError as error:
        raise JobFailed(
            "EngineNotInstalled",
            f"the engine {name} needs the Python package {error.name}, which this worker does not have: "
            'install it, for example with `pip install "headrace[worker]"`',
        ) from error
