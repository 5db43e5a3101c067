"""A worker of a warm pool that listens: to whoever has its key, to the last who came, and not for ever to nobody."""

from __future__ import annotations

import hashlib
import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from socket import SocketIO
from typing import Any

from headrace.api.worker import FREE, Env, ExitCode, Listening, MicroBatch, Opening, ToldRequest

ROOTS = os.pathsep.join(str(Path(__file__).parents[2] / name) for name in ("operator", "worker-image"))
KEY = "open"
CONFIG = {
    "batch": {"namespace": "default", "name": "chat", "uid": "u"},
    "model": {"name": "m"},
    "engine": {"name": "mock"},
    "input": {"uri": "file:///none"},
    "planUri": "file:///none",
    "outputUri": "file:///none",
    "batching": {},
    "shards": 1,
    "retries": {},
}


@contextmanager
def listening(patience_seconds: int = 600) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """A worker, and its port."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    told = Listening(port=port, key_sha256=hashlib.sha256(KEY.encode()).hexdigest(), patience_seconds=patience_seconds)
    env = {**os.environ, "PYTHONPATH": ROOTS, Env.CONFIG: json.dumps(CONFIG), Env.LISTEN: json.dumps(told.to_object())}
    process = subprocess.Popen(
        [sys.executable, "-m", "headrace_worker", "serve"],
        env={**env, Env.POD_IP: "127.0.0.1"},
        stderr=subprocess.PIPE,
        bufsize=0,
    )
    try:
        yield process, port
    finally:
        process.kill()
        process.wait()
        assert process.stderr is not None
        process.stderr.close()


@contextmanager
def connected(worker: subprocess.Popen[bytes], port: int, key: str = KEY) -> Iterator[SocketIO]:
    """Somebody who has said a key, as soon as the worker is there."""
    while True:
        assert worker.poll() is None
        try:
            connection = socket.create_connection(("127.0.0.1", port))
            break
        except ConnectionRefusedError:
            continue
    with connection, connection.makefile("rwb", buffering=0) as file:
        file.write(Opening(key=key).line())
        yield file


def batch(*names: str) -> bytes:
    asked = {"messages": [{"role": "user", "content": "hello"}]}
    return MicroBatch(requests=tuple(ToldRequest(custom_id=name, body=asked) for name in names)).line()


def until_free(file: SocketIO) -> list[Any]:
    """The requests that were answered until it says that it is free."""
    said = []
    while (line := file.readline()) != FREE:
        said.append(json.loads(line)["custom_id"])
    return sorted(said)


def test_whoever_has_the_key_is_answered_and_nobody_else_is() -> None:
    with listening() as (worker, port), connected(worker, port, "another") as stranger:
        assert stranger.read(1) == b"", "it is not let in"
        with connected(worker, port) as file:
            assert until_free(file) == []
            file.write(batch("a", "b"))
            assert until_free(file) == ["a", "b"]


def test_who_comes_last_is_listened_to_and_told_that_it_is_free() -> None:
    with listening() as (worker, port), connected(worker, port) as first:
        assert until_free(first) == []
        with connected(worker, port) as second:
            assert until_free(second) == []
            assert first.read(1) == b"", "the one before is not listened to any more"
            second.write(batch("a"))
            assert until_free(second) == ["a"]
        with connected(worker, port) as third:
            assert until_free(third) == [], "one who is gone is no reason to end"


def test_worker_that_nobody_comes_to_ends() -> None:
    with listening(patience_seconds=1) as (worker, port):
        with connected(worker, port) as file:
            assert until_free(file) == []
        assert worker.wait() == ExitCode.DRAINED
