"""A stream that is gone through step by step, and what is left of it when somebody presses Ctrl-C."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterator

import pytest

from headrace.cli.steps import Steps


@pytest.fixture
def runner() -> Iterator[asyncio.Runner]:
    with asyncio.Runner() as runner:
        yield runner


class Stream:
    """Two things, and then nothing for ever."""

    def __init__(self) -> None:
        self.closed = False

    async def follow(self) -> AsyncGenerator[str]:
        try:
            yield "first"
            yield "second"
            await asyncio.Event().wait()
        finally:
            self.closed = True


def interrupt() -> None:
    raise KeyboardInterrupt


def test_next_gives_one_after_the_other(runner: asyncio.Runner) -> None:
    stream = Stream()
    steps = Steps(stream.follow())
    assert [runner.run(steps.next()) for _ in range(2)] == ["first", "second"]
    runner.run(steps.close())
    assert stream.closed


def test_close_ends_a_stream_whose_loop_was_ended_in_the_middle_of_a_step(runner: asyncio.Runner) -> None:
    """As by a signal that comes between two tasks."""
    stream = Stream()
    steps = Steps(stream.follow())
    for _ in range(2):
        runner.run(steps.next())
    runner.get_loop().call_later(0.01, interrupt)
    with pytest.raises(KeyboardInterrupt):
        runner.run(steps.next())
    runner.run(steps.close())
    assert stream.closed


def test_close_of_a_stream_that_nobody_has_begun(runner: asyncio.Runner) -> None:
    steps = Steps(Stream().follow())
    runner.run(steps.close())
    with pytest.raises(StopAsyncIteration):
        runner.run(steps.next())
