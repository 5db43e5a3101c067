"""What a gateway knows of the objects of a namespace, while the API server is there, goes, hangs and comes back."""

from __future__ import annotations

import asyncio
import json
from contextlib import suppress

from aiohttp import web

from headrace.shells.kube.resources import BATCHES
from headrace.shells.kube.workwatch import WorkWatch
from shells.kube.test_api import an_api

LIST = {"metadata": {"resourceVersion": "7"}, "items": []}


class Server:
    """Lists nothing, and ends its first stream in the middle. From then on it takes requests and answers none, until it is well."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.hangs, self.is_well, self.streams = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def answer(self, request: web.Request) -> web.StreamResponse:
        self.asked.append("watch" if "watch" in request.query else "list")
        if len(self.asked) > 2 and not self.is_well.is_set():
            self.hangs.set()
            await self.is_well.wait()
        if self.asked[-1] == "list":
            return web.json_response(LIST)
        stream = web.StreamResponse()
        await stream.prepare(request)
        await stream.write(json.dumps({"type": "BOOKMARK", "object": LIST}).encode() + b"\n")
        if not self.is_well.is_set():
            assert request.transport is not None
            request.transport.abort()
        else:
            self.streams.set()
            await asyncio.Event().wait()
        return stream


def test_what_is_known_is_not_believed_until_a_server_that_was_away_has_answered() -> None:
    async def story() -> tuple[bool, bool, list[str]]:
        server = Server()
        async with an_api(server.answer) as api:
            watch = WorkWatch(api, BATCHES, "default")
            running = asyncio.create_task(watch.run())
            await server.hangs.wait()
            while_it_hangs = watch.is_live
            server.is_well.set()
            await server.streams.wait()
            afterwards = watch.is_live
            running.cancel()
            with suppress(asyncio.CancelledError):
                await running
        return while_it_hangs, afterwards, server.asked

    while_it_hangs, afterwards, asked = asyncio.run(story())
    assert not while_it_hangs
    assert afterwards
    assert asked == ["list", "watch", "list", "watch"]
