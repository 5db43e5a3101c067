"""A warm pool: as many workers as there is work for, and each request answered once, whatever becomes of them."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from headrace.api.asking import RequestState
from headrace.api.base import InvalidSpec
from headrace.api.worker import Failure
from headrace.core.asking.requests import record_object
from headrace.gateway.gathering.poolworkers import NotStarted
from pool_rig import PoolWorld, ScriptedWorker, no_model, route


def told(story: Callable[[PoolWorld], Awaitable[None]], **pool: Any) -> PoolWorld:
    """The world after a story of a pool with these settings."""

    async def tell() -> PoolWorld:
        world = PoolWorld(route(**pool))
        await world.windows.begin()
        await story(world)
        return world

    return asyncio.run(tell())


def test_pool_grows_from_none_to_all_and_back_to_none() -> None:
    async def story(world: PoolWorld) -> None:
        await world.go()
        assert world.workers.started == []
        await world.ask()
        await world.go()
        assert len(world.workers.alive) == 1
        await world.ask(40)
        await world.go()
        assert len(world.workers.alive) == 3
        while len(world.store.last_words) < 41:
            for worker in world.workers.alive:
                if not worker.told or all(name in world.store.last_words for name in worker.names):
                    worker.free()
                else:
                    worker.answer(*worker.names)
            await world.go()
        for worker in world.workers.alive:
            worker.free()
        await world.go()
        assert len(world.workers.alive) == 3
        world.clock.milliseconds += 60_000
        await world.go()
        assert world.workers.alive == []
        assert len(world.workers.started) == 3
        assert len(world.pool.workers) == 0

    told(story, max=3, idleSeconds=60).check()


def test_pool_keeps_as_many_workers_as_it_must_have() -> None:
    async def story(world: PoolWorld) -> None:
        await world.go()
        assert len(world.workers.alive) == 2
        for worker in world.workers.alive:
            worker.free()
        await world.go()
        world.clock.milliseconds += 3_600_000
        await world.go()
        assert len(world.workers.alive) == 2

    told(story, min=2, max=3, idleSeconds=0)


def test_worker_that_is_old_is_followed_by_one_that_looks_up_its_model_anew() -> None:
    async def story(world: PoolWorld) -> None:
        await world.ask(4)
        await world.go()
        first = world.workers.started[0]
        first.free()
        await world.go()
        world.clock.milliseconds += 60_000
        await world.go()
        assert not first.ended.done(), "what it has begun it ends"
        await world.ask(4)
        await world.answer_all(first)
        assert first.ended.done()
        assert len(first.told) == 1
        await world.go()
        second = world.workers.started[1]
        second.free()
        await world.go()
        await world.answer_all(second)

    told(story, min=1, refreshSeconds=60).check()


def test_requests_that_gather_are_one_micro_batch_of_a_model_that_stays_loaded() -> None:
    async def story(world: PoolWorld) -> None:
        for _ in range(2):
            await world.ask(4)
            await world.go()
            (worker,) = world.workers.started
            if not worker.told:
                worker.free()
                await world.go()
            await world.answer_all(worker)
        assert [len(batch.requests) for batch in worker.told] == [4, 4]

    world = told(story)
    world.check()
    assert {record_object(world.record(number))["batch_id"] for number in range(8)} == {None}, "there is no batch"


@pytest.mark.parametrize(("said", "told_to_workers"), [({}, 500), ({"partialMilliseconds": 0}, None)])
def test_answers_that_are_being_written_are_told_of_until_they_are_there(
    said: dict[str, int], told_to_workers: int | None
) -> None:
    async def story(world: PoolWorld) -> None:
        await world.ask(2)
        await world.go()
        (worker,) = world.workers.started
        worker.free()
        await world.go()
        assert worker.told[-1].partial_milliseconds == told_to_workers
        first, second = worker.names
        worker.write(first, "a")
        worker.write(first, "a b")
        worker.answer(first)
        worker.write(first, "too late")
        worker.write("somebody else's", "a")
        worker.write(second, "c")
        await world.go()
        assert [(where, it.custom_id, it.text) for where, it in world.grown] == [
            ("default", first, "a"),
            ("default", first, "a b"),
            ("default", second, "c"),
        ]
        assert world.record(1).state == RequestState.IN_PROGRESS, "it is no answer"
        worker.answer(second)
        worker.free()
        await world.go()

    told(story, **said).check()


def test_worker_that_dies_in_a_batch_leaves_all_requests_answered_once() -> None:
    """What it has said counts; each of the others is tried alone, so that the one that kills workers hurts nobody."""

    async def story(world: PoolWorld) -> None:
        await world.ask(4)
        await world.go()
        first = world.workers.started[0]
        first.free()
        await world.go()
        first.answer(world.accepted[0])
        first.die()
        await world.go()
        second = world.workers.started[1]
        second.free()
        await world.go()
        for name in world.accepted[1:]:
            assert second.names == [name]
            assert second.told[-1].requests[0].attempt == 2
            await world.answer_all(second)

    world = told(story)
    world.check()
    assert {world.record(number).state for number in range(4)} == {RequestState.COMPLETED}


def test_request_that_kills_workers_is_a_dead_letter_and_the_others_are_answered() -> None:
    async def story(world: PoolWorld) -> None:
        await world.ask(3)
        poison = world.accepted[1]
        await world.go()
        while len(world.store.last_words) < 3:
            (worker,) = world.workers.alive
            if not worker.told or worker.names[0] in world.store.last_words:
                worker.free()
            elif poison in worker.names:
                worker.die()
            else:
                worker.answer(*worker.names)
            await world.go()

    world = told(story, maxDeliveries=3)
    world.check()
    assert [world.record(number).state for number in range(3)] == ["completed", "failed", "completed"]
    assert len(world.workers.started) == 4, "three have died over it"
    error = world.record(1).error
    assert error is not None
    assert (error.code, "3 workers" in error.message) == ("worker_lost", True)
    assert [*world.store.dead] == [world.accepted[1]]
    assert world.record(1).body is not None, "it can be asked again"


def test_request_that_is_refused_fails_alone() -> None:
    async def story(world: PoolWorld) -> None:
        await world.ask(2)
        await world.go()
        (worker,) = world.workers.started
        worker.free()
        await world.go()
        worker.answer(world.accepted[0], code="invalid_request", message="no")
        worker.answer(world.accepted[1])
        worker.free()
        await world.go()

    world = told(story)
    world.check()
    assert [world.record(number).state for number in range(2)] == ["failed", "completed"]


def test_worker_that_is_told_to_stop_costs_no_delivery() -> None:
    async def story(world: PoolWorld) -> None:
        await world.ask(2)
        await world.go()
        first = world.workers.started[0]
        first.free()
        await world.go()
        first.stop()
        await world.go()
        second = world.workers.started[1]
        second.free()
        await world.go()
        assert second.names == world.accepted, "together, as before"
        await world.answer_all(second)

    told(story, maxDeliveries=1).check()


def test_model_that_cannot_be_loaded_is_said_to_all_who_wait_until_it_is_tried_again() -> None:
    async def story(world: PoolWorld) -> None:
        await world.ask(4)
        await world.go()
        world.workers.started[0].die(no_model())
        await world.go()
        assert world.pool.trouble is not None
        assert world.pool.trouble.reason == "ModelNotFound"
        assert len(world.store.last_words) == 4
        await world.ask(4)
        await world.go()
        assert len(world.store.last_words) == 8
        assert len(world.workers.started) == 1, "not again at once"
        world.clock.milliseconds += 1000
        await world.ask(4)
        await world.go()
        world.workers.started[1].free()
        await world.go()
        assert world.pool.trouble is None
        await world.answer_all(world.workers.started[1])

    world = told(story)
    world.check()
    assert [world.record(number).state for number in range(12)] == ["failed"] * 8 + ["completed"] * 4
    error = world.record(0).error
    assert error is not None
    assert (error.code, error.message) == ("ModelNotFound", "there is no model small")


def test_workers_that_die_before_they_are_ready_are_started_again_and_the_third_time_it_is_said() -> None:
    async def story(world: PoolWorld) -> None:
        await world.ask()
        for number in range(3):
            assert world.store.last_words == []
            await world.go()
            assert len(world.workers.started) == number + 1
            world.workers.started[number].die()
            await world.go()
            world.clock.milliseconds += 10_000

    world = told(story)
    assert world.record(0).state == RequestState.FAILED
    error = world.record(0).error
    assert error is not None
    assert error.code == "WorkerCrashed"


def test_worker_that_hangs_is_killed_and_its_requests_expire() -> None:
    async def story(world: PoolWorld) -> None:
        await world.ask()
        await world.go()
        (worker,) = world.workers.started
        worker.free()
        await world.go()
        world.clock.milliseconds += 1_000_000
        await world.go()
        assert worker.ended.done()

    world = told(story)
    world.check()
    assert world.record(0).state == RequestState.EXPIRED


def test_gateway_that_dies_leaves_its_windows_to_the_next_one() -> None:
    """What is answered stays so, and is not worked on again; what a worker has died over is known."""

    async def story(world: PoolWorld) -> None:
        await world.ask(3)
        await world.go()
        first = world.workers.started[0]
        first.free()
        await world.go()
        first.answer(world.accepted[0])
        first.die()
        await world.go()
        world.process()
        await world.windows.begin()
        await world.go()
        second = world.workers.started[0]
        second.free()
        await world.go()
        assert second.names == [world.accepted[1]], "alone: a worker has died over it"
        await world.answer_all(second)
        await world.answer_all(second)

    told(story).check()


def test_line_that_nobody_understands_ends_its_worker() -> None:
    async def story(world: PoolWorld) -> None:
        await world.ask()
        await world.go()
        first = world.workers.started[0]
        first.free()
        await world.go()
        first.said.put_nowait(b"rubbish\n")
        await world.go()
        assert first.ended.done()
        second = world.workers.started[1]
        second.free()
        await world.go()
        await world.answer_all(second)

    told(story).check()


def test_pool_of_more_at_least_than_at_most_is_refused() -> None:
    with pytest.raises(InvalidSpec, match=r"target\.warmPool\.min: min must not be greater than max"):
        route(min=2, max=1)


def test_worker_that_somebody_else_has_started_is_found_and_told_of_requests() -> None:
    async def story(world: PoolWorld) -> None:
        stray = ScriptedWorker("stray")
        world.workers.strays.append(stray)
        await world.ask(4)
        await world.go()
        assert world.workers.started == [], "there is one already"
        stray.free()
        await world.go()
        await world.answer_all(stray)

    told(story).check()


def test_requests_wait_while_no_worker_can_be_started_and_it_is_said_why() -> None:
    async def story(world: PoolWorld) -> None:
        world.workers.refusal = NotStarted("Refused", "exceeded quota: gpus")
        await world.ask()
        for _ in range(5):
            await world.go()
            world.clock.milliseconds += 60_000
        assert world.pool.trouble is not None
        assert (world.pool.trouble.reason, world.pool.trouble.final) == ("Refused", False)
        assert world.store.last_words == []
        world.workers.refusal = None
        await world.go()
        (worker,) = world.workers.started
        worker.free()
        await world.go()
        assert world.pool.trouble is None
        await world.answer_all(worker)

    told(story).check()


def test_obstacle_of_a_worker_that_starts_is_said_and_is_no_reason_to_give_up() -> None:
    async def story(world: PoolWorld) -> None:
        await world.ask()
        await world.go()
        (worker,) = world.workers.started
        worker.obstacle = Failure(reason="Unschedulable", message="0/3 nodes are available")
        await world.go()
        assert world.pool.trouble is not None
        assert (world.pool.trouble.reason, world.pool.trouble.final) == ("Unschedulable", False)
        worker.free()
        await world.go()
        assert world.pool.trouble is None, "it is ready"
        await world.answer_all(worker)

    told(story).check()


def test_pool_that_is_ended_leaves_its_workers_and_can_begin_anew() -> None:
    """As of a gateway that leads no more, and leads again later."""

    async def story(world: PoolWorld) -> None:
        await world.ask(2)
        await world.go()
        (worker,) = world.workers.started
        worker.free()
        await world.go()
        worker.answer(world.accepted[0])
        leading = asyncio.create_task(world.pool.run(lambda: True))
        await world.go()
        leading.cancel()
        await asyncio.gather(leading, return_exceptions=True)
        await world.windows.step()  # it may be asked once more
        assert not world.pool.is_at_work
        assert worker.ended.done()
        await world.windows.begin()  # as whoever leads then does
        await world.go()
        second = world.workers.started[-1]
        second.free()
        await world.go()
        assert second.names == [world.accepted[1]], "the other one has its answer"
        await world.answer_all(second)

    told(story).check()
