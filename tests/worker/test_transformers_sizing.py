"""How many sequences and tokens the engine `transformers` takes at once: from a model's configuration and free memory."""

from __future__ import annotations

import logging
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import (
    BertConfig,
    DeepseekV3Config,
    FalconConfig,
    Gemma2Config,
    GPT2Config,
    LlamaConfig,
    MistralConfig,
    MixtralConfig,
    Qwen2Config,
)

from headrace.api.records import Request
from headrace.api.worker import Env
from headrace_worker.engines.transformers import TransformersEngine, generation, limits
from headrace_worker.engines.transformers.decoder import PackedDecoder
from headrace_worker.engines.transformers.sizing import Footprint, StepLimits, step_limits
from tiny_models import drive, save_llama, text, worker_config

GIB = 1024**3
LLAMA_8B = LlamaConfig(
    hidden_size=4096, intermediate_size=14336, num_hidden_layers=32, num_attention_heads=32, num_key_value_heads=8, vocab_size=128256,
    max_position_embeddings=131072,
)  # fmt: skip
SMOLLM2_135M = LlamaConfig(
    hidden_size=576, intermediate_size=1536, num_hidden_layers=30, num_attention_heads=9, num_key_value_heads=3, vocab_size=49152,
    max_position_embeddings=8192,
)  # fmt: skip
QWEN2_7B = Qwen2Config(
    hidden_size=3584,
    intermediate_size=18944,
    num_hidden_layers=28,
    num_attention_heads=28,
    num_key_value_heads=4,
    vocab_size=152064,
)
GEMMA2_9B = Gemma2Config(
    hidden_size=3584,
    intermediate_size=14336,
    num_hidden_layers=42,
    num_attention_heads=16,
    num_key_value_heads=8,
    head_dim=256,
)
FALCON_7B = FalconConfig(hidden_size=4544, num_hidden_layers=32, num_attention_heads=71, multi_query=True)
DEEPSEEK_V3 = DeepseekV3Config()


@pytest.fixture(autouse=True)
def _one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(Env.THREADS, "1")
    torch.set_num_threads(1)


@pytest.mark.parametrize(
    ("config", "number_bytes", "expected"),
    [
        pytest.param(LLAMA_8B, 2, 2 * 32 * 8 * 128 * 2, id="llama 8B, grouped heads"),
        pytest.param(SMOLLM2_135M, 4, 46_080, id="smollm2 135M in float32"),
        pytest.param(QWEN2_7B, 2, 2 * 28 * 4 * 128 * 2, id="qwen2 7B"),
        pytest.param(MistralConfig(), 2, 2 * 32 * 8 * 128 * 2, id="mistral 7B"),
        pytest.param(MixtralConfig(), 2, 2 * 32 * 8 * 128 * 2, id="mixtral 8x7B: experts cache nothing"),
        pytest.param(GPT2Config(), 4, 2 * 12 * 768 * 4, id="gpt2, whose fields have other names"),
        pytest.param(GEMMA2_9B, 2, 2 * 42 * 8 * 256 * 2, id="gemma2 9B, whose heads are not hidden / heads"),
        pytest.param(FALCON_7B, 2, 2 * 32 * 1 * 64 * 2, id="falcon 7B, one head for all"),
        pytest.param(
            DEEPSEEK_V3, 2, 61 * 128 * (128 + 64 + 128) * 2, id="deepseek v3, keys of two parts, values of another size"
        ),
    ],
)
def test_footprint_cached_token_is_keys_and_values_of_all_layers(config: Any, number_bytes: int, expected: int) -> None:
    assert Footprint.of(config, number_bytes, 4096, generates=True).cached_token == expected


def test_footprint_of_an_encoder_has_no_cache() -> None:
    takes = Footprint.of(BertConfig(), 4, 512, generates=False)
    assert (takes.cached_token, takes.sequence) == (0, 0)
    assert step_limits(takes, 8 * GIB, "cpu") == StepLimits(64, 512)


LLAMA = Footprint.of(LLAMA_8B, 2, 131072, generates=True)
SMOL = Footprint.of(SMOLLM2_135M, 4, 8192, generates=True)


