"""OpenAI's own client, unmodified, against the gateway with real workers; and the command line beside it, on the same batches."""

from __future__ import annotations

import http.client
import json
import os
import re
import socket
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import openai
import pytest
import yaml

from builders import a_batch
from gateway_rig import CHAT, MARK, Gateway, request, requests
from headrace.core.edits import Edit
from headrace.shells.local.converge import utc_now
from headrace.shells.local.objects import edit, submit
from headrace.shells.local.state import StateDir
from laptop import eventually, processes_with

REPOSITORY = Path(__file__).parents[2]
LONG = 2000
"""Records that keep a slow model at work for ten minutes: nothing that a test does meanwhile comes too late."""


def test_upload_create_poll_download_and_list(served: Gateway) -> None:
    client = served.client
    file = client.files.create(file=("tickets.jsonl", requests(20)), purpose="batch")
    assert (file.filename, file.bytes, file.status) == ("tickets.jsonl", len(requests(20)), "processed")
    assert client.files.retrieve(file.id) == file
    assert client.files.content(file.id).content == requests(20)
    batch = client.batches.create(
        input_file_id=file.id, endpoint=CHAT, completion_window="24h", metadata={"team": "support"}
    )
    assert batch.status in ("validating", "in_progress")
    assert batch.expires_at == batch.created_at + 86400

    done = served.until(batch.id, "completed")

    assert done.request_counts is not None
    assert (done.request_counts.total, done.request_counts.completed, done.request_counts.failed) == (20, 20, 0)
    assert done.metadata == {"team": "support"}
    assert done.error_file_id is None
    assert done.output_file_id is not None
    lines = [json.loads(line) for line in client.files.content(done.output_file_id).text.splitlines()]
    assert [line["custom_id"] for line in lines] == [f"r{number}" for number in range(20)]
    assert lines[0]["response"]["body"]["choices"][0]["message"]["role"] == "assistant"
    output = client.files.retrieve(done.output_file_id)
    assert output.bytes == len(client.files.content(output.id).content)
    assert output.purpose == "batch_output"
    assert {file.id, output.id} <= {one.id for one in client.files.list()}
    assert output.id not in {one.id for one in client.files.list(purpose="batch")}
    assert batch.id in {one.id for one in client.batches.list(limit=1)}


def test_lists_come_in_pages(served: Gateway) -> None:
    client = served.client
    made = [served.batch(requests(1)).id for _ in range(3)]
    first = client.batches.list(limit=2)
    assert (len(first.data), first.has_more) == (2, True)
    assert set(made) <= {one.id for one in first}, "the client follows the cursor to the end"
    oldest_first = [one.id for one in client.files.list(order="asc", limit=2, purpose="batch")]
    assert oldest_first == [one.id for one in client.files.list(purpose="batch")][::-1]
    for one in made:
        served.until(one, "completed")


def test_cancel_keeps_what_is_done(served: Gateway) -> None:
    batch = served.batch(requests(LONG, "slow"))
    served.until(batch.id, "in_progress")
    assert served.client.batches.cancel(batch.id).status == "cancelling"
    done = served.until(batch.id, "cancelled")
    assert done.cancelled_at is not None
    ids = [*served.ids(done.output_file_id), *served.ids(done.error_file_id)]
    assert sorted(ids) == sorted(f"r{number}" for number in range(LONG))
    with pytest.raises(openai.ConflictError):
        served.client.batches.cancel(batch.id)


def test_cancel_of_a_batch_that_waits_does_not_wait_for_the_others(served: Gateway) -> None:
    busy = [served.batch(requests(LONG, "slow")) for _ in range(2)]
    for one in busy:
        served.until(one.id, "in_progress")
    waits = served.batch(requests(5))
    served.client.batches.cancel(waits.id)
    served.until(waits.id, "cancelled")
    assert [served.client.batches.retrieve(one.id).status for one in busy] == ["in_progress"] * 2
    for one in busy:
        served.client.batches.cancel(one.id)
        served.until(one.id, "cancelled")


