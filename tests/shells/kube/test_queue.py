"""The work queue: each key at most once in line, never worked on twice at once, none lost, and with a backoff of its own."""

from __future__ import annotations

import asyncio
import random
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.shells.kube.line import Urgency
from headrace.shells.kube.queue import LAST_BACKOFF_SECONDS, WorkQueue

from .conftest import JumpingLoop, Play


def clock() -> float:
    return asyncio.get_running_loop().time()


def test_add_twice_is_once(play: Play) -> None:
    async def story() -> None:
        queue: WorkQueue[str] = WorkQueue()
        queue.add("a")
        queue.add("a")
        assert queue.depth == 1

    play(story())


def test_add_of_a_key_in_hand_waits_until_it_is_done(play: Play) -> None:
    async def story() -> None:
        queue: WorkQueue[str] = WorkQueue()
        queue.add("a")
        assert await queue.get() == "a"
        queue.add("a")
        assert queue.depth == 0
        queue.done("a")
        assert await queue.get() == "a"

    play(story())


@pytest.mark.parametrize("when", ["while it waits", "while it is worked on"])
def test_add_of_a_key_that_turns_out_to_be_urgent_brings_it_forward(play: Play, when: str) -> None:
    async def story() -> None:
        queue: WorkQueue[str] = WorkQueue()
        queue.add("late", Urgency.WHENEVER)
        if when == "while it is worked on":
            assert await queue.get() == "late"
            queue.add("late", Urgency.WHENEVER)
        queue.add("other")
        queue.add("late", Urgency.NOW)
        queue.add("late", Urgency.WHENEVER)
        if when == "while it is worked on":
            queue.done("late")
        assert [await queue.get(), await queue.get()] == ["late", "other"]

    play(story())


def test_get_waits_while_a_flow_has_all_in_hand_that_it_may(play: Play) -> None:
    async def story() -> float:
        queue: WorkQueue[str] = WorkQueue(flow_of=lambda key: key[0], at_most=1)
        for key in ("b", "a1", "a2"):
            queue.add(key)
        queue.done(await queue.get())
        asyncio.get_running_loop().call_later(7, queue.done, await queue.get())
        assert await queue.get() == "a2"
        return clock()

    assert play(story()) == 7.0


def test_add_after_keeps_the_earlier_date(play: Play) -> None:
    async def story() -> list[float]:
        queue: WorkQueue[str] = WorkQueue()
        queue.add_after("a", 10)
        queue.add_after("a", 5)
        queue.add_after("a", 20)
        await queue.get()
        return [clock()]

    assert play(story()) == [5.0]


def test_failed_backs_off_longer_each_time_up_to_a_limit(play: Play) -> None:
    async def story() -> list[float]:
        queue: WorkQueue[str] = WorkQueue()
        queue.add("a")
        return [queue.failed(await queue.get()) for _ in range(2000)]

    waits = play(story())
    assert 0.05 <= waits[0] <= 0.0625
    assert 0.1 <= waits[1] <= 0.125
    assert LAST_BACKOFF_SECONDS <= waits[-1] <= LAST_BACKOFF_SECONDS * 1.25


def test_done_forgets_the_failures(play: Play) -> None:
    async def story() -> float:
        queue: WorkQueue[str] = WorkQueue()
        queue.add("a")
        for _ in range(8):
            queue.failed(await queue.get())
        queue.done(await queue.get())
        queue.add("a")
        return queue.failed(await queue.get())

    assert play(story()) < 0.1


def test_an_event_ends_our_own_backoff(play: Play) -> None:
    async def story() -> float:
        queue: WorkQueue[str] = WorkQueue()
        queue.add("a")
        queue.failed(await queue.get(), backoff=60)
        queue.add("a")
        await queue.get()
        return clock()

    assert play(story()) == 0.0


@pytest.mark.parametrize("when", ["while it is worked on", "afterwards"])
def test_retry_after_is_waited_for_whatever_comes(play: Play, when: str) -> None:
    async def story() -> float:
        queue: WorkQueue[str] = WorkQueue()
        queue.add_after("a", 3)
        queue.add("a")
        key = await queue.get()
        if when == "while it is worked on":
            queue.add("a")
        queue.failed(key, retry_after=30)
        if when == "afterwards":
            queue.add("a")
            queue.add_after("a", 1)
        await queue.get()
        return clock()

    assert 30 <= play(story()) <= 37.5


def test_retry_after_holds_that_key_alone(play: Play) -> None:
    async def story() -> float:
        queue: WorkQueue[str] = WorkQueue()
        queue.add("a")
        queue.failed(await queue.get(), retry_after=30)
        queue.add("b")
        assert await queue.get() == "b"
        return clock()

    assert play(story()) == 0.0


def test_forget_drops_what_was_planned(play: Play) -> None:
    async def story() -> None:
        queue: WorkQueue[str] = WorkQueue()
        queue.add("a")
        queue.failed(await queue.get(), retry_after=5)
        queue.forget("a")
        await asyncio.sleep(100)
        assert queue.depth == 0
        queue.add("a")
        assert queue.depth == 1

    play(story())


def test_stalled_seconds_count_from_the_last_key_that_was_taken(play: Play) -> None:
    async def story() -> list[float]:
        queue: WorkQueue[str] = WorkQueue()
        seen = [queue.stalled_seconds]
        queue.add("a")
        queue.add("b")
        await asyncio.sleep(7)
        seen.append(queue.stalled_seconds)
        await queue.get()
        await asyncio.sleep(2)
        seen.append(queue.stalled_seconds)
        await queue.get()
        await asyncio.sleep(9)
        return [*seen, queue.stalled_seconds]

    assert play(story()) == [0.0, 7.0, 2.0, 0.0]


@given(st.integers(0, 2**32))
def test_no_key_is_worked_on_twice_at_once_and_none_is_lost(seed: int) -> None:
    """Whatever is added while a world of workers takes, fails and finishes keys, is looked at after it was added."""
    dice = random.Random(seed)
    added: dict[int, float] = {}
    looked: dict[int, float] = {}
    in_hand: Counter[int] = Counter()

    async def worker(queue: WorkQueue[int]) -> None:
        while True:
            key = await queue.get()
            in_hand[key] += 1
            assert in_hand[key] == 1
            looked[key] = clock()
            await asyncio.sleep(dice.choice([0, 0.01, 3]))
            in_hand[key] -= 1
            if dice.random() < 0.3:
                queue.failed(key, retry_after=dice.choice([None, 2.0]))
            else:
                queue.done(key)

    async def story() -> None:
        queue: WorkQueue[int] = WorkQueue()
        workers = [asyncio.create_task(worker(queue)) for _ in range(3)]
        for _ in range(60):
            key = dice.randrange(5)
            added[key] = clock()
            queue.add(key) if dice.random() < 0.7 else queue.add_after(key, dice.random())
            await asyncio.sleep(dice.choice([0, 0, 0.05, 1]))
        await asyncio.sleep(10 * LAST_BACKOFF_SECONDS)
        for task in workers:
            task.cancel()
        for outcome in await asyncio.gather(*workers, return_exceptions=True):
            assert isinstance(outcome, asyncio.CancelledError), outcome

    with asyncio.Runner(loop_factory=JumpingLoop) as runner:
        runner.run(story())
    assert all(looked[key] >= moment for key, moment in added.items())
