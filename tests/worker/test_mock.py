"""The mock engine: the same answers, errors and delays for a record in every run."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest

from headrace.api.base import JsonObject
from headrace.api.engines import EngineName
from headrace.api.records import ErrorCode, RecordError, Request
from headrace.api.worker import WorkerConfig
from headrace_worker import engines
from headrace_worker.engines.base import Outcome, Work, Writing
from headrace_worker.engines.mock import Mock
from headrace_worker.errors import JobFailed
from worker_rig import CREATED, Folder


def a_config(task: str = "chat", /, context: int | None = None, **mock: int) -> WorkerConfig:
    model: dict[str, Any] = {"name": "mock", "task": task}
    if context is not None:
        model["contextTokens"] = context
    engine = {"name": "mock", "mock": mock}
    usual = {"model": model, "engine": engine, "batching": {"maxBatchSize": 8}}
    return Folder(Path("/nowhere"), usual).config()


def chat(custom_id: str = "r1", text: str = "How are you?", **body: Any) -> Request:
    return Request(custom_id, {"messages": [{"role": "user", "content": text}], **body})


def answer(engine: Mock, *requests: Request) -> list[Outcome]:
    engine.load()
    engine.submit([engine.prepare(position, request) for position, request in enumerate(requests)])
    outcomes = engine.step()
    engine.close()
    return outcomes


def body_of(task: str, request: Request) -> JsonObject:
    (outcome,) = answer(Mock(a_config(task), CREATED), request)
    assert outcome.body is not None
    return outcome.body


def test_step_answers_a_chat_as_openai_does() -> None:
    assert body_of("chat", chat("r1", "How are you?")) == {
        "id": "mock-0",
        "object": "chat.completion",
        "created": CREATED,
        "model": "mock",
        "choices": [
            {"index": 0, "message": {"role": "assistant", "content": "r1: How are you?"}, "finish_reason": "stop"}
        ],
        "usage": {"prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7},
    }


def test_step_answers_a_completion_as_openai_does() -> None:
    body = body_of("completion", Request("r1", {"prompt": "Once upon"}))
    assert body["object"] == "text_completion"
    assert body["choices"] == [{"index": 0, "text": "r1: Once upon", "finish_reason": "stop"}]


@pytest.mark.parametrize(
    ("given", "vectors"),
    [
        pytest.param("one text", 1, id="a text"),
        pytest.param(["one", "two", "three"], 3, id="a list of texts"),
        pytest.param([1, 2, 3], 1, id="a list of tokens"),
        pytest.param([[1, 2], [3]], 2, id="a list of lists of tokens"),
    ],
)
def test_step_answers_an_embedding_of(given: Any, vectors: int) -> None:
    body = body_of("embedding", Request("r1", {"input": given}))
    assert [entry["index"] for entry in body["data"]] == list(range(vectors))
    assert len({tuple(entry["embedding"]) for entry in body["data"]}) == vectors
    assert body["usage"] == {
        "prompt_tokens": body["usage"]["total_tokens"],
        "total_tokens": body["usage"]["total_tokens"],
    }


def test_step_ends_an_answer_at_its_token_limit() -> None:
    (outcome,) = answer(Mock(a_config(), CREATED), chat("r1", "a" * 400, max_tokens=5))
    assert outcome.body is not None
    (choice,) = outcome.body["choices"]
    assert (choice["finish_reason"], len(choice["message"]["content"])) == ("length", 20)
    assert outcome.completion_tokens == 5


def test_step_is_the_same_in_every_run() -> None:
    requests = [chat(f"r{i}") for i in range(8)]
    runs = [answer(Mock(a_config(errorPercent=50), CREATED), *requests) for _ in range(2)]
    assert [outcome.body for outcome in runs[0]] == [outcome.body for outcome in runs[1]]


def errors_among(records: int, **mock: int) -> set[int]:
    engine = Mock(a_config(**mock), CREATED)
    engine.submit([engine.prepare(position, chat(f"r{position}")) for position in range(records)])
    return {outcome.work.position for outcome in engine.step() if outcome.error is not None}


def test_step_fails_about_the_share_of_records_that_was_asked_for() -> None:
    assert 150 < len(errors_among(1000, errorPercent=20)) < 250
    assert errors_among(1000) == set()
    assert len(errors_among(100, errorPercent=100)) == 100


def test_step_fails_other_records_with_another_seed() -> None:
    assert errors_among(100, errorPercent=50, seed=1) != errors_among(100, errorPercent=50, seed=2)


def test_step_fails_with_an_error_that_is_not_worth_another_try() -> None:
    (outcome,) = answer(Mock(a_config(errorPercent=100), CREATED), chat())
    assert outcome.error is not None
    assert outcome.error.code == ErrorCode.MOCK_ERROR
    assert not outcome.retriable


class Clock:
    """A clock that the test turns."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_step_gives_a_batch_back_when_its_time_is_over(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    slept: list[float] = []
    monkeypatch.setattr("time.sleep", slept.append)
    engine = Mock(a_config(latencyMilliseconds=2000), CREATED, clock)
    engine.submit([engine.prepare(0, chat())])
    clock.now += 1.9
    assert engine.step() == []
    assert engine.running == 1
    clock.now += 0.1
    assert len(engine.step()) == 1
    assert slept == [pytest.approx(0.1)]


