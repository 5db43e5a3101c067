"""How likely tokens were, in the forms of OpenAI's endpoints."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from headrace.api.base import JsonObject
from headrace.api.records import RecordError, Request
from headrace.api.worker import Env
from headrace_worker.engines.transformers import TransformersEngine
from tiny_models import drive, save_llama, text, worker_config

PROMPT = [5, 6, 7]


@pytest.fixture(autouse=True)
def _one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(Env.THREADS, "1")
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small Llama."""
    return save_llama(tmp_path_factory.mktemp("llama"))


def an_engine(folder: Path, task: str = "completion") -> TransformersEngine:
    """An engine for the model."""
    return TransformersEngine(worker_config({"name": "tiny", "task": task, "source": {"path": str(folder)}}), created=0)


def a_chat(**body: Any) -> Request:
    """The same tokens as a conversation."""
    content = " ".join(f"t{i}" for i in PROMPT)
    return Request("r", {"messages": [{"role": "user", "content": content}], "max_tokens": 4, "temperature": 0, **body})


def choice(engine: TransformersEngine, request: Request) -> JsonObject:
    """The one choice of the answer."""
    outcome = drive(engine, [request])["r"]
    assert outcome.body is not None, outcome.error
    found: JsonObject = outcome.body["choices"][0]
    return found


def expected(folder: Path, answer: list[int]) -> torch.Tensor:
    """What the model by itself says at each place of an answer."""
    model = AutoModelForCausalLM.from_pretrained(folder).eval()
    with torch.inference_mode():
        whole: torch.Tensor = model(torch.tensor([PROMPT + answer])).logits[0].log_softmax(-1)
    return whole[len(PROMPT) - 1 : -1]


def token(shown: str) -> int:
    """The id of a word."""
    return int(shown.strip().removeprefix("t"))


def test_chat_logprobs_are_those_of_the_model(folder: Path) -> None:
    said = choice(an_engine(folder, "chat"), a_chat(logprobs=True, top_logprobs=3))
    content = said["logprobs"]["content"]
    assert "".join(entry["token"] for entry in content).strip() == said["message"]["content"]
    answer = [token(entry["token"]) for entry in content]
    for entry, row in zip(content, expected(folder, answer), strict=True):
        values, places = row.topk(3)
        assert [token(other["token"]) for other in entry["top_logprobs"]] == places.tolist()
        assert [other["logprob"] for other in entry["top_logprobs"]] == pytest.approx(values.tolist(), abs=2e-4)
        assert entry["logprob"] == entry["top_logprobs"][0]["logprob"], "greedy takes the likeliest"
        assert bytes(entry["bytes"]).decode() == entry["token"]


def test_completion_logprobs_are_of_drawn_tokens_and_of_raw_logits(folder: Path) -> None:
    body = {"prompt": PROMPT, "max_tokens": 5, "temperature": 1.7, "top_k": 40, "seed": 1, "logprobs": 2}
    said = choice(an_engine(folder), Request("r", body))
    found = said["logprobs"]
    assert "".join(found["tokens"]) == said["text"]
    assert [
        said["text"][at:].startswith(token) for at, token in zip(found["text_offset"], found["tokens"], strict=True)
    ]
    rows = expected(folder, [token(shown) for shown in found["tokens"]])
    own = [row[token(shown)].item() for row, shown in zip(rows, found["tokens"], strict=True)]
    assert found["token_logprobs"] == pytest.approx(own, abs=2e-4)
    assert [len(top) for top in found["top_logprobs"]] == [2] * 5


def test_logprobs_end_with_the_answer_and_not_with_the_token_that_says_so(folder: Path, tmp_path: Path) -> None:
    body = {"prompt": PROMPT, "max_tokens": 6, "temperature": 0, "logprobs": 0}
    tokens = choice(an_engine(folder), Request("r", body))["logprobs"]["tokens"]
    ended = choice(an_engine(save_llama(tmp_path, eos_token_id=token(tokens[3]))), Request("r", body))
    assert ended["finish_reason"] == "stop"
    assert ended["logprobs"]["tokens"] == tokens[:3]
    assert ended["logprobs"]["top_logprobs"] == [{}] * 3


def test_logprobs_of_one_record_change_nothing_for_others(folder: Path) -> None:
    plain = [Request(f"p{i}", {"prompt": [i + 1], "max_tokens": 6, "temperature": 0}) for i in range(6)]
    asking = [Request(f"a{i}", {**plain[i].body, "logprobs": i}) for i in range(6)]
    outcomes = drive(an_engine(folder), [*plain, *asking])
    for i in range(6):
        assert text(outcomes[f"p{i}"]) == text(outcomes[f"a{i}"])
        body, with_them = outcomes[f"p{i}"].body, outcomes[f"a{i}"].body
        assert body is not None
        assert with_them is not None
        assert body["choices"][0]["logprobs"] is None
        assert [len(top) for top in with_them["choices"][0]["logprobs"]["top_logprobs"]] == [i] * 6


@pytest.mark.parametrize(
    ("task", "body", "says"),
    [
        ("chat", {"logprobs": 3}, "logprobs must be true or false"),
        ("chat", {"logprobs": True, "top_logprobs": 21}, "top_logprobs must be a whole number of at least 0 and at most 20"),
        ("chat", {"top_logprobs": 2}, "top_logprobs must come with logprobs: true"),
        ("completion", {"logprobs": True}, "logprobs must be a whole number"),
        ("completion", {"logprobs": 21}, "logprobs must be a whole number of at least 0 and at most 20"),
    ],
)  # fmt: skip
def test_logprobs_out_of_bounds_are_refused(folder: Path, task: str, body: JsonObject, says: str) -> None:
    request = a_chat(**body) if task == "chat" else Request("r", {"prompt": PROMPT, **body})
    with pytest.raises(RecordError, match=says):
        an_engine(folder, task).prepare(0, request)
