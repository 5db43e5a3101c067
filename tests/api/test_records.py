"""Records: a line of the input becomes a request or an error with its code, its field and a sentence."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.api.input import Input, InputFormat, Prompt
from headrace.api.model import Model, Task
from headrace.api.records import (
    MAX_CUSTOM_ID_LENGTH,
    ErrorCode,
    RecordError,
    Request,
    error_line,
    estimate_prompt_tokens,
    reader,
    result_line,
    text_reader,
)

CHAT_BODY = {"messages": [{"role": "user", "content": "Hi"}]}
PROMPT = Prompt(template="Say {{ word }}")


def read_openai(raw: bytes, task: Task = Task.CHAT) -> Request:
    return reader(Input(uri="s3://in/a"), Model(name="m", task=task))(raw)


def read_jsonl(raw: bytes) -> Request:
    return reader(Input(uri="s3://in/a", format=InputFormat.JSONL, prompt=PROMPT), Model(name="m"))(raw)


def read_text(raw: bytes) -> Request:
    return text_reader(Input(uri="s3://in/*", format=InputFormat.TEXT), Model(name="m"))("a.txt", raw)


def line(**changes: Any) -> bytes:
    """A good line of OpenAI's form, with other values or, for None, without the field."""
    record = {"custom_id": "r1", "method": "POST", "url": "/v1/chat/completions", "body": CHAT_BODY, **changes}
    return orjson.dumps({name: value for name, value in record.items() if value is not None})


@pytest.mark.parametrize(
    ("raw", "code", "param", "message"),
    [
        pytest.param(b'{"custom_id": "\xff"}', ErrorCode.INVALID_UTF8, None,
                     "byte 15 of the line is not UTF-8", id="not UTF-8"),
        pytest.param(b'{"custom_id": "a",}', ErrorCode.INVALID_JSON, None,
                     "column 18: trailing comma is not allowed", id="not JSON"),
        pytest.param(b"", ErrorCode.INVALID_JSON, None,
                     "column 1: Input is a zero-length, empty document", id="an empty line"),
        pytest.param(b"[" * 2000 + b"]" * 2000, ErrorCode.INVALID_JSON, None,
                     "column 1026: depth limit exceeded", id="nested too deeply"),
        pytest.param(b'["r1"]', ErrorCode.NOT_AN_OBJECT, None,
                     "a record must be a JSON object", id="a list"),
        pytest.param(line(custom_id=None), ErrorCode.MISSING_CUSTOM_ID, "custom_id",
                     "custom_id must be set: results are matched by it", id="no custom_id"),
        pytest.param(line(custom_id=7), ErrorCode.INVALID_CUSTOM_ID, "custom_id",
                     "custom_id must be a string of 1 to 512 characters", id="a number for a custom_id"),
        pytest.param(line(custom_id=""), ErrorCode.INVALID_CUSTOM_ID, "custom_id",
                     "custom_id must be a string of 1 to 512 characters", id="an empty custom_id"),
        pytest.param(line(custom_id="é" * 513), ErrorCode.INVALID_CUSTOM_ID, "custom_id",
                     "custom_id must be a string of 1 to 512 characters", id="a long custom_id"),
        pytest.param(line(model="m", ode=1), ErrorCode.UNKNOWN_FIELD, "model",
                     "model is not a field of a batch request", id="a field at the wrong place"),
        pytest.param(line(method="GET"), ErrorCode.INVALID_METHOD, "method",
                     "method must be POST", id="another method"),
        pytest.param(line(url="/v1/embeddings"), ErrorCode.WRONG_ENDPOINT, "url",
                     "url must be /v1/chat/completions for the task chat, not /v1/embeddings", id="another endpoint"),
        pytest.param(line(body=None), ErrorCode.INVALID_BODY, "body", "body must be an object", id="no body"),
        pytest.param(line(body=[]), ErrorCode.INVALID_BODY, "body", "body must be an object", id="a list for a body"),
        pytest.param(line(body={}), ErrorCode.INVALID_BODY, "body.messages",
                     "messages must be a list of at least one message", id="no messages"),
        pytest.param(line(body={"messages": []}), ErrorCode.INVALID_BODY, "body.messages",
                     "messages must be a list of at least one message", id="an empty list of messages"),
        pytest.param(line(body={"messages": [{"role": "user"}, {"content": "Hi"}]}), ErrorCode.INVALID_BODY,
                     "body.messages[1]", "a message must be an object with a role", id="a message without a role"),
        pytest.param(line(body={"messages": [{"role": "user", "content": {"text": "Hi"}}]}), ErrorCode.INVALID_BODY,
                     "body.messages[0].content", "content must be a text or a list of parts", id="an object as content"),
        pytest.param(line(body={**CHAT_BODY, "model": "n"}), ErrorCode.WRONG_MODEL, "body.model",
                     "this batch runs the model m, not n", id="another model"),
    ],
)  # fmt: skip
def test_reader_names_what_is_wrong_with_a_line(raw: bytes, code: ErrorCode, param: str | None, message: str) -> None:
    with pytest.raises(RecordError) as caught:
        read_openai(raw)
    assert (caught.value.code, caught.value.param, caught.value.message) == (code, param, message)


