"""Work without an end: whatever fails is said, and begun anew."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Never

import pytest

from asking_rig import Died, FakeClock
from headrace.gateway.endless import AFTER_FAILURE_MILLISECONDS, forever, keep_on
from headrace.gateway.queues.store import StoreAway
from headrace.shells.local.state import StateError


@pytest.mark.parametrize(
    ("failure", "level"),
    [
        (StoreAway("nobody answers"), "WARNING"),
        (StateError("NotFound", "nobody answers"), "WARNING"),
        (OSError("nobody answers"), "WARNING"),
        (ValueError("nobody answers"), "ERROR"),
    ],
    ids=["the store is away", "a batch cannot be read", "the disk is full", "a bug"],
)
def test_keep_on_says_what_has_failed_rests_and_begins_anew(
    failure: Exception, level: str, caplog: pytest.LogCaptureFixture
) -> None:
    clock, ends = FakeClock(0), [Died(), failure, failure]

    async def work() -> Never:
        raise ends.pop()

    with pytest.raises(Died):
        asyncio.run(keep_on("route chat", work, clock))
    assert clock.now() == 2 * AFTER_FAILURE_MILLISECONDS
    assert [record.levelname for record in caplog.records] == [level, level]
    assert all("route chat" in record.message for record in caplog.records)
    assert "nobody answers" in caplog.text


def test_keep_on_ends_when_it_is_cancelled() -> None:
    async def work() -> Never:
        await asyncio.Event().wait()
        raise AssertionError("nobody sets it")

    async def story() -> None:
        task = asyncio.create_task(keep_on("route chat", work, FakeClock()))
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait_for(asyncio.gather(task, return_exceptions=True), 5)
        assert task.cancelled()

    asyncio.run(story())


async def _kept_to_itself() -> None:
    """A step that hears of its cancellation and tells nobody, as `asyncio.wait_for` may."""
    with suppress(asyncio.CancelledError):
        await asyncio.Event().wait()


def test_forever_ends_although_a_step_keeps_the_cancellation_to_itself() -> None:
    async def story() -> None:
        task = asyncio.create_task(forever(_kept_to_itself))
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait_for(asyncio.gather(task, return_exceptions=True), 5)
        assert task.cancelled()

    asyncio.run(story())


def test_keep_on_ends_although_work_that_fails_has_kept_the_cancellation_to_itself() -> None:
    async def work() -> Never:
        await _kept_to_itself()
        raise OSError("nobody answers")

    async def story() -> None:
        task = asyncio.create_task(keep_on("route chat", work, FakeClock()))
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait_for(asyncio.gather(task, return_exceptions=True), 5)
        assert task.cancelled()

    asyncio.run(story())
