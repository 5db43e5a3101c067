"""What callers of `/v1/requests` are told, by the app itself over a store in memory."""

from __future__ import annotations

import json
import uuid

import pytest

from asking_desk import Desk, at_desk, body
from headrace.api.asking import RequestRecord
from headrace.core.openai.ids import Part
from headrace.gateway.queues.store import Kept, StoreAway

NOBODY = f"req_chat_{'0' * 24}"
KEY = "Idempotency-Key"


def test_request_is_accepted_at_once_and_answered_later() -> None:
    async def story(desk: Desk) -> None:
        answer = await desk.client.post("/v1/requests", json=body())
        name = answer.json()["id"]
        assert (answer.status_code, answer.headers["location"]) == (202, f"/v1/requests/{name}")
        assert (answer.json()["status"], answer.json()["route"]) == ("queued", "chat")
        assert (await desk.show(name))["position"] == 1
        await desk.batch()
        working = await desk.show(name)
        assert (working["status"], working["response"]) == ("in_progress", None)
        await desk.finish()
        done = await desk.show(name)
        assert (done["status"], done["response"]["body"]) == ("completed", {"n": name})
        assert done["batch_id"] == working["batch_id"] == f"batch_{next(iter(desk.place.objects))}"

    at_desk(story)


def test_request_under_a_key_is_made_once() -> None:
    async def story(desk: Desk) -> None:
        key = {KEY: uuid.uuid4().hex}
        first = await desk.accept(**key)
        again = await desk.client.post("/v1/requests", json=body(), headers=key)
        assert (again.status_code, again.json()["id"], again.json()["position"]) == (200, first["id"], 1)
        await desk.finish()
        later = await desk.client.post("/v1/requests", json=body(), headers=key)
        assert (later.status_code, later.json()["id"], later.json()["status"]) == (200, first["id"], "completed")
        other = await desk.client.post("/v1/requests", json=body("other"), headers=key)
        assert (other.status_code, other.json()["error"]["code"]) == (409, "idempotency_key_reused")
        assert len(desk.place.objects) == 1

    at_desk(story)


def test_request_whose_key_was_remembered_by_a_gateway_that_died_is_accepted_under_the_same_id() -> None:
    async def story(desk: Desk) -> None:
        first = await desk.accept(**{KEY: "k"})
        desk.store.queues["chat"].clear()  # it died between the key and the queue
        desk.store.seen.clear()
        assert (await desk.accept(**{KEY: "k"}))["id"] == first["id"]

    at_desk(story)


def test_queue_that_is_full_refuses_and_says_when_to_come_again() -> None:
    async def story(desk: Desk) -> None:
        for number in range(5):
            await desk.accept(str(number))
        refused = await desk.client.post("/v1/requests", json=body())
        assert (refused.status_code, refused.headers["retry-after"]) == (429, "10")
        assert refused.json()["error"]["type"] == "rate_limit_error"
        assert refused.headers["x-should-retry"] == "true"
        await desk.finish()
        await desk.accept()

    at_desk(story)


def test_request_is_cancelled_in_the_queue() -> None:
    async def story(desk: Desk) -> None:
        name = (await desk.accept())["id"]
        first = await desk.client.delete(f"/v1/requests/{name}")
        assert (first.status_code, first.json()["status"]) == (200, "cancelled")
        assert (await desk.client.delete(f"/v1/requests/{name}")).status_code == 200
        await desk.finish()
        assert (await desk.show(name))["status"] == "cancelled"
        assert desk.place.objects == {}

    at_desk(story)


def test_batch_is_cancelled_when_nobody_waits_for_it_any_more() -> None:
    async def story(desk: Desk) -> None:
        names = [(await desk.accept(str(number)))["id"] for number in range(2)]
        await desk.batch()
        (batch,) = desk.place.objects
        await desk.client.delete(f"/v1/requests/{names[0]}")
        assert not desk.place.objects[batch].spec.cancel
        await desk.client.delete(f"/v1/requests/{names[1]}")
        assert desk.place.objects[batch].spec.cancel
        await desk.finish()
        assert [(await desk.show(name))["status"] for name in names] == ["cancelled"] * 2

    at_desk(story)


def test_request_that_has_ended_is_not_cancelled() -> None:
    async def story(desk: Desk) -> None:
        name = (await desk.accept())["id"]
        await desk.finish()
        late = await desk.client.delete(f"/v1/requests/{name}")
        assert (late.status_code, late.json()["error"]["code"]) == (409, "already_finished")
        assert (await desk.show(name))["status"] == "completed"

    at_desk(story)


