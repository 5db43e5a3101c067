"""Routes whose windows become something other than a batch, end to end."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from typing import Any

import pytest

from gateway_rig import Gateway, gateway

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
]


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    with gateway(tmp_path_factory.mktemp("targets"), uuid.uuid4().hex, routes=ROUTES) as found:
        yield found


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
