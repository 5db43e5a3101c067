"""The pods of a warm pool: what a worker is told, and what is seen of it."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import pytest

from headrace.api import labels
from headrace.api.base import JsonObject
from headrace.api.gateway import ServedModel
from headrace.api.worker import Env, ExitCode, Failure, Listening, Role, ServeReport, termination_message
from headrace.core.asking.pool import pool_batch
from headrace.core.asking.poolpods import (
    PoolPod,
    can_serve,
    end_of,
    is_outdated,
    key_of,
    named,
    pool_job,
    selector,
    version_of,
)
from headrace.core.observed import Installation
from pool_rig import route

OWNER = {"apiVersion": "v1", "kind": "ConfigMap", "name": "pools", "uid": "u"}


def job_of(owner: JsonObject | None = None, **served: Any) -> JsonObject:
    model = ServedModel.parse({"model": {"name": "small"}, "engine": {"name": "mock"}, **served})
    return pool_job(pool_batch(route(), model, "default"), Installation(), route(), "gateways", owner)


def test_job_of_a_worker_is_as_those_of_batches_but_for_whose_it_is() -> None:
    job = named(job_of(OWNER, resources={"gpus": 1}), "pool-chat-1", "secret")
    pod = job["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert container["args"] == ["serve"]
    assert container["resources"]["limits"]["nvidia.com/gpu"] == "1"
    assert container["securityContext"]["readOnlyRootFilesystem"]
    assert not pod["automountServiceAccountToken"]
    assert job["metadata"]["ownerReferences"] == [OWNER]
    assert (
        job["metadata"]["labels"].items()
        >= dict(pair.split("=") for pair in selector(route(), "gateways").split(",")).items()
    )
    assert job["metadata"]["labels"][labels.MANAGED_BY] != labels.MANAGER, "the operator leaves it alone"
    assert labels.INFERENCE_BATCH not in job["spec"]["template"]["metadata"]["labels"]


def test_worker_that_has_ended_is_not_started_again_by_anybody_else() -> None:
    spec = named(job_of(), "pool-chat-1", "secret")["spec"]
    assert spec["backoffLimit"] == 0
    assert "podFailurePolicy" not in spec
    assert spec["ttlSecondsAfterFinished"] > 0


def test_pod_has_the_hash_of_its_key_and_nothing_that_opens_another() -> None:
    job = named(job_of(), "pool-chat-1", "secret")
    told = {one["name"]: one.get("value", "") for one in job["spec"]["template"]["spec"]["containers"][0]["env"]}
    key = key_of("secret", "pool-chat-1")
    assert Listening.parse(json.loads(told[Env.LISTEN])).key_sha256 == hashlib.sha256(key.encode()).hexdigest()
    assert key not in json.dumps(job)
    assert key != key_of("secret", "pool-chat-2")


def test_queued_worker_waits_for_kueue() -> None:
    job = job_of(queueName="team")
    assert (job["spec"]["suspend"], job["metadata"]["labels"][labels.QUEUE_NAME]) == (True, "team")
    assert labels.QUEUE_NAME not in job["spec"]["template"]["metadata"]["labels"]


def test_worker_that_was_told_something_else_is_outdated() -> None:
    version = version_of(job_of(), "secret")
    assert not is_outdated(named(job_of(OWNER), "a", "secret"), version), "whose it is does not matter"
    assert is_outdated(named(job_of(parameters={"max_tokens": 5}), "a", "secret"), version)
    assert is_outdated(named(job_of(), "a", "another"), version), "nobody could open it"


def pod(phase: str, *conditions: str, deleted: bool = False, **terminated: Any) -> PoolPod:
    state = {"state": {"terminated": terminated}} if terminated else {"state": {}}
    return PoolPod.from_object(
        {
            "metadata": {
                "uid": "u",
                "labels": {labels.ROLE: str(Role.SERVE)},
                **({"deletionTimestamp": "2026-01-01T00:00:00Z"} if deleted else {}),
            },
            "status": {
                "phase": phase,
                "podIP": "10.0.0.1",
                "conditions": [{"type": one, "status": "True"} for one in conditions],
                "containerStatuses": [state],
            },
        }
    )


NO_MODEL = Failure(reason="ModelNotFound", message="no")


@pytest.mark.parametrize(
    ("seen", "expected"),
    [
        pytest.param(pod("Failed", exitCode=1), (1, None), id="it crashed"),
        pytest.param(
            pod("Failed", exitCode=44, message=termination_message(ServeReport(failure=NO_MODEL)).decode()),
            (44, NO_MODEL),
            id="it said why",
        ),
        pytest.param(pod("Failed", exitCode=42), (42, None), id="it drained"),
        pytest.param(pod("Failed"), (137, None), id="nothing is known of its end"),
        pytest.param(
            pod("Failed", "DisruptionTarget", exitCode=137), (ExitCode.DRAINED, None), id="it was taken off its node"
        ),
        pytest.param(pod("Running", deleted=True), (ExitCode.DRAINED, None), id="somebody deletes it"),
        pytest.param(None, (ExitCode.DRAINED, None), id="it is gone without a word"),
    ],
)
def test_end_of(seen: PoolPod | None, expected: Any) -> None:
    assert seen is None or seen.over
    assert end_of(seen) == expected


def test_memory_that_was_too_little_is_named() -> None:
    assert pod("Failed", exitCode=137, reason="OOMKilled").failure is not None


def test_pod_has_an_address_while_it_runs() -> None:
    assert [pod(phase).address for phase in ("Pending", "Running", "Failed")] == [None, "10.0.0.1", None]


@pytest.mark.parametrize(
    ("suspended", "conditions", "pods", "expected"),
    [
        pytest.param(False, (), [], True, id="its pod is about to come"),
        pytest.param(False, (), [pod("Running")], True, id="it runs"),
        pytest.param(False, (), [pod("Failed", exitCode=1)], False, id="its pod is over, and it will be"),
        pytest.param(True, (), [pod("Failed", exitCode=42)], True, id="Kueue has put it back into its queue"),
        pytest.param(False, ("Failed",), [], False, id="it has failed"),
    ],
)
def test_can_serve(suspended: bool, conditions: tuple[str, ...], pods: list[PoolPod], expected: bool) -> None:
    job = job_of()
    job["spec"]["suspend"] = suspended
    job["status"] = {"conditions": [{"type": one, "status": "True"} for one in conditions]}
    assert can_serve(job, pods) is expected
