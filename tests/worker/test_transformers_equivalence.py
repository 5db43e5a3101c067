"""Five hundred records: batched answers are, token for token, those of the model alone, however batches are put together.

Rotary positions and learned ones: only the second notice when all positions are wrong by the same number.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, PreTrainedModel

from headrace.api.records import Request
from headrace.api.worker import Env
from headrace_worker.engines.transformers import TransformersEngine, native
from headrace_worker.engines.transformers.decoder import PackedDecoder
from headrace_worker.engines.transformers.joined import join_projections
from headrace_worker.engines.transformers.kv_cache import KVCache
from headrace_worker.engines.transformers.packed import pack_linear_layers
from headrace_worker.engines.transformers.whole import written_out
from tiny_models import SPREAD, VOCABULARY, drive, save_gpt2, save_llama, text, words, worker_config

RECORDS = 500
MODELS = {"rotary": save_llama, "learned": save_gpt2}
TYPICAL, LARGEST = 0.06, 0.4
"""How far bfloat16 logits may be from those of the model alone, in parts of their spread; a wrong position or mask is off by all of it."""


@dataclass(frozen=True)
class Suite:
    """A model, its records, and what it answers to each alone."""

    folder: Path
    requests: list[Request]
    answers: dict[str, list[int]]


@pytest.fixture(autouse=True)
def _one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(Env.THREADS, "1")
    torch.set_num_threads(1)


@pytest.fixture(scope="module", params=list(MODELS))
def suite(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Suite:
    """Prompts of 1 to 120 tokens, most of them short, and answers of 1 to 16."""
    torch.set_num_threads(1)
    folder = MODELS[request.param](tmp_path_factory.mktemp(request.param))
    rng = random.Random(23)
    requests = [
        Request(
            f"r{number}",
            {
                "prompt": [rng.randrange(VOCABULARY) for _ in range(min(120, max(1, round(rng.lognormvariate(3, 0.8)))))],
                "max_tokens": min(16, max(1, round(rng.lognormvariate(1.5, 0.7)))),
                "temperature": 0,
            },
        )
        for number in range(RECORDS)
    ]  # fmt: skip
    model = AutoModelForCausalLM.from_pretrained(folder).eval()
    return Suite(folder, requests, {one.custom_id: _alone(model, one) for one in requests})


@torch.inference_mode()
def _alone(model: PreTrainedModel, request: Request) -> list[int]:
    """`generate`, for one record by itself."""
    ids = torch.tensor([request.body["prompt"]])
    wanted: dict[str, Any] = {"max_new_tokens": request.body["max_tokens"], "do_sample": False}
    tokens: list[int] = model.generate(ids, attention_mask=torch.ones_like(ids), **wanted)[0, ids.shape[1] :].tolist()
    return tokens


def answers(suite: Suite, batch_size: int, order: int, tokens: int = 16384) -> dict[str, str]:
    """What the engine answers, with the records in an order of their own and at most so many tokens in a step."""
    model = {"name": "tiny", "task": "completion", "source": {"path": str(suite.folder)}}
    batching = {"maxBatchSize": batch_size, "maxBatchTokens": tokens}
    engine = TransformersEngine(worker_config(model, batching=batching), created=0)
    outcomes = drive(engine, random.Random(order).sample(suite.requests, RECORDS))
    return {name: text(outcome) for name, outcome in outcomes.items()}


@pytest.mark.parametrize(("batch_size", "order"), [(1, 1), (7, 2), (64, 3), (64, 4)])
def test_greedy_answers_are_those_of_the_model_alone(suite: Suite, batch_size: int, order: int) -> None:
    expected = {name: f" {words(tokens)}" for name, tokens in suite.answers.items()}
    assert answers(suite, batch_size, order) == expected


@pytest.mark.parametrize("tokens", [16384, 40])
def test_greedy_answers_without_the_kernels_too(suite: Suite, tokens: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(native, "LIBRARY", None)
    expected = {name: f" {words(tokens)}" for name, tokens in suite.answers.items()}
    assert answers(suite, 64, order=5, tokens=tokens) == expected


def test_greedy_answers_to_prompts_that_are_computed_in_pieces(suite: Suite) -> None:
    """Of 40 tokens at most, in whatever steps they come, and a few that share a step with 16 that decode."""
    assert sum(len(one.body["prompt"]) > 40 for one in suite.requests) > RECORDS // 10
    expected = {name: f" {words(tokens)}" for name, tokens in suite.answers.items()}
    assert answers(suite, 16, order=6, tokens=40) == expected


def test_the_suite_would_show_a_mistake(suite: Suite) -> None:
    assert SPREAD >= 0.08
    distinct = sum(len(set(tokens)) for tokens in suite.answers.values())
    assert distinct / sum(map(len, suite.answers.values())) > 0.7
    assert len({tuple(tokens) for tokens in suite.answers.values()}) > RECORDS * 0.9


@torch.inference_mode()
def test_bfloat16_logits_are_those_of_the_model_alone_but_for_rounding(suite: Suite) -> None:
    """In bfloat16 tokens may differ, so it is the logits that are compared: of new prompts, and of sequences that go on."""
    model = AutoModelForCausalLM.from_pretrained(suite.folder, dtype=torch.bfloat16).eval()
    texts = [[*one.body["prompt"], *suite.answers[one.custom_id]] for one in suite.requests[:60]]
    expected = torch.stack([model(torch.tensor([ids])).logits[0, -1] for ids in texts]).float()
    join_projections(model)
    pack_linear_layers(model)
    decoder = PackedDecoder(model, KVCache(1 << 30), written_out(model))
    decoder.forward([], [ids[:-1] or ids for ids in texts[:40]])
    found = decoder.forward(texts[:40], texts[40:]).float()
    spread = (expected - expected.mean(-1, keepdim=True)).norm(dim=-1)
    differences = (found - expected).norm(dim=-1) / spread
    assert differences.median() < TYPICAL
    assert differences.max() < LARGEST
