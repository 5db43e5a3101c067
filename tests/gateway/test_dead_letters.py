"""Requests that have ended unanswered are listed with their reason, and asked again once, over HTTP and by `headrace dlq`."""

from __future__ import annotations

import asyncio
import json
import socket
import threading

import pytest

from asking_desk import MODELS, Desk, at_desk, at_socket
from headrace.cli import main

NOBODY = f"req_chat_{'0' * 24}"


async def dead(desk: Desk, count: int = 1) -> list[str]:
    """So many requests whose records have failed."""
    names = [(await desk.accept(str(number)))["id"] for number in range(count)]
    await desk.finish(*names)
    return names


async def listed(desk: Desk, query: str = "") -> list[str]:
    answer = await desk.client.get(f"/v1/dead_letters{query}")
    assert answer.status_code == 200, answer.text
    return [one["id"] for one in answer.json()["data"]]


def test_dead_letter_says_why_and_is_asked_again_once() -> None:
    async def story(desk: Desk) -> None:
        (name,) = await dead(desk)
        answer = await desk.client.get("/v1/dead_letters")
        (letter,) = answer.json()["data"]
        assert (letter["id"], letter["status"], letter["error"]["code"]) == (name, "failed", "mock_error")
        first = await desk.client.post(f"/v1/dead_letters/{name}/replay")
        assert (first.status_code, first.json()["status"]) == (202, "queued")
        assert first.headers["location"] == f"/v1/requests/{first.json()['id']}"
        assert await listed(desk) == []
        again = await desk.client.post(f"/v1/dead_letters/{name}/replay")
        assert again.json()["id"] == first.json()["id"]
        await desk.finish()
        assert (await desk.show(first.json()["id"]))["status"] == "completed"
        assert (await desk.show(name))["status"] == "failed", "what has ended stays as it is"

    at_desk(story)


def test_request_that_has_waited_too_long_is_a_dead_letter_with_its_body() -> None:
    async def story(desk: Desk) -> None:
        name = (await desk.accept("late"))["id"]
        desk.store.clock.milliseconds += MODELS.routes[0].deadline_seconds * 1000
        await desk.batch()
        assert await listed(desk) == [name]
        body = desk.store.records[name].record.body
        assert body is not None
        assert body["messages"][0]["content"] == "late"

    at_desk(story)


def test_request_of_a_batch_that_was_deleted_can_be_asked_again() -> None:
    async def story(desk: Desk) -> None:
        name = (await desk.accept())["id"]
        await desk.batch()
        desk.place.objects.clear()
        await desk.batch()
        assert await listed(desk) == [name]
        assert (await desk.client.post(f"/v1/dead_letters/{name}/replay")).status_code == 202

    at_desk(story)


def test_what_was_answered_or_cancelled_is_no_dead_letter() -> None:
    async def story(desk: Desk) -> None:
        name = (await desk.accept())["id"]
        await desk.finish()
        await desk.store.add_letter(name)  # a gateway died between the letter and the record
        await desk.store.add_letter(NOBODY)
        assert await listed(desk) == []
        for one in (name, NOBODY, "req_gone_" + "0" * 24, "rubbish"):
            assert (await desk.client.post(f"/v1/dead_letters/{one}/replay")).status_code == 404

    at_desk(story)


def test_dead_letters_come_in_pages_and_by_route() -> None:
    async def story(desk: Desk) -> None:
        names = await dead(desk, 3)
        first = (await desk.client.get("/v1/dead_letters?limit=2")).json()
        assert first["has_more"]
        rest = await listed(desk, f"?limit=2&after={first['next']}")
        assert sorted([one["id"] for one in first["data"]] + rest) == sorted(names)
        assert await listed(desk, "?route=other") == []
        assert len(await listed(desk, "?route=chat")) == 3

    at_desk(story)


def test_replay_into_a_queue_that_is_full_keeps_the_letter() -> None:
    async def story(desk: Desk) -> None:
        (name,) = await dead(desk)
        for number in range(5):
            await desk.accept(f"more {number}")
        assert (await desk.client.post(f"/v1/dead_letters/{name}/replay")).status_code == 429
        assert await listed(desk) == [name]

    at_desk(story)


def test_dlq_lists_and_replays(capsys: pytest.CaptureFixture[str]) -> None:
    async def story(desk: Desk) -> None:
        names = await dead(desk, 2)
        async with at_socket(desk.app) as url:
            assert await asyncio.to_thread(main, ["dlq", "list", "--gateway", url]) == 0
            said = capsys.readouterr().out
            assert said.startswith("REQUEST")
            assert all(name in said for name in names)
            assert "mock_error" in said
            assert await asyncio.to_thread(main, ["dlq", "replay", names[0], "--gateway", url]) == 0
            assert capsys.readouterr().out.startswith(f"{names[0]} is asked again as req_chat_")
            assert await asyncio.to_thread(main, ["dlq", "replay", "--all", "--gateway", url, "-o", "json"]) == 0
            assert [one["id"] for one in json.loads(capsys.readouterr().out)] == [names[1]]
            assert await asyncio.to_thread(main, ["dlq", "list", "--gateway", url.removesuffix("/v1")]) == 0
            assert capsys.readouterr().out == "no dead letters\n"
            assert await asyncio.to_thread(main, ["dlq", "replay", NOBODY, "--gateway", url]) == 1
            assert "No such Dead letter" in capsys.readouterr().err

    at_desk(story)


def test_dlq_without_a_gateway_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["dlq", "list", "--gateway", "http://127.0.0.1:1/v1"]) == 1
    assert "no gateway answers at http://127.0.0.1:1/v1" in capsys.readouterr().err


@pytest.mark.parametrize("url", ["nonsense", "file:///etc/passwd", "http://[", "http://", "http://here:port"])
def test_dlq_of_what_is_no_gateway_names_the_option(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["dlq", "list", "--gateway", url]) == 2
    assert "--gateway must be the base URL of a gateway" in capsys.readouterr().err


def test_dlq_of_somebody_who_speaks_otherwise_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def speak() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.sendall(b"INFO {}\r\n")
                connection.recv(4096)

        speaking = threading.Thread(target=speak)
        speaking.start()
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        assert main(["dlq", "list", "--gateway", url]) == 1
        speaking.join()
    assert f"no gateway answers at {url}" in capsys.readouterr().err


def test_dlq_shows_no_key_that_cannot_be_sent(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HEADRACE_API_KEY", "hrk_secret\nsecond")
    assert main(["dlq", "list"]) == 2
    said = capsys.readouterr().err
    assert "HEADRACE_API_KEY must be a key alone" in said
    assert "secret" not in said


@pytest.mark.parametrize("words", [[], ["x", "--all"], ["x", "--route", "chat"]], ids=["nothing", "both", "a route"])
def test_dlq_replay_of_what_is_not_clear(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["dlq", "replay", *words]) == 2
    assert "say either ids, or --all" in capsys.readouterr().err
