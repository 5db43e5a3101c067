"""Answers whose client goes away in the middle: what they are read from is closed at once, garbage collection or not."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncGenerator
from typing import Any

import pytest

from headrace.gateway.places.lines import lines
from headrace.gateway.web.streamed import Streamed


class Source:
    """Pieces without end, and whether they were closed."""

    def __init__(self) -> None:
        self.is_open = False

    async def pieces(self) -> AsyncGenerator[bytes, None]:
        self.is_open = True
        try:
            while True:
                yield b"line\n"
                await asyncio.sleep(0)
        finally:
            self.is_open = False


@pytest.fixture
def no_collection() -> Any:
    """Garbage stays where it is."""
    gc.disable()
    yield
    gc.enable()


@pytest.mark.parametrize("sent", range(3))
def test_streamed_answer_closes_its_source_when_the_client_goes(no_collection: None, sent: int) -> None:
    source, kept = Source(), list[Any]()

    async def story() -> None:
        gone, count = asyncio.Event(), 0

        async def receive() -> Any:
            await gone.wait()
            return {"type": "http.disconnect"}

        async def send(message: Any) -> None:
            nonlocal count
            count += 1
            if count > sent:
                gone.set()
                await asyncio.Event().wait()  # the client reads no more

        pieces = source.pieces()
        await anext(pieces)
        kept.append(pieces)  # somebody still refers to it
        scope = {"type": "http", "asgi": {"spec_version": "2.3"}}
        await Streamed(pieces, {}, "text/plain")(scope, receive, send)
        assert not source.is_open

    asyncio.run(story())


def test_lines_that_are_closed_close_what_they_come_from(no_collection: None) -> None:
    source, kept = Source(), list[Any]()

    async def story() -> None:
        pieces = source.pieces()
        kept.append(pieces)
        found = lines(pieces)
        assert await anext(found) == b"line"
        assert source.is_open
        await found.aclose()
        assert not source.is_open

    asyncio.run(story())