def test_completion_window_that_is_over(served: Gateway) -> None:
    batch = served.batch(requests(LONG, "slow"))
    served.until(batch.id, "in_progress")
    state = StateDir(served.folder / ".headrace")
    folder = state.batch("default", batch.id.removeprefix("batch_"))
    edit(state, folder, lambda _: Edit(spec={"completion_deadline_seconds": 1}))
    done = served.until(batch.id, "expired")
    assert done.expired_at is not None
    lines = [json.loads(line) for line in served.client.files.content(done.error_file_id or "").text.splitlines()]
    assert {line["error"]["code"] for line in lines} == {"batch_expired"}
    ids = [*served.ids(done.output_file_id), *served.ids(done.error_file_id)]
    assert sorted(ids) == sorted(f"r{number}" for number in range(LONG))


def test_completion_window_that_is_over_before_anything_was_read(served: Gateway) -> None:
    busy = [served.batch(requests(LONG, "slow")) for _ in range(2)]
    for one in busy:
        served.until(one.id, "in_progress")
    done = served.until(served.batch(requests(5), window="1s").id, "expired")
    assert (done.output_file_id, done.error_file_id) == (None, None)
    for one in busy:
        served.client.batches.cancel(one.id)
        served.until(one.id, "cancelled")


def test_bad_lines_make_the_batch_failed_and_are_named(served: Gateway) -> None:
    lines = request("a") + b"{no json\n" + request("a") + request("b", "another")
    done = served.until(served.batch(lines).id, "failed")
    assert done.failed_at is not None
    assert done.errors is not None
    assert {(error.line, error.code) for error in done.errors.data or ()} == {
        (2, "invalid_json"),
        (3, "duplicate_custom_id"),
        (4, "wrong_model"),
    }


def test_embeddings_are_a_batch_of_another_model(served: Gateway) -> None:
    line = {"custom_id": "v", "method": "POST", "url": "/v1/embeddings", "body": {"model": "vectors", "input": "water"}}
    done = served.until(served.batch(json.dumps(line).encode(), endpoint="/v1/embeddings").id, "completed")
    (answer,) = [json.loads(one) for one in served.client.files.content(done.output_file_id or "").text.splitlines()]
    assert answer["response"]["body"]["data"][0]["embedding"]


def test_models_are_listed(served: Gateway) -> None:
    assert [model.id for model in served.client.models.list()] == ["quick", "slow", "vectors"]


def test_batch_of_the_gateway_is_known_to_the_command_line(served: Gateway) -> None:
    batch = served.batch(requests(4))
    served.until(batch.id, "completed")
    name = batch.id.removeprefix("batch_")
    assert name in served.headrace("get").stdout
    told = served.headrace("results", name, "-o", "json").stdout
    assert told == served.client.files.content(f"file-output-{name}").text


def test_batch_of_the_command_line_is_known_to_the_gateway(served: Gateway) -> None:
    spec = {
        "model": {"name": "mock"},
        "engine": {"name": "mock", "mock": {"errorPercent": 100}},
        "retries": {"limit": 0},
        "input": {"inline": [{"custom_id": "x", "text": "say x"}], "format": "jsonl"},
    }
    manifest = {
        "apiVersion": "headrace.dev/v1alpha1",
        "kind": "InferenceBatch",
        "metadata": {"name": "reviews"},
        "spec": spec,
    }
    (served.folder / "reviews.yaml").write_text(yaml.safe_dump(manifest))
    assert served.headrace("run", "-f", "reviews.yaml").returncode == 0
    batch = served.client.batches.retrieve("batch_reviews")
    assert (batch.status, batch.output_file_id, batch.metadata) == ("completed", None, None)
    assert served.ids(batch.error_file_id) == ["x"]
    assert "batch_reviews" in {one.id for one in served.client.batches.list()}
    with pytest.raises(openai.NotFoundError, match="was not uploaded here"):
        served.client.files.retrieve(batch.input_file_id)


def test_cancel_of_a_batch_that_no_command_works_on_any_more(served: Gateway) -> None:
    submit(StateDir(served.folder / ".headrace"), a_batch("left-alone").build(), utc_now(), replace=False)
    served.client.batches.cancel("batch_left-alone")
    served.until("batch_left-alone", "cancelled")


