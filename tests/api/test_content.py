"""Content parts: what a part must be, what a record holds, and what the branches of several modalities make of one record."""

from __future__ import annotations

import base64
from typing import Any

import orjson
import pytest

from headrace.api.content import MAX_MEDIA, ContentError, Modality, check_parts, data_of, media_parts, modalities
from headrace.api.input import Input, InputFormat, Prompt
from headrace.api.model import Model, Task
from headrace.api.records import ErrorCode, RecordError, Request, reader

DATA = base64.b64encode(b"not really").decode()
TEXT = {"type": "text", "text": "A cat sits there."}
IMAGE = {"type": "image_url", "image_url": {"url": "photos/cat.jpg", "detail": "low"}}
SOUND = {"type": "input_audio", "input_audio": {"data": DATA, "format": "wav"}}
REMOTE_SOUND: dict[str, Any] = {
    "type": "audio_url",
    "audio_url": {"url": "https://media.example/a.flac?signature=x%2Fy"},
}
EVENT = {"custom_id": "e1", "content": [TEXT, IMAGE, SOUND, REMOTE_SOUND]}


def image(url: Any) -> dict[str, Any]:
    return {"type": "image_url", "image_url": {"url": url}}


def sound(**fields: Any) -> dict[str, Any]:
    return {"type": "input_audio", "input_audio": fields}


def request(record: dict[str, Any], task: Task, **spec: Any) -> Request:
    """What a batch of this task makes of a record."""
    read = reader(Input(uri="file:///in", **{"format": InputFormat.JSONL, **spec}), Model(name="m", task=task))
    return read(orjson.dumps(record))


@pytest.mark.parametrize(
    "url",
    [
        pytest.param("https://media.example/a.jpg?signature=x%2Fy", id="a signed URL"),
        pytest.param("http://[2001:db8::1]:8080/a", id="an address with a port"),
        pytest.param("https://bücher.example/ü", id="a host with an umlaut"),
        pytest.param(f"data:image/png;base64,{DATA}", id="its own data"),
        pytest.param(f"data:image/svg+xml;charset=utf-8;base64,{DATA}", id="its own data, with a parameter"),
        pytest.param("s3://photos/2026/a.jpg", id="an object"),
        pytest.param("package://somewhere/a.jpg", id="a file of a package"),
        pytest.param("photos/a..b.jpg", id="a path"),
    ],
)
def test_check_parts_takes_a_url(url: str) -> None:
    check_parts([image(url)], "content")  # raises for one that it does not take
    assert media_parts({"input": [image(url)]}, Modality.IMAGE) == [(url, "body.input[0].image_url.url")]


