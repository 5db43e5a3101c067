"""What clients get wrong, or want to: each request is answered in OpenAI's form, names what must change, and leaves nothing behind."""

from __future__ import annotations

import asyncio
import json
import resource
import socket
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from starlette.requests import Request

from gateway_rig import CHAT, MOST_FILE_BYTES, Answer, Gateway, request
from headrace.core.openai.errors import ApiError
from headrace.gateway.web.bodies import json_body
from headrace.gateway.web.multipart import Begin, End, Event, Form
from laptop import eventually

JSON = {"Content-Type": "application/json"}
FORM = {"Content-Type": "multipart/form-data; boundary=line"}
GOOD = {"endpoint": CHAT, "completion_window": "24h"}


def part(name: str, value: bytes, filename: str | None = None) -> bytes:
    named = f'; filename="{filename}"' if filename is not None else ""
    return f'--line\r\nContent-Disposition: form-data; name="{name}"{named}\r\n\r\n'.encode() + value + b"\r\n"


PURPOSE = part("purpose", b"batch")
FILE = part("file", request("a"), "in.jsonl")
END = b"--line--\r\n"


def uploads(served: Gateway) -> set[Path]:
    return set((served.folder / ".headrace" / "uploads" / "default").glob("*"))


def refused(answer: Answer, status: int, param: str | None, says: str) -> None:
    assert answer.status == status, answer.body
    assert answer.error["param"] == param
    assert says in answer.error["message"]
    assert answer.error["type"] == "invalid_request_error"
    assert answer.headers["x-should-retry"] == "false"


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/v1/files/file-000000000000000000000000", 404),
        ("GET", "/v1/files/file-000000000000000000000000/content", 404),
        ("DELETE", "/v1/files/file-000000000000000000000000", 404),
        ("GET", "/v1/files/file-output-nobody", 404),
        ("GET", "/v1/files/..%2f..%2fetc%2fpasswd", 404),
        ("GET", "/v1/files/file-output-..%2f..", 404),
        ("GET", "/v1/batches/batch_nobody", 404),
        ("GET", "/v1/batches/nobody", 404),
        ("POST", "/v1/batches/batch_nobody/cancel", 404),
        ("GET", "/v1/threads", 404),
        ("POST", "/", 405),
        ("PUT", "/v1/files", 405),
        ("DELETE", "/v1/batches", 405),
        ("GET", "/v1/batches?limit=0", 400),
        ("GET", "/v1/batches?after=batch_nobody", 400),
        ("GET", "/v1/files?limit=many", 400),
    ],
)
def test_request_for_what_is_not_there(served: Gateway, method: str, path: str, status: int) -> None:
    answer = served.ask(method, path)
    assert answer.status == status
    assert answer.error["message"]


@pytest.mark.parametrize(
    ("body", "headers", "status", "says"),
    [
        pytest.param(b"", JSON, 400, "not JSON", id="empty"),
        pytest.param(b"{", JSON, 400, "not JSON", id="half an object"),
        pytest.param(b"[]", JSON, 400, "JSON object", id="an array"),
        pytest.param(b"\xff", JSON, 400, "not JSON", id="no UTF-8"),
        pytest.param(b'{"a":' * 40_000 + b"1" + b"}" * 40_000, JSON, 400, "not JSON", id="too deep"),
        pytest.param(b'{"metadata":' + b"[" * 900 + b"]" * 900 + b"}", JSON, 400, "more than 100 levels", id="deep"),
        pytest.param(b" " * 300_000, JSON, 413, "too large", id="too large"),
        pytest.param(b"{}", {"Content-Type": "text/plain"}, 415, "must be JSON", id="of another type"),
        pytest.param(b"{}", JSON, 400, "input_file_id: required", id="nothing in it"),
    ],
)
def test_batch_of_a_bad_body(served: Gateway, body: bytes, headers: dict[str, str], status: int, says: str) -> None:
    answer = served.ask("POST", "/v1/batches", body, headers)
    assert answer.status == status
    assert says in answer.error["message"]


@pytest.mark.parametrize(
    "file_id",
    ["file-000000000000000000000000", "../../etc/passwd", "file-output-nobody"],
    ids=["gone", "a path", "an output"],
)
def test_batch_of_a_file_that_is_not_there(served: Gateway, file_id: str) -> None:
    refused(served.post("/v1/batches", {**GOOD, "input_file_id": file_id}), 400, "input_file_id", "there is no")


