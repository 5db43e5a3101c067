"""Gateways to a control plane, each a process of its own, with one NATS server and one folder that is everybody's claim `data`."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import orjson
import yaml

from gateway_rig import REPOSITORY, Gateway, environment
from headrace.api.inferencebatch import InferenceBatch
from headrace.gateway.natsserver import Address, nats_server

from .operator_rig import Rig
from .proxy import Proxy, write_kubeconfig

CLAIM = "data"
MODELS: list[dict[str, Any]] = [{"model": {"name": "small"}, "engine": {"name": "mock"}}]
ROUTES: list[dict[str, Any]] = [
    {"name": "chat", "model": "small", "window": {"maxBatchSize": 1}, "maxOpenBatches": 1},
]


class GatewayRig:
    """What gateways to one namespace share. Whoever makes one closes it."""

    def __init__(self, rig: Rig, folder: Path) -> None:
        self.rig, self.claim = rig, folder / "claim"
        self._folder, self._stack = folder, AsyncExitStack()
        self._processes: list[subprocess.Popen[str]] = []
        self.claim.mkdir()
        (folder / "models.yaml").write_text(yaml.safe_dump({"models": MODELS, "routes": ROUTES}))
        self._nats: Address = rig.run(self._stack.enter_async_context(nats_server(folder / "nats")))
        credentials = folder / "credentials"
        credentials.mkdir()
        (credentials / "token").write_text(f"{self._nats.token}\n")

    def close(self) -> None:
        """End all of them, and the server."""
        for process in self._processes:
            process.kill()
            process.wait()
            assert process.stdout is not None
            process.stdout.close()
        self.rig.run(self._stack.aclose())

    def start(self, name: str = "gateway") -> tuple[Gateway, Proxy]:
        """A gateway that listens, and the proxy that stands before its API server."""
        proxy, url = self.rig.another_proxy()
        kubeconfig = write_kubeconfig(self._folder / f"{name}.kubeconfig", url)
        words = ["gateway", f"--kubeconfig={kubeconfig}", f"--namespace={self.rig.namespace}", "--port=0"]
        words += [f"--models={self._folder / 'models.yaml'}", f"--mount={CLAIM}={self.claim}"]
        words += [f"--files=claim://{CLAIM}/uploads", f"--nats={self._nats.url}"]
        words += [f"--nats-credentials={self._folder / 'credentials'}"]
        with self.log(name).open("a") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "headrace", *words],
                cwd=REPOSITORY,
                env=environment("cluster"),
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )
        self._processes.append(process)
        assert process.stdout is not None
        said = process.stdout.readline()
        assert said.startswith("listening"), self.log(name).read_text()
        return Gateway(process, said.split()[-1], self._folder, "cluster"), proxy

    def log(self, name: str = "gateway") -> Path:
        """Where it writes."""
        return self._folder / f"{name}.log"

    def until_leading(self, name: str) -> None:
        """Wait until it has the windows."""
        self.rig.eventually(lambda: " leads" in self.log(name).read_text(), f"{name} leads")

    def answer(self, batch: InferenceBatch) -> None:
        """Leave what the workers of a batch would: an answer to each of its records, as its one shard commits them."""
        ids = [line["custom_id"] for line in self._records(batch)]
        output = self.claim / "out" / batch.metadata.namespace / batch.metadata.name
        identity = {key: getattr(batch.metadata, key) for key in ("namespace", "name", "uid")}
        lines = b"".join(map(_line, range(len(ids)), ids))
        commit = {
            "batch": identity,
            "shard": 0,
            "attempt": 1,
            "results": _written(output, "results/00000.a1.jsonl", lines, len(ids)),
            "errors": _written(output, "errors/00000.a1.jsonl", b"", 0),
            "records": {"total": len(ids), "succeeded": len(ids)},
            "usage": {},
            "batches": 1,
            "batchedRecords": len(ids),
            "reprocessed": 0,
        }
        _written(output, "_headrace/owner.json", orjson.dumps(identity), 0)
        _written(output, "_headrace/shards/00000/commit.json", orjson.dumps(commit), 0)

    def _records(self, batch: InferenceBatch) -> list[dict[str, Any]]:
        if batch.spec.input.inline is not None:
            return [dict(record) for record in batch.spec.input.inline]
        assert batch.spec.input.uri is not None
        parts = urlsplit(batch.spec.input.uri)
        assert (parts.scheme, parts.netloc) == ("claim", CLAIM)
        return [json.loads(line) for line in (self.claim / parts.path.lstrip("/")).read_bytes().splitlines()]


def _line(number: int, custom_id: str) -> bytes:
    response = {"status_code": 200, "request_id": f"r{number}", "body": {"asked": custom_id}}
    line = {"id": f"batch_req_{number:012}", "custom_id": custom_id, "response": response, "error": None}
    return orjson.dumps(line, option=orjson.OPT_APPEND_NEWLINE)


def _written(output: Path, path: str, data: bytes, records: int) -> dict[str, Any]:
    (output / path).parent.mkdir(parents=True, exist_ok=True)
    (output / path).write_bytes(data)
    return {"path": path, "records": records, "bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
