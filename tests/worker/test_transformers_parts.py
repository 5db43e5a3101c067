"""The parts of the engine that are easier to look at by themselves: limits, the KV cache, sampling, attention, GGUF files."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gguf import GGUFWriter
from torch import Tensor, nn
from transformers import AutoModelForCausalLM
from transformers.pytorch_utils import Conv1D

from headrace.api.records import Request
from headrace.api.worker import Env
from headrace_worker.cachefolder import temporary_folder
from headrace_worker.engines.transformers import TransformersEngine, attention, gguf, limits, native, sampling, weights
from headrace_worker.engines.transformers.kv_cache import KVCache
from headrace_worker.engines.transformers.packed import PackedLinear, pack_linear_layers
from headrace_worker.engines.transformers.parameters import Sampling
from headrace_worker.errors import JobFailed
from tiny_models import drive, save_gpt2, save_llama, save_mistral, text, worker_config


@pytest.fixture(autouse=True)
def _one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(Env.THREADS, "1")
    torch.set_num_threads(1)


# Limits


def cgroup(folder: Path, **files: str) -> Path:
    """A cgroup's folder; two underscores in a name are a dot, three a slash."""
    for name, content in files.items():
        path = folder / name.replace("___", "/").replace("__", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    return folder


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({"cpu__max": "200000 100000\n"}, 2),
        ({"cpu__max": "150000 100000\n"}, 1),
        ({"cpu__max": "50000 100000\n"}, 1),
        ({"cpu__max": "max 100000\n"}, 4),
        ({"cpu__max": "6400000 100000\n"}, 4),
        ({"cpu___cpu__cfs_quota_us": "300000\n", "cpu___cpu__cfs_period_us": "100000\n"}, 3),
        ({"cpu___cpu__cfs_quota_us": "-1\n", "cpu___cpu__cfs_period_us": "100000\n"}, 4),
        ({}, 4),
    ],
    ids=["v2", "v2 rounds down", "v2 at least one", "v2 no limit", "v2 above the machine", "v1", "v1 no limit", "none"],
)
def test_threads_are_what_the_cgroup_allows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, files: dict[str, str], expected: int
) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda _: {0, 1, 2, 3}, raising=False)
    assert limits.threads({}, cgroup(tmp_path, **files)) == expected


def test_threads_of_the_environment_win(tmp_path: Path) -> None:
    assert limits.threads({Env.THREADS: "7"}, cgroup(tmp_path, cpu__max="100000 100000")) == 7


@pytest.mark.parametrize("value", ["0", "-1", "two", ""])
def test_threads_that_are_no_number_fail_the_job(value: str) -> None:
    with pytest.raises(JobFailed, match="HEADRACE_THREADS must be a whole number of at least 1"):
        limits.threads({Env.THREADS: value})


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({}, 8000),
        ({"memory__max": "max\n", "memory__current": "900\n", "memory__stat": "active_file 1\n"}, 8000),
        (
            {
                "memory__max": "5000\n",
                "memory__current": "3000\n",
                "memory__stat": "anon 2000\nactive_file 400\ninactive_file 600\n",
            },
            3000,
        ),
        ({"memory__max": "90000\n", "memory__current": "10\n", "memory__stat": "anon 10\n"}, 8000),
        (
            {
                "memory___memory__limit_in_bytes": "4000\n",
                "memory___memory__usage_in_bytes": "1000\n",
                "memory___memory__stat": "inactive_file 500\n",
            },
            3500,
        ),
    ],
    ids=["no cgroup", "no limit", "page cache counts as free", "limit above the machine", "v1"],
)
def test_free_memory_is_the_least_of_machine_and_cgroup(tmp_path: Path, files: dict[str, str], expected: int) -> None:
    meminfo = tmp_path / "meminfo"
    meminfo.write_text("MemTotal: 99 kB\nMemAvailable: 8 kB\n")
    assert limits.free_memory(cgroup(tmp_path / "cgroup", **files), meminfo) == (8192 if expected == 8000 else expected)


# The KV cache


def filled(rows: int, length: int) -> tuple[KVCache, Tensor]:
    """A cache of one layer with a number of its own in each place."""
    cache = KVCache(budget=1 << 20)
    cache.reserve(rows, length)
    like = torch.zeros(1, 2, 5, 4)
    layer = cache.layer(0, like, like)
    layer.keys[:] = torch.arange(layer.keys.numel()).view_as(layer.keys)
    return cache, layer.keys.clone()


