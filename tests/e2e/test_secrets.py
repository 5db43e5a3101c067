"""A canary in the environment of a laptop, where there are no Secrets: it is in no file and on no terminal afterwards."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

from e2e.test_local import Desk, desk

__all__ = ["desk"]

STORAGE = {"secretRef": {"name": "canary"}}


@pytest.fixture
def canary(monkeypatch: pytest.MonkeyPatch) -> str:
    """In all variables in which a worker is given credentials."""
    word = f"canary{secrets.token_hex(16)}"
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "HF_TOKEN"):
        monkeypatch.setenv(name, word)
    monkeypatch.setenv("AWS_REGION", "us-east-1")
    return word


def betrayed(folder: Path, canary: str) -> list[str]:
    """The files that have it in them."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert files
    return [str(path.relative_to(folder)) for path in files if canary.encode() in path.read_bytes()]


def test_a_run_leaves_no_credential_in_any_file(desk: Desk, canary: str) -> None:
    desk.write(20, shards=2, storage=STORAGE)
    code, out, err = desk.do("run", "-f", "reviews.yaml")
    assert code == 0, err
    shown = desk.do("get", "-o", "yaml")[1] + desk.do("results", "reviews", "-o", "json")[1]
    assert betrayed(desk.folder, canary) == []
    assert canary not in out + err + shown


class Refusing(BaseHTTPRequestHandler):
    """An object store that lets nobody in, and repeats what it was sent, as some do."""

    def refuse(self) -> None:
        said = (
            f"<Error><Code>AccessDenied</Code><Message>{self.headers.get('Authorization')}</Message></Error>".encode()
        )
        self.send_response(403)
        self.send_header("Content-Length", str(len(said)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(said)

    do_GET = do_HEAD = do_PUT = do_POST = refuse  # noqa: N815 - the names that http.server looks for

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def refusing_store() -> Iterator[int]:
    """Its port."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Refusing)
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server.server_port
    server.shutdown()
    server.server_close()
    thread.join()


def test_a_store_that_refuses_is_told_of_without_the_credentials(
    desk: Desk, canary: str, refusing_store: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{refusing_store}")
    desk.write(2, storage=STORAGE, input={"uri": "s3://in/records.jsonl", "format": "jsonl"})
    code, out, err = desk.do("run", "-f", "reviews.yaml")
    assert (code, "s3://in" in out + err) == (1, True), err
    shown = desk.do("get", "-o", "yaml")[1]
    assert betrayed(desk.folder, canary) == []
    assert canary not in out + err + shown
