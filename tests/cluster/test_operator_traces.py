"""Traces in a cluster: from the annotation of who applies, or from a tick, to the environment of the workers; and the operator's spans."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from builders import a_batch
from fanout_builders import a_fan_out
from headrace.api import labels
from headrace.api.base import JsonObject
from headrace.api.tracing import TraceContext
from headrace.api.worker import Role
from headrace.shells.kube.resources import BATCHES, FAN_OUTS, SCHEDULES
from otlp_receiver import Receiver, receiving, tree
from schedule_builders import a_schedule

from .operator_process import OperatorProcess
from .operator_rig import RECORDS, Rig, ask_for_run, fan_out_manifest, manifest, plane, rig, until_ticking
from .operator_workers import Fate

__all__ = ["plane", "rig"]
pytestmark = [pytest.mark.cluster, pytest.mark.xdist_group("operator")]

GIVEN = TraceContext("4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7")
CANARY = "canary-of-the-headers"
INLINE = a_batch().inline(*RECORDS)


@pytest.fixture
def behind() -> Iterator[Receiver]:
    with receiving() as found:
        yield found


def operator(rig: Rig, behind: Receiver, **more: str) -> OperatorProcess:
    """An operator that sends its spans there, with credentials of its own."""
    traces = {
        "OTEL_EXPORTER_OTLP_ENDPOINT": behind.url,
        "OTEL_EXPORTER_OTLP_HEADERS": f"authorization={CANARY}",
        "HEADRACE_TRACE_HEADERS_SECRET": "collector/headers",
        "OTEL_BSP_SCHEDULE_DELAY": "200",
        **more,
    }
    return rig.operator(traces=traces).start().wait_ready()


def variables(rig: Rig, owner: str) -> list[dict[str, JsonObject]]:
    """The environments of the workers of an object."""
    jobs = rig.jobs().items()
    found = [job["spec"]["template"]["spec"]["containers"] for name, job in jobs if name.startswith(f"{owner}-")]
    return [{it["name"]: it for it in container["env"]} for (container,) in found]


def whole(behind: Receiver, root: str) -> str:
    """The tree of a trace, once its first span has come."""
    found = behind.wait(lambda spans: any(it.name == root for it in spans))
    (first,) = [it for it in found if it.name == root]
    return tree([it for it in found if it.trace_id == first.trace_id])


def test_a_batch_works_in_the_context_that_it_was_applied_in(rig: Rig, behind: Receiver) -> None:
    started = operator(rig, behind)
    body = manifest(INLINE)
    body["metadata"]["annotations"] = {labels.TRACEPARENT: str(GIVEN)}
    rig.create(BATCHES, body)
    rig.until_state("Complete")
    assert whole(behind, "InferenceBatch reviews") == "InferenceBatch reviews\n  planning\n  running"
    (root,) = [it for it in behind.spans if it.name == "InferenceBatch reviews"]
    assert (root.trace_id, root.parent_id) == (GIVEN.trace_id, GIVEN.span_id)
    for told in variables(rig, "reviews"):
        assert told["TRACEPARENT"]["value"] == str(TraceContext(GIVEN.trace_id, root.span_id))
        assert told["OTEL_EXPORTER_OTLP_ENDPOINT"]["value"] == behind.url
        assert told["OTEL_EXPORTER_OTLP_HEADERS"]["valueFrom"]["secretKeyRef"]["name"] == "collector"
    written = json.dumps([rig.jobs(), rig.all(BATCHES)]) + " ".join(map(str, rig.proxy.calls)) + started.log
    assert CANARY not in written
    assert CANARY in behind.headers[0]["authorization"], "the operator itself has them"


def test_a_batch_that_nobody_has_handed_a_context_is_found_by_its_uid(rig: Rig, behind: Receiver) -> None:
    operator(rig, behind)
    uid = rig.submit(INLINE)["metadata"]["uid"]
    rig.until_state("Complete")
    whole(behind, "InferenceBatch reviews")
    assert {it.trace_id for it in behind.spans} == {uid.replace("-", "")}


def test_branches_are_in_the_trace_of_their_fan_out(rig: Rig, behind: Receiver) -> None:
    operator(rig, behind)
    branch = {"name": "one", "model": {"name": "m"}, "engine": {"name": "mock"}}
    spec = {"input": {"inline": RECORDS, "format": "jsonl"}, "branches": [branch]}
    rig.create(FAN_OUTS, fan_out_manifest(a_fan_out().with_spec(**spec)))
    rig.eventually(lambda: rig.state(FAN_OUTS, "answers") == "Complete", "the fan-out complete")
    found = whole(behind, "FanOutJob answers")
    assert found.startswith("FanOutJob answers\n  InferenceBatch answers-one\n    planning\n    running\n  branches")
    traces = {told["TRACEPARENT"]["value"].split("-")[1] for told in variables(rig, "answers")}
    assert traces == {behind.spans[0].trace_id}, "of all workers, those of the join and of the branch"


def test_a_tick_begins_a_trace_and_failures_are_in_it_although_it_is_not_sampled(rig: Rig, behind: Receiver) -> None:
    rig.script.fate = lambda pod: Fate(failed_records=int(pod.role == Role.RUN))
    operator(rig, behind, OTEL_TRACES_SAMPLER="always_off")
    rig.create(SCHEDULES, a_schedule("0 0 1 1 *", "reports").of_batch(**INLINE.spec).manifest)
    until_ticking(rig, "reports")
    ask_for_run(rig, "reports", "reports-by-hand")
    rig.eventually(lambda: not rig.gone(BATCHES, "reports-by-hand"), "the run")
    rig.until_state("Complete", "reports-by-hand")
    assert whole(behind, "tick of reports") == "tick of reports\n  InferenceBatch reports-by-hand"
    (told,) = {it["TRACEPARENT"]["value"] for it in variables(rig, "reports-by-hand")}
    assert told.endswith("-00"), "workers are told that only failures count"


def test_a_collector_that_is_dead_keeps_no_batch_from_its_end(rig: Rig, behind: Receiver) -> None:
    behind.status = 503
    started = operator(rig, behind, OTEL_BSP_MAX_QUEUE_SIZE="2", OTEL_BSP_MAX_EXPORT_BATCH_SIZE="1")
    for number in range(5):
        rig.submit(a_batch(f"batch-{number}").inline(*RECORDS))
    for number in range(5):
        rig.until_state("Complete", f"batch-{number}")
    assert started.stop() == 0
    assert "spans did not reach the collector" in started.log