@pytest.mark.parametrize(
    ("takes", "free", "device", "expected"),
    [
        pytest.param(LLAMA, 120 * GIB, "cuda", StepLimits(256, 16384), id="a large GPU: the most that is worth while"),
        pytest.param(LLAMA, 8 * GIB, "cuda", StepLimits(51, 8921), id="8 GiB beside the weights"),
        pytest.param(LLAMA, 2 * GIB, "cuda", StepLimits(12, 2246), id="2 GiB beside the weights"),
        pytest.param(LLAMA, 0, "cuda", StepLimits(1, 16), id="nothing is free"),
        pytest.param(SMOL, 16 * GIB, "cpu", StepLimits(64, 512), id="a small model on a CPU"),
        pytest.param(SMOL, GIB, "cpu", StepLimits(11, 512), id="a pod of 1 GiB"),
        pytest.param(SMOL, GIB // 64, "cpu", StepLimits(1, 182), id="hardly anything"),
    ],
)
def test_step_limits_follow_from_what_is_free(takes: Footprint, free: int, device: str, expected: StepLimits) -> None:
    assert step_limits(takes, free, device) == expected


def test_step_limits_a_short_context_lets_more_in() -> None:
    short = Footprint.of(SMOLLM2_135M, 4, 256, generates=True)
    assert step_limits(short, GIB, "cpu").max_sequences == 45


def test_step_limits_what_the_spec_says_stands() -> None:
    assert step_limits(LLAMA, 0, "cuda", 500, 2000) == StepLimits(500, 2000)
    assert step_limits(LLAMA, 120 * GIB, "cuda", None, 10**6) == StepLimits(256, 16384)
    assert step_limits(SMOL, 16 * GIB, "cpu", 500, None) == StepLimits(500, 512)


def test_free_bytes_of_a_gpu_are_what_its_driver_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (30 * GIB, 80 * GIB))
    assert limits.free_bytes(torch.device("cuda")) == 30 * GIB
    assert limits.cache_budget(torch.device("cuda")) == 24 * GIB


def completions(folder: Path, **batching: int) -> TransformersEngine:
    model = {"name": "tiny", "task": "completion", "source": {"path": str(folder)}}
    return TransformersEngine(worker_config(model, batching=batching), created=0)


def asked(count: int) -> list[Request]:
    return [Request(f"r{n}", {"prompt": [n + 1, n + 2], "max_tokens": 6, "temperature": 0}) for n in range(count)]


def test_load_says_what_it_has_found_and_keeps_to_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The context is 256 tokens, and each takes 768 bytes: three sequences fit into half of the memory."""
    folder = save_llama(tmp_path)
    expected = {name: text(one) for name, one in drive(completions(folder, maxBatchSize=8), asked(12)).items()}
    monkeypatch.setattr(limits, "free_bytes", lambda _: 2 * 3 * 256 * 768)
    with caplog.at_level(logging.INFO):
        engine = completions(folder)
        outcomes = drive(engine, asked(12))
    assert {name: text(one) for name, one in outcomes.items()} == expected
    assert engine.stats.max_num_seqs == 3
    assert engine.stats.batched_records <= 3 * engine.stats.batches
    assert "max_num_seqs 3 (by free memory), max_num_batched_tokens" in caplog.text
    assert "1 MiB are free, and a token takes 768 bytes of the KV cache" in caplog.text


def test_step_out_of_memory_is_remembered_the_longer_the_more_often_it_happens(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Four sequences are too many, whenever they are tried: after 8, 16, 32 steps without."""
    monkeypatch.setattr(generation, "RECOVERY_STEPS", 8)
    pack, refused, steps = PackedDecoder.pack, [], 0

    def scarce(decoder: PackedDecoder, decoding: Any, prompts: Any, shared: Any = ()) -> Any:
        nonlocal steps
        steps += 1
        if len(decoding) + len(prompts) > 3:
            refused.append(steps)
            raise torch.OutOfMemoryError("no memory")
        return pack(decoder, decoding, prompts, shared)

    monkeypatch.setattr(PackedDecoder, "pack", scarce)
    outcomes = drive(completions(save_llama(tmp_path), maxBatchSize=6), asked(60))
    assert all(outcome.error is None for outcome in outcomes.values())
    gaps = [later - earlier for earlier, later in pairwise(refused)]
    assert len(gaps) > 2
    assert all(later >= earlier for earlier, later in pairwise(gaps))
    assert gaps[-1] > 16
    assert "out of memory with 6 sequences: at most 3 of them" in caplog.text
