"""Routes whose windows become something other than a batch, end to end."""

from __future__ import annotations

import os
import signal
import uuid
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from gateway_rig import MARK, MODELS, Gateway, gateway
from laptop import eventually, processes_with

MOCK = {"name": "mock"}
FAN_OUT = {
    "branches": [
        {"name": "one", "model": {"name": "a"}, "engine": MOCK},
        {"name": "two", "model": {"name": "b"}, "engine": MOCK},
    ],
    "aggregation": {"type": "first"},
}
ROUTES: list[dict[str, Any]] = [
    {
        "name": "best",
        "model": "best-of-two",
        "window": {"maxBatchSize": 2, "maxWaitMilliseconds": 60_000},
        "target": {"fanOutJob": FAN_OUT},
    },
    {
        "name": "warm",
        "model": "slow",
        "window": {"maxBatchSize": 4, "maxWaitMilliseconds": 60_000},
        "target": {"warmPool": {"idleSeconds": 0}},
    },
    {
        "name": "broken",
        "model": "pictures",
        "task": "image-classification",
        "window": {"maxWaitMilliseconds": 0},
        "target": {"warmPool": {}},
    },
]
PICTURES = {"model": {"name": "pictures", "task": "image-classification"}, "engine": MOCK}


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    with gateway(
        tmp_path_factory.mktemp("targets"), uuid.uuid4().hex, routes=ROUTES, models=[*MODELS, PICTURES]
    ) as found:
        yield found


def workers_of(served: Gateway, route: str) -> list[int]:
    """The processes of a pool."""
    wanted = f"/pools/{route}/".encode()
    found = []
    for number in processes_with(MARK, served.mark):
        with suppress(OSError):
            found += [number] if wanted in Path(f"/proc/{number}/environ").read_bytes() else []
    return found


def body(text: str, model: str) -> dict[str, Any]:
    return {"model": model, "messages": [{"role": "user", "content": text}]}


def test_window_becomes_a_fan_out_and_the_answer_is_the_joined_line(served: Gateway) -> None:
    names = [served.post("/v1/requests", body(text, "best-of-two")).json["id"] for text in ("hello", "again")]
    done = [served.answered(name) for name in names]
    assert [one["status"] for one in done] == ["completed"] * 2
    assert [one["response"]["body"]["model"] for one in done] == ["a", "a"]
    assert [one["headrace"]["winner"] for one in done] == ["one", "one"]
    assert done[0]["fan_out_job"] == done[1]["fan_out_job"]
    assert done[0]["batch_id"] is None
    assert done[0]["fan_out_job"] in served.headrace("get", "fo").stdout
    assert served.ask("GET", "/v1/batches").json["data"] == []


def test_worker_of_a_warm_pool_that_is_killed_leaves_every_request_answered_and_the_pool_empties(
    served: Gateway,
) -> None:
    """It has answered one of four, and its model is one that answers them one by one."""
    names = [served.post("/v1/requests", body(str(number), "slow")).json["id"] for number in range(4)]

    def states() -> list[str]:
        return [served.ask("GET", f"/v1/requests/{name}").json["status"] for name in names]

    eventually(lambda: "completed" in states())
    (worker,) = workers_of(served, "warm")
    shown = {one["name"]: one for one in served.ask("GET", "/v1/routes").json["data"]}
    assert shown["best"]["target"] == "FanOutJob"
    assert shown["best"]["pool"] is None
    assert shown["warm"]["pool"]["workers"] == {"starting": 0, "busy": 1, "idle": 0}
    os.kill(worker, signal.SIGKILL)
    done = [served.answered(name) for name in names]
    assert [one["status"] for one in done] == ["completed"] * 4
    texts = [one["response"]["body"]["choices"][0]["message"]["content"] for one in done]
    assert texts == [f"{name}: {number}" for number, name in enumerate(names)]
    assert served.ask("GET", "/v1/batches").json["data"] == [], "there is no batch behind a pool"
    eventually(lambda: workers_of(served, "warm") == [])


def test_pool_whose_model_cannot_be_loaded_says_why(served: Gateway) -> None:
    picture = {"type": "image_url", "image_url": {"url": "https://pictures.example/1.png"}}
    name = served.post("/v1/requests", {"model": "pictures", "input": [picture]}).json["id"]
    done = served.answered(name)
    assert (done["status"], done["error"]["code"]) == ("failed", "TaskNotSupported")
    assert "model.task must be one of" in done["error"]["message"]
    (pool,) = [one["pool"] for one in served.ask("GET", "/v1/routes").json["data"] if one["name"] == "broken"]
    assert pool["error"]["code"] == "TaskNotSupported"
