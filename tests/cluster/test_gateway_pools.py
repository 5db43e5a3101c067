"""Warm pools on a real control plane: pods that keep the model loaded, as many as there is work for, and no request that is lost."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gateway_rig import Gateway
from headrace.api import labels
from headrace.api.worker import Role
from headrace.shells.kube.resources import JOBS, PODS

from .gateway_process import POOL_OWNER, GatewayRig
from .operator_rig import Rig, plane, rig

__all__ = ["plane", "rig"]
pytestmark = [pytest.mark.cluster, pytest.mark.xdist_group("operator")]

MODELS: list[dict[str, Any]] = [
    {"model": {"name": "small"}, "engine": {"name": "mock"}},
    {"model": {"name": "deadly"}, "engine": {"name": "mock", "mock": {"crashPercent": 100}}},
]


def route(name: str, model: str, **pool: Any) -> dict[str, Any]:
    window = {"maxBatchSize": 4, "maxWaitMilliseconds": 100}
    return {"name": name, "model": model, "window": window, "target": {"warmPool": pool}}


ROUTES = [route("chat", "small", idleSeconds=3600), route("brief", "small", idleSeconds=0), route("risky", "deadly")]


@pytest.fixture
def doors(rig: Rig, tmp_path: Path) -> Iterator[GatewayRig]:
    made = GatewayRig(rig, tmp_path, MODELS, ROUTES)
    yield made
    made.close()


def asking(name: str) -> dict[str, Any]:
    model = next(one["model"] for one in ROUTES if one["name"] == name)
    return {"model": model, "messages": [{"role": "user", "content": "hello"}]}


def ask(gateway: Gateway, name: str, count: int = 1) -> list[str]:
    found = [gateway.post(f"/v1/requests?route={name}", asking(name)) for _ in range(count)]
    assert {one.status for one in found} == {202}
    return [one.json["id"] for one in found]


def workers(rig: Rig, name: str) -> list[str]:
    """The Jobs of a pool."""
    return sorted(job["metadata"]["name"] for job in rig.all(JOBS) if job["metadata"]["labels"][labels.POOL] == name)


def completed(gateway: Gateway, asked: list[str]) -> None:
    assert {gateway.answered(one)["status"] for one in asked} == {"completed"}


def test_pool_of_pods_is_there_while_there_is_work_and_a_killed_pod_loses_no_request(
    rig: Rig, doors: GatewayRig
) -> None:
    gateway, _ = doors.start()
    completed(gateway, ask(gateway, "chat"))
    (job,) = rig.all(JOBS)
    owner = rig.kubectl.get("configmap", POOL_OWNER, "--namespace", rig.namespace)["metadata"]["uid"]
    assert [one["uid"] for one in job["metadata"]["ownerReferences"]] == [owner]
    (pod,) = rig.all(PODS)
    assert pod["spec"]["automountServiceAccountToken"] is False
    completed(gateway, ask(gateway, "chat", 3))
    assert workers(rig, "chat") == [job["metadata"]["name"]], "the model stays loaded"

    asked = ask(gateway, "risky", 3)  # each kills the worker that is told of it the first time
    completed(gateway, asked)
    assert len(rig.script.of_role(Role.SERVE)) >= 3, "they were told to others"

    completed(gateway, ask(gateway, "brief"))
    rig.eventually(lambda: workers(rig, "brief") == [], "it has nothing to do, and is no more")

    os.kill(_process(rig, "chat"), signal.SIGKILL)
    completed(gateway, ask(gateway, "chat"))


def test_pod_outlives_the_gateway_that_has_started_it_and_the_next_leader_goes_on_with_it(
    rig: Rig, doors: GatewayRig
) -> None:
    first, _ = doors.start("first")
    doors.until_leading("first")
    second, _ = doors.start("second")
    completed(first, ask(first, "chat"))
    for gateway in (first, second):  # also the one that does not lead
        shown = next(one for one in gateway.ask("GET", "/v1/routes").json["data"] if one["name"] == "chat")
        assert sum(shown["pool"]["workers"].values()) == 1
    before = workers(rig, "chat")
    doors.kill_queue()
    asked = [request for gateway in (first, second) for request in patiently(rig, gateway)]
    first.process.kill()
    doors.until_leading("second")
    completed(second, [*asked, *ask(second, "chat")])
    assert workers(rig, "chat") == before
    rig.kubectl("delete", "configmap", POOL_OWNER, "--namespace", rig.namespace)
    rig.eventually(lambda: workers(rig, "chat") == [], "nothing is left of a gateway that was taken away")


def patiently(rig: Rig, gateway: Gateway) -> list[str]:
    """Ask again until the queue is back."""

    def accepted() -> str | None:
        said = gateway.post("/v1/requests?route=chat", asking("chat"))
        return said.json["id"] if said.status == 202 else None

    found = rig.eventually(accepted, "the queue is back")
    assert found is not None
    return [found]


def _process(rig: Rig, name: str) -> int:
    """The worker of the one pod of a pool."""
    (job,) = workers(rig, name)
    found = next(pod for pod in rig.script.of_role(Role.SERVE) if pod.name.startswith(job))
    assert found.process is not None
    return found.process
