"""A reverse proxy between the operator and the API server, with which a test sees every call and breaks the one it chooses.

It speaks plain HTTP on the loopback to the operator, and TLS to the API server: with the caller's token where there is one, else with
the administrator's certificate. A rule is a pair of "which calls" and "what happens instead"; the first rule that fits has its way.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import ssl
import time
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import aiohttp
from aiohttp import web

NOT_PASSED_ON = {"connection", "host", "content-length", "transfer-encoding", "accept-encoding", "date", "server"}
PLAIN = {"Accept-Encoding": "identity"}


@dataclass(eq=False)
class Call:
    """One request of the operator."""

    number: int
    """Which one since the proxy was started, from 1."""
    verb: str
    """As RBAC has it: get, list, watch, create, update, patch, delete; the path for what is no resource."""
    group: str = ""
    resource: str = ""
    subresource: str = ""
    namespace: str = ""
    name: str = ""
    body: bytes = b""
    status: int = 0
    """What the API server answered; 0 while it has not been asked or has not answered."""
    deadly: bool = False
    """Whoever makes it is killed."""
    came: float = field(default_factory=time.monotonic)
    """When, by the clock that only goes forward, in seconds."""

    @property
    def writes(self) -> bool:
        """Whether it changes something."""
        return self.verb in ("create", "update", "patch", "delete")

    @property
    def sent_name(self) -> str:
        """The name of the object, for a create the one in its body."""
        return self.name or json.loads(self.body or b"{}").get("metadata", {}).get("name", "")

    def __str__(self) -> str:
        path = "/".join(filter(None, (self.resource, self.sent_name if self.writes else self.name, self.subresource)))
        return f"{self.number} {self.verb} {path} {self.status or 'unanswered'}"


Matches: TypeAlias = Callable[[Call], bool]
Forward: TypeAlias = Callable[[], Awaitable[web.StreamResponse]]
Act: TypeAlias = Callable[[Call, Forward], Awaitable[web.StreamResponse]]


def calls_to(resource: str, *verbs: str, subresource: str = "", name: str = "") -> Matches:
    """Calls of these verbs (none: of any) to that resource."""

    def matches(call: Call) -> bool:
        same = (call.resource, call.subresource) == (resource, subresource)
        return same and (not verbs or call.verb in verbs) and (not name or call.sent_name == name)

    return matches


def any_call(_: Call) -> bool:
    """Any call at all."""
    return True


def answer(status: int, reason: str, message: str = "said the test", **headers: str) -> Act:
    """The API server is not asked; this is the answer."""

    async def act(_: Call, __: Forward) -> web.StreamResponse:
        said = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": reason, "code": status}
        return web.json_response({**said, "message": message}, status=status, headers=headers)

    return act


async def hang(_: Call, __: Forward) -> web.StreamResponse:
    """No answer, ever."""
    await asyncio.Event().wait()
    raise AssertionError("unreachable")


async def lose_answer(_: Call, forward: Forward) -> web.StreamResponse:
    """What was asked is done, but the connection breaks before the answer."""
    await forward()
    raise ConnectionResetError("the answer is lost, said the test")


@dataclass
class Rule:
    """What happens to some calls."""

    matches: Matches
    act: Act
    times: int
    calls: list[Call] = field(default_factory=list)
    """Those that it has been applied to."""


@dataclass(eq=False)
class WatchStream:
    """An open watch."""

    call: Call
    response: web.StreamResponse
    muted: bool = False
    ended: asyncio.Event = field(default_factory=asyncio.Event)

    async def expire(self) -> None:
        """Say that the resource version is too old, as an API server does after a gap, and end the stream."""
        status = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": "Expired", "code": 410}
        await self.response.write(json.dumps({"type": "ERROR", "object": status}).encode() + b"\n")
        self.ended.set()


class Proxy:
    """One proxy. Its methods may be called from any thread, unless they are coroutines."""

    def __init__(self, server: str, certificates: ssl.SSLContext, anonymous: ssl.SSLContext) -> None:
        self._server, self._certificates, self._anonymous = server, certificates, anonymous
        self.calls: list[Call] = []
        self.rules: list[Rule] = []
        self.watches: list[WatchStream] = []
        self._asking: set[asyncio.Task[web.StreamResponse]] = set()
        self._victim: Callable[[], int] | None = None
        self._death: tuple[int, bool, Matches] | None = None

    async def start(self) -> str:
        """Open a port; returns the URL."""
        self._as_admin = _session(self._certificates)
        self._as_caller = _session(self._anonymous)
        app = web.Application(client_max_size=64 * 2**20)
        app.router.add_route("*", "/{path:.*}", self._handle)
        self._runner = web.AppRunner(app, access_log=None, handler_cancellation=True, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        host, port = self._runner.addresses[0][:2]
        return f"http://{host}:{port}"

    async def stop(self) -> None:
        """Close the port and all connections."""
        await self._runner.cleanup()
        await self._as_admin.close()
        await self._as_caller.close()

    def on(self, matches: Matches, act: Act, times: int = 1_000_000) -> Rule:
        """From now on, do that with those calls, at most so many times."""
        rule = Rule(matches, act, times)
        self.rules.append(rule)
        return rule

    def kill_at(self, number: int, victim: Callable[[], int], *, answered: bool, among: Matches = any_call) -> None:
        """Kill a process at that call (of those, from 1): before the API server is asked, or after it has answered and nobody was told."""
        self._death, self._victim = (number, answered, among), victim

    def made(self, matches: Matches, since: int = 0) -> list[Call]:
        """The calls of that kind, after the first so many."""
        return [call for call in self.calls[since:] if matches(call)]

    async def drop_watches(self, matches: Matches = any_call) -> None:
        """Close open watches without a word."""
        for stream in self._open(matches):
            stream.ended.set()

    async def mute_watches(self, matches: Matches) -> None:
        """Let nothing more through on open watches: what happens now is missed."""
        for stream in self._open(matches):
            stream.muted = True

    async def expire_watches(self, matches: Matches) -> None:
        """End open watches with `410 Gone`: whoever watches must list again."""
        for stream in self._open(matches):
            await stream.expire()

    def _open(self, matches: Matches) -> list[WatchStream]:
        return [stream for stream in list(self.watches) if matches(stream.call)]

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        call = _call(len(self.calls) + 1, request, await request.read())
        self.calls.append(call)

        async def forward() -> web.StreamResponse:
            if call.verb == "watch":
                return await self._forward(call, request)
            # What has begun is brought to an end although the caller has died: else the record would not have it.
            asking = asyncio.create_task(self._forward(call, request))
            self._asking.add(asking)
            asking.add_done_callback(self._asked)
            return await asyncio.shield(asking)

        try:
            if self._death is not None and self._is_deadly(call):
                call.deadly = True
                return await self._kill(forward, answered=self._death[1])
            for rule in self.rules:
                if len(rule.calls) < rule.times and rule.matches(call):
                    rule.calls.append(call)
                    return await rule.act(call, forward)
            return await forward()
        except (ConnectionError, aiohttp.ClientError):
            if request.transport is not None:
                request.transport.abort()
            return web.Response(status=502)  # nobody hears it

    def _asked(self, asking: asyncio.Task[web.StreamResponse]) -> None:
        self._asking.discard(asking)
        if not asking.cancelled():
            asking.exception()  # the caller has it, or is dead

    def _is_deadly(self, call: Call) -> bool:
        """Whether it is the one; asked as soon as it has come, so that it is the last so far."""
        assert self._death is not None
        number, _, among = self._death
        return among(call) and len(self.made(among)) == number

    async def _kill(self, forward: Forward, *, answered: bool) -> web.StreamResponse:
        assert self._victim is not None
        if answered:
            await forward()
        os.kill(self._victim(), signal.SIGKILL)
        raise ConnectionResetError("the caller was killed")

    async def _forward(self, call: Call, request: web.Request) -> web.StreamResponse:
        session = self._as_caller if "Authorization" in request.headers else self._as_admin
        headers = {key: value for key, value in request.headers.items() if key.lower() not in NOT_PASSED_ON} | PLAIN
        url = self._server + request.raw_path
        async with session.request(request.method, url, data=call.body or None, headers=headers) as upstream:
            call.status = upstream.status
            told = {key: value for key, value in upstream.headers.items() if key.lower() not in NOT_PASSED_ON}
            if call.verb == "watch" and upstream.status == 200 and not call.deadly:
                return await self._stream(call, request, upstream, told)
            body = b"" if call.verb == "watch" and call.deadly else await upstream.read()
            return web.Response(body=body, status=upstream.status, headers=told)

    async def _stream(
        self, call: Call, request: web.Request, upstream: aiohttp.ClientResponse, headers: dict[str, str]
    ) -> web.StreamResponse:
        response = web.StreamResponse(status=upstream.status, headers=headers)
        await response.prepare(request)
        stream = WatchStream(call, response)
        self.watches.append(stream)
        pumping = asyncio.create_task(_pump(upstream, stream))
        ending = asyncio.create_task(stream.ended.wait())
        try:
            await asyncio.wait([pumping, ending], return_when=asyncio.FIRST_COMPLETED)
            return response
        finally:
            self.watches.remove(stream)
            pumping.cancel()
            ending.cancel()
            await asyncio.gather(pumping, ending, return_exceptions=True)


async def _pump(upstream: aiohttp.ClientResponse, stream: WatchStream) -> None:
    async for chunk in upstream.content.iter_any():
        if not stream.muted:
            await stream.response.write(chunk)


def _session(context: ssl.SSLContext) -> aiohttp.ClientSession:
    connector = aiohttp.TCPConnector(ssl=context, limit=0)
    return aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(total=None))


def _call(number: int, request: web.Request, body: bytes) -> Call:
    parts = [part for part in request.path.split("/") if part]
    match parts:
        case ["api", _, *rest] if rest:
            group = ""
        case ["apis", group, _, *rest] if rest:
            pass
        case _:
            return Call(number, request.path, body=body)
    namespace = ""
    if len(rest) > 2 and rest[0] == "namespaces":
        namespace, rest = rest[1], rest[2:]
    resource, name, subresource = [*rest, "", ""][:3]
    watching = request.query.get("watch") in ("true", "1")
    verbs: dict[str, str] = {"POST": "create", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}
    reads = "watch" if watching else "get" if name else "list"
    verb = verbs.get(request.method, reads)
    return Call(number, verb, group, resource, subresource, namespace, name, body)


def write_kubeconfig(path: Path, url: str, token: str | None = None) -> Path:
    """A kubeconfig for the proxy at that URL, as the administrator or as whoever the token says."""
    user: dict[str, Any] = {"token": token} if token else {}
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "proxy", "cluster": {"server": url}}],
        "users": [{"name": "user", "user": user}],
        "contexts": [{"name": "proxy", "context": {"cluster": "proxy", "user": "user"}}],
        "current-context": "proxy",
    }
    path.write_text(json.dumps(config))
    return path


def verbs_used(calls: Iterable[Call]) -> set[tuple[str, str, str]]:
    """Group, resource (with its subresource) and verb of each call that RBAC decides about."""
    return {
        (call.group, "/".join(filter(None, (call.resource, call.subresource))), call.verb)
        for call in calls
        if call.resource
    }
