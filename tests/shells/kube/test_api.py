"""The client against a server that answers as it is told: what each answer means, and what is sent."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiohttp import web
from kubernetes.aio import client

from headrace.shells.kube.api import Api
from headrace.shells.kube.errors import ApiError, Conflict, Gone, LeaseLost, NotFound, TransientFailure
from headrace.shells.kube.resources import BATCHES, JOBS

Answer = Callable[[web.Request], Awaitable[web.StreamResponse]]
METADATA = {"namespace": "default", "name": "reviews", "uid": "u1"}


@asynccontextmanager
async def an_api(answer: Answer, **options: Any) -> AsyncIterator[Api]:
    """The client, and a server that gives that answer to everything."""
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", answer)
    runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    configuration = client.Configuration(host=f"http://127.0.0.1:{runner.addresses[0][1]}")
    configuration.api_key = {"BearerToken": "Bearer secret"}
    try:
        async with client.ApiClient(configuration) as api_client:
            yield Api(api_client, **options)
    finally:
        await runner.cleanup()


def refusing(status: int, reason: str, headers: Mapping[str, str] | None = None) -> Answer:
    async def answer(_: web.Request) -> web.Response:
        return web.json_response({"reason": reason, "message": "no"}, status=status, headers=headers)

    return answer


def error_of(answer: Answer, **options: Any) -> Exception:
    """What creating a Job raises."""

    async def story() -> Exception:
        async with an_api(answer, **options) as api:
            with pytest.raises(Exception) as caught:  # noqa: PT011 - which one is the question
                await api.create(JOBS, "default", {"metadata": {"name": "x"}})
            return caught.value

    return asyncio.run(story())


@pytest.mark.parametrize(
    ("status", "reason", "error"),
    [
        (400, "BadRequest", ApiError),
        (403, "Forbidden", ApiError),
        (404, "NotFound", NotFound),
        (408, "Timeout", TransientFailure),
        (409, "AlreadyExists", Conflict),
        (409, "Conflict", Conflict),
        (409, "StorageError", TransientFailure),
        (410, "Expired", Gone),
        (422, "Invalid", ApiError),
        (429, "TooManyRequests", TransientFailure),
        (500, "InternalError", TransientFailure),
        (503, "ServiceUnavailable", TransientFailure),
    ],
)
def test_an_answer_is_sorted_by_what_is_to_be_done_about_it(status: int, reason: str, error: type[Exception]) -> None:
    caught = error_of(refusing(status, reason))
    assert type(caught) is error
    assert "POST /apis/batch/v1/namespaces/default/jobs: no" in str(caught)


@pytest.mark.parametrize(("header", "seconds"), [("7", 7.0), ("soon", None), (None, None)])
def test_retry_after_is_told(header: str | None, seconds: float | None) -> None:
    caught = error_of(refusing(429, "TooManyRequests", {"Retry-After": header} if header else None))
    assert isinstance(caught, TransientFailure)
    assert caught.retry_after == seconds


def test_an_answer_that_is_no_json_is_shown() -> None:
    async def answer(_: web.Request) -> web.Response:
        return web.Response(text="<h1>Bad Gateway</h1>", status=502)

    assert "<h1>Bad Gateway</h1>" in str(error_of(answer))


def test_a_connection_that_breaks_is_transient() -> None:
    async def answer(request: web.Request) -> web.Response:
        assert request.transport is not None
        request.transport.abort()
        return web.Response()

    assert type(error_of(answer)) is TransientFailure


def test_no_answer_in_time_is_transient() -> None:
    async def answer(_: web.Request) -> web.Response:
        await asyncio.Event().wait()
        return web.Response()

    assert type(error_of(answer, timeout_seconds=0.1)) is TransientFailure


def test_stream_that_is_not_opened_in_time_is_transient() -> None:
    async def answer(_: web.Request) -> web.Response:
        await asyncio.Event().wait()
        return web.Response()

    async def story() -> None:
        async with an_api(answer, timeout_seconds=0.1) as api:
            with pytest.raises(TransientFailure, match="WATCH"):
                async for _ in api.watch(BATCHES, None, "", "7", 86_400):
                    pass

    asyncio.run(story())


def test_nothing_is_written_by_one_who_may_not() -> None:
    async def story() -> list[str]:
        asked = []

        async def answer(request: web.Request) -> web.Response:
            asked.append(request.method)
            return web.json_response({})

        async with an_api(answer, may_write=lambda: False) as api:
            await api.get(JOBS, "default", "x")
            with pytest.raises(LeaseLost):
                await api.create(JOBS, "default", {})
            assert api.writes == 0
        return asked

    assert asyncio.run(story()) == ["GET"]


def test_pages_are_followed_to_the_last() -> None:
    async def story() -> list[Any]:
        async def answer(request: web.Request) -> web.Response:
            page = int(request.query.get("continue", "0"))
            assert (request.query["limit"], request.query["labelSelector"]) == ("500", "mine")
            metadata = {"resourceVersion": "9", **({"continue": str(page + 1)} if page < 2 else {})}
            return web.json_response({"metadata": metadata, "items": [page]})

        async with an_api(answer) as api:
            return [item async for page in api.pages(JOBS, "default", "mine") for item in page["items"]]

    assert asyncio.run(story()) == [0, 1, 2]


def test_watch_gives_events_until_the_stream_ends() -> None:
    async def story() -> list[Any]:
        async def answer(request: web.Request) -> web.StreamResponse:
            assert dict(request.query) == {
                "watch": "true", "allowWatchBookmarks": "true", "resourceVersion": "7", "timeoutSeconds": "300"
            }  # fmt: skip
            response = web.StreamResponse()
            await response.prepare(request)
            large = "x" * 1_500_000  # as large as an object can be
            for event in ({"type": "ADDED", "object": {"large": large}}, {"type": "BOOKMARK", "object": {}}):
                await response.write(json.dumps(event).encode() + b"\n")
            return response

        async with an_api(answer) as api:
            return [event["type"] async for event in api.watch(BATCHES, None, "", "7", 300)]

    assert asyncio.run(story()) == ["ADDED", "BOOKMARK"]


@pytest.mark.parametrize(("code", "error"), [(410, Gone), (500, TransientFailure)])
def test_watch_raises_what_the_stream_says_is_wrong(code: int, error: type[Exception]) -> None:
    async def story() -> None:
        async def answer(_: web.Request) -> web.Response:
            return web.json_response({"type": "ERROR", "object": {"code": code, "message": "too old"}})

        async with an_api(answer) as api:
            with pytest.raises(error, match="too old"):
                async for _ in api.watch(BATCHES, None, "", "7", 300):
                    pass

    asyncio.run(story())


def test_replace_status_sends_the_whole_status_for_that_very_object() -> None:
    async def story() -> Any:
        async def answer(request: web.Request) -> web.Response:
            said = {"method": request.method, "path": request.path, "type": request.content_type}
            token = request.headers["Authorization"]
            return web.json_response(said | {"token": token, "body": await request.json()})

        async with an_api(answer) as api:
            return await api.replace_status(BATCHES, METADATA, {"retries": 1})

    assert asyncio.run(story()) == {
        "method": "PATCH",
        "path": "/apis/headrace.dev/v1alpha1/namespaces/default/inferencebatches/reviews/status",
        "type": "application/json-patch+json",
        "token": "Bearer secret",
        "body": [
            {"op": "add", "path": "/metadata/uid", "value": "u1"},
            {"op": "add", "path": "/status", "value": {"retries": 1}},
        ],
    }


@pytest.mark.parametrize(("status", "reason"), [(404, "NotFound"), (409, "Conflict")])
def test_delete_of_what_is_gone_or_another_is_done(status: int, reason: str) -> None:
    async def story() -> None:
        async with an_api(refusing(status, reason)) as api:
            await api.delete(JOBS, "default", "x", "u1")

    asyncio.run(story())
