"""The compiled kernels against torch, for each kind of CPU that they were compiled for and that this machine can be."""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable
from itertools import accumulate, pairwise
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from transformers import AutoModelForCausalLM

from headrace.api.records import Request
from headrace.api.worker import Env
from headrace_worker.engines.transformers import TransformersEngine, native
from headrace_worker.engines.transformers.fused import FusedDecoder, join_projections
from headrace_worker.engines.transformers.native import build
from headrace_worker.engines.transformers.packed import pack_linear_layers
from tiny_models import drive, save_gpt2, save_llama, save_mistral, save_qwen2, text, worker_config

NEW = (1, 1, 1, 1, 40, 7, 64, 1)
LENGTHS = (5, 16, 17, 100, 40, 33, 70, 1)
"""New tokens and all tokens of eight sequences: some decode, one is new, two go on with several tokens at once."""
COLUMNS = 112
TOLERANCE = {torch.float32: 1e-5, torch.bfloat16: 0.03}

pytestmark = pytest.mark.skipif(native.LIBRARY is None, reason="no kernels were compiled for this machine")


@pytest.fixture(autouse=True)
def _one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(Env.THREADS, "1")
    torch.set_num_threads(1)


@pytest.fixture(params=["avx512", "avx2"])
def kernels(request: pytest.FixtureRequest) -> native.Kernels:
    """One of the libraries."""
    path = build.library(request.param)
    if not path.exists() or (request.param == "avx512" and torch.backends.cpu.get_cpu_capability() != "AVX512"):
        pytest.skip(f"this machine cannot run {path.name}")
    return native.Kernels(path)


@pytest.fixture(params=[torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])
def dtype(request: pytest.FixtureRequest) -> torch.dtype:
    """A number format."""
    torch.manual_seed(5)
    found: torch.dtype = request.param
    return found


def close(found: Tensor, expected: Tensor) -> None:
    """The same but for rounding."""
    limit = TOLERANCE[found.dtype]
    torch.testing.assert_close(found.float(), expected.float(), atol=limit, rtol=limit)


def test_add_rms_norm_adds_in_place_and_normalises(kernels: native.Kernels, dtype: torch.dtype) -> None:
    residual, delta, weight = torch.randn(37, 48).to(dtype), torch.randn(37, 48).to(dtype), torch.randn(48).to(dtype)
    expected = residual + delta
    found = kernels.add_rms_norm(residual, delta, weight, 1e-5)
    close(residual, expected)
    close(found, nn.functional.rms_norm(expected.float(), (48,), weight.float(), 1e-5))
    close(kernels.add_rms_norm(expected, None, weight, 1e-5), found)


def test_silu_multiply_is_finite_for_all_gates(kernels: native.Kernels, dtype: torch.dtype) -> None:
    both = torch.randn(9, 64).to(dtype) * 3
    both[0, :4] = torch.tensor([-1e4, 1e4, -90.0, 90.0])
    close(kernels.silu_multiply(both), nn.functional.silu(both[:, :32].float()) * both[:, 32:].float())


@pytest.mark.parametrize("width", [1, 15, 16, 1000])
def test_greatest_is_the_first_of_equals(kernels: native.Kernels, dtype: torch.dtype, width: int) -> None:
    rows = torch.randint(0, 9, (20, width)).to(dtype) - 4
    expected = [row.index(max(row)) for row in rows.tolist()]
    assert kernels.greatest(rows).tolist() == expected
    assert kernels.greatest(rows - math.inf).tolist() == [0] * 20


def turned(heads: Tensor, positions: Tensor, tables: tuple[Tensor, Tensor]) -> Tensor:
    """[tokens, heads, size] with rotary positions, as transformers does it."""
    cosines, sines = (torch.cat([table[positions]] * 2, -1)[:, None] for table in tables)
    half = heads.shape[-1] // 2
    crossed = torch.cat([-heads[..., half:], heads[..., :half]], -1)
    return heads.float() * cosines + crossed.float() * sines


