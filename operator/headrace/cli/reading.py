"""Reading lines out of a pod of our own: whole lines from pieces of any size, and an end in good order when a signal comes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, TypeVar

from headrace.api.results import ResultsReport
from headrace.cli.exits import CliError
from headrace.cli.signals import STOPPING
from headrace.shells.kube.reader import ReaderPod

T = TypeVar("T")


async def read(pod: ReaderPod, words: Sequence[str], take: Callable[[bytes], None]) -> ResultsReport:
    """Start the pod, run the words in it, and give away its lines. The caller deletes it."""
    await pod.start()
    return await pod.run(words, by_lines(take))


def by_lines(take: Callable[[bytes], None]) -> Callable[[bytes], None]:
    """Something that takes pieces of any size, and gives whole lines to `take`."""
    begun: list[bytes] = []

    def feed(data: bytes) -> None:
        *whole, rest = data.split(b"\n")
        for line in whole:
            take(b"".join([*begun, line, b"\n"]))
            begun.clear()
        if rest:
            begun.append(rest)

    return feed


async def interruptible(work: Coroutine[Any, Any, T]) -> T:
    """Some work that a signal ends in good order. Raises `CliError` then."""
    loop, task = asyncio.get_running_loop(), asyncio.ensure_future(work)
    heard: list[int] = []

    def hear(number: int) -> None:
        heard.append(number)
        task.cancel()

    for number in STOPPING:
        loop.add_signal_handler(number, hear, number)
    try:
        return await task
    except asyncio.CancelledError:
        if not heard:
            raise
        raise CliError("Interrupted", "interrupted", 128 + heard[0]) from None
    finally:
        for number in STOPPING:
            loop.remove_signal_handler(number)