@pytest.mark.parametrize(
    ("rows", "length", "shape"),
    [(3, 100, (4, 128)), (5, 129, (8, 256)), (9, 1, (16, 128)), (1, 1, (1, 128))],
)
def test_reserve_makes_steps_and_keeps_what_is_there(rows: int, length: int, shape: tuple[int, int]) -> None:
    cache, before = filled(2, 20)
    if (rows, length) > (2, 128):
        cache.reserve(rows, length)
        like = torch.zeros(1, 2, 5, 4)
        keys = cache.layer(0, like, like).keys
        assert (keys.shape[0], keys.shape[2]) == shape
        assert torch.equal(keys[:2, :, :128], before)
        assert torch.isfinite(keys).all()
    else:
        cache.reserve(rows, length)
        assert (cache.rows, cache.length) == (2, 128)


def test_reserve_one_side_grows_and_the_other_shrinks() -> None:
    cache, _ = filled(4, 1000)
    cache.reserve(20, 100)
    assert (cache.rows, cache.length) == (24, 128)


def test_bytes_for_is_what_the_tensors_take() -> None:
    cache, _ = filled(4, 200)
    like = torch.zeros(1, 2, 5, 4)
    layer = cache.layer(0, like, like)
    assert cache.bytes_for(4, 200) == layer.keys.nbytes + layer.values.nbytes
    assert cache.fits(4, 200)
    assert not cache.fits(4, 1 << 20)


def test_move_copies_a_row() -> None:
    cache, before = filled(4, 20)
    cache.move(3, 1, 10)
    like = torch.zeros(1, 2, 5, 4)
    keys = cache.layer(0, like, like).keys
    assert torch.equal(keys[1, :, :10], before[3, :, :10])
    assert torch.equal(keys[1, :, 10:], before[1, :, 10:])


def test_release_gives_the_memory_back_and_the_cache_can_be_used_again() -> None:
    cache, _ = filled(4, 200)
    cache.release()
    cache.reserve(2, 30)
    like = torch.zeros(1, 2, 5, 4)
    assert cache.layer(0, like, like).keys.shape == (2, 2, 128, 4)


# Sampling

PLAIN = Sampling(max_tokens=9, temperature=1.0, top_p=1.0, top_k=0, seed="s", stop=())


@dataclass
class Place:
    """A sequence that has so many tokens already."""

    sampling: Sampling
    generated: int


def draws(logits: Tensor, settings: Sampling, count: int = 4000) -> Counter[int | None]:
    """How often each token is drawn from the same logits at `count` places of an answer."""
    places = [Place(settings, place) for place in range(count)]
    return Counter(sampling.next_tokens(logits.expand(count, -1), places))


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        (PLAIN, [0.1, 0.4, 0.2, 0.3]),
        (replace(PLAIN, top_k=2), [0, 4 / 7, 0, 3 / 7]),
        (replace(PLAIN, top_p=0.75), [0, 4 / 9, 2 / 9, 3 / 9]),
        (replace(PLAIN, top_p=0.69), [0, 4 / 7, 0, 3 / 7]),
        (replace(PLAIN, top_k=3, top_p=0.7), [0, 4 / 7, 0, 3 / 7]),
        (replace(PLAIN, temperature=0.5), [1 / 30, 16 / 30, 4 / 30, 9 / 30]),
        (replace(PLAIN, top_p=0.01), [0, 1, 0, 0]),
        (replace(PLAIN, temperature=0), [0, 1, 0, 0]),
    ],
    ids=["all", "top_k", "top_p", "top_p just below", "top_k before top_p", "temperature", "tiny top_p", "greedy"],
)
def test_next_tokens_are_drawn_as_often_as_they_are_likely(settings: Sampling, expected: list[float]) -> None:
    counts = draws(torch.tensor([0.1, 0.4, 0.2, 0.3]).log(), settings)
    found = torch.tensor([counts[token] / 4000 for token in range(4)])
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float32), atol=0.03, rtol=0)
    assert {token for token in range(4) if counts[token]} == {i for i, share in enumerate(expected) if share}


