"""The whole path on one machine with everything in an object store: the command line, the core, real workers."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from endpoint_server import Gate, endpoint_server, engine_settings
from headrace_worker.stores.objects import BucketStore
from laptop import eventually
from object_store import S3, s3_server

REPOSITORY = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def s3() -> Iterator[S3]:
    """An object store, and the environment that leads to it."""
    with s3_server() as server:
        yield server


@dataclass(frozen=True)
class Desk:
    """A working directory with the manifest of a batch whose input and output are objects."""

    folder: Path
    root: str
    store: BucketStore

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        """Start a command."""
        roots = [str(REPOSITORY / "operator"), str(REPOSITORY / "worker-image")]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(roots), "OMP_NUM_THREADS": "1"}
        command = [sys.executable, "-m", "headrace", *arguments]
        return subprocess.Popen(
            command, cwd=self.folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )

    def do(self, *arguments: str) -> tuple[int, str, str]:
        """Run a command to its end; exit code, answer, remarks."""
        process = self.start(*arguments)
        out, err = process.communicate()
        assert "Traceback" not in err
        return process.returncode, out, err

    def write(self, records: int, **spec: Any) -> list[str]:
        """An input of so many records, a manifest `reviews.yaml`, and the ids of the records in their order."""
        ids = [f"r{number}" for number in range(records)]
        lines = (json.dumps({"custom_id": name, "text": f"say {name}"}) for name in ids)
        self.store.put(f"{self.root}/in/records.jsonl", "\n".join(lines).encode())
        usual = {
            "model": {"name": "mock"},
            "engine": {"name": "mock"},
            "input": {"uri": f"{self.root}/in/*.jsonl", "format": "jsonl"},
            "output": {"uri": f"{self.root}/out"},
            "shards": 3,
            "parallelism": 2,
            "retries": {"limit": 0},
        }
        batch = {
            "apiVersion": "headrace.dev/v1alpha1",
            "kind": "InferenceBatch",
            "metadata": {"name": "reviews"},
            "spec": {**usual, **spec},
        }
        (self.folder / "reviews.yaml").write_text(yaml.safe_dump(batch))
        return ids

    def ids(self, *kinds: str) -> list[str]:
        """The ids in the results or errors."""
        found = [file for kind in kinds for file in self.store.list(f"{self.root}/out/{kind}/")]
        return [json.loads(line)["custom_id"] for file in found for line in self.store.read(file.uri).splitlines()]

    def status(self) -> dict[str, Any]:
        """The status of the batch."""
        code, out, _ = self.do("get", "reviews", "-o", "json")
        assert code == 0
        found: dict[str, Any] = json.loads(out)["status"]
        return found

    def is_under_way(self, running: subprocess.Popen[str]) -> bool:
        """Whether a run has written a piece of a journal, or has ended."""
        private = self.store.list(f"{self.root}/out/_headrace/shards/")
        return any(".journal." in found.uri for found in private) or running.poll() is not None


@pytest.fixture
def desk(tmp_path: Path, s3: S3) -> Desk:
    """An empty working directory, and an empty folder in the object store."""
    return Desk(tmp_path, s3.folder(), BucketStore())


def mock(**settings: int) -> dict[str, Any]:
    """The mock engine with these settings."""
    return {"name": "mock", "mock": settings}


def test_run_answers_every_record_once_and_in_order(desk: Desk) -> None:
    ids = desk.write(300, engine=mock(errorPercent=5), storage={"secretRef": {"name": "minio"}})
    code, out, err = desk.do("run", "-f", "reviews.yaml")
    assert code == 0, err
    assert out.startswith("reviews is complete: ")
    assert sorted(desk.ids("results", "errors")) == sorted(ids)
    assert desk.ids("results") == [name for name in ids if name in set(desk.ids("results"))]
    status = desk.status()
    assert status["output"] == {"uri": f"{desk.root}/out", "manifest": f"{desk.root}/out/manifest.json"}
    assert status["records"]["succeeded"] == len(desk.ids("results"))
    assert desk.store.exists(status["output"]["manifest"])


def test_cancel_gives_every_record_a_line(desk: Desk) -> None:
    ids = desk.write(4000, engine=mock(latencyMilliseconds=100), batching={"maxBatchSize": 2})
    running = desk.start("run", "-f", "reviews.yaml")
    eventually(lambda: desk.is_under_way(running))
    assert desk.do("cancel", "reviews")[0] == 0
    running.communicate()
    assert running.returncode == 1
    status = desk.status()
    assert status["conditions"][-1]["reason"] == "Cancelled"
    assert status["output"]["uri"] == f"{desk.root}/out"
    assert sorted(desk.ids("results", "errors")) == sorted(ids)
    assert desk.ids("errors")


def test_an_interrupted_run_goes_on_where_it_stopped(desk: Desk) -> None:
    """An endpoint holds most answers back until the second run."""
    gate = Gate(free=10)
    with endpoint_server(gate.answer) as server:
        ids = desk.write(300, engine=engine_settings(server))
        running = desk.start("run", "-f", "reviews.yaml")
        eventually(lambda: desk.is_under_way(running))
        running.send_signal(signal.SIGINT)
        running.communicate()
        assert running.returncode == 130
        gate.open()
        assert desk.do("run", "-f", "reviews.yaml")[0] == 0
    assert sorted(desk.ids("results")) == sorted(ids)


def test_run_refuses_bad_records_by_their_lines(desk: Desk) -> None:
    desk.write(5)
    good = desk.store.read(f"{desk.root}/in/records.jsonl")
    desk.store.put(f"{desk.root}/in/records.jsonl", good.replace(b'{"custom_id": "r2",', b"{r2,"))
    code, out, _ = desk.do("run", "-f", "reviews.yaml", "-q", "-o", "json")
    assert code == 2
    assert [error["line"] for error in json.loads(out)["error"]["errors"]] == [3]


def test_run_without_the_keys_that_a_secret_would_have(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    desk.write(5, storage={"secretRef": {"name": "minio"}})
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    code, _, err = desk.do("run", "-f", "reviews.yaml")
    assert code == 2
    assert "spec.storage.secretRef: there are no Secrets on this machine: put what opens s3://" in err


def test_run_with_an_output_that_cannot_be_written_says_why(desk: Desk) -> None:
    desk.write(5, output={"uri": "s3://no-such-bucket/out"})
    code, out, err = desk.do("run", "-f", "reviews.yaml")
    assert code == 1
    assert "there is no bucket s3://no-such-bucket; check its name, or make it" in out + err