@pytest.mark.parametrize(
    ("task", "body", "param"),
    [
        pytest.param(Task.COMPLETION, CHAT_BODY, "body.prompt", id="a completion without a prompt"),
        pytest.param(Task.COMPLETION, {"prompt": ""}, "body.prompt", id="a completion of nothing"),
        pytest.param(Task.EMBEDDING, {"input": 7}, "body.input", id="an embedding of a number"),
    ],
)
def test_reader_wants_the_content_of_the_task(task: Task, body: dict[str, Any], param: str) -> None:
    with pytest.raises(RecordError) as caught:
        read_openai(line(url=task.endpoint, body=body), task)
    assert (caught.value.code, caught.value.param) == (ErrorCode.INVALID_BODY, param)
    assert caught.value.message == f"{param.removeprefix('body.')} must be a text or a list, and not empty"


@pytest.mark.parametrize(
    ("task", "body"),
    [
        pytest.param(Task.CHAT, CHAT_BODY, id="a chat"),
        pytest.param(Task.CHAT, {**CHAT_BODY, "model": "m", "temperature": 0.5}, id="a chat with parameters"),
        pytest.param(Task.COMPLETION, {"prompt": "Once"}, id="a completion"),
        pytest.param(Task.EMBEDDING, {"input": ["a", "b"]}, id="embeddings"),
        pytest.param(
            Task.AUDIO_CLASSIFICATION,
            {"input": [{"type": "audio_url", "audio_url": {"url": "sounds/a.wav"}}]},
            id="a task that OpenAI does not know",
        ),
    ],
)
def test_reader_takes_a_request_of_the_task(task: Task, body: dict[str, Any]) -> None:
    assert read_openai(line(url=task.endpoint, body=body), task) == Request("r1", body)


def test_reader_takes_a_line_without_method_and_url() -> None:
    assert read_openai(line(method=None, url=None)).body == CHAT_BODY


def test_reader_takes_the_longest_custom_id() -> None:
    assert read_openai(line(custom_id="é" * MAX_CUSTOM_ID_LENGTH)).custom_id == "é" * MAX_CUSTOM_ID_LENGTH


def test_jsonl_reader_fills_the_prompt_from_the_record() -> None:
    request = read_jsonl(b'{"custom_id": "a", "word": "hi", "other": [1]}')
    assert request == Request("a", {"messages": [{"role": "user", "content": "Say hi"}]})


@pytest.mark.parametrize(
    ("raw", "code", "param"),
    [
        pytest.param(b'{"word": "hi"}', ErrorCode.MISSING_CUSTOM_ID, "custom_id", id="no custom_id"),
        pytest.param(b'{"custom_id": "a"}', ErrorCode.TEMPLATE_ERROR, "input.prompt.template", id="no such variable"),
        pytest.param(b"7", ErrorCode.NOT_AN_OBJECT, None, id="a number"),
    ],
)
def test_jsonl_reader_names_what_is_wrong_with_a_line(raw: bytes, code: ErrorCode, param: str | None) -> None:
    with pytest.raises(RecordError) as caught:
        read_jsonl(raw)
    assert (caught.value.code, caught.value.param) == (code, param)


