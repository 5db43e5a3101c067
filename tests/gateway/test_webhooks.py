"""Who is called when a request has ended, with what, how often, and where no call ever goes."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from aiohttp import web
from standardwebhooks import Webhook, WebhookVerificationError

from asking_desk import Desk, at_desk, body
from asking_rig import EVERYBODY, FakeClock
from headrace.api.asking import RequestRecord, RequestState, Webhooks
from headrace.core.asking.hooks import keys_in, pause_after, signed, target
from headrace.core.openai.errors import ApiError
from headrace.gateway.metrics import Metrics
from headrace.gateway.queues.jetstream import connected
from headrace.gateway.queues.natsserver import nats_server
from headrace.gateway.queues.store import Change, Kept
from headrace.gateway.telling.hookqueue import Due, JetStreamHooks
from headrace.gateway.telling.webhooks import Callers, Clients
from headrace.gateway.watch import UNWATCHED, Watch
from laptop import PATIENCE_SECONDS

OLD, NEW = (f"whsec_{base64.b64encode(bytes([number]) * 24).decode()}" for number in (1, 2))
NAME = f"req_chat_{'a' * 24}"
LOCAL = Webhooks(
    allowed_hosts=("localhost", "127.0.0.1"), allowed_networks=("127.0.0.0/8", "::1/128"), keys_file="keys"
)
PUBLIC = Webhooks(allowed_hosts=("example.org", "*.example.net", "localhost", "10.0.0.7"), keys_file="keys")


def ended(url: str | None, state: RequestState = RequestState.COMPLETED) -> RequestRecord:
    return RequestRecord(id=NAME, accepted=1, state=state, ended=2000, response={"status_code": 200}, webhook=url)


@dataclass
class MemoryHooks:
    """A `HookQueue` with one change in it, which comes again when it is told to."""

    record: RequestRecord
    pauses: list[int] = field(default_factory=list)
    is_done: bool = False

    async def take(self, *_: int) -> Sequence[Due]:
        return [] if self.is_done else [Due(Change("default", Kept(self.record, 1)), len(self.pauses) + 1, None)]

    async def done(self, _: Due) -> None:
        self.is_done = True

    async def later(self, _: Due, seconds: int) -> None:
        self.pauses.append(seconds)


@dataclass
class Receiver:
    """Somebody who is called, and answers as it is told."""

    answers: list[int] = field(default_factory=list)
    """Statuses of the first answers; then 204."""
    calls: list[tuple[dict[str, str], str]] = field(default_factory=list)
    elsewhere: int = 0
    """Calls to where it redirects to."""
    port: int = 0

    @property
    def url(self) -> str:
        return f"http://localhost:{self.port}/hook"

    async def hear(self, request: web.Request) -> web.Response:
        self.calls.append((dict(request.headers), await request.text()))
        status = self.answers.pop(0) if self.answers else 204
        return web.Response(status=status, headers={"Location": f"http://127.0.0.1:{self.port}/private"})

    async def private(self, _: web.Request) -> web.Response:
        self.elsewhere += 1
        return web.Response()


@asynccontextmanager
async def listening(receiver: Receiver) -> AsyncIterator[None]:
    app = web.Application()
    app.add_routes([web.post("/hook", receiver.hear), web.route("*", "/private", receiver.private)])
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    receiver.port = runner.addresses[0][1]
    try:
        yield
    finally:
        await runner.cleanup()


def called(
    receiver: Receiver,
    tmp_path: Path,
    webhooks: Webhooks = LOCAL,
    keys: str = f"{OLD}\n{NEW}\n",
    url: str | None = None,
    watch: Watch = UNWATCHED,
) -> MemoryHooks:
    """What has become of a call, once there is no more to do."""
    (tmp_path / "keys").write_text(keys)
    told = webhooks.model_copy(update={"keys_file": str(tmp_path / "keys")})

    async def story() -> MemoryHooks:
        async with listening(receiver), AsyncExitStack() as stack:
            queue = MemoryHooks(ended(url or receiver.url))
            callers = Callers(lambda _: told, queue, FakeClock(int(datetime.now(UTC).timestamp() * 1000)), watch)
            while not queue.is_done:
                await callers.step(Clients(stack))
            return queue

    return asyncio.run(story())


def test_call_is_signed_with_both_keys_so_that_either_verifies_it(tmp_path: Path) -> None:
    receiver = Receiver()
    assert called(receiver, tmp_path).pauses == []
    ((headers, text),) = receiver.calls
    for key in (OLD, NEW):
        said = Webhook(key).verify(text, headers)
        assert (said["type"], said["data"]["id"]) == ("request.completed", NAME)
    with pytest.raises(WebhookVerificationError):
        Webhook(base64.b64encode(b"another").decode()).verify(text, headers)
    with pytest.raises(WebhookVerificationError):
        Webhook(OLD).verify(text + " ", headers)


def test_call_that_fails_is_made_again_after_one_two_and_four_seconds_under_the_same_id(tmp_path: Path) -> None:
    receiver = Receiver([500, 429, 503])
    assert called(receiver, tmp_path).pauses == [1, 2, 4]
    assert [headers["webhook-id"] for headers, _ in receiver.calls] == [NAME] * 4


def test_call_is_given_up_after_the_fourth(tmp_path: Path) -> None:
    receiver, metrics = Receiver([500] * 9), Metrics()
    assert called(receiver, tmp_path, watch=metrics).pauses == [1, 2, 4]
    assert len(receiver.calls) == 4
    for outcome, count in (("failed", 3), ("given_up", 1), ("delivered", None)):
        assert metrics.registry.get_sample_value("headrace_gateway_webhook_calls_total", {"outcome": outcome}) == count
    assert pause_after(4) is None


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_redirect_to_a_private_address_is_not_followed(tmp_path: Path, status: int) -> None:
    receiver = Receiver([status])
    assert called(receiver, tmp_path).pauses == [1]
    assert receiver.elsewhere == 0


def test_name_of_a_private_address_is_not_called(tmp_path: Path) -> None:
    """The host is allowed, but what it stands for is not public."""
    receiver = Receiver()
    queue = called(receiver, tmp_path, PUBLIC, url="https://localhost:1/hook")
    assert (queue.pauses, receiver.calls) == ([1, 2, 4], [])


def test_host_that_is_not_allowed_any_more_is_not_called(tmp_path: Path) -> None:
    receiver = Receiver()
    assert called(receiver, tmp_path, LOCAL.model_copy(update={"allowed_hosts": ("example.org",)})).pauses == [1, 2, 4]
    assert receiver.calls == []


@pytest.mark.parametrize(
    "keys", ["", "rubbish", f"{OLD}\n{NEW}\n{OLD}", "whsec_"], ids=["none", "no key", "three", "an empty one"]
)
def test_keys_that_are_none(keys: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    receiver = Receiver()
    assert called(receiver, tmp_path, keys=keys).pauses == [1, 2, 4]
    assert receiver.calls == []
    assert "must" in caplog.text
    assert OLD not in caplog.text, "no key is in the log"


def test_what_has_not_ended_and_what_nobody_wants_to_hear_of_is_not_called() -> None:
    async def story() -> None:
        for record in (ended(None), ended("http://localhost:1", RequestState.IN_PROGRESS)):
            queue = MemoryHooks(record)
            async with AsyncExitStack() as stack:
                await Callers(lambda _: LOCAL, queue, FakeClock()).step(Clients(stack))
            assert (queue.is_done, queue.pauses) == (True, [])

    asyncio.run(story())


@pytest.mark.parametrize(
    ("url", "status"),
    [
        ("https://example.org/hook", None),
        ("https://a.example.net:8443/hook?x=1", None),
        ("http://example.org/hook", 400),
        ("ftp://example.org", 400),
        ("https://user@example.org", 400),
        ("https://example.org:port", 400),
        ("https://" + "x" * 3000, 400),
        ("https://example.org/\n", 400),
        ("", 400),
        ("https://example.org:0/hook", 400),
        ("https://evil.example\\.example.net/", 400),
        ("https://evil.example%2f.example.net/", 400),
        ("https://evil example.example.net/", 400),
        ("https://a..example.net/", 400),
        ("https://" + "a" * 64 + ".example.net/", 400),
        ("https://evil.example", 403),
        ("https://example.org.evil.example", 403),
        ("https://10.0.0.7/hook", 403),
        ("https://[::1]/hook", 403),
    ],
)
def test_target_that_may_be_called(url: str, status: int | None) -> None:
    if status is None:
        assert target(url, PUBLIC) == url
        return
    with pytest.raises(ApiError) as caught:
        target(url, PUBLIC)
    assert caught.value.status == status


def test_signature_is_of_the_moment_of_the_call() -> None:
    """Whoever is called refuses what is older than five minutes, so each call has its own time."""
    headers = signed(NAME, "{}", keys_in(OLD), datetime(2020, 1, 1, tzinfo=UTC))
    assert headers["webhook-timestamp"] == "1577836800"
    with pytest.raises(WebhookVerificationError, match="too old"):
        Webhook(OLD).verify("{}", headers)


@pytest.mark.parametrize(("minutes", "refusal"), [(-6, "too old"), (-4, None), (4, None), (6, "too new")], ids=str)
def test_receiver_whose_clock_differs_takes_what_is_within_five_minutes(minutes: int, refusal: str | None) -> None:
    """The moment is signed, so nobody can make an old call a new one; the next try has the moment of its own."""
    headers = signed(NAME, "{}", keys_in(OLD), datetime.now(UTC) + timedelta(minutes=minutes))
    if refusal is None:
        assert Webhook(OLD).verify("{}", headers) == {}
        moved = {**headers, "webhook-timestamp": str(int(headers["webhook-timestamp"]) + 1)}
        with pytest.raises(WebhookVerificationError, match="No matching signature"):
            Webhook(OLD).verify("{}", moved)
    else:
        with pytest.raises(WebhookVerificationError, match=refusal):
            Webhook(OLD).verify("{}", headers)


def at_desk_with_webhooks(story: Callable[[Desk], Awaitable[None]]) -> None:
    at_desk(story, EVERYBODY.model_copy(update={"webhooks": PUBLIC}))


def test_webhook_of_a_request_is_kept_with_it_and_counts_for_its_key() -> None:
    async def story(desk: Desk) -> None:
        headers = {"Headrace-Webhook": "https://example.org/a", "Idempotency-Key": "k"}
        name = (await desk.accept(**headers))["id"]
        await desk.finish()
        assert desk.store.records[name].record.webhook == "https://example.org/a"
        other = await desk.client.post(
            "/v1/requests", json=body(), headers={**headers, "Headrace-Webhook": "https://example.org/b"}
        )
        assert other.status_code == 409

    at_desk_with_webhooks(story)


def test_webhook_where_there_are_none_is_refused() -> None:
    async def story(desk: Desk) -> None:
        headers = {"Headrace-Webhook": "https://example.org/a"}
        answer = await desk.client.post("/v1/requests", json=body(), headers=headers)
        assert (answer.status_code, answer.json()["error"]["code"]) == (400, "webhooks_off")

    at_desk(story)


async def taken(queue: JetStreamHooks) -> Due:
    """The next one, which is there or will be soon."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        while not (found := await queue.take(1, 5000)):
            pass
    return found[0]


def test_jetstream_gives_each_change_until_it_is_done_with(tmp_path: Path) -> None:
    async def story() -> None:
        async with nats_server(tmp_path) as address, connected(address, answer_seconds=180) as stores:
            queue = JetStreamHooks(stores.js)
            assert await queue.take(1, 50) == []
            assert await stores.of("default").write_record(ended("https://example.org"), 0)
            first = await taken(queue)
            assert first.change.namespace == "default"
            assert (first.change.kept.record, first.calls) == (ended("https://example.org"), 1)
            await queue.later(first, 1)
            again = await taken(queue)
            assert again.calls == 2
            await queue.done(again)
            assert await JetStreamHooks(stores.js).take(1, 1500) == []

    asyncio.run(story())
