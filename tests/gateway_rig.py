"""A gateway as a process of its own, and clients of it: OpenAI's, and one that can say anything."""

from __future__ import annotations

import http.client
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

import yaml
from openai import OpenAI
from openai.types import Batch

from headrace.shells.local.files import holder_of
from laptop import PATIENCE_SECONDS, eventually

REPOSITORY = Path(__file__).parents[1]
MARK = "HEADRACE_GATEWAY_MARK"
MOST_FILE_BYTES = 16 * 2**20
"""Of the gateway of a module."""
CHAT: Literal["/v1/chat/completions"] = "/v1/chat/completions"
QUICK = {"model": {"name": "quick"}, "engine": {"name": "mock"}, "shards": 2, "parallelism": 2}
SLOW = {
    "model": {"name": "slow"},
    "engine": {"name": "mock", "mock": {"latencyMilliseconds": 300}},
    "batching": {"maxBatchSize": 1},
    "terminationGracePeriodSeconds": 60,
}
VECTORS = {"model": {"name": "vectors", "task": "embedding"}, "engine": {"name": "mock"}}
MODELS: list[Mapping[str, Any]] = [QUICK, SLOW, VECTORS]
ROUTES: list[dict[str, Any]] = [
    {"name": "quick", "model": "quick", "window": {"maxBatchSize": 8, "maxWaitMilliseconds": 100}},
    {
        "name": "slow",
        "model": "slow",
        "window": {"maxBatchSize": 2, "maxWaitMilliseconds": 300},
        "maxOpenBatches": 1,
        "maxQueued": 5,
    },
]


@dataclass(frozen=True)
class Answer:
    """What a request has come to."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        """The body as JSON."""
        return json.loads(self.body)

    @property
    def error(self) -> Any:
        """The error in it."""
        return self.json["error"]


@dataclass(frozen=True)
class Gateway:
    """A gateway that listens."""

    process: subprocess.Popen[str]
    base_url: str
    folder: Path
    mark: str

    @property
    def client(self) -> OpenAI:
        """OpenAI's client, as it is; one try for each request, so that tests see each answer."""
        return OpenAI(base_url=self.base_url, api_key="none", max_retries=0)

    @property
    def address(self) -> tuple[str, int]:
        """Host and port."""
        parts = urlsplit(self.base_url)
        assert parts.hostname is not None
        assert parts.port is not None
        return parts.hostname, parts.port

    def ask(
        self, method: str, path: str, body: bytes | None = None, headers: Mapping[str, str] | None = None
    ) -> Answer:
        """Send any request."""
        connection = http.client.HTTPConnection(*self.address, timeout=PATIENCE_SECONDS)
        try:
            connection.request(method, path, body, dict(headers or {}))
            response = connection.getresponse()
            return Answer(response.status, dict(response.headers), response.read())
        finally:
            connection.close()

    def post(self, path: str, body: Any, **headers: str) -> Answer:
        """Send JSON."""
        return self.ask("POST", path, json.dumps(body).encode(), {"Content-Type": "application/json", **headers})

    def answered(self, request_id: str) -> Any:
        """A single request, once it has ended."""

        def shown() -> Any:
            return self.ask("GET", f"/v1/requests/{request_id}").json

        eventually(lambda: shown()["status"] not in ("queued", "in_progress"))
        return shown()

    def upload(self, lines: bytes) -> str:
        """Upload a file; returns its id."""
        return self.client.files.create(file=("in.jsonl", lines), purpose="batch").id

    def batch(self, lines: bytes, window: str = "24h", endpoint: Any = CHAT) -> Batch:
        """Upload a file and make a batch of it."""
        return self.client.batches.create(
            input_file_id=self.upload(lines),
            endpoint=endpoint,
            completion_window=window,  # type: ignore[arg-type]
        )

    def until(self, batch_id: str, *states: str) -> Batch:
        """The batch, once it is in one of these states."""
        client = self.client
        eventually(lambda: client.batches.retrieve(batch_id).status in states)
        return client.batches.retrieve(batch_id)

    def headrace(self, *words: str) -> subprocess.CompletedProcess[str]:
        """A command of the other door."""
        return subprocess.run(
            [sys.executable, "-m", "headrace", *words],
            cwd=self.folder,
            env=environment(self.mark),
            capture_output=True,
            text=True,
            check=False,
        )

    def ids(self, file_id: str | None) -> list[str]:
        """The `custom_id`s in a file of results; none when there is no file."""
        if file_id is None:
            return []
        return [json.loads(line)["custom_id"] for line in self.client.files.content(file_id).text.splitlines()]

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Send a signal, and wait for the end; returns the exit code."""
        self.process.send_signal(number)
        return self.process.wait(PATIENCE_SECONDS)


@contextmanager
def gateway(
    folder: Path,
    mark: str,
    *options: str,
    routes: Sequence[Mapping[str, Any]] = (),
    models: Sequence[Mapping[str, Any]] = MODELS,
) -> Iterator[Gateway]:
    """A gateway whose state is in a folder; killed at the end, if it still runs."""
    (folder / "models.yaml").write_text(yaml.safe_dump({"models": [*models], "routes": [*routes]}))
    words = ["gateway", "--local", "--port", "0", "--models", "models.yaml", *options]
    with (folder / "gateway.log").open("a") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "headrace", *words],
            cwd=folder,
            env=environment(mark),
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        )
    try:
        assert process.stdout is not None
        said = process.stdout.readline()
        assert said.startswith("listening"), (folder / "gateway.log").read_text()
        yield Gateway(process, said.split()[-1], folder, mark)
    finally:
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()
        _end_server(folder / ".headrace" / "nats")


def _end_server(folder: Path) -> None:
    """End the server that a gateway has left which was killed."""
    if holder_of(folder / "server.lock") is not None:
        with suppress(OSError, ValueError):  # it goes by itself
            os.kill(int((folder / "server.pid").read_text()), signal.SIGTERM)


def peak_memory(served: Gateway) -> int:
    """Most memory that the process has ever held, in bytes."""
    lines = Path(f"/proc/{served.process.pid}/status").read_text().splitlines()
    (found,) = [line.split()[1] for line in lines if line.startswith("VmHWM")]
    return int(found) * 1024


def environment(mark: str) -> dict[str, str]:
    """That of every process that is started from here."""
    roots = [str(REPOSITORY / "operator"), str(REPOSITORY / "worker-image")]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(roots), MARK: mark, "OMP_NUM_THREADS": "1"}


def requests(count: int, model: str = "quick") -> bytes:
    """So many lines for a chat model, `r0` and up."""
    return b"".join(request(f"r{number}", model) for number in range(count))


def request(custom_id: str, model: str = "quick", text: str = "hello") -> bytes:
    """One line for a chat model."""
    body = {"model": model, "messages": [{"role": "user", "content": text}]}
    return json.dumps({"custom_id": custom_id, "method": "POST", "url": CHAT, "body": body}).encode() + b"\n"
