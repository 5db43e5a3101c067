"""Single requests end to end: accepted at once, gathered into batches that workers run, answered by id, and never lost."""

from __future__ import annotations

import signal
import uuid
from pathlib import Path
from typing import Any

from gateway_rig import MARK, ROUTES, gateway
from laptop import eventually, processes_with


def body(text: str = "hello", model: str = "quick") -> dict[str, Any]:
    return {"model": model, "messages": [{"role": "user", "content": text}]}


def test_gateway_that_is_killed_loses_no_request(tmp_path: Path) -> None:
    """The gateway alone is killed, twice; the server that it has left goes when the next one starts."""
    mark = uuid.uuid4().hex
    with gateway(tmp_path, mark, routes=ROUTES) as first:
        waits = [first.post("/v1/requests", body(str(number), "slow")).json["id"] for number in range(4)]
        eventually(lambda: first.ask("GET", f"/v1/requests/{waits[0]}").json["status"] != "queued")
        first.stop(signal.SIGKILL)
    with gateway(tmp_path, mark, routes=ROUTES) as second:
        answer = second.post("/v1/requests", body())
        assert answer.status == 202
        second.stop(signal.SIGKILL)
    with gateway(tmp_path, mark, routes=ROUTES) as third:
        done = [third.answered(name) for name in (*waits, answer.json["id"])]
        assert [one["status"] for one in done] == ["completed"] * 5
        assert [one["response"]["status_code"] for one in done] == [200] * 5
        assert third.client.batches.retrieve(done[0]["batch_id"]).status == "completed"
        assert third.stop() == 0
    eventually(lambda: not list(processes_with(MARK, mark)))  # no server is left


def test_gateway_without_routes_starts_no_server(tmp_path: Path) -> None:
    with gateway(tmp_path, "x") as served:
        assert served.post("/v1/requests", body()).status == 404
        assert not (tmp_path / ".headrace" / "nats").exists()
