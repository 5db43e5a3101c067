"""Before the weights: prompts, parameters, the context, and models that are not there."""

from __future__ import annotations

import json
import socket
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import constants
from transformers import AutoModelForCausalLM

from headrace.api.model import Model
from headrace.api.records import ErrorCode, RecordError, Request
from headrace_worker import engines
from headrace_worker.engines.base import Work
from headrace_worker.engines.transformers import TransformersEngine, source, weights
from headrace_worker.errors import Drained, JobFailed
from tiny_models import VOCABULARY, save_bert, save_llama, save_tokenizer, worker_config

CONTEXT = 256


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model whose weights nobody may touch: they are not there."""
    path = save_llama(tmp_path_factory.mktemp("llama"))
    (path / "model.safetensors").unlink()
    return path


def an_engine(folder: Path, task: str, **model: Any) -> TransformersEngine:
    """An engine that is never loaded."""
    return TransformersEngine(
        worker_config({"name": "tiny", "task": task, "source": {"path": str(folder)}, **model}), 0
    )


def prepare(folder: Path, **body: Any) -> Work:
    """A completion with these parameters."""
    return an_engine(folder, "completion").prepare(0, Request("r", {"prompt": "t1 t2 t3", **body}))


def refusal(folder: Path, **body: Any) -> RecordError:
    """What is wrong with a completion with these parameters."""
    with pytest.raises(RecordError) as caught:
        prepare(folder, **body)
    return caught.value


@pytest.mark.parametrize(
    ("given", "field", "value"),
    [
        ({}, "max_tokens", 16),
        ({"max_tokens": 9}, "max_tokens", 9),
        ({"max_tokens": 9, "max_completion_tokens": 7}, "max_tokens", 7),
        ({"max_tokens": 100_000}, "max_tokens", CONTEXT - 3),
        ({}, "temperature", 1.0),
        ({"temperature": 0}, "temperature", 0),
        ({}, "top_p", 1.0),
        ({"top_p": 0.5}, "top_p", 0.5),
        ({"top_k": -1}, "top_k", 0),
        ({"top_k": 40}, "top_k", 40),
        ({}, "ignore_eos", False),
        ({"ignore_eos": True}, "ignore_eos", True),
        ({}, "seed", "id:r"),
        ({"seed": 12}, "seed", "seed:12"),
        ({"stop": "END"}, "stop", ("END",)),
        ({"stop": ["a", "b"]}, "stop", ("a", "b")),
        ({"stop": None, "n": 1, "stream": False, "logprobs": None}, "stop", ()),
        ({"user": "somebody", "no_such_parameter": {"of": "OpenAI"}}, "stop", ()),
    ],
    ids=lambda value: json.dumps(value) if isinstance(value, dict) else None,
)
def test_prepare_reads_parameters(folder: Path, given: dict[str, Any], field: str, value: Any) -> None:
    work = prepare(folder, **given)
    assert getattr(work.prepared.sampling, field) == value
    assert work.expected_tokens == work.prepared.sampling.max_tokens


@pytest.mark.parametrize(
    ("param", "value", "says"),
    [
        ("n", 2, "n must be 1 or absent"),
        ("stream", True, "stream must be false or absent"),
        ("frequency_penalty", 0.5, "frequency_penalty must be 0 or absent"),
        ("logit_bias", {"5": 1}, "logit_bias must be {} or absent"),
        ("tools", [{"type": "function"}], "tools must be [] or absent"),
        ("response_format", {"type": "json_object"}, 'response_format must be {"type":"text"} or absent'),
        ("max_tokens", 0, "max_tokens must be a whole number of at least 1"),
        ("max_tokens", "many", "max_tokens must be a whole number of at least 1"),
        ("temperature", 3, "temperature must be a number of at least 0 and at most 2"),
        ("temperature", True, "temperature must be a number of at least 0 and at most 2"),
        ("top_p", 0, "top_p must be a number above 0 and at most 1"),
        ("seed", 1.5, "seed must be a whole number"),
        ("stop", "", "stop must be a text or a list of texts, none of them empty"),
        ("stop", [1], "stop must be a text or a list of texts, none of them empty"),
        ("prompt", ["one", "two"], "put each prompt into a record of its own"),
        ("prompt", [1, VOCABULARY], f"must hold token ids from 0 to {VOCABULARY - 1}"),
        ("prompt", "", "prompt must not be empty"),
    ],
)
def test_prepare_refuses_what_it_cannot_do(folder: Path, param: str, value: Any, says: str) -> None:
    error = refusal(folder, **{param: value})
    assert (error.code, error.param) == (ErrorCode.INVALID_REQUEST, f"body.{param}")
    assert says in error.message


def test_prepare_completion_takes_text_and_token_ids_alike(folder: Path) -> None:
    assert prepare(folder, prompt="t7 t8").prepared.ids == prepare(folder, prompt=[7, 8]).prepared.ids == [7, 8]


@pytest.mark.parametrize("tokens", [CONTEXT, CONTEXT + 40], ids=["no room for an answer", "longer than the context"])
def test_prepare_prompt_that_fills_the_context_is_an_error_with_numbers(folder: Path, tokens: int) -> None:
    error = refusal(folder, prompt=[1] * tokens)
    assert error.code == ErrorCode.CONTEXT_LENGTH_EXCEEDED
    assert f"{tokens} tokens" in error.message
    assert f"context of the model has {CONTEXT}" in error.message


def test_prepare_prompt_with_room_for_one_token_is_taken(folder: Path) -> None:
    work = prepare(folder, prompt=[1] * (CONTEXT - 1), max_tokens=50)
    assert (work.tokens, work.expected_tokens) == (CONTEXT - 1, 1)


def test_prepare_loads_no_weights(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def forbidden(*_: Any, **__: Any) -> None:
        raise AssertionError("weights were loaded")

    monkeypatch.setattr(AutoModelForCausalLM, "from_pretrained", forbidden)
    engine = an_engine(folder, "completion")
    with pytest.raises(RecordError, match="context"):
        engine.prepare(0, Request("long", {"prompt": [1] * 999}))
    assert engine.prepare(1, Request("short", {"prompt": "t1"})).tokens == 1
    with pytest.raises(JobFailed, match="weights were loaded"):
        engine.load()


def test_prepare_context_tokens_of_the_spec_shortens_the_context(folder: Path) -> None:
    engine = an_engine(folder, "completion", contextTokens=5)
    assert engine.context_tokens == 5
    with pytest.raises(RecordError, match="context of the model has 5"):
        engine.prepare(0, Request("r", {"prompt": "t1 t2 t3 t4 t5"}))


def test_engine_context_tokens_beyond_the_model_fails_the_job(folder: Path) -> None:
    with pytest.raises(JobFailed, match=r"model.contextTokens must be at most 256, .*, not 300"):
        an_engine(folder, "completion", contextTokens=300)


def test_prepare_chat_default_is_the_room_left(folder: Path) -> None:
    work = an_engine(folder, "chat").prepare(0, Request("r", {"messages": [{"role": "user", "content": "t1 t2"}]}))
    assert (work.prepared.ids, work.expected_tokens) == ([1, 2], CONTEXT - 2)


def test_prepare_chat_joins_parts_of_text(folder: Path) -> None:
    parts = [{"type": "text", "text": "t4"}, {"type": "text", "text": "t5"}]
    request = Request("r", {"messages": [{"role": "user", "content": parts}]})
    assert an_engine(folder, "chat").prepare(0, request).prepared.ids == [4, 5]


def test_prepare_chat_with_an_image_is_refused(folder: Path) -> None:
    parts = [{"type": "image_url", "image_url": {"url": "http://x/y.png"}}]
    with pytest.raises(RecordError, match=r"messages\[0\].content must be a text"):
        an_engine(folder, "chat").prepare(0, Request("r", {"messages": [{"role": "user", "content": parts}]}))


def test_prepare_chat_that_the_template_refuses_is_an_error_of_the_record(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_bytes((folder / "config.json").read_bytes())
    save_tokenizer(tmp_path, VOCABULARY, "{{ raise_exception('the user must speak first') }}")
    request = Request("r", {"messages": [{"role": "assistant", "content": "t1"}]})
    with pytest.raises(RecordError, match="must fit the chat template of the model: the user must speak first"):
        an_engine(tmp_path, "chat").prepare(0, request)


def test_engine_chat_with_a_model_without_template_fails_the_job(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_bytes((folder / "config.json").read_bytes())
    save_tokenizer(tmp_path, VOCABULARY)
    with pytest.raises(JobFailed, match="has no chat template"):
        an_engine(tmp_path, "chat")


def test_engine_task_that_it_cannot_do_fails_the_job(folder: Path) -> None:
    with pytest.raises(JobFailed, match=r"model\.task must be one of chat, completion, embedding") as caught:
        an_engine(folder, "image-classification")
    assert caught.value.failure.reason == "TaskNotSupported"


def test_request_checker_counts_tokens_and_knows_the_context(folder: Path) -> None:
    config = worker_config({"name": "tiny", "task": "completion", "source": {"path": str(folder)}})
    checker = engines.request_checker(config)
    assert checker is not None
    assert checker.context_tokens == CONTEXT
    assert checker.check(Request("r", {"prompt": "t1 t2 t3"})) == 3
    with pytest.raises(RecordError, match="n must be 1"):
        checker.check(Request("r", {"prompt": "t1", "n": 3}))


# Models that are not there


@pytest.fixture
def _offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)


@pytest.mark.usefixtures("_offline")
@pytest.mark.parametrize(
    ("model", "says"),
    [
        (
            {"name": "no/such-model"},
            "model.name no/such-model is no folder here, and the Hugging Face hub cannot be asked",
        ),
        ({"name": "/no/such/folder"}, "model.name /no/such/folder is no folder here"),
        ({"name": "m", "source": {"path": "/no/such"}}, "model.source.path: there is no /no/such in this worker"),
        (
            {"name": "m", "source": {"package": {"module": "no_such_package"}}},
            "model.source.package: the Python package no_such_package is not installed in this worker",
        ),
        (
            {"name": "m", "source": {"package": {"module": "no_such.inner"}}},
            "model.source.package: the Python package no_such.inner is not installed in this worker",
        ),
        (
            {"name": "m", "source": {"package": {"module": "email", "path": "mime"}}},
            "holds neither a config.json nor a .gguf file",
        ),
        ({"name": "m", "source": {"huggingFace": {"id": "no/such-model"}}}, "the model m cannot be loaded: "),
    ],
)
def test_engine_model_that_is_missing_fails_the_job(model: dict[str, Any], says: str) -> None:
    with pytest.raises(JobFailed) as caught:
        engines.create(worker_config({"task": "completion", **model}), 0)
    assert caught.value.failure.reason == "ModelNotFound"
    assert says in caught.value.failure.message
    assert "\n" not in caught.value.failure.message


def test_find_name_without_a_network_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(*_: Any) -> None:
        raise OSError("Name or service not known")

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(source, "getproxies", dict)
    monkeypatch.setattr(socket, "getaddrinfo", unreachable)
    with pytest.raises(JobFailed, match="the Hugging Face hub cannot be asked for it"):
        source.find(Model(name="no/such-model"))


@pytest.mark.parametrize("proxies", [{}, {"https": "http://proxy:3128"}], ids=["directly", "through a proxy"])
def test_find_name_with_a_network_is_an_id_of_the_hub(monkeypatch: pytest.MonkeyPatch, proxies: dict[str, str]) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(source, "getproxies", lambda: proxies)
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_: [])
    assert source.find(Model(name="no/such-model")) == source.ModelFiles("no/such-model")


def test_find_hugging_face_carries_the_revision() -> None:
    model = Model.parse({"name": "m", "source": {"huggingFace": {"id": "org/name", "revision": "abc"}}})
    files = source.find(model)
    assert (files.location, files.options) == ("org/name", {"revision": "abc"})


@pytest.mark.parametrize(
    ("kind", "where"),
    [("claim", {"name": "weights"}), ("ociImage", {"reference": "registry/model:1"})],
)
def test_engine_model_source_that_is_mounted_by_others_fails_the_job(kind: str, where: Any) -> None:
    with pytest.raises(JobFailed, match=f"model.source must be package, path, uri or huggingFace .*, not {kind}"):
        engines.create(worker_config({"name": "m", "source": {kind: where}}), 0)


def test_load_weights_that_are_missing_fail_the_job(folder: Path) -> None:
    with pytest.raises(JobFailed, match="the model tiny cannot be loaded") as caught:
        an_engine(folder, "completion").load()
    assert caught.value.failure.reason == "ModelNotFound"


def test_load_model_for_another_task_fails_the_job(tmp_path: Path) -> None:
    """A text encoder has no weights for the head that predicts tokens: random ones would answer nonsense."""
    with pytest.raises(JobFailed, match=r"has no weights for .*, which the task completion needs"):
        an_engine(save_bert(tmp_path), "completion").load()


def test_model_errors_leave_alone_that_the_worker_was_told_to_stop() -> None:
    """A signal comes anywhere, also inside of what loads a model: another pod goes on, and the model is not blamed."""
    with pytest.raises(Drained), weights.model_errors("tiny"):
        raise Drained("told to stop")
    with (
        pytest.raises(JobFailed, match="ModelNotUsable: the model tiny cannot be used: nonsense"),
        weights.model_errors("tiny"),
    ):
        raise ValueError("nonsense")