def test_text_reader_makes_a_record_of_a_file() -> None:
    assert read_text("é\n".encode()) == Request("a.txt", {"messages": [{"role": "user", "content": "é\n"}]})


def test_text_reader_refuses_what_is_not_text() -> None:
    with pytest.raises(RecordError, match="byte 1 is not UTF-8") as caught:
        read_text(b"a\xff")
    assert caught.value.code == ErrorCode.INVALID_UTF8


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)  # fmt: skip
FIELDS = dict.fromkeys(("method", "url", "body", "extra", "word"), JSON)
LINES = st.binary(max_size=64) | JSON.map(orjson.dumps) | (
    st.fixed_dictionaries({"custom_id": JSON}, optional={**FIELDS, "body": JSON | st.fixed_dictionaries({"messages": JSON})})
).map(orjson.dumps)  # fmt: skip


@settings(max_examples=500, deadline=None)
@given(raw=LINES, read=st.sampled_from([read_openai, read_jsonl, read_text]))
def test_any_line_is_a_request_or_a_record_error(raw: bytes, read: Callable[[bytes], Request]) -> None:
    outcome = tried(read, raw)
    if isinstance(outcome, RecordError):
        assert orjson.loads(error_line("id", "custom", outcome, 0))["error"]["message"]
    else:
        assert 0 < len(outcome.custom_id) <= MAX_CUSTOM_ID_LENGTH
        assert estimate_prompt_tokens(outcome.body) >= 0


def tried(read: Callable[[bytes], Request], raw: bytes) -> Request | RecordError:
    try:
        return read(raw)
    except RecordError as error:
        return error


@pytest.mark.parametrize(
    ("body", "tokens"),
    [
        pytest.param({"messages": [{"role": "user", "content": "12345678"}]}, 2, id="a message"),
        pytest.param({"messages": [{"role": "user", "content": [{"type": "text", "text": "1234"}]}]}, 1, id="a part"),
        pytest.param({"messages": [{"role": "assistant"}]}, 0, id="a message without content"),
        pytest.param({"prompt": "12345"}, 2, id="a prompt is rounded up"),
        pytest.param({"input": ["1234", "5678"]}, 2, id="several texts"),
        pytest.param({"prompt": [1, 2, 3]}, 3, id="tokens"),
    ],
)
def test_estimate_prompt_tokens_counts_four_characters_a_token(body: dict[str, Any], tokens: int) -> None:
    assert estimate_prompt_tokens(body) == tokens


def test_estimate_prompt_tokens_of_a_deeply_nested_input() -> None:
    deep: Any = "1234"
    for _ in range(5000):
        deep = [deep]
    assert estimate_prompt_tokens({"input": deep}) == 1


def test_result_line_has_the_form_of_openai_and_the_attempts() -> None:
    raw = result_line("id-1", "r1", {"object": "chat.completion"}, attempts=2)
    assert raw.endswith(b"\n")
    assert orjson.loads(raw) == {
        "id": "id-1",
        "custom_id": "r1",
        "response": {"status_code": 200, "request_id": "id-1", "body": {"object": "chat.completion"}},
        "error": None,
        "attempts": 2,
    }


@pytest.mark.parametrize("code", ErrorCode)
def test_error_line_has_the_form_of_openai_for_every_code(code: ErrorCode) -> None:
    raw = error_line("id-1", "r1", RecordError(code, "what is wrong", "body.model"), attempts=0)
    assert raw.endswith(b"\n")
    assert orjson.loads(raw) == {
        "id": "id-1",
        "custom_id": "r1",
        "response": None,
        "error": {"code": code.value, "message": "what is wrong", "param": "body.model"},
        "attempts": 0,
    }


def test_a_line_is_one_line_whatever_is_in_it() -> None:
    raw = error_line("id", "a\nb", RecordError(ErrorCode.ENGINE_ERROR, "two\nlines\u2028"), attempts=1)
    assert raw.count(b"\n") == 1
    assert orjson.loads(raw)["custom_id"] == "a\nb"
