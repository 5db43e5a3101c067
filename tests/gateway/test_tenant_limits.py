"""How much a tenant may have, and that what one has too much of is nobody else's trouble."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx2
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from openai import OpenAI, RateLimitError
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from gateway_rig import request
from headrace.api.asking import RequestRoute
from headrace.api.tenancy import TenantLimits
from headrace.core.openai.errors import ApiError
from headrace.core.tenancy.bounds import bounded, check_stored
from headrace.core.tenancy.keys import key_hash, new_key
from headrace.core.tenancy.rates import Bucket, after_request, rate_headers, too_fast
from headrace.gateway.tenants.keyfile import KeyFile
from open_house import House, open_house

SMALL, FEW, HASTY, FREE = (new_key(bytes([number]) * 32) for number in range(4))
BODY = {"model": "quick", "messages": [{"role": "user", "content": "hello"}]}
LINE = request("a")
SLOW = TenantLimits(requests_per_minute=60, burst=2)


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    """A gateway with a tenant who may have little of each, one who may not ask often, and one who may."""
    folder = tmp_path_factory.mktemp("limits")
    little = {"maxFileBytes": 2 * len(LINE), "maxFiles": 2, "maxStoredBytes": 3 * len(LINE)}
    few = {"maxOpenBatches": 1, "maxQueued": 2, "maxStreams": 1}
    hasty = {"requestsPerMinute": 1, "burst": 3}
    tenants = [
        {"name": name, "keys": [key_hash(key)], "limits": limits}
        for name, key, limits in (
            ("small", SMALL, little),
            ("few", FEW, few),
            ("hasty", HASTY, hasty),
            ("free", FREE, {}),
        )
    ]
    (folder / "tenants.yaml").write_text(yaml.safe_dump({"tenants": tenants}))
    with open_house(folder / "state", identities=KeyFile(folder / "tenants.yaml")) as found:
        yield found


def ask(house: House, method: str, path: str, key: str, **more: Any) -> httpx2.Response:
    headers = {"Authorization": f"Bearer {key}", **more.pop("headers", {})}
    return httpx2.request(method, f"{house.url}{path}", headers=headers, **more)


def upload(house: House, key: str, lines: bytes) -> httpx2.Response:
    form = {"file": ("in.jsonl", lines)}
    return ask(house, "POST", "/v1/files", key, data={"purpose": "batch"}, files=form)


def refusal(answer: httpx2.Response) -> tuple[int, str]:
    """Status and code; one that is a matter of number says when to come again."""
    if answer.status_code == 429:
        assert int(answer.headers["retry-after"]) > 0
    return answer.status_code, answer.json()["error"]["code"]


def test_sizes_and_numbers_of_files_are_bounded(house: House) -> None:
    assert refusal(upload(house, SMALL, LINE * 3)) == (413, "too_large")
    first = upload(house, SMALL, LINE * 2)
    assert first.status_code == 200
    assert refusal(upload(house, SMALL, LINE * 2)) == (413, "too_much_stored")
    second = upload(house, SMALL, LINE)
    assert second.status_code == 200
    assert refusal(upload(house, SMALL, b"\n")) == (429, "too_many_files")
    assert ask(house, "DELETE", f"/v1/files/{first.json()['id']}", SMALL).status_code == 200
    assert upload(house, SMALL, LINE).status_code == 200
    assert upload(house, FREE, LINE * 5).status_code == 200, "what one tenant may have is nothing to another"


def test_batches_that_are_not_over_are_bounded(house: House) -> None:
    client = OpenAI(base_url=f"{house.url}/v1", api_key=FEW, max_retries=0)
    file = upload(house, FEW, LINE).json()["id"]
    asked = {"input_file_id": file, "endpoint": "/v1/chat/completions", "completion_window": "24h"}
    headers = {"Idempotency-Key": "b1"}
    first = ask(house, "POST", "/v1/batches", FEW, json=asked, headers=headers)
    again = ask(house, "POST", "/v1/batches", FEW, json=asked, headers=headers)
    assert (first.status_code, again.status_code, again.json()["id"]) == (200, 200, first.json()["id"])
    assert refusal(ask(house, "POST", "/v1/batches", FEW, json=asked)) == (429, "too_many_batches")
    with pytest.raises(RateLimitError, match="may have 1 batches"):
        client.batches.create(input_file_id=file, endpoint="/v1/chat/completions", completion_window="24h")


def test_queue_of_a_route_is_bounded_for_each_tenant(house: House) -> None:
    answers = [ask(house, "POST", "/v1/requests", FEW, json=BODY) for _ in range(3)]
    assert [answer.status_code for answer in answers] == [202, 202, 429]
    assert refusal(answers[2]) == (429, "queue_full")
    assert ask(house, "POST", "/v1/requests", FREE, json=BODY).status_code == 202


def test_streams_are_bounded(house: House) -> None:
    url, headers = f"ws{house.url.removeprefix('http')}/v1/stream", {"Authorization": f"Bearer {FEW}"}
    with connect(url, additional_headers=headers):
        with pytest.raises(InvalidStatus) as caught:
            connect(url, additional_headers=headers)
        assert caught.value.response.status_code == 429
        waits = ask(house, "POST", "/v1/requests", FREE, json=BODY).json()["id"]
        with connect(f"{url}?id={waits}", additional_headers={"Authorization": f"Bearer {FREE}"}) as socket:
            assert '"queued"' in socket.recv()


def test_requests_are_bounded_over_time_and_each_answer_says_what_is_left(house: House) -> None:
    answers = [ask(house, "GET", "/v1/models", HASTY) for _ in range(4)]
    assert [answer.status_code for answer in answers] == [200, 200, 200, 429]
    assert [answer.headers["x-ratelimit-remaining-requests"] for answer in answers[:3]] == ["2", "1", "0"]
    assert answers[0].headers["x-ratelimit-limit-requests"] == "3"
    assert refusal(answers[3]) == (429, "rate_limit_exceeded")
    assert answers[3].headers["x-should-retry"] == "true"
    assert ask(house, "GET", "/v1/models", FREE).status_code == 200
    assert ask(house, "GET", "/healthz", HASTY).status_code == 200


def test_bucket_fills_by_itself_and_no_further_than_its_brim() -> None:
    bucket, first = after_request(None, SLOW, 0)
    bucket, second = after_request(bucket, SLOW, 0)
    bucket, third = after_request(bucket, SLOW, 500)
    assert (first, second, third) == (True, True, False)
    assert too_fast(bucket, SLOW).retry_after_seconds == 1
    bucket, later = after_request(bucket, SLOW, 1000)
    assert (later, bucket.tokens) == (True, 0)
    bucket, _ = after_request(bucket, SLOW, 10**9)
    assert bucket.tokens == 1
    assert rate_headers(bucket, SLOW)["x-ratelimit-reset-requests"] == "1000ms"
    assert after_request(Bucket(0.5, 10**9), SLOW, 0) == (Bucket(0.5, 0), False), (
        "a clock that was set back gives nothing"
    )


@given(st.lists(st.integers(0, 5000), max_size=60))
def test_bucket_lets_no_more_through_than_it_is_to(pauses: list[int]) -> None:
    bucket, now, answered = None, 0, 0
    for pause in pauses:
        now += pause
        bucket, may = after_request(bucket, SLOW, now)
        answered += may
    assert answered <= SLOW.burst + now * SLOW.requests_per_minute / 60_000


def test_bounds_of_a_tenant_do_not_widen_those_of_a_route() -> None:
    route = RequestRoute(name="chat", model="small", max_queued=10)
    assert bounded(route, TenantLimits(max_queued=3)).max_queued == 3
    assert bounded(route, TenantLimits(max_queued=30)) is route
    assert bounded(route, None) is route
    check_stored(10, TenantLimits(max_stored_bytes=10))
    with pytest.raises(ApiError):
        check_stored(11, TenantLimits(max_stored_bytes=10))