@pytest.mark.parametrize(
    ("part", "param", "says"),
    [
        pytest.param("text", "content[1]", "an object whose type is one of text", id="no object"),
        pytest.param({"type": "img_url"}, "content[1]", "one of text, image_url", id="a type that there is not"),
        pytest.param({"type": ["text"]}, "content[1]", "one of text", id="a type that is a list"),
        pytest.param({"type": "text"}, "content[1].text", "must be a text", id="a text without text"),
        pytest.param({"type": "image_url"}, "content[1].image_url", "with a field url", id="an image without URL"),
        pytest.param({"type": "image_url", "image_url": "a.jpg"}, "content[1].image_url", "an object", id="a bare URL"),
        pytest.param(image(7), "content[1].image_url", "that is a text", id="a number for a URL"),
        pytest.param(image(""), "content[1].image_url", "that is a text", id="an empty URL"),
        pytest.param(image("ftp://a/b.jpg"), "content[1].image_url.url", "must begin with data:", id="another scheme"),
        pytest.param(image("file:///etc/passwd"), "content[1].image_url.url", "must begin with", id="a local file"),
        pytest.param(image("/etc/passwd"), "content[1].image_url.url", "relative to the folder", id="an absolute path"),
        pytest.param(image("//host/a.jpg"), "content[1].image_url.url", "must begin with", id="a host without scheme"),
        pytest.param(image("https:///a.jpg"), "content[1].image_url.url", "must begin with", id="no host"),
        pytest.param(image("a/../../b.jpg"), "content[1].image_url.url", "without ..", id="a way out of the folder"),
        pytest.param(image("a?/../../b.jpg"), "content[1].image_url.url", "without ..", id="a way out behind a ?"),
        pytest.param(image("a/%2e%2e/b.jpg"), "content[1].image_url.url", "without ..", id="a quoted way out"),
        pytest.param(image("s3://in/../b.jpg"), "content[1].image_url.url", "without ..", id="a way out of a bucket"),
        pytest.param(image("https://me:pw@host/a"), "content[1].image_url.url", "without user name", id="a password"),
        pytest.param(image("https://host:99999/a"), "content[1].image_url.url", "at most a port", id="a port too high"),
        pytest.param(image("https://host/a\r\nX: y"), "content[1].image_url.url", "without space", id="a line break"),
        pytest.param(image("http://[::1"), "content[1].image_url.url", "is no URL", id="half an address"),
        pytest.param(image("data:image/png,abc"), "content[1].image_url.url", "base64", id="data that is not base64"),
        pytest.param(image(f"data:audio/wav;base64,{DATA}"), "content[1].image_url.url", "data:image/", id="a sound"),
        pytest.param(image("data:image/png;base64,a?b="), "content[1].image_url.url", "in base64", id="damaged data"),
        pytest.param(image("data:image/png;base64,"), "content[1].image_url.url", "some data", id="no data"),
        pytest.param(sound(format="wav"), "content[1].input_audio", "a field data", id="a sound without data"),
        pytest.param(sound(data=DATA, format="m4a"), "content[1].input_audio.format", "wav, mp3", id="another format"),
        pytest.param(sound(data="a", format="wav"), "content[1].input_audio.data", "in base64", id="a damaged sound"),
    ],
)
def test_check_parts_names_what_is_wrong(part: Any, param: str, says: str) -> None:
    with pytest.raises(ContentError) as caught:
        check_parts([TEXT, part], "content")
    assert caught.value.param == param
    assert says in str(caught.value)


def test_media_parts_are_those_of_one_modality_in_their_order() -> None:
    body = {"messages": [{"role": "system", "content": "Look."}, {"role": "user", "content": EVENT["content"]}]}
    assert media_parts(body, Modality.IMAGE) == [("photos/cat.jpg", "body.messages[1].content[1].image_url.url")]
    own, remote = media_parts(body, Modality.AUDIO)
    assert data_of(own.url) == b"not really"
    assert own.param == "body.messages[1].content[2].input_audio.data"
    assert remote == (REMOTE_SOUND["audio_url"]["url"], "body.messages[1].content[3].audio_url.url")
    assert media_parts({"input": [IMAGE]}, Modality.IMAGE) == [("photos/cat.jpg", "body.input[0].image_url.url")]


@pytest.mark.parametrize(
    ("record", "found"),
    [
        pytest.param(EVENT, ["text", "image", "audio"], id="an event of all kinds"),
        pytest.param({"content": [SOUND, IMAGE]}, ["image", "audio"], id="no text"),
        pytest.param({"content": "words"}, ["text"], id="content that is a text"),
        pytest.param({"text": "words"}, ["text"], id="a record without parts"),
        pytest.param(
            {"body": {"messages": [{"content": [IMAGE]}, {"content": "?"}]}}, ["text", "image"], id="messages"
        ),
        pytest.param({"body": {"messages": 7}}, ["text"], id="messages that are none"),
        pytest.param({"body": {"input": [REMOTE_SOUND]}}, ["audio"], id="a request"),
        pytest.param({"content": [{"type": []}, 7, {"type": "image_url"}]}, ["text", "image"], id="malformed parts"),
    ],
)
def test_modalities_of_a_record(record: dict[str, Any], found: list[str]) -> None:
    assert modalities(record) == found


