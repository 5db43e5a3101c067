"""A real S3 server for tests, and batches whose input and output lie in it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import pytest

from headrace_worker.stores.objects import BucketStore
from worker_rig import Folder

SERVER = Path(__file__).parent / "object_store_server.py"
PYTHONS = (os.environ.get("HEADRACE_MOTO_PYTHON"), Path(sys.prefix, "moto", "bin", "python"))
"""moto lives in an environment of its own: its client and that of Kubernetes disagree about a third package."""
BUCKET = "headrace"
LOSING = ("failing", "cutting", "stalling")
"""Buckets that lose the answer to the first PUT of each key."""
SLOW = "slow"
"""A bucket that takes its time to answer."""
_SIGNED = "AWS4-HMAC-SHA256 Credential=test/20260115/us-east-1/s3/aws4_request, SignedHeaders=host, Signature=0"


@dataclass(frozen=True)
class S3:
    """A server."""

    port: int

    @property
    def environment(self) -> dict[str, str]:
        """What a worker has to know to get there."""
        return {
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test",
            "AWS_REGION": "us-east-1",
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{self.port}",
        }

    def request(self, method: str, path: str, body: bytes = b"") -> bytes:
        """One plain request."""
        connection = HTTPConnection("127.0.0.1", self.port, timeout=180)
        try:
            connection.request(method, path, body, {"Authorization": _SIGNED})
            answer = connection.getresponse()
            text = answer.read()
            assert answer.status < 300, text
            return text
        finally:
            connection.close()

    def folder(self, bucket: str = BUCKET) -> str:
        """The URI of a folder that nobody else has."""
        return f"s3://{bucket}/{uuid.uuid4().hex}"


@contextmanager
def s3_server() -> Iterator[S3]:
    """A server with a bucket, others that lose answers, and one that is slow. Skips the test where there is no moto."""
    python = next((path for path in PYTHONS if path and Path(path).exists()), None)
    if python is None:
        pytest.skip("no S3 server here: `make setup` installs moto, in an environment of its own")
    with subprocess.Popen([python, str(SERVER)], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        try:
            assert process.stdout is not None
            server = S3(int(process.stdout.readline()))
            for bucket in (BUCKET, *LOSING, SLOW):
                server.request("PUT", f"/{bucket}")
            with pytest.MonkeyPatch.context() as patch:
                for name in [name for name in os.environ if name.startswith("AWS_")]:
                    patch.delenv(name)
                for name, value in server.environment.items():
                    patch.setenv(name, value)
                yield server
        finally:
            process.kill()


@dataclass
class BucketFolder(Folder):
    """A batch whose input and output are in an object store; only what its workers say is in a folder."""

    root: str = ""
    places: dict[str, Any] = field(default_factory=dict)
    """URIs that differ from the usual, in camelCase."""

    @cached_property
    def store(self) -> BucketStore:
        """The store of the test itself."""
        return BucketStore()

    def write_input(self, *lines: bytes) -> None:
        self.store.put(f"{self.root}/input.jsonl", b"".join(lines))

    def config_json(self) -> bytes:
        usual = json.loads(super().config_json())
        places = {
            "planUri": f"{self.root}/out/_headrace/plan.jsonl",
            "outputUri": f"{self.root}/out/",
            **self.places,
        }
        uri = {"uri": f"{self.root}/input.jsonl"}
        given = {**usual["input"], **uri, **self.places.get("input", {})}
        return json.dumps({**usual, **places, "input": given}).encode()

    def lines(self, kind: str) -> list[dict[str, Any]]:
        files = self.store.list(f"{self.root}/out/{kind}/")
        return [json.loads(line) for file in files for line in self.store.read(file.uri).splitlines()]

    def commit(self, shard: int = 0) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.store.read(f"{self.shard_uri(shard)}commit.json"))
        return found

    def commit_is_there(self, shard: int = 0) -> bool:
        return self.store.exists(f"{self.shard_uri(shard)}commit.json")

    def shard_uri(self, shard: int = 0) -> str:
        """The folder of a shard's journals."""
        return f"{self.root}/out/_headrace/shards/{shard:05}/"

    def journal_bytes(self, shard: int = 0) -> int:
        return sum(found.size for found in self.store.list(self.shard_uri(shard)) if ".journal" in found.uri)

    def everything(self) -> dict[str, bytes]:
        """All objects of the output."""
        return {found.uri: self.store.read(found.uri) for found in self.store.list(f"{self.root}/out/")}
