"""Running a command in a container of a pod, as `kubectl exec` does: over a websocket, byte for byte, and with its exit code.

Each message begins with the number of a channel. Messages are read only when the last one has been taken, so a slow taker slows the
command down and nothing gathers in between. What the command came to is said last, on a channel of its own.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, cast
from urllib.parse import urlencode

import aiohttp
import orjson
from kubernetes.aio import client

from headrace.shells.kube.errors import ApiError, NotFound, TransientFailure
from headrace.shells.kube.resources import PODS

PROTOCOLS = ("v5.channel.k8s.io", "v4.channel.k8s.io")
STDOUT, STDERR, ERROR = 1, 2, 3
OPEN_SECONDS = 30.0
PING_SECONDS = 20.0
SILENCE_SECONDS = 60.0
"""After which a connection that does not even answer pings is lost."""

CLOSE_SECONDS = 1.0

Take = Callable[[bytes], None]


@dataclass(frozen=True, slots=True)
class Command:
    """What to run, and where."""

    namespace: str
    pod: str
    container: str
    words: Sequence[str]

    @property
    def path(self) -> str:
        """Path and query of the request."""
        query = [("container", self.container), ("stdout", "true"), ("stderr", "true")]
        query += [("command", word) for word in self.words]
        return f"{PODS.path(self.namespace, self.pod, 'exec')}?{urlencode(query)}"


async def execute(api_client: client.ApiClient, command: Command, out: Take, err: Take) -> int:
    """Run it to its end and give its output away as it comes; returns the exit code.

    Raises `TransientFailure` when the connection is lost before the end, `NotFound` and `ApiError`.
    """
    socket = await _open(api_client, command)
    pinging = asyncio.create_task(_ping(socket))
    try:
        return await _transfer(socket, command, {STDOUT: out, STDERR: err})
    finally:
        pinging.cancel()
        with suppress(TimeoutError):  # a command that goes on talking never lets a connection be closed in good order
            async with asyncio.timeout(CLOSE_SECONDS):
                await socket.close()


async def _transfer(socket: aiohttp.ClientWebSocketResponse, command: Command, takers: Mapping[int, Take]) -> int:
    ended: int | None = None
    while True:
        try:
            message = await socket.receive(timeout=SILENCE_SECONDS)
        except TimeoutError as error:
            raise TransientFailure(
                f"the pod {command.pod} has not been heard of for {SILENCE_SECONDS:.0f} s"
            ) from error
        if message.type in (aiohttp.WSMsgType.CLOSE, aiohttp.WSMsgType.CLOSED, aiohttp.WSMsgType.ERROR):
            if ended is None:
                raise TransientFailure(f"the connection to the pod {command.pod} was lost before the end")
            return ended
        data = message.data if isinstance(message.data, bytes) else str(message.data).encode()
        if not data:
            continue
        channel, rest = data[0], data[1:]
        if channel == ERROR:
            ended = _exit_code(rest)
        elif rest and channel in takers:
            takers[channel](rest)


def _exit_code(said: bytes) -> int:
    """The exit code in the last word of the server. Raises `ApiError` when the command was not run."""
    status: dict[str, Any] = orjson.loads(said)
    if status.get("status") == "Success":
        return 0
    causes = (status.get("details") or {}).get("causes") or ()
    codes = [cause["message"] for cause in causes if cause.get("reason") == "ExitCode"]
    if not codes:
        raise ApiError(int(status.get("code", 500)), str(status.get("message", "the command was not run")), status)
    return int(codes[0])


async def _ping(socket: aiohttp.ClientWebSocketResponse) -> None:
    """Keep a connection on which nothing is said from being taken for dead."""
    with suppress(ConnectionError):  # whoever reads will notice as well, and say so
        while True:
            await asyncio.sleep(PING_SECONDS)
            await socket.ping()


async def _open(api_client: client.ApiClient, command: Command) -> aiohttp.ClientWebSocketResponse:
    _, url, headers, *_ = await api_client.param_serialize(
        method="GET", resource_path=command.path, header_params={}, auth_settings=["BearerToken"]
    )
    rest, found = api_client.rest_client, api_client.configuration
    if rest.pool_manager is None:
        rest.pool_manager = rest._create_pool_manager()
    named = {"server_hostname": found.tls_server_name} if found.tls_server_name else {}
    opening = rest.pool_manager.ws_connect(
        url, headers=headers, protocols=PROTOCOLS, proxy=found.proxy, max_msg_size=0, **named
    )
    try:
        return cast("aiohttp.ClientWebSocketResponse", await asyncio.wait_for(opening, OPEN_SECONDS))
    except aiohttp.WSServerHandshakeError as error:
        raise _refused(error.status, command) from error
    except (TimeoutError, aiohttp.ClientError, OSError) as error:
        raise TransientFailure(f"exec in the pod {command.pod}: {str(error) or type(error).__name__}") from error


def _refused(status: int, command: Command) -> Exception:
    """A websocket that was not opened has only a number to say why."""
    if status == 404:
        return NotFound(status, f"there is no pod {command.pod} in the namespace {command.namespace} any more")
    if status == 403:
        return ApiError(status, f'cannot create resource "pods/exec" in the namespace "{command.namespace}"')
    if status >= 500:
        return TransientFailure(f"HTTP {status}: exec in the pod {command.pod}")
    return ApiError(status, f"exec in the pod {command.pod} was refused")
