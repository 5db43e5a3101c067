"""What vLLM is told: engine arguments, and sampling parameters of a request."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from headrace.api.model import Task
from headrace.api.records import ErrorCode, RecordError, Request
from headrace_worker.engines.vllm.arguments import engine_arguments
from headrace_worker.engines.vllm.parameters import sampling
from headrace_worker.errors import JobFailed
from worker_builders import a_config

KNOWN = frozenset(
    {"dtype", "gpu_memory_utilization", "max_num_batched_tokens", "max_num_seqs", "model", "quantization"}
)


def arguments(given: dict[str, Any] | None = None, revision: str | None = None, **fields: Any) -> dict[str, Any]:
    """What vLLM is started with, for these `arguments` of the spec."""
    engine = {"name": "vllm", **({} if given is None else {"vllm": {"arguments": given}})}
    config = a_config(Path("/nowhere"), engine=engine, **fields)
    return engine_arguments(config, "/models/tiny", revision, 256, KNOWN, "vllm 0.32.0")


def test_engine_arguments_follow_from_the_spec() -> None:
    assert arguments(gpus=2, batching={"maxBatchSize": 32}, revision="abc") == {
        "model": "/models/tiny",
        "revision": "abc",
        "served_model_name": "tiny",
        "max_model_len": 256,
        "max_num_seqs": 32,
        "tensor_parallel_size": 2,
        "disable_log_stats": True,
    }


def test_engine_arguments_of_the_spec_are_handed_on_and_win() -> None:
    found = arguments({"dtype": "float16", "max_num_seqs": 8, "quantization": "awq"}, batching={"maxBatchSize": 32})
    assert (found["dtype"], found["max_num_seqs"], found["quantization"]) == ("float16", 8, "awq")


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"gpu_memory_utilisation": 0.9}, "is no engine argument of vllm 0.32.0; did you mean gpu_memory_utilization?"),
        ({"gpu-memory-utilization": 0.9}, "is no engine argument of vllm 0.32.0; did you mean gpu_memory_utilization?"),
        ({"wings": 2}, "engine.vllm.arguments.wings is no engine argument of vllm 0.32.0"),
        ({"model": "other"}, "engine.vllm.arguments.model must be absent: it follows from model.source"),
        ({"max_model_len": 9}, "engine.vllm.arguments.max_model_len must be absent: it follows from model.contextTokens"),
    ],
    ids=["misspelt", "as a flag of the command line", "unknown", "the model", "the context"],
)  # fmt: skip
def test_engine_arguments_that_cannot_be_are_named(given: dict[str, Any], words: str) -> None:
    with pytest.raises(JobFailed) as raised:
        arguments(given)
    assert raised.value.failure.reason == "InvalidSpec"
    assert raised.value.failure.message.endswith(words)


def chosen(task: Task = Task.CHAT, **body: Any) -> dict[str, Any]:
    """The sampling parameters of a request with 100 tokens of room."""
    return sampling(Request("r1", body), task, room=100)


def test_sampling_defaults_are_those_of_openai() -> None:
    assert chosen(temperature=0) == {"max_tokens": 100, "temperature": 0}
    assert chosen(Task.COMPLETION, temperature=0)["max_tokens"] == 16
    assert chosen(max_completion_tokens=1000)["max_tokens"] == 100


def test_sampling_hands_on_what_vllm_knows() -> None:
    given: dict[str, Any] = {
        "temperature": 0.5,
        "top_p": 0.9,
        "top_k": 40,
        "min_p": 0.1,
        "seed": 7,
        "n": 2,
        "frequency_penalty": -1.5,
    }
    given |= {"presence_penalty": 1, "repetition_penalty": 1.1, "min_tokens": 3, "ignore_eos": True, "max_tokens": 5}
    given |= {"stop_token_ids": [3], "allowed_token_ids": [3, 4], "bad_words": ["no"]}
    assert chosen(Task.CHAT, **given, logit_bias={"5": 10}) == {**given, "logit_bias": {5: 10.0}}


def test_sampling_of_a_record_drawn_at_random_is_the_same_in_every_run() -> None:
    first, again, other = (sampling(Request(name, {}), Task.CHAT, 9)["seed"] for name in ("r1", "r1", "r2"))
    assert first == again != other


@pytest.mark.parametrize(
    ("task", "body", "logprobs"),
    [
        (Task.CHAT, {"logprobs": True}, 0),
        (Task.CHAT, {"logprobs": True, "top_logprobs": 5}, 5),
        (Task.CHAT, {"logprobs": False}, None),
        (Task.COMPLETION, {"logprobs": 3}, 3),
        (Task.COMPLETION, {}, None),
    ],
)
def test_sampling_logprobs_are_those_of_the_endpoint(task: Task, body: dict[str, Any], logprobs: int | None) -> None:
    assert chosen(task, **body).get("logprobs") == logprobs


@pytest.mark.parametrize(
    ("form", "found"),
    [
        ({"type": "text"}, None),
        ({"type": "json_object"}, {"json_object": True}),
        ({"type": "json_schema", "json_schema": {"schema": {"type": "object"}}}, {"json": {"type": "object"}}),
    ],
)
def test_sampling_form_of_the_answer(form: dict[str, Any], found: Any) -> None:
    assert chosen(response_format=form).get("structured_outputs") == found


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({"temperature": 3}, "temperature must be a number of at least 0 and at most 2"),
        ({"n": 0}, "n must be a whole number of at least 1 and at most 128"),
        ({"stop": [""]}, "stop must be a text or a list of texts, none of them empty"),
        ({"ignore_eos": 1}, "ignore_eos must be true or false"),
        ({"logit_bias": [1]}, "logit_bias must be an object of token ids and numbers"),
        ({"logit_bias": {"no": 1}}, "logit_bias must have token ids for names"),
        ({"logit_bias": {"5": 101}}, "logit_bias.5 must be a number of at least -100 and at most 100"),
        ({"bad_words": [5]}, "bad_words must be a list of texts"),
        ({"stop_token_ids": ["a"]}, "stop_token_ids must be a list of token ids"),
        ({"allowed_token_ids": [True]}, "allowed_token_ids must be a list of token ids"),
        ({"top_logprobs": 3}, "top_logprobs may be set only when logprobs is true"),
        ({"tools": [{}]}, "tools must be absent: the engine vllm of this worker cannot do that"),
        ({"response_format": {"type": "xml"}}, "response_format.type must be text, json_object or json_schema"),
        ({"response_format": {"type": "json_schema"}}, "response_format.json_schema.schema must be an object: a JSON schema"),
    ],
)  # fmt: skip
def test_sampling_refuses_what_cannot_be_and_names_it(body: dict[str, Any], words: str) -> None:
    with pytest.raises(RecordError) as raised:
        chosen(**body)
    assert (raised.value.code, raised.value.message) == (ErrorCode.INVALID_REQUEST, words)
