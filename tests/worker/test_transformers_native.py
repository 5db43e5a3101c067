"""The compiled kernels against torch, for each kind of CPU that they were compiled for and that this machine can be."""

from __future__ import annotations

import _ctypes
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
from headrace_worker.engines.transformers.decoder import PackedDecoder
from headrace_worker.engines.transformers.joined import join_projections
from headrace_worker.engines.transformers.kv_cache import KVCache
from headrace_worker.engines.transformers.native import build
from headrace_worker.engines.transformers.packed import pack_linear_layers
from headrace_worker.engines.transformers.prefixes import Shared
from headrace_worker.engines.transformers.sampling import NOTHING
from headrace_worker.engines.transformers.tiled import Store, TiledLinear
from headrace_worker.engines.transformers.whole import WholeDecoder, written_out
from tiny_models import VOCABULARY, drive, save_gpt2, save_llama, save_mistral, save_qwen2, text, worker_config

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


@pytest.fixture(params=list(build.VARIANTS))
def kernels(request: pytest.FixtureRequest) -> native.Kernels:
    """One of the libraries."""
    path = build.library(request.param)
    if path not in build.fitting(native.cpu_flags()):
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


@pytest.fixture
def multiplying(kernels: native.Kernels, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    """One of the libraries with matrix products of this number format, in use."""
    if not kernels.multiplies(dtype):
        pytest.skip("this kind of CPU has torch's products only")
    monkeypatch.setattr(native, "LIBRARY", kernels)
    torch.set_num_threads(2)


@pytest.mark.usefixtures("multiplying")
@pytest.mark.parametrize(("inputs", "outputs"), [(32, 16), (64, 48), (576, 192), (1536, 33)])
@pytest.mark.parametrize("biased", [False, True], ids=["plain", "bias"])
def test_linear_is_that_of_torch(dtype: torch.dtype, inputs: int, outputs: int, biased: bool) -> None:
    given, weight = torch.randn(75, inputs).to(dtype), (torch.randn(outputs, inputs) * inputs**-0.5).to(dtype)
    bias = torch.randn(outputs).to(dtype) if biased else None
    layer = TiledLinear(weight, bias, Store())
    expected = nn.functional.linear(given.float(), weight.float(), None if bias is None else bias.float())
    for rows in (1, 7, 16, 17, 64, 75):
        close(layer(given[:rows]), expected[:rows])


@pytest.mark.usefixtures("multiplying")
def test_rows_do_not_depend_on_how_many_there_are(dtype: torch.dtype) -> None:
    layer, rows = TiledLinear(torch.randn(96, 160).to(dtype), None, Store()), torch.randn(70, 160).to(dtype)
    whole = layer(rows)
    for count in (1, 5, 12, 13, 32, 33, 69):
        assert torch.equal(layer(rows[:count]), whole[:count])


@pytest.mark.usefixtures("multiplying")
@pytest.mark.parametrize(
    "save",
    [save_llama, save_qwen2, lambda folder: save_mistral(folder, sliding_window=6)],
    ids=["llama", "qwen2", "mistral"],
)
def test_a_whole_pass_gives_the_logits_of_the_model(
    dtype: torch.dtype, save: Callable[[Path], Path], tmp_path: Path
) -> None:
    """Prompts long and short, then a token more of each and one that begins like another."""
    model = AutoModelForCausalLM.from_pretrained(save(tmp_path), dtype=dtype).eval()
    exact = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32).eval()
    first = [[(7 * i + j * j) % VOCABULARY for j in range(count)] for i, count in enumerate((1, 2, 40, 17, 33, 60, 5))]
    longer = [[*ids, 3 + i] for i, ids in enumerate(first)]
    new = [[*longer[5][:50], 9, 8]]
    with torch.inference_mode():
        expected = torch.stack([exact(torch.tensor([ids])).logits[0, -1] for ids in [*longer, *new]])
    assert join_projections(model)
    whole = written_out(model)
    assert isinstance(whole, WholeDecoder)
    decoder = PackedDecoder(model, KVCache(1 << 30), whole)
    decoder.forward([], first)
    found = decoder.forward(longer, new, [Shared(5, 50)])
    error = (found - expected).norm(dim=-1) / (expected - expected.mean(-1, keepdim=True)).norm(dim=-1)
    assert error.max() < (1e-4 if dtype == torch.float32 else 0.3)
    assert decoder.likeliest(longer, new, [Shared(5, 50)]).tolist() == found.argmax(-1).tolist()


def test_a_whole_pass_says_where_numbers_are_none(tmp_path: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(save_llama(tmp_path)).requires_grad_(requires_grad=False)
    if not (native.can_multiply(model.dtype) and join_projections(model)):
        pytest.skip("this kind of CPU has torch's products only")
    decoder = PackedDecoder(model, KVCache(1 << 30), written_out(model))
    model.model.embed_tokens.weight[9] = math.nan
    chosen = decoder.likeliest([], [[3, 4], [9], [5]])
    assert [token == NOTHING for token in chosen.tolist()] == [False, True, False]


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
        out=out.data_ptr(), out_token=heads * size, keys=blocked.data_ptr(), values=kept.data_ptr(),
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
    assert written_out(model) is not None


def test_join_projections_leaves_other_models_alone(tmp_path: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(save_gpt2(tmp_path))
    assert not join_projections(model)
    assert written_out(model) is None


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


def test_load_passes_over_libraries_that_do_not_load_or_are_of_another_release(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torn = tmp_path / "kernels-torn.so"
    torn.write_bytes(b"no library")
    foreign = Path(_ctypes.__file__)  # a library, but none of ours
    best = build.fitting(native.cpu_flags())
    monkeypatch.setattr(native, "fitting", lambda _flags: [torn, foreign, *best])
    assert native.load() is not None
    monkeypatch.setattr(native, "fitting", lambda _flags: [torn, foreign])
    assert native.load() is None


@pytest.mark.skipif(shutil.which("g++") is None, reason="no compiler")
def test_build_compiles_what_is_older_than_its_source_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for source in (*build.HERE.glob("*.h"), build.HERE / "kernels.cpp"):
        shutil.copy(source, tmp_path)
    monkeypatch.setattr(build, "HERE", tmp_path)
    monkeypatch.setattr(build, "VARIANTS", {"avx2": build.VARIANTS["avx2"]})
    first = [(path.name, path.stat().st_mtime_ns) for path in build.build()]
    assert [name for name, _ in first] == ["kernels-avx2.so"]
    assert [(path.name, path.stat().st_mtime_ns) for path in build.build()] == first
    monkeypatch.setenv("CXX", "no-such-compiler")
    assert build.build() == []