@pytest.mark.parametrize(
    ("when", "taken"),
    [
        ("'image' in record.modalities", True),
        ("record.modalities == ['text']", False),
        ("record.modalities.all(m, m != 'video') && size(record.content) == 4", True),
    ],
)
def test_reader_routes_by_modality(when: str, taken: bool) -> None:
    assert request(EVENT, Task.IMAGE_CLASSIFICATION, when=when).taken is taken


def test_reader_leaves_a_field_of_the_record_called_modalities_alone() -> None:
    record = {**EVENT, "modalities": ["smell"]}
    assert request(record, Task.AUDIO_CLASSIFICATION, when="'smell' in record.modalities").taken


def test_reader_each_task_takes_its_part_of_one_event() -> None:
    assert request(EVENT, Task.IMAGE_CLASSIFICATION).body == {"input": [IMAGE]}
    assert request(EVENT, Task.AUDIO_CLASSIFICATION).body == {"input": [SOUND, REMOTE_SOUND]}
    assert request(EVENT, Task.EMBEDDING).body == {"input": "A cat sits there."}
    assert request(EVENT, Task.CHAT).body == {"messages": [{"role": "user", "content": EVENT["content"]}]}
    asked = request(EVENT, Task.CHAT, prompt=Prompt(template="Say: {{ text }}"))
    assert asked.body == {"messages": [{"role": "user", "content": "Say: A cat sits there."}]}


def test_reader_openai_requests_of_a_media_task_are_passed_on_whole() -> None:
    body = {"messages": [{"role": "user", "content": EVENT["content"]}], "top_k": 3}
    record = {"custom_id": "e1", "url": "/v1/chat/completions", "body": body}
    assert request(record, Task.IMAGE_CLASSIFICATION, format=InputFormat.OPENAI).body == body


@pytest.mark.parametrize(
    ("record", "task", "spec", "param"),
    [
        pytest.param(
            {"body": {"messages": [{"role": "user", "content": [image("ftp://x/y")]}]}},
            Task.CHAT, {"format": InputFormat.OPENAI}, "body.messages[0].content[0].image_url.url", id="a chat"
        ),
        pytest.param({"body": {"input": [{"type": "x"}]}}, Task.IMAGE_CLASSIFICATION, {"format": InputFormat.OPENAI},
                     "body.input[0]", id="a request of a media task"),
        pytest.param({"body": {"input": [TEXT, SOUND]}}, Task.IMAGE_CLASSIFICATION, {"format": InputFormat.OPENAI},
                     "body.input", id="a request without an image"),
        pytest.param({"content": [image("ftp://x/y")]}, Task.CHAT, {}, "content[0].image_url.url", id="an event"),
        pytest.param({"content": [TEXT]}, Task.AUDIO_CLASSIFICATION, {}, "content", id="an event without a sound"),
        pytest.param({"text": "x"}, Task.AUDIO_CLASSIFICATION, {}, "content", id="a record without parts"),
        pytest.param({"content": [IMAGE] * (MAX_MEDIA + 1)}, Task.IMAGE_CLASSIFICATION, {}, "content", id="too many"),
    ],
)  # fmt: skip
def test_reader_refuses_parts_that_are_none(
    record: dict[str, Any], task: Task, spec: dict[str, Any], param: str
) -> None:
    with pytest.raises(RecordError) as caught:
        request({"custom_id": "e1", **record}, task, **spec)
    assert (caught.value.code, caught.value.param) == (ErrorCode.INVALID_CONTENT, param)


@pytest.mark.parametrize("given", [{}, {"input": []}, {"input": "cat.jpg"}, {"input": {}}])
def test_reader_request_of_a_media_task_wants_a_list_of_parts(given: dict[str, Any]) -> None:
    with pytest.raises(RecordError, match="input must be a list of parts, some of them image") as caught:
        request({"custom_id": "e1", "body": given}, Task.IMAGE_CLASSIFICATION, format=InputFormat.OPENAI)
    assert (caught.value.code, caught.value.param) == (ErrorCode.INVALID_BODY, "body.input")
