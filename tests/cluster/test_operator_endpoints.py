"""Batches whose endpoints do not answer, on a real control plane, with real workers in the place of pods."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from builders import BatchBuilder, a_batch
from endpoint_server import Gate, endpoint_server, engine_settings, free_port
from headrace.api.bulkhead import Bulkhead
from headrace.api.inferencebatch import InferenceBatch
from headrace.api.reasons import ConditionType, Reason
from headrace.api.worker import Role
from headrace.shells.kube.resources import BULKHEADS, PODS

from .operator_rig import Rig, plane, rig
from .operator_workers import Fate, Pod
from .real_worker import RealWorker

__all__ = ["plane", "rig"]
pytestmark = [pytest.mark.cluster, pytest.mark.xdist_group("operator")]

RECORDS = 10


def asking(bulkhead: str, name: str, url: str) -> BatchBuilder:
    """A batch that asks one endpoint, and does not wait for it for long."""
    engine = engine_settings({"name": "east", "url": url}, parkAfterSeconds=2)
    retries = {"limit": 1, "backoff": {"baseSeconds": 0, "capSeconds": 0}}
    spec: dict[str, Any] = {"engine": engine, "model": {"name": "m"}, "retries": retries, "bulkheadName": bulkhead}
    return BatchBuilder(name, a_batch().with_spec(**spec).spec)


def reason(batch: InferenceBatch, kind: ConditionType) -> str:
    found = batch.status.condition(kind)
    return str(found.reason) if found is not None else ""


def run_pods(rig: Rig) -> list[str]:
    """The pods of run Jobs that are there."""
    return [pod["metadata"]["name"] for pod in rig.all(PODS) if "-run-" in pod["metadata"]["name"]]


def test_batches_that_no_endpoint_answers_are_parked_and_go_on_after_one_probe(rig: Rig, tmp_path: Path) -> None:
    """Pods go back, no try is spent, one request of one pod tries again, and then every record of all is asked for exactly once."""
    bulkhead = f"{rig.namespace}-calls"
    head = {"apiVersion": BULKHEADS.api_version, "kind": BULKHEADS.kind, "metadata": {"name": bulkhead}}
    rig.create(BULKHEADS, {**head, "spec": {"capacity": {"pods": 4}}})
    workers = {name: RealWorker(tmp_path / name, RECORDS) for name in ("first", "second")}

    def fate(pod: Pod) -> Fate:
        return Fate(program=workers[pod.config.batch.name] if pod.role == Role.RUN else None)

    rig.script.records, rig.script.fate = RECORDS, fate
    rig.operator().start().wait_ready()
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    rig.submit(asking(bulkhead, "first", url))
    parked = rig.until_state("Parked", "first")
    assert reason(parked, ConditionType.ENDPOINTS_AVAILABLE) == Reason.PARKED
    assert [(it.name, it.state.value) for it in parked.status.endpoints] == [("east", "Open")]
    assert (parked.status.records.pending, parked.status.records.failed) == (RECORDS, 0)
    rig.eventually(lambda: not run_pods(rig), "the pod is given back")
    assert rig.jobs()["first-run"]["spec"]["suspend"] is True
    for told in ("EndpointOpen", "Parked"):
        rig.until_event(told, "east", about="first")
    rig.submit(asking(bulkhead, "second", url))
    rig.until(lambda it: reason(it, ConditionType.ADMITTED) == Reason.BREAKER_OPEN, "second waits", "second")
    assert "second-run" not in rig.jobs()

    def breakers() -> list[str]:
        return [it.name for it in Bulkhead.parse(rig.get(BULKHEADS, bulkhead)).status.breakers]

    rig.eventually(lambda: breakers() == [f"endpoints {url}"], "the Bulkhead says so")
    gate = Gate()
    with endpoint_server(gate.answer, port=port) as server:
        rig.eventually(lambda: server.asked, "a probe")
        rig.until(lambda it: reason(it, ConditionType.ENDPOINTS_AVAILABLE) == Reason.PROBING, "one tries", "first")
        assert (len(server.asked), len(run_pods(rig))) == (1, 1)
        gate.open()
        for name, worker in workers.items():
            done = rig.until_state("Complete", name)
            assert (done.status.records.succeeded, done.status.parking) == (RECORDS, None)
            assert len(worker.folder.lines("results")) == RECORDS
        assert len(server.asked) == 2 * RECORDS
    rig.until_event("EndpointClosed", "east", about="first")