def test_deleting_files(served: Gateway) -> None:
    client = served.client
    batch = served.batch(requests(LONG, "slow"))
    with pytest.raises(openai.ConflictError, match="is the input of"):
        client.files.delete(batch.input_file_id)
    served.until(batch.id, "in_progress")
    client.batches.cancel(batch.id)
    done = served.until(batch.id, "cancelled")
    assert client.files.delete(batch.input_file_id).deleted
    with pytest.raises(openai.NotFoundError):
        client.files.retrieve(batch.input_file_id)
    with pytest.raises(openai.ConflictError, match="headrace delete"):
        client.files.delete(done.error_file_id or "")


def test_output_that_is_damaged_is_never_taken_for_a_whole_one(served: Gateway) -> None:
    done = served.until(served.batch(requests(8)).id, "completed")
    name, url = done.id.removeprefix("batch_"), f"/v1/files/{done.output_file_id}/content"
    folder = served.folder / ".headrace" / "output" / "default" / name
    first, second = json.loads((folder / "manifest.json").read_text())["shards"]
    (folder / second["results"]["path"]).unlink()
    with pytest.raises(http.client.IncompleteRead):
        served.ask("GET", url)
    (folder / first["results"]["path"]).unlink()
    answer = served.ask("GET", url)
    assert (answer.status, answer.error["code"]) == (500, "OutputUnreadable")
    (folder / "manifest.json").unlink()
    shown = {one.id: one for one in served.client.files.list()}[done.output_file_id or ""]
    assert shown.status == "error"
    assert "is not there any more" in (shown.status_details or "")


def test_download_that_is_cut_off_leaves_no_reader(served: Gateway) -> None:
    lines = b"".join(
        request(f"{number:0500}") for number in range(5000)
    )  # more than sockets and pipes hold by themselves
    done = served.until(served.batch(lines).id, "completed")
    with socket.create_connection(served.address) as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.sendall(f"GET /v1/files/{done.output_file_id}/content HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        assert b" 200 " in client.recv(1024)
        assert readers(served)
    eventually(lambda: not readers(served))
    log = (served.folder / "gateway.log").read_text()
    assert "ClientDisconnect" not in log


def readers(served: Gateway) -> list[int]:
    """The processes that read outputs for the gateway."""
    found = []
    for pid in processes_with(MARK, served.mark):
        with suppress(OSError):  # it has just ended
            if b"\0results\0" in Path(f"/proc/{pid}/cmdline").read_bytes():
                found.append(pid)
    return found


def test_client_in_the_documentation_does_what_it_says(
    served: Gateway, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (script,) = re.findall(
        r"^```python\n(.*?)^```$", (REPOSITORY / "docs/async.md").read_text(), re.MULTILINE | re.DOTALL
    )
    monkeypatch.chdir(served.folder)
    (served.folder / "requests.jsonl").write_bytes(requests(3))
    exec(compile(script.replace("http://127.0.0.1:8080/v1", served.base_url), "docs/async.md", "exec"), {})
    said = capsys.readouterr().out
    assert said.startswith("completed BatchRequestCounts(completed=3")
    assert '"custom_id":"r2"' in said


def test_example_of_the_client_runs_as_it_is(served: Gateway) -> None:
    script = REPOSITORY / "manifests/examples/gateway/openai_batch.py"
    variables = {**os.environ, "OPENAI_BASE_URL": served.base_url, "OPENAI_API_KEY": "none"}
    done = subprocess.run(
        [sys.executable, str(script), "slow"], env=variables, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    first, *answers, cancelled, batches, files, deleted = done.stdout.splitlines()
    assert " completed " in first
    assert [json.loads(line)["custom_id"] for line in answers] == ["question-0", "question-1", "question-2"]
    assert cancelled.endswith(" cancelled")
    assert {first.split()[0], cancelled.split()[0]} <= {*batches.split()}
    assert files.startswith("files: file-")
    assert deleted == "deleted: True"