@pytest.mark.parametrize(
    ("lines", "says"),
    [
        (b"", "it has none"),
        (b"\n \n", "it has none"),
        (b"hello\n", "column 1"),
        (request("a", "large"), "the model large is not served here for /v1/chat/completions; there are quick, slow"),
    ],
    ids=["empty", "blank", "no JSON", "unknown model"],
)
def test_batch_of_a_file_that_names_no_served_model(served: Gateway, lines: bytes, says: str) -> None:
    asked = {**GOOD, "input_file_id": served.upload(lines)}
    refused(served.post("/v1/batches", asked), 400, "input_file_id", says)


def test_batch_with_an_idempotency_key_is_made_once(served: Gateway) -> None:
    asked = {**GOOD, "input_file_id": served.upload(request("a"))}
    first = served.post("/v1/batches", asked, **{"Idempotency-Key": "k1"})
    again = served.post("/v1/batches", asked, **{"Idempotency-Key": "k1"})
    assert (first.status, first.json["id"]) == (200, again.json["id"])
    other = served.post("/v1/batches", {**asked, "completion_window": "1h"}, **{"Idempotency-Key": "k1"})
    refused(other, 409, "Idempotency-Key", "another body")


@pytest.mark.parametrize(
    ("body", "status", "param", "says"),
    [
        pytest.param(FILE + END, 400, "purpose", "missing", id="no purpose"),
        pytest.param(part("purpose", b"vision") + FILE + END, 400, "purpose", "not vision", id="another purpose"),
        pytest.param(PURPOSE + END, 400, "file", "must be a part", id="no file"),
        pytest.param(PURPOSE + part("file", b"x") + END, 400, "file", "filename", id="file without a name"),
        pytest.param(PURPOSE + FILE + FILE + END, 400, "file", "once", id="two files"),
        pytest.param(
            PURPOSE + part("expires_after[seconds]", b"3600") + FILE + END,
            400,
            "expires_after[seconds]",
            "not known",
            id="a field that is not served",
        ),
        pytest.param(part("purpose", b"x" * 2000) + FILE + END, 400, "purpose", "1024", id="a long field"),
        pytest.param(PURPOSE + FILE, 400, None, "last boundary", id="no end"),
        pytest.param(b"", 400, None, "last boundary", id="empty"),
        pytest.param(b"hello", 400, None, "not a multipart form", id="no form"),
        pytest.param(b"--line\r\nX: " + b"y" * 9000 + b"\r\n\r\n", 400, None, "header size", id="long headers"),
        pytest.param(b"--line\r\nX: y\r\n\r\nz\r\n" + END, 400, None, "no name", id="a part without a name"),
        pytest.param(PURPOSE * 40 + END, 400, None, "more than 32 parts", id="many parts"),
    ],
)
def test_upload_of_a_bad_form(served: Gateway, body: bytes, status: int, param: str | None, says: str) -> None:
    before = uploads(served)
    refused(served.ask("POST", "/v1/files", body, FORM), status, param, says)
    assert uploads(served) == before


@pytest.mark.parametrize("kind", ["application/json", "multipart/form-data", ""])
def test_upload_that_is_no_form(served: Gateway, kind: str) -> None:
    refused(served.ask("POST", "/v1/files", b"{}", {"Content-Type": kind}), 415, None, "must be a form")


def test_upload_that_is_too_large_says_so_before_it_is_sent(served: Gateway) -> None:
    headers = {**FORM, "Content-Length": str(2**40), "Expect": "100-continue"}
    with socket.create_connection(served.address) as client:
        head = "".join(f"{name}: {value}\r\n" for name, value in {"Host": "localhost", **headers}.items())
        client.sendall(f"POST /v1/files HTTP/1.1\r\n{head}\r\n".encode())
        assert b" 413 " in client.recv(65536)


