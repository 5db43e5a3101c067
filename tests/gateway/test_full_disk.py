"""The disk of the NATS server is full: requests are refused, nothing that was accepted is lost, and it goes on once there is room."""

from __future__ import annotations

import subprocess
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from gateway_rig import Answer, Gateway, gateway
from headrace.gateway.queues.natsroom import has_grown, room
from laptop import eventually

MODEL = {"model": {"name": "plain"}, "engine": {"name": "mock"}}
ROUTE = {"name": "plain", "model": "plain", "window": {"maxBatchSize": 2}}
SMALL, LARGE = "3m", "256m"
MOST = 200
"""Requests of which the small disk has room for a tenth."""


@contextmanager
def disk(folder: Path, size: str) -> Iterator[None]:
    """A disk of its own at a folder."""
    folder.mkdir(parents=True)
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size},mode=700", "tmpfs", str(folder)], capture_output=True, check=False
    )
    if done.returncode:
        pytest.skip(f"no disk can be made here: {done.stderr.decode().strip()}")
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def post(served: Gateway, number: int) -> Answer:
    """A large request."""
    text = f"{number} " + "x" * 100_000
    return served.post("/v1/requests", {"model": "plain", "messages": [{"role": "user", "content": text}]})


@pytest.mark.slow
def test_store_that_is_full_refuses_loses_nothing_and_goes_on_with_room(tmp_path: Path) -> None:
    nats = tmp_path / ".headrace" / "nats"
    with disk(nats, SMALL), gateway(tmp_path, uuid.uuid4().hex, routes=[ROUTE], models=[MODEL]) as served:
        accepted, answer = list[str](), post(served, 0)
        while answer.status == 202 and len(accepted) < MOST:
            accepted.append(answer.json["id"])
            answer = post(served, len(accepted))
        eventually(lambda: "no_room" in post(served, MOST).body.decode())  # the server itself may have been slow
        refused = post(served, MOST)
        assert (refused.status, refused.error["code"]) == (503, "no_room")
        assert (refused.headers["retry-after"], refused.headers["x-should-retry"]) == ("30", "true")
        assert served.ask("GET", "/v1/models").status == 200

        subprocess.run(["mount", "-o", f"remount,size={LARGE}", str(nats)], check=True)
        eventually(lambda: post(served, MOST).status == 202)
        assert [served.answered(name)["status"] for name in accepted] == ["completed"] * len(accepted)
        assert served.stop() == 0


def test_server_is_started_again_only_where_it_is_full_and_could_keep_more(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "block").write_bytes(b"x" * 10_000)
    now = room(tmp_path)
    assert has_grown(tmp_path, 11_000)
    assert not has_grown(tmp_path, 100_000), "it has room yet"
    assert not has_grown(tmp_path, now), "there is no more than it knows of"
