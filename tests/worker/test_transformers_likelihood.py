"""How likely a model finds texts: what the model itself says, whatever else is in the batch."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from headrace.api.records import ErrorCode, RecordError
from headrace.api.worker import Env
from headrace_worker.engines.base import Continuation
from headrace_worker.engines.transformers import TransformersLikelihood, likelihood
from headrace_worker.errors import JobFailed
from tiny_models import VOCABULARY, save_gpt2, save_llama, words, worker_config


@pytest.fixture(autouse=True)
def _one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(Env.THREADS, "1")
    torch.set_num_threads(1)


@pytest.fixture(scope="module", params=[save_llama, save_gpt2], ids=["llama", "gpt2"])
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model with random weights."""
    saved: Path = request.param(tmp_path_factory.mktemp("model"))
    return saved


def a_likelihood(
    folder: Path, task: str = "completion", batching: dict[str, int] | None = None
) -> TransformersLikelihood:
    """The model of a folder, loaded; `batching` in camelCase."""
    model = {"name": "tiny", "task": task, "source": {"path": str(folder)}}
    found = likelihood(worker_config(model, batching=batching or {}))
    found.load()
    return found


def some_texts(number: int) -> list[tuple[list[int], list[int]]]:
    """Prompts and answers of very different lengths."""
    rng = random.Random(5)
    lengths = [(rng.randrange(1, 40), rng.randrange(1, 60)) for _ in range(number)]

    def some(tokens: int) -> list[int]:
        return [rng.randrange(VOCABULARY) for _ in range(tokens)]

    return [(some(prompt), some(answer)) for prompt, answer in lengths]


def alone(model: Any, prompt: list[int], answer: list[int]) -> float:
    """The mean log-probability as the model says it by itself, token by token."""
    with torch.inference_mode():
        logits = model(torch.tensor([prompt + answer])).logits[0].float()
    chances = torch.log_softmax(logits, dim=-1)
    start = len(prompt) - 1
    return sum(float(chances[start + i, token]) for i, token in enumerate(answer)) / len(answer)


@pytest.mark.parametrize("batching", [{}, {"maxBatchSize": 1}, {"maxBatchTokens": 64}], ids=str)
def test_mean_is_what_the_model_says_of_each_text_alone(folder: Path, batching: dict[str, int]) -> None:
    texts = some_texts(25)
    found = a_likelihood(folder, batching=batching).mean(
        [Continuation({"prompt": words(p)}, words(a)) for p, a in texts]
    )
    model = AutoModelForCausalLM.from_pretrained(folder)
    assert found == pytest.approx([alone(model, prompt, answer) for prompt, answer in texts], abs=1e-3)


def test_mean_gives_the_same_numbers_for_the_same_texts(folder: Path) -> None:
    asked = [Continuation({"prompt": words(p)}, words(a)) for p, a in some_texts(9)]
    assert a_likelihood(folder).mean(asked) == a_likelihood(folder).mean(asked)


def test_mean_puts_a_chat_before_the_text_in_the_models_own_form(folder: Path) -> None:
    prompt, answer = some_texts(1)[0]
    messages = [{"role": "user", "content": words(prompt)}]
    (found,) = a_likelihood(folder, task="chat").mean([Continuation({"messages": messages}, words(answer))])
    assert found == pytest.approx(alone(AutoModelForCausalLM.from_pretrained(folder), prompt, answer), abs=1e-3)


def test_mean_says_what_it_cannot_read_and_goes_on_with_the_rest(folder: Path) -> None:
    long = Continuation({"prompt": "t1"}, words([2] * 300))
    empty = Continuation({"prompt": "t1"}, "")
    good = Continuation({"prompt": "t1"}, "t2")
    found = a_likelihood(folder).mean([long, good, empty])
    codes = [it.code if isinstance(it, RecordError) else None for it in found]
    assert codes == [ErrorCode.CONTEXT_LENGTH_EXCEEDED, None, ErrorCode.INVALID_REQUEST]


def test_mean_runs_half_as_many_texts_when_memory_is_short(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scarce = a_likelihood(folder)
    asked = [Continuation({"prompt": words(p)}, words(a)) for p, a in some_texts(8)]
    expected = scarce.mean(asked)
    forward = scarce._forward
    monkeypatch.setattr(scarce, "_forward", lambda batch: None if len(batch) > 2 else forward(batch))
    assert scarce.mean(asked) == pytest.approx(expected, abs=1e-3)
    monkeypatch.setattr(scarce, "_forward", lambda _: None)
    assert {it.code for it in scarce.mean(asked) if isinstance(it, RecordError)} == {ErrorCode.OUT_OF_MEMORY}


def test_mean_that_is_no_number_is_an_error_of_its_text_alone(folder: Path) -> None:
    model = a_likelihood(folder)
    asked = [Continuation({"prompt": words(p)}, words(a)) for p, a in some_texts(4)]
    expected = model.mean(asked)
    used = {word for one in asked for word in [*one.body["prompt"].split(), *one.text.split()]}
    bad = next(token for token in range(VOCABULARY) if f"t{token}" not in used)
    weights = model._loaded
    weights.lm_head.weight = torch.nn.Parameter(weights.lm_head.weight.clone())
    with torch.no_grad():
        weights.get_input_embeddings().weight[bad] = float("nan")
    *found, error = model.mean([*asked, Continuation({"prompt": words([1, bad])}, "t2 t3")])
    assert found == pytest.approx(expected, abs=1e-3)
    assert isinstance(error, RecordError)
    assert error.code == ErrorCode.ENGINE_ERROR


def test_likelihood_refuses_a_task_without_a_language_model(folder: Path) -> None:
    with pytest.raises(JobFailed, match=r"model\.task must be chat or completion, not embedding"):
        a_likelihood(folder, task="embedding")
