"""Thousands of small worlds, each an unkind one: whatever happens, what a status says is true, and the batch comes to an end."""

from __future__ import annotations

import pytest

from builders import a_batch
from headrace.api.batchstatus import InferenceBatchStatus
from headrace.core.admission.demand import held_pods
from headrace.core.reconcile import reconcile
from world import World

WORLDS = 1500
ROUNDS = 40


def make_world(seed: int) -> World:
    batch = a_batch().sharded(1 + seed % 5)
    if seed % 7 == 0:
        batch = batch.with_spec(completionDeadlineSeconds=300)
    if seed % 11 == 0:
        batch = batch.with_spec(failurePolicy={"maxFailedRecords": 2})
    return World(batch.build(), seed)


def check_status(world: World, before: InferenceBatchStatus, after: InferenceBatchStatus) -> None:
    counts = after.records
    assert counts.succeeded + counts.failed + counts.pending == counts.total
    done_before, done_after = before.records.succeeded + before.records.failed, counts.succeeded + counts.failed
    assert done_after >= done_before, "progress never runs backwards"
    truth = world.records if world.finalized else sum(s.done for s in world.shards)
    assert done_after <= truth, "no record is counted that is not on disk"
    if before.finished:
        assert after.conditions == before.conditions, "an end is an end"


def live_through(world: World) -> None:
    for _ in range(ROUNDS):
        before = world.batch.status
        plan = world.converge()
        check_status(world, before, world.batch.status)
        if plan.children and any(c["metadata"]["name"].endswith("-run") for c in plan.children):
            assert before.records.total == world.records, "no GPU before the whole input was read"
        if world.random.random() < 0.05:
            world.meddle()
        if world.random.random() < 0.2:
            world.judge()
        world.tick()
        assert world.active <= held_pods(world.batch), "the status says of every pod that it is held"


@pytest.mark.parametrize("block", range(10))
def test_reconcile_comes_to_a_true_end_in_every_world(block: int) -> None:
    ends: set[str] = set()
    for seed in range(block, WORLDS, 10):
        world = make_world(seed)
        live_through(world)
        world.calm_down()
        for _ in range(60):
            world.converge(may_die=False)
            world.tick(kind=True)
        status = world.batch.status
        assert status.finished, f"seed {seed}: {status.summary.state}, {status.conditions}"
        assert status.completion_time is not None
        truth = sum(s.done - s.failed for s in world.shards)
        if status.records.total:
            assert (status.records.pending, status.records.succeeded) == (0, truth), f"seed {seed}"
        ends.add(status.summary.state)
    assert {"Complete", "Cancelled"} <= ends, "the worlds are varied enough to mean something"


@pytest.mark.parametrize("seed", range(60))
def test_reconcile_twice_on_what_it_asked_for_asks_for_nothing_new(seed: int) -> None:
    world = make_world(seed)
    for _ in range(ROUNDS):
        observed = world.observe()
        assert reconcile(observed) == reconcile(observed)
        first = world.converge(may_die=False)
        for _ in range(4):  # a written status may open the next step; it does not go on for ever
            again = world.converge(may_die=False)
            if again == first:
                break
            first = again
        settled = world.observe()
        names = {c["metadata"]["name"] for c in reconcile(settled).children or ()}
        assert reconcile(settled).status == settled.batch.status
        assert not reconcile(settled).events
        assert reconcile(settled).children is None or names == set(world.jobs)
        world.tick()