@pytest.mark.parametrize("change", [{"top_p": 0.9}, {"top_k": 1500}, {"top_k": 1500, "top_p": 0.5}, {"top_p": 0.2}])
def test_next_tokens_of_a_flat_distribution_do_not_depend_on_the_shortcut(
    monkeypatch: pytest.MonkeyPatch, change: dict[str, Any]
) -> None:
    torch.manual_seed(1)
    logits, settings = torch.randn(3000) / 10, replace(PLAIN, **change)
    quick = draws(logits, settings, 300)
    monkeypatch.setattr(sampling, "_USUAL_CANDIDATES", 3000)
    assert quick == draws(logits, settings, 300)


def test_next_tokens_mixes_greedy_and_drawn_rows() -> None:
    logits = torch.tensor([0.1, 0.4, 0.2, 0.3]).log()
    greedy, drawn, cut = replace(PLAIN, temperature=0), PLAIN, replace(PLAIN, top_k=2)
    places = [Place(settings, place) for place in range(60) for settings in (greedy, drawn, cut)]
    together = sampling.next_tokens(logits.expand(len(places), -1), places)
    apart = [sampling.next_tokens(logits[None], [place])[0] for place in places]
    assert together == apart
    assert set(together[::3]) == {1}


# Attention


def ragged_reference(
    query: Tensor, key: Tensor, value: Tensor, query_starts: Tensor, key_starts: Tensor, *_: int, **options: Any
) -> Tensor:
    """What the documentation of `varlen_attn` promises, sequence by sequence."""
    left, right = options["window_size"]
    assert right == 0
    assert options["enable_gqa"]
    results = []
    for i, used in enumerate(options["seqused_k"].tolist()):
        q = query[query_starts[i] : query_starts[i + 1]].transpose(0, 1)
        k = key[key_starts[i] : key_starts[i] + used].transpose(0, 1)
        v = value[key_starts[i] : key_starts[i] + used].transpose(0, 1)
        place = torch.arange(used - q.shape[1], used)[:, None] - torch.arange(used)
        seen = (place >= 0) & ((place <= left) | torch.tensor(left < 0))
        results.append(
            nn.functional.scaled_dot_product_attention(q, k, v, seen, scale=options["scale"], enable_gqa=True)
        )
    return torch.cat(results, dim=1).transpose(0, 1)


@pytest.mark.parametrize(
    "save",
    [save_llama, save_gpt2, lambda folder: save_mistral(folder, sliding_window=6)],
    ids=["llama", "gpt2", "mistral"],
)
def test_attention_through_the_kernel_of_gpus_gives_the_same_answers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, save: Callable[[Path], Path]
) -> None:
    """The kernel itself needs a GPU; a stand-in with the same arguments shows that they are the right ones."""
    config = worker_config({"name": "tiny", "task": "completion", "source": {"path": str(save(tmp_path))}})
    requests = [
        Request(f"r{i}", {"prompt": [i * 7 + j for j in range(1 + i * 3 % 20)], "max_tokens": 3 + i, "temperature": 0})
        for i in range(12)
    ]
    expected = drive(TransformersEngine(config, 0), requests)
    calls: list[int] = []

    def counted(*arguments: Any, **options: Any) -> Tensor:
        calls.append(len(options["seqused_k"]))
        return ragged_reference(*arguments, **options)

    monkeypatch.setattr(native, "LIBRARY", None)
    monkeypatch.setattr(attention, "varlen_can", lambda *_: True)
    monkeypatch.setattr(attention, "varlen_attn", counted)
    found = drive(TransformersEngine(config, 0), requests)
    assert max(calls) == 12
    assert {name: text(outcome) for name, outcome in found.items()} == {
        name: text(outcome) for name, outcome in expected.items()
    }


# Packed linear layers


@pytest.mark.parametrize("bias", [True, False], ids=["with bias", "without bias"])
@pytest.mark.parametrize("rows", [1, 3, 64, 200])
def test_packed_linear_gives_what_the_layer_gives(rows: int, bias: bool) -> None:
    torch.manual_seed(3)
    model = nn.Sequential(nn.Linear(48, 80, bias=bias), nn.ReLU(), Conv1D(24, 80))
    given = torch.randn(2, rows, 48)
    with torch.inference_mode():
        expected = model(given)
        assert pack_linear_layers(model) == 2
        assert all(isinstance(model[place], PackedLinear) for place in (0, 2))
        torch.testing.assert_close(model(given), expected, atol=1e-4, rtol=1e-5)