@pytest.mark.parametrize("window", [0, 30], ids=["all", "window"])
@pytest.mark.parametrize(("heads", "key_heads", "size"), [(8, 4, 64), (3, 1, 80), (2, 2, 16), (10, 2, 128)])
def test_attention_is_that_of_torch_sequence_by_sequence(
    kernels: native.Kernels, dtype: torch.dtype, heads: int, key_heads: int, size: int, window: int
) -> None:
    qkv = torch.randn(sum(NEW), heads + 2 * key_heads, size).to(dtype)
    keys, values = (torch.randn(len(NEW), key_heads, COLUMNS, size).to(dtype) for _ in range(2))
    blocked = keys.view(len(NEW), key_heads, -1, native.LANES, size).transpose(3, 4).contiguous()
    kept = values.clone()
    angles = torch.arange(COLUMNS)[:, None] / 10000 ** torch.linspace(0, 1, size // 2)
    tables = angles.cos(), angles.sin()
    starts = list(accumulate(NEW, initial=0))
    out = torch.empty(sum(NEW), heads, size, dtype=dtype)
    places = torch.tensor(starts, dtype=torch.int32), torch.tensor(LENGTHS, dtype=torch.int32)
    begin, head_bytes = qkv.data_ptr(), size * qkv.element_size()
    arguments = native.Attention(
        query=begin, key=begin + heads * head_bytes, value=begin + (heads + key_heads) * head_bytes,
        out=out.data_ptr(), keys=blocked.data_ptr(), values=kept.data_ptr(),
        cosines=tables[0].data_ptr(), sines=tables[1].data_ptr(),
        starts=places[0].data_ptr(), lengths=places[1].data_ptr(), sequences=len(NEW),
        heads=heads, key_heads=key_heads, size=size, length=COLUMNS, window=window, scaling=size**-0.5,
        **{f"{name}_{of}": step for name in ("query", "key", "value") for of, step in (("token", qkv.stride(0)), ("head", size))},
    )  # fmt: skip
    torch.set_num_threads(2)
    kernels.attention(arguments, dtype)
    torch.set_num_threads(1)
    for row, (start, end) in enumerate(pairwise(starts)):
        length = LENGTHS[row]
        positions = torch.arange(length - (end - start), length)
        query, key, value = torch.tensor_split(qkv[start:end], (heads, heads + key_heads), dim=1)
        keys[row, :, positions] = turned(key, positions, tables).to(dtype).transpose(0, 1)
        values[row, :, positions] = value.transpose(0, 1)
        distance = positions[:, None] - torch.arange(length)
        seen = (distance >= 0) & (distance < (window or COLUMNS))
        expected = nn.functional.scaled_dot_product_attention(
            turned(query, positions, tables).transpose(0, 1)[None],
            keys[row : row + 1, :, :length].float(),
            values[row : row + 1, :, :length].float(),
            seen,
            enable_gqa=True,
        )
        close(out[start:end], expected[0].transpose(0, 1))
    close(kept, values)


def test_join_projections_leaves_a_model_that_says_the_same(tmp_path: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(save_llama(tmp_path)).eval()
    ids = torch.tensor([[3, 1, 4, 1, 5]])
    with torch.inference_mode():
        expected = model(ids).logits
        assert join_projections(model)
        pack_linear_layers(model)
        torch.testing.assert_close(model(ids).logits, expected, atol=1e-4, rtol=1e-4)
    assert FusedDecoder.of(model) is not None


def test_join_projections_leaves_other_models_alone(tmp_path: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(save_gpt2(tmp_path))
    assert not join_projections(model)
    assert FusedDecoder.of(model) is None


@pytest.mark.parametrize("dtype_name", ["float32", "bfloat16"])
@pytest.mark.parametrize(
    "save",
    [save_llama, save_gpt2, save_qwen2, lambda folder: save_mistral(folder, sliding_window=6)],
    ids=["llama", "gpt2", "qwen2", "mistral"],
)
def test_engine_gives_the_same_answers_without_the_kernels(
    save: Callable[[Path], Path], dtype_name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In bfloat16 rounding may lead an answer elsewhere, but rarely at its first token."""
    config = worker_config(
        {"name": "tiny", "task": "completion", "source": {"path": str(save(tmp_path))}},
        engine={"name": "transformers", "transformers": {"dtype": dtype_name}},
    )
    exact = dtype_name == "float32"
    requests = [
        Request(f"r{i}", {"prompt": [i * 7 + j for j in range(1 + i * 3 % 40)], "max_tokens": 1 + exact * i, "temperature": 0})
        for i in range(24)
    ]  # fmt: skip
    fast = drive(TransformersEngine(config, 0), requests)
    monkeypatch.setattr(native, "LIBRARY", None)
    slow = drive(TransformersEngine(config, 0), requests)
    same = sum(text(fast[name]) == text(slow[name]) for name in slow)
    assert same == len(requests) if exact else same >= len(requests) - 4


@pytest.mark.skipif(shutil.which("g++") is None, reason="no compiler")
def test_build_compiles_what_is_older_than_its_source_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copy(build.HERE / "kernels.cpp", tmp_path)
    monkeypatch.setattr(build, "HERE", tmp_path)
    monkeypatch.setattr(build, "VARIANTS", {"avx2": build.VARIANTS["avx2"]})
    first = [(path.name, path.stat().st_mtime_ns) for path in build.build()]
    assert [name for name, _ in first] == ["kernels-avx2.so"]
    assert [(path.name, path.stat().st_mtime_ns) for path in build.build()] == first
    monkeypatch.setenv("CXX", "no-such-compiler")
    assert build.build() == []
