"""What the gateway counts, and that it counts no more series than there are routes and words."""

from __future__ import annotations

from pathlib import Path

import httpx2
import pytest

from asking_desk import Desk, at_desk, body
from asking_rig import EVERYBODY
from gateway_rig import CHAT
from headrace.api.asking import RequestRecord, RequestState
from headrace.gateway.metrics import Metrics
from headrace.gateway.queues.store import Lane, StoreAway, Waiting
from headrace_worker.metrics import _FILL_BUCKETS
from open_house import SERVED, open_house


def value(metrics: Metrics, name: str, **labels: str) -> float | None:
    return metrics.registry.get_sample_value(f"headrace_gateway_{name}", labels)


def test_requests_are_counted_from_their_202_to_their_end() -> None:
    async def story(desk: Desk) -> None:
        names = [(await desk.accept(str(number)))["id"] for number in range(5)]
        assert value(desk.metrics, "accepted_total", route="chat") == 5
        assert value(desk.metrics, "accept_seconds_count", route="chat") == 5
        refused = [
            await desk.client.post("/v1/requests", json=body()),
            await desk.client.post("/v1/requests", json={"model": "large"}),
            await desk.client.post("/v1/requests?route=chat", json={}),
        ]
        assert [answer.status_code for answer in refused] == [429, 404, 400]
        for route, reason in (("chat", "queue_full"), ("", "no_route"), ("chat", "invalid")):
            assert value(desk.metrics, "refused_total", route=route, reason=reason) == 1
        for _ in range(3):
            await desk.batch()
        assert value(desk.metrics, "open_batches", route="chat") == 2, "three and two, of three at most"
        assert value(desk.metrics, "window_fill_ratio_bucket", route="chat", le="0.7") == 1
        assert value(desk.metrics, "window_fill_ratio_bucket", route="chat", le="1.0") == 2
        await desk.finish(names[0])
        await desk.windows.step()
        assert value(desk.metrics, "open_batches", route="chat") == 0
        assert value(desk.metrics, "request_seconds_count", route="chat", state="completed") == 4
        assert value(desk.metrics, "dead_letters_total", route="chat", state="failed") == 1

    at_desk(story)


def test_request_that_is_sent_again_under_its_key_is_not_counted_again() -> None:
    async def story(desk: Desk) -> None:
        for _ in range(2):
            await desk.client.post("/v1/requests", json=body(), headers={"Idempotency-Key": "k"})
        assert value(desk.metrics, "accepted_total", route="chat") == 1

    at_desk(story)


def test_queues_of_all_tenants_are_one_number_for_each_route() -> None:
    metrics = Metrics(["chat", "idle"])
    waiting = {
        Lane("blue", "chat"): Waiting(3, 7000),
        Lane("green", "chat"): Waiting(2, 4000),
        Lane("x", "gone"): Waiting(1, 1),
    }
    text = metrics.text(waiting, 10_000).decode()
    assert 'headrace_gateway_queue_requests{route="chat"} 5.0' in text
    assert 'headrace_gateway_queue_oldest_seconds{route="chat"} 6.0' in text
    assert 'headrace_gateway_queue_oldest_seconds{route="idle"} 0.0' in text
    assert "blue" not in text
    assert "gone" not in text
    away = metrics.text(None, 10_000).decode()
    assert "headrace_gateway_store_up 0.0" in away
    assert "queue_requests{" not in away, "nobody knows"


def test_a_thousand_requests_more_are_no_series_more() -> None:
    metrics = Metrics(["chat"])

    def live(number: int) -> int:
        record = RequestRecord(
            id=f"req_chat_{number:024x}",
            accepted=number,
            state=RequestState.COMPLETED,
            ended=number + 5,
            batch=f"b{number}",
        )
        metrics.accepted("chat", 0.01)
        metrics.ended(record)
        return len(metrics.text({}, 0).splitlines())

    assert live(0) == max(map(live, range(1, 1000)))


def test_fill_of_windows_has_the_buckets_of_the_fill_of_batches() -> None:
    metrics = Metrics()
    closed = SERVED.routes[0]
    metrics._fill.labels(closed.name).observe(1)
    there = {
        sample.labels["le"]
        for one in metrics.registry.collect()
        for sample in one.samples
        if "fill_ratio_bucket" in sample.name
    }
    assert there == {*map(str, _FILL_BUCKETS), "+Inf"}


def test_gateway_shows_its_metrics_and_says_when_its_store_is_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def away() -> None:
        raise StoreAway("no answer")

    with open_house(tmp_path) as house:
        message = {"model": "quick", "messages": [{"role": "user", "content": "hello"}]}
        assert httpx2.post(f"{house.url}/v1/requests", json=message).status_code == 202
        shown = httpx2.get(f"{house.url}/metrics")
        assert shown.headers["content-type"].startswith("text/plain")
        assert 'headrace_gateway_queue_requests{route="quick"} 1.0' in shown.text
        assert EVERYBODY.namespace not in shown.text
        assert CHAT not in shown.text
        monkeypatch.setattr(house.stores, "waiting", away)
        assert "headrace_gateway_store_up 0.0" in httpx2.get(f"{house.url}/metrics").text
