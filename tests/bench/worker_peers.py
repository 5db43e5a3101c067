"""The peers of tests/bench/worker.py: Hugging Face's own ways to generate, vLLM, and what the machine could do at best."""

from __future__ import annotations

import json
import platform
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import torch
from torch import Tensor, nn
from transformers import GenerationConfig
from transformers.generation.configuration_utils import ContinuousBatchingConfig

from headrace.api.base import JsonObject
from headrace_worker.engines.base import Work
from headrace_worker.engines.transformers.packed import PackedLinear

PADDING = 0
CONTINUOUS = {"max_requests_per_batch": 32, "max_batch_tokens": 256, "num_blocks": 100, "page_size": 64}
"""The best of a few that were tried on two cores; the defaults take twice as long."""
SETTINGS_FILE = Path(__file__).with_name("vllm_settings.json")
"""What vLLM is fastest with; tests/bench/vllm_settings.py makes it."""
USUAL_SETTINGS = {
    "max_num_seqs": 64,
    "max_num_batched_tokens": 2048,
    "enable_chunked_prefill": True,
    "async_scheduling": True,
    "enforce_eager": False,
}
"""What vLLM does where nobody has found out what is best: compiled, and with as many tokens a step as where nothing is said."""
STREAMED_BYTES = 512 * 1024 * 1024
Tokens = dict[str, list[int]]
VllmSettings: TypeAlias = dict[str, Any]


class Round(NamedTuple):
    """What vLLM has done."""

    tokens: list[list[int]]
    seconds: float
    cpu_seconds: float


def processor() -> str:
    """What this machine's processor is called."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    return next((line.partition(": ")[2] for line in lines if line.startswith("model name")), platform.processor())


def settings_rows() -> list[JsonObject]:
    """All that is known about vLLM's best settings."""
    rows: list[JsonObject] = json.loads(SETTINGS_FILE.read_text()) if SETTINGS_FILE.exists() else []
    return rows


def best_vllm_settings(model: str, dtype: str) -> VllmSettings:
    """Those that were best for a model and a number format; says so where that is not known, or is known of other processors."""
    for row in settings_rows():
        if (row["model"], row["dtype"]) == (model, dtype):
            if row["processor"] != processor():
                print(f"  vllm's settings are those for a {row['processor']}", file=sys.stderr)
            return dict(row["settings"])
    print("  vllm's best settings are not known: tests/bench/vllm_settings.py finds them", file=sys.stderr)
    return dict(USUAL_SETTINGS)


def by_generate(model: Any, works: list[Work], batch_size: int) -> Tokens:
    """Padded batches in order of arrival; each runs until its longest answer is there."""
    tokens: Tokens = {}
    for start in range(0, len(works), batch_size):
        tokens |= _one_batch(model, works[start : start + batch_size])
    return tokens


@torch.inference_mode()
def _one_batch(model: Any, batch: list[Work]) -> Tokens:
    prompts = [work.prepared.ids for work in batch]
    width = max(map(len, prompts))
    ids = [[PADDING] * (width - len(prompt)) + prompt for prompt in prompts]
    mask = [[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in prompts]
    output = model.generate(
        input_ids=torch.tensor(ids, device=model.device),
        attention_mask=torch.tensor(mask, device=model.device),
        max_new_tokens=max(work.expected_tokens for work in batch),
        do_sample=False,
    )[:, width:].tolist()
    pairs = zip(batch, output, strict=True)
    return {work.request.custom_id: tokens[: work.expected_tokens] for work, tokens in pairs}


def by_continuous_batching(model: Any, works: list[Work]) -> Tokens:
    """Hugging Face's continuous batching, each request with its own number of tokens."""
    greedy = GenerationConfig(do_sample=False, eos_token_id=-1, max_new_tokens=max(w.expected_tokens for w in works))
    settings = ContinuousBatchingConfig(**CONTINUOUS)
    tokens: Tokens = {}
    with model.continuous_batching_context_manager(greedy, continuous_batching_config=settings) as manager:
        for work in works:
            manager.add_request(
                work.prepared.ids, request_id=work.request.custom_id, max_new_tokens=work.expected_tokens
            )
        while len(tokens) < len(works):
            result = manager.get_result(timeout=10)
            if result is not None and result.is_finished():
                tokens[result.request_id] = result.generated_tokens
            elif not manager.is_running():
                raise RuntimeError("continuous batching has ended early")
    return tokens


class Vllm:
    """vLLM in a process and an environment of its own, which waits while others take their turn."""

    def __init__(self, python: Path, job: JsonObject, folder: Path) -> None:
        """Starts it and waits until it is ready. Raises `RuntimeError` when it is not there or does not start."""
        file = folder / "vllm.json"
        file.write_text(json.dumps(job))
        script = Path(__file__).with_name("vllm_peer.py")
        self._log = (folder / "vllm.log").open("w")
        try:
            self._process = subprocess.Popen(
                [python, script, file], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._log, text=True
            )
        except OSError as error:
            raise RuntimeError(str(error)) from error
        self._answer()

    def round(self) -> Round:
        """Answer all prompts."""
        assert self._process.stdin is not None
        self._process.stdin.write("go\n")
        self._process.stdin.flush()
        return Round(**self._answer())

    def close(self) -> None:
        """End it."""
        self._process.communicate()
        self._log.close()

    def _answer(self) -> JsonObject:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            self._process.wait()
            tail = Path(self._log.name).read_text().strip().splitlines()[-1:]
            raise RuntimeError(f"vLLM has ended with code {self._process.returncode}: {' '.join(tail)}")
        answer: JsonObject = json.loads(line)
        return answer


@dataclass(frozen=True)
class Roofline:
    """What this machine can do at best, and how long a workload would take by it."""

    flops_per_second: float
    bytes_per_second: float
    seconds: float

    @classmethod
    def of(cls, model: Any, tokens: int, generated: int, batch_size: int) -> Roofline:
        """The greater of arithmetic at the rate of a packed layer of the model, and reading all weights at each step.

        `tokens` go through all layers; of the last, only the `generated` ones. Reading the KV cache is not counted, nor
        that some steps wait for the one and some for the other: no engine reaches all of it.
        """
        layers = [layer for layer in model.modules() if isinstance(layer, nn.Linear) and layer is not model.lm_head]
        weights, head = sum(layer.weight.numel() for layer in layers), model.lm_head.weight.numel()
        rate = _flops_per_second(max(layers, key=lambda layer: layer.weight.numel()).weight)
        stream = _bytes_per_second()
        flops = 2 * (weights * tokens + head * generated)
        read = generated / batch_size * (weights + head) * model.dtype.itemsize
        return cls(rate, stream, max(flops / rate, read / stream))


def _flops_per_second(weight: Tensor) -> float:
    """Of one packed layer, with as many rows as suit it best."""
    layer, best = PackedLinear(weight, None), 0.0
    for rows in (64, 128, 256, 512):
        given = torch.randn(rows, weight.shape[1]).to(weight.dtype)
        best = max(best, 2 * rows * weight.numel() / _shortest(partial(layer, given)))
    return best


def _bytes_per_second() -> float:
    stream = torch.ones(STREAMED_BYTES // 4)
    return STREAMED_BYTES / _shortest(stream.sum, times=10)


@torch.inference_mode()
def _shortest(call: Callable[[], object], times: int = 50) -> float:
    seconds = []
    for _ in range(times):
        began = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - began)
    return min(seconds)