def test_upload_without_a_length_is_cut_off_where_it_is_too_large(served: Gateway) -> None:
    before = uploads(served)
    with socket.create_connection(served.address) as client:
        client.sendall(
            b"POST /v1/files HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n"
            b"Content-Type: multipart/form-data; boundary=line\r\n\r\n"
        )
        head, megabyte = (
            PURPOSE + b'--line\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n',
            b"x" * 2**20,
        )
        client.sendall(f"{len(head):x}\r\n".encode() + head + b"\r\n")
        with suppress(BrokenPipeError, ConnectionResetError):  # it listens no more
            for _ in range(MOST_FILE_BYTES // len(megabyte) + 1):
                client.sendall(f"{len(megabyte):x}\r\n".encode() + megabyte + b"\r\n")
            assert b" 413 " in client.recv(65536)
    eventually(lambda: uploads(served) == before)


def test_upload_that_is_cut_off_leaves_nothing(served: Gateway) -> None:
    before = uploads(served)
    with socket.create_connection(served.address) as client:
        head = "POST /v1/files HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100000\r\n"
        client.sendall(f"{head}Content-Type: {FORM['Content-Type']}\r\n\r\n".encode() + PURPOSE + FILE)
        eventually(lambda: uploads(served) > before)
    eventually(lambda: uploads(served) == before)


def test_upload_for_which_there_is_no_room(served: Gateway) -> None:
    before, limits = uploads(served), resource.prlimit(served.process.pid, resource.RLIMIT_FSIZE)
    resource.prlimit(served.process.pid, resource.RLIMIT_FSIZE, (2**20, limits[1]))
    try:
        answer = served.ask("POST", "/v1/files", PURPOSE + part("file", b"x" * 2**21, "large.jsonl") + END, FORM)
    finally:
        resource.prlimit(served.process.pid, resource.RLIMIT_FSIZE, limits)
    assert (answer.status, answer.error["code"], answer.error["type"]) == (507, "no_room", "server_error")
    assert uploads(served) == before


def test_upload_with_a_name_that_is_a_path(served: Gateway) -> None:
    body = PURPOSE + part("file", request("a"), "../../etc/cron.d/x\x1b[31m") + END
    answer = served.ask("POST", "/v1/files", body, FORM)
    assert (answer.status, answer.json["filename"]) == (200, "x_[31m")
    assert served.ask("GET", f"/v1/files/{answer.json['id']}/content").body == request("a")


def test_page_of_another_site_is_refused(served: Gateway) -> None:
    refused(served.ask("GET", "/v1/files", None, {"Origin": "http://evil.example"}), 403, "Origin", "other sites")
    host, port = served.address
    assert served.ask("GET", "/v1/files", None, {"Origin": f"http://{host}:{port}"}).status == 200
    refused(served.ask("GET", "/v1/files", None, {"Origin": "http://["}), 403, "Origin", "other sites")


def test_name_that_somebody_else_points_at_this_machine_is_refused(served: Gateway) -> None:
    refused(served.ask("GET", "/v1/files", None, {"Host": "rebound.example"}), 403, "Host", "its own machine")
    assert served.ask("GET", "/v1/files", None, {"Host": "localhost:1"}).status == 200
    refused(served.ask("GET", "/v1/files", None, {"Host": "["}), 403, "Host", "its own machine")


def test_healthz(served: Gateway) -> None:
    assert served.ask("GET", "/healthz").json == {"status": "ok"}


def a_request(receive: Callable[[], Awaitable[Any]]) -> Request:
    scope = {"type": "http", "method": "POST", "path": "/", "headers": [(b"content-type", b"application/json")]}
    return Request(scope, receive)


def test_body_that_stops_coming_is_given_up() -> None:
    async def silence() -> None:
        await asyncio.Event().wait()

    with pytest.raises(ApiError) as caught:
        asyncio.run(json_body(a_request(silence), 0.01))
    assert (caught.value.status, caught.value.retry_helps) == (408, True)


def test_body_whose_client_has_gone() -> None:
    async def gone() -> dict[str, str]:
        return {"type": "http.disconnect"}

    with pytest.raises(ApiError, match="connection was closed"):
        asyncio.run(json_body(a_request(gone), 60))


@pytest.mark.parametrize("size", [1, 7, 64, 10_000])
def test_form_is_the_same_whatever_pieces_it_comes_in(size: int) -> None:
    body, form, events = PURPOSE + FILE + END, Form(FORM["Content-Type"]), list[Event]()
    for start in range(0, len(body), size):
        events += form.feed(body[start : start + size])
    form.close()
    assert [event for event in events if not isinstance(event, bytes)] == [
        Begin("purpose", None),
        End(),
        Begin("file", "in.jsonl"),
        End(),
    ]
    assert b"".join(event for event in events if isinstance(event, bytes)) == b"batch" + request("a")
    assert json.loads(request("a"))