# GGUF files


@pytest.fixture
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def a_gguf(file: Path, seed: int = 5) -> Path:
    """A Llama of one layer that knows 300 tokens."""
    writer = GGUFWriter(file, "llama")
    writer.add_name("tiny")
    writer.add_context_length(64)
    writer.add_embedding_length(32)
    writer.add_block_count(1)
    writer.add_feed_forward_length(64)
    writer.add_head_count(4)
    writer.add_head_count_kv(2)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_vocab_size(300)
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list([*(chr(256 + i) for i in range(299)), "ĀĀ"])
    writer.add_token_merges(["Ā Ā"])
    writer.add_eos_token_id(0)
    shapes = {
        "token_embd.weight": (300, 32),
        "output_norm.weight": (32,),
        "blk.0.attn_norm.weight": (32,),
        "blk.0.ffn_norm.weight": (32,),
        "blk.0.attn_q.weight": (32, 32),
        "blk.0.attn_k.weight": (16, 32),
        "blk.0.attn_v.weight": (16, 32),
        "blk.0.attn_output.weight": (32, 32),
        "blk.0.ffn_gate.weight": (64, 32),
        "blk.0.ffn_up.weight": (64, 32),
        "blk.0.ffn_down.weight": (32, 64),
    }
    random = np.random.default_rng(seed)
    for name, shape in shapes.items():
        writer.add_tensor(name, random.normal(0, 0.3, shape).astype(np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return file


def answer(file: Path) -> str:
    """What the model in a GGUF file, or in a folder with one, answers."""
    config = worker_config({"name": "tiny", "task": "completion", "source": {"path": str(file)}})
    request = Request("r", {"prompt": [5, 6, 7], "max_tokens": 8, "temperature": 0})
    return text(drive(TransformersEngine(config, 0), [request])["r"])


@pytest.mark.usefixtures("_own_cache")
def test_gguf_file_is_unpacked_once_and_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = a_gguf(tmp_path / "tiny.gguf")
    first = answer(file)
    monkeypatch.delattr(gguf, "load_gguf_checkpoint")
    assert answer(file) == first
    assert answer(tmp_path) == first
    folders = list((tmp_path / "cache" / "headrace" / "gguf").iterdir())
    assert len(folders) == 1
    assert {"config.json", "tokenizer.json", "model.safetensors"} <= {path.name for path in folders[0].iterdir()}


@pytest.mark.usefixtures("_own_cache")
def test_gguf_file_that_has_changed_is_unpacked_again(tmp_path: Path) -> None:
    file = tmp_path / "tiny.gguf"
    assert answer(a_gguf(file, seed=5)) != answer(a_gguf(file, seed=6))


def test_gguf_without_a_cache_goes_to_a_temporary_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file stands where the cache should be, as on a read-only file system."""
    (tmp_path / "cache").write_text("in the way")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    temporary_folder.cache_clear()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    assert answer(a_gguf(tmp_path / "tiny.gguf"))
    assert len(list(tmp_path.glob("headrace-gguf-*"))) == 1
    temporary_folder.cache_clear()


@pytest.mark.usefixtures("_own_cache")
def test_gguf_file_that_is_none_fails_the_job(tmp_path: Path) -> None:
    (tmp_path / "tiny.gguf").write_bytes(b"not a model")
    with pytest.raises(JobFailed, match="the model tiny cannot be used"):
        answer(tmp_path / "tiny.gguf")


def test_gguf_answers_are_those_of_the_unpacked_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    file = a_gguf(tmp_path / "tiny.gguf")
    given = answer(file)
    config = worker_config({"name": "tiny", "task": "completion", "source": {"path": str(file)}})
    files = weights.find_files(config.model)
    model = AutoModelForCausalLM.from_pretrained(files.location)
    ids = torch.tensor([[5, 6, 7]])
    tokens = model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=8, do_sample=False)[0, 3:]
    tokenizer = weights.load_tokenizer(config.model, files)
    assert given == tokenizer.decode(tokens, skip_special_tokens=True)