def test_response_that_was_too_large_is_read_where_its_batch_has_left_it() -> None:
    async def story(desk: Desk) -> None:
        name = (await desk.accept())["id"]
        await desk.finish()
        kept = desk.store.records[name]
        record: RequestRecord = kept.record.model_copy(update={"response": None, "in_batch": True})
        desk.store.records[name] = Kept(record, kept.revision)
        assert (await desk.show(name))["response"]["body"] == {"n": name}
        (batch,) = desk.place.objects
        desk.place.lines[batch, Part.OUTPUT] = b""
        gone = await desk.client.get(f"/v1/requests/{name}")
        assert (gone.status_code, gone.json()["error"]["code"]) == (410, "response_gone")

    at_desk(story)


def test_store_that_is_away_is_told_from_a_fault_of_the_caller(monkeypatch: pytest.MonkeyPatch) -> None:
    async def away(*_: object) -> None:
        raise StoreAway("no answer")

    async def story(desk: Desk) -> None:
        monkeypatch.setattr(desk.store, "add", away)
        answer = await desk.client.post("/v1/requests", json=body())
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "2")
        assert "Idempotency-Key" in answer.json()["error"]["message"]

    at_desk(story)


@pytest.mark.parametrize(
    ("method", "path", "sent", "status", "says"),
    [
        pytest.param("POST", "", b"", 400, "not JSON", id="an empty body"),
        pytest.param("POST", "", b"[]", 400, "must be a JSON object", id="no object"),
        pytest.param("POST", "", b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}", 400, "not JSON", id="too deep"),
        pytest.param("POST", "", b'{"a":' + b"[" * 300 + b"]" * 300 + b"}", 400, "more than 100 levels", id="deep"),
        pytest.param("POST", "", b" " * 300_000, 413, "too large", id="a huge body"),
        pytest.param("POST", "", b"{}", 400, "model must name", id="no model"),
        pytest.param("POST", "", b'{"model": "large"}', 404, "routes to small", id="unknown model"),
        pytest.param("POST", "?route=nowhere", b"{}", 404, "there is no route nowhere", id="unknown route"),
        pytest.param("POST", "?route=chat", b"{}", 400, "messages must be a list", id="nothing asked"),
        pytest.param(
            "POST",
            "?route=chat",
            b'{"messages": [{"role": "user", "content": 5}]}',
            400,
            "content must be",
            id="a number",
        ),
        pytest.param("GET", f"/{NOBODY}", None, 404, "No such Request", id="unknown id"),
        pytest.param(
            "GET", f"/req_gone_{'0' * 24}", None, 404, "No such Request", id="id of a route that is not there"
        ),
        pytest.param("GET", "/..%2f..%2fetc", None, 404, "", id="a path"),
        pytest.param("DELETE", f"/{NOBODY}", None, 404, "No such Request", id="cancelling an unknown id"),
        pytest.param("PUT", "", b"{}", 405, "/v1/requests answers POST, not PUT", id="another method"),
    ],
)
def test_request_that_is_refused_leaves_nothing(
    method: str, path: str, sent: bytes | None, status: int, says: str
) -> None:
    async def story(desk: Desk) -> None:
        headers = {"Content-Type": "application/json"}
        answer = await desk.client.request(method, f"/v1/requests{path}", content=sent, headers=headers)
        assert answer.status_code == status, answer.text
        assert says in answer.json()["error"]["message"]
        assert (desk.store.seen, desk.store.records) == (set(), {})

    at_desk(story)


def test_request_as_deep_as_is_taken_is_answered() -> None:
    async def story(desk: Desk) -> None:
        sent = {**body(), "extra": json.loads("[" * 98 + "1" + "]" * 98)}
        answer = await desk.client.post("/v1/requests", json=sent, headers={KEY: "deep"})
        assert answer.status_code == 202, answer.text
        await desk.finish()
        assert (await desk.show(answer.json()["id"]))["status"] == "completed"

    at_desk(story)


@pytest.mark.parametrize("key", ["", "x" * 256], ids=["empty", "too long"])
def test_request_under_a_key_that_is_none(key: str) -> None:
    async def story(desk: Desk) -> None:
        answer = await desk.client.post("/v1/requests", json=body(), headers={KEY: key})
        assert (answer.status_code, answer.json()["error"]["param"]) == (400, KEY)

    at_desk(story)
