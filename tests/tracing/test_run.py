"""A run on one machine, whose spans go through a real collector: one tree, from who has started it down to the record that has failed."""

from __future__ import annotations

import json
import secrets
from pathlib import Path

import pytest
import yaml

from e2e.test_local import Desk, desk
from gateway_rig import CHAT, gateway, requests
from otlp_collector import Collector
from otlp_receiver import Arrived, be_patient, tree

__all__ = ["desk"]

BROKEN = {
    "model": {"name": "broken"},
    "engine": {"name": "mock", "mock": {"errorPercent": 100}},
    "retries": {"limit": 0},
}
ABOVE = "00f067aa0ba902b7"
FAN_OUT = {
    "apiVersion": "headrace.dev/v1alpha1",
    "kind": "FanOutJob",
    "metadata": {"name": "answers"},
    "spec": {
        "input": {"inline": [{"custom_id": f"r{n}", "text": "canary"} for n in range(6)], "format": "jsonl"},
        "branches": [
            {"name": "good", "model": {"name": "m"}, "engine": {"name": "mock"}},
            {
                "name": "bad",
                "model": {"name": "m"},
                "engine": {"name": "mock", "mock": {"seed": 3, "errorPercent": 40}},
                "retries": {"limit": 0},
            },
        ],
    },
}
TREE = """\
FanOutJob answers
  InferenceBatch answers-bad
    planning
    run 0
      load
      {records}
    running
  InferenceBatch answers-good
    planning
    run 0
      load
    running
  branches
  join
  joining
  planning"""


@pytest.fixture
def trace_id(monkeypatch: pytest.MonkeyPatch, collector: Collector) -> str:
    """The trace that the command is started in."""
    found = secrets.token_hex(16)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.endpoint)
    monkeypatch.setenv("TRACEPARENT", f"00-{found}-{ABOVE}-01")
    monkeypatch.setenv("HEADRACE_TRACE_RECORD_RATIO", "0")
    be_patient(monkeypatch)
    return found


def of_trace(collector: Collector, trace_id: str, root: str) -> list[Arrived]:
    """The spans of a trace, once that which is made last has come through."""

    def whole(spans: list[Arrived]) -> bool:
        mine = [it for it in spans if it.trace_id == trace_id]
        known = {it.span_id for it in mine}
        return root in {it.name for it in mine} and all(it.parent_id in {ABOVE, *known} for it in mine)

    return [it for it in collector.behind.wait(whole) if it.trace_id == trace_id]


def test_a_run_is_one_tree_with_every_record_that_has_failed(desk: Desk, collector: Collector, trace_id: str) -> None:
    (desk.folder / "fan-out.yaml").write_text(yaml.safe_dump(FAN_OUT))
    code, _, err = desk.do("run", "-f", "fan-out.yaml")
    assert code == 0, err
    found = of_trace(collector, trace_id, "FanOutJob answers")
    _, out, _ = desk.do("results", "answers-bad", "--errors", "-o", "json")
    failing = sorted(json.loads(line)["custom_id"] for line in out.splitlines())
    assert 0 < len(failing) < 6
    assert tree(found) == TREE.format(records="\n      ".join(f"record {name} ! mock_error" for name in failing))
    (root,) = [it for it in found if it.name == "FanOutJob answers"]
    assert root.parent_id == ABOVE, "whoever has started the command finds it in their own trace"


def test_a_batch_of_the_gateway_is_in_the_trace_of_the_request(
    tmp_path: Path, collector: Collector, trace_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("TRACEPARENT")
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "200")
    with gateway(tmp_path, secrets.token_hex(8)) as served:
        body = {"input_file_id": served.upload(requests(2)), "endpoint": CHAT, "completion_window": "24h"}
        made = served.post("/v1/batches", body, traceparent=f"00-{trace_id}-{ABOVE}-01")
        assert made.status == 200, made.body
        name = made.json["id"].removeprefix("batch_")
        found = of_trace(collector, trace_id, f"InferenceBatch {name}")
    (root,) = [it for it in found if it.name == f"InferenceBatch {name}"]
    assert root.parent_id == ABOVE
    assert {it.service for it in found} == {"headrace", "headrace-worker"}


def test_a_request_that_fails_is_in_the_trace_of_whoever_has_asked(
    tmp_path: Path, collector: Collector, trace_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("TRACEPARENT")
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "200")
    route = {"name": "broken", "model": "broken", "window": {"maxBatchSize": 2, "maxWaitMilliseconds": 60_000}}
    other, body = secrets.token_hex(16), {"model": "broken", "messages": [{"role": "user", "content": "canary"}]}
    with gateway(tmp_path, secrets.token_hex(8), routes=[route], models=[BROKEN]) as served:
        asked = [
            served.post("/v1/requests", body, traceparent=f"00-{trace}-{ABOVE}-01").json["id"]
            for trace in (trace_id, other)
        ]
        batch = served.answered(asked[0])["batch_id"].removeprefix("batch_")
        found = of_trace(collector, trace_id, f"InferenceBatch {batch}")
        (told,) = [
            span
            for span in collector.behind.wait(lambda spans: other in {it.trace_id for it in spans})
            if span.trace_id == other
        ]
    failed = {(it.attributes["headrace.custom_id"], it.error) for it in found if it.name == "record"}
    assert failed == {(name, "mock_error") for name in asked}, "the way down to each record"
    assert {it.parent_id for it in found if it.name.startswith("InferenceBatch")} == {ABOVE}
    assert (told.name, told.parent_id, told.error) == ("request", ABOVE, "mock_error"), (
        "each tells of its end in its own"
    )
    assert (told.attributes["headrace.request"], told.attributes["headrace.name"]) == (asked[1], batch)


def test_no_text_of_a_record_and_no_credential_is_in_a_span(
    desk: Desk, collector: Collector, trace_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("AWS_SECRET_ACCESS_KEY", "HF_TOKEN"):
        monkeypatch.setenv(name, "canary")
    monkeypatch.setenv("HEADRACE_TRACE_RECORD_RATIO", "1")
    desk.write(3, input={"inline": FAN_OUT["spec"]["input"]["inline"], "format": "jsonl"})  # type: ignore[index]
    code, _, err = desk.do("run", "-f", "reviews.yaml")
    assert code == 0, err
    found = of_trace(collector, trace_id, "InferenceBatch reviews")
    assert sum(it.name == "record" for it in found) == 6, "each record is in the sample"
    assert [body for body in collector.behind.bodies if b"canary" in body] == []
