"""The gateway against a real control plane: its batches are InferenceBatches, and what it has accepted is answered whatever dies."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from builders import a_batch
from gateway_rig import Gateway, request
from headrace.api import labels
from headrace.api.inferencebatch import InferenceBatch
from headrace.api.worker import Role
from headrace.gateway.queues.leading import LEASE_NAME
from headrace.shells.kube.resources import BATCHES, LEASES

from .gateway_process import CLAIM, GatewayRig
from .operator_rig import RECORDS, Rig, plane, rig
from .operator_workers import Fate
from .proxy import answer, any_call, calls_to

__all__ = ["plane", "rig"]
pytestmark = [pytest.mark.cluster, pytest.mark.xdist_group("operator")]

ASKED = {"model": "small", "messages": [{"role": "user", "content": "hello"}]}


@pytest.fixture
def doors(rig: Rig, tmp_path: Path) -> Iterator[GatewayRig]:
    """An operator whose batches leave their output on a claim, one record in each batch, and workers that wait to be let go."""
    rig.script.records = 1
    rig.script.fate = lambda pod: Fate(waits=pod.role == Role.RUN)
    rig.operator(default_output=f"claim://{CLAIM}/out").start().wait_ready()
    made = GatewayRig(rig, tmp_path)
    yield made
    made.close()


def of_windows(rig: Rig) -> list[InferenceBatch]:
    """The batches that windows have become."""
    found = (InferenceBatch.parse(obj) for obj in rig.all(BATCHES))
    return [batch for batch in found if labels.REQUEST_ROUTE in batch.metadata.annotations]


def asked(rig: Rig) -> list[str]:
    """The requests in all of them."""
    return [record["custom_id"] for batch in of_windows(rig) for record in batch.spec.input.inline or ()]


def test_files_and_batches_of_openais_client_are_inference_batches_and_the_reverse(rig: Rig, doors: GatewayRig) -> None:
    gateway, proxy = doors.start()
    batch = gateway.batch(request("r0", "small"))
    name = batch.id.removeprefix("batch_")
    rig.until_at_work(1)
    assert (
        rig.batch(name).spec.input.uri == f"claim://{CLAIM}/uploads/{rig.namespace}/{batch.input_file_id}/content.jsonl"
    )
    refused = gateway.ask("DELETE", f"/v1/files/{batch.input_file_id}")
    assert (refused.status, refused.error["code"]) == (409, "file_in_use")
    doors.answer(rig.batch(name))
    rig.script.let_go()
    done = gateway.until(batch.id, "completed")
    assert done.output_file_id is not None
    assert gateway.ids(done.output_file_id) == ["r0"]
    assert gateway.client.files.retrieve(done.output_file_id).bytes == len(
        gateway.client.files.content(done.output_file_id).content
    )

    rig.submit(a_batch().inline(RECORDS[0]))
    assert gateway.until("batch_reviews", "completed").request_counts is not None
    listed = [one.id for one in gateway.client.batches.list()]
    assert listed == ["batch_reviews", batch.id]
    gone = gateway.ask("GET", "/v1/files/file-output-reviews/content")
    assert gone.status == 500
    assert "not that of this batch" in gone.error["message"], "nothing has been written there"
    assert gateway.ask("POST", "/v1/batches/batch_reviews/cancel").status == 409
    looks = proxy.made(calls_to("inferencebatches", "get"))
    assert len(looks) <= 4, "batches are heard of, and not asked for over and over"


def test_an_api_server_that_is_away_refuses_batches_and_loses_no_request(rig: Rig, doors: GatewayRig) -> None:
    gateway, proxy = doors.start()
    doors.until_leading("gateway")
    file_id = gateway.upload(request("r0", "small"))
    wanted = {"input_file_id": file_id, "endpoint": "/v1/chat/completions", "completion_window": "24h"}
    proxy.on(calls_to("inferencebatches"), answer(429, "TooManyRequests", **{"Retry-After": "7"}))
    busy = gateway.post("/v1/batches", wanted, **{"Idempotency-Key": "once"})
    assert (busy.status, busy.headers["retry-after"]) == (503, "7")
    proxy.rules.clear()
    proxy.on(any_call, answer(503, "ServiceUnavailable"))
    rig.run(proxy.drop_watches())
    away = gateway.post("/v1/batches", wanted, **{"Idempotency-Key": "once"})
    assert (away.status, away.headers["x-should-retry"]) == (503, "true")
    assert int(away.headers["retry-after"]) > 0
    rig.eventually(lambda: gateway.ask("GET", "/v1/batches").status == 503, "what is known may be old")
    single = gateway.post("/v1/requests", ASKED)
    assert single.status == 202
    rig.eventually(
        lambda: gateway.ask("GET", f"/v1/requests/{single.json['id']}").json["status"] == "in_progress",
        "a window has it",
    )
    assert of_windows(rig) == []
    proxy.rules.clear()
    assert gateway.post("/v1/batches", wanted, **{"Idempotency-Key": "once"}).status == 200
    assert gateway.post("/v1/batches", wanted, **{"Idempotency-Key": "once"}).status == 200
    rig.eventually(lambda: len(rig.all(BATCHES)) == 2, "a batch for each of the two")
    answered(rig, doors, gateway, single.json["id"])


def test_what_two_gateways_have_accepted_is_answered_once_though_one_is_killed(rig: Rig, doors: GatewayRig) -> None:
    first, _ = doors.start("first")
    doors.until_leading("first")
    second, _ = doors.start("second")
    by_follower = second.post("/v1/requests", ASKED).json["id"]
    rig.eventually(lambda: asked(rig) == [by_follower], "the leader takes what the other has accepted")
    assert " leads" not in doors.log("second").read_text()
    queued = [
        one.post("/v1/requests", ASKED).json["id"] for one in (first, second)
    ]  # the route has one batch at a time
    first.process.kill()
    doors.until_leading("second")
    for request_id in (by_follower, *queued):
        answered(rig, doors, second, request_id)
    assert sorted(asked(rig)) == sorted([by_follower, *queued]), "each was in one batch"
    assert second.stop(signal.SIGTERM) == 0
    assert rig.get(LEASES, LEASE_NAME)["spec"]["holderIdentity"] == "", "the next one need not wait"


def answered(rig: Rig, doors: GatewayRig, gateway: Gateway, request_id: str) -> None:
    """Let the workers do what there is to do, and see that the request has its answer."""
    rig.eventually(lambda: request_id in asked(rig), "its batch")
    for batch in of_windows(rig):
        doors.answer(batch)
    rig.script.let_go()
    shown: Any = gateway.answered(request_id)
    rig.plane.background.loop.call_soon_threadsafe(rig.script.go.clear)  # the next ones wait for their answers again
    assert (shown["status"], shown["response"]["body"]) == ("completed", {"asked": request_id})
