"""Running a command in a pod: bytes as they are, the exit code, and every way in which it can go wrong."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable

import pytest
from aiohttp import web

from exec_server import ERROR, STDERR, STDOUT, SUCCESS, FakeServer, exit_status, saying
from headrace.shells.kube.errors import ApiError, NotFound, TransientFailure
from headrace.shells.kube.execute import Command, execute

COMMAND = Command("default", "a-pod", "worker", ["headrace_worker", "results", "--output", "file:///a b?&c"])


def run(server: FakeServer, take: Callable[[bytes], None] | None = None) -> tuple[int, bytes, bytes]:
    """Exit code, standard output and standard error."""
    out, err = bytearray(), bytearray()

    async def story() -> int:
        async with server.running() as api_client:
            return await execute(api_client, COMMAND, take or out.extend, err.extend)

    return asyncio.run(story()), bytes(out), bytes(err)


@pytest.mark.parametrize("protocol", ["v5.channel.k8s.io", "v4.channel.k8s.io"])
def test_execute_gives_bytes_as_they_are_and_the_exit_code(protocol: str) -> None:
    anything = bytes(range(256)) * 40
    play = saying(STDOUT, STDOUT + anything, STDERR + b"a word", STDOUT + b"\xff\x00\n", status=SUCCESS)
    server = FakeServer(play, protocols=(protocol,))
    assert run(server) == (0, anything + b"\xff\x00\n", b"a word")
    assert server.commands == [list(COMMAND.words)]
    assert server.headers[0]["Authorization"] == "Bearer secret"
    assert server.headers[0]["Sec-WebSocket-Protocol"] == "v5.channel.k8s.io,v4.channel.k8s.io"


def test_execute_of_a_command_that_fails_returns_its_exit_code() -> None:
    assert run(FakeServer(saying(STDOUT + b"some", STDERR + b"why", status=exit_status(44)))) == (44, b"some", b"why")


def test_execute_of_a_command_that_was_not_run() -> None:
    status = {"status": "Failure", "reason": "InternalError", "code": 500, "message": "no such file: headrace_worker"}
    with pytest.raises(ApiError, match="no such file: headrace_worker"):
        run(FakeServer(saying(status=status)))


def test_execute_whose_connection_is_lost_before_the_end_does_not_count_as_done() -> None:
    with pytest.raises(TransientFailure, match="the connection to the pod a-pod was lost before the end"):
        run(FakeServer(saying(STDOUT + b"half a line")))


@pytest.mark.parametrize(
    ("status", "error"),
    [(403, ApiError), (404, NotFound), (500, TransientFailure), (400, ApiError)],
    ids=["forbidden", "gone", "the node does not answer", "anything else"],
)
def test_execute_that_is_refused(status: int, error: type[Exception]) -> None:
    with pytest.raises(error):
        run(FakeServer(saying(), refuse=status))


def test_execute_reads_on_only_when_what_it_has_is_taken() -> None:
    """A taker who is slow slows the command down: hardly more is underway than the buffers of the connection hold."""
    piece, sent, most = os.urandom(32 * 1024), 0, 0

    async def play(socket: web.WebSocketResponse) -> None:
        nonlocal sent
        for _ in range(1024):
            await socket.send_bytes(STDOUT + piece)
            sent += 1
        await socket.send_bytes(ERROR + b'{"status": "Success"}')

    taken = 0

    def take(data: bytes) -> None:
        nonlocal taken, most
        taken += len(data)
        most = max(most, sent * len(piece) - taken)

    assert run(FakeServer(play), take)[0] == 0
    assert taken == 1024 * len(piece)
    assert most < 16 * 1024 * 1024


def test_execute_whose_taker_has_seen_enough_ends() -> None:
    ended: list[BaseException] = []

    async def play(socket: web.WebSocketResponse) -> None:
        try:
            while True:
                await socket.send_bytes(STDOUT + b"x" * 65536)
        except BaseException as error:
            ended.append(error)
            raise

    def take(_: bytes) -> None:
        raise BrokenPipeError

    with pytest.raises(BrokenPipeError):
        run(FakeServer(play), take)
    assert ended