@pytest.mark.parametrize("task", ["chat", "completion"])
def test_unfinished_answers_grow_with_the_time_and_begin_as_they_end(
    task: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock()
    monkeypatch.setattr("time.sleep", lambda _: None)
    engine = Mock(a_config(task, latencyMilliseconds=1000), CREATED, clock)
    assert isinstance(engine, Writing)
    asked = chat() if task == "chat" else Request("r1", {"prompt": "How are you?"})
    engine.submit([engine.prepare(0, asked)])
    assert engine.unfinished() == [], "nothing is there yet"
    clock.now += 0.5
    (half,) = engine.unfinished()
    assert (half.work.request.custom_id, half.text, half.tokens) == ("r1", "r1: How ", 2)
    clock.now += 0.5
    (outcome,) = engine.step()
    assert outcome.body is not None
    assert "r1: How are you?" in str(outcome.body["choices"])
    assert engine.unfinished() == []


def test_give_up_leaves_the_others_of_the_batch_what_they_have() -> None:
    engine = Mock(a_config(latencyMilliseconds=2000), CREATED, clock := Clock())
    engine.submit([engine.prepare(position, chat(f"r{position}")) for position in range(3)])
    assert [work.position for work in engine.give_up([1, 7])] == [1]
    assert engine.running == 2
    clock.now += 2
    assert [outcome.work.position for outcome in engine.step()] == [0, 2]


def test_room_is_a_whole_batch_or_none() -> None:
    engine = Mock(a_config(), CREATED)
    assert (engine.room, engine.running) == (8, 0)
    engine.submit([engine.prepare(0, chat())])
    assert (engine.room, engine.running) == (0, 1)
    engine.step()
    assert (engine.room, engine.running) == (8, 0)
    assert (engine.stats.batches, engine.stats.batched_records) == (1, 1)


def killed_at(monkeypatch: pytest.MonkeyPatch, work: Work) -> bool:
    kills: list[int] = []
    monkeypatch.setattr("os.kill", lambda _, number: kills.append(number))
    engine = Mock(a_config(crashPercent=100), CREATED)
    engine.submit([work])
    engine.step()
    return bool(kills)


def test_step_crashes_at_a_records_first_attempt_only(monkeypatch: pytest.MonkeyPatch) -> None:
    assert killed_at(monkeypatch, Work(0, chat(), tokens=1, attempt=1))
    assert not killed_at(monkeypatch, Work(0, chat(), tokens=1, attempt=2))


@pytest.mark.parametrize("wrong", [0, -1, 1.5, "10", True])
@pytest.mark.parametrize("param", ["max_tokens", "max_completion_tokens"])
def test_prepare_refuses_a_token_limit_that_is_no_number(param: str, wrong: Any) -> None:
    with pytest.raises(RecordError, match=f"{param} must be a whole number of at least 1") as refused:
        Mock(a_config(), CREATED).prepare(0, chat(**{param: wrong}))
    assert (refused.value.code, refused.value.param) == (ErrorCode.INVALID_REQUEST, f"body.{param}")


def test_prepare_refuses_what_does_not_fit_into_the_context() -> None:
    engine = Mock(a_config(context=10), CREATED)
    assert engine.prepare(0, chat("r1", "a" * 20, max_tokens=5)).tokens == 5
    with pytest.raises(RecordError, match=r"the prompt has 5 tokens and max_tokens is 6: .* at most 10") as refused:
        engine.prepare(0, chat("r1", "a" * 20, max_tokens=6))
    assert refused.value.code == ErrorCode.CONTEXT_LENGTH_EXCEEDED


def test_request_checker_checks_as_the_engine_does() -> None:
    checker = engines.request_checker(a_config(context=10))
    assert checker is not None
    assert checker.context_tokens == 10
    assert checker.check(chat("r1", "a" * 20)) == 5
    with pytest.raises(RecordError, match="at most 10"):
        checker.check(chat("r1", "a" * 50))


def test_create_refuses_a_task_that_the_engine_cannot_do() -> None:
    with pytest.raises(JobFailed, match=r"TaskNotSupported: model\.task must be one of chat, completion, embedding"):
        engines.create(a_config("image-classification"), CREATED)


@pytest.mark.skipif(importlib.util.find_spec("vllm") is not None, reason="vLLM is installed here")
def test_create_says_how_to_get_an_engine_that_is_not_there() -> None:
    config = a_config()
    vllm = config.engine.model_copy(update={"name": EngineName.VLLM, "mock": None})
    with pytest.raises(JobFailed, match=r"EngineNotInstalled: the engine vllm needs the Python package vllm"):
        engines.create(config.model_copy(update={"engine": vllm}), CREATED)


def test_create_says_which_package_an_engine_lacks(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> None:
        raise ModuleNotFoundError(name=f"{name}.torch")

    monkeypatch.setattr(engines, "import_module", missing)
    with pytest.raises(JobFailed, match=r"EngineNotInstalled: the engine mock needs the Python package .*torch"):
        engines.create(a_config(), CREATED)
