"""Many small clusters, each an unkind one: no limit is ever exceeded, nothing lies idle that somebody could use, and all comes to an end.

`HEADRACE_WORLDS` sets how many worlds there are; `python tests/core/test_admission_simulation.py` says how many a second.
"""

from __future__ import annotations

import os
import time
from collections import Counter
from datetime import timedelta
from typing import Any

import pytest

from admission_builders import with_gpus
from fleet import Fleet, promised_pods, running_pods
from headrace.api.reasons import Reason
from headrace.core.admission.demand import min_pods, usable_pods

WORLDS = int(os.environ.get("HEADRACE_WORLDS", "240"))
ROUNDS = 60
HELD_UP = {
    Reason.CAPACITY_RESERVED,
    Reason.STARTS_PER_MINUTE,
    Reason.BREAKER_OPEN,
    Reason.EXCEEDS_CAPACITY,
    Reason.SUSPENDED,
    Reason.PLANNING,
}
"""Reasons to wait that have nothing to do with what is free."""


def check_limits(fleet: Fleet) -> None:
    """Neither the pods nor what statuses promise exceeds a limit."""
    capacity, share = fleet.bulkhead.spec.capacity, fleet.bulkhead.spec.per_namespace.gpus
    for counted in (running_pods, promised_pods):
        gpus = fleet.gpus(counted)
        pods = sum(counted(task) for task in fleet.tasks.values())
        batches = sum(counted(task) > 0 for task in fleet.tasks.values())
        assert sum(gpus.values()) <= (capacity.gpus or 0), f"{counted.__name__}: {gpus}"
        assert pods <= (pods if capacity.pods is None else capacity.pods), counted.__name__
        assert batches <= (batches if capacity.batches is None else capacity.batches), counted.__name__
        assert share is None or max(gpus.values(), default=0) <= share, f"{counted.__name__}: {gpus}"
    for key, task in fleet.tasks.items():
        assert len(task.running) <= promised_pods(task), f"{key} has pods that its status does not speak of"


def check_probes(fleet: Fleet) -> None:
    """Of those that a half-open breaker has let through, one at most runs at a time."""
    for name, breaker in fleet.book.breakers.known.items():
        sent = fleet.probes.get((name, breaker.opened_at), ()) if breaker.opened_at is not None else ()
        running = [key for key in sent if promised_pods(fleet.tasks[key])]
        assert len(running) <= 1, f"{name}: {running}"


def check_nothing_is_idle(fleet: Fleet) -> None:
    """Nobody waits for what is free, unless something else holds it up and its verdict says so."""
    fleet.settle()
    spec = fleet.bulkhead.spec
    held, per_namespace = sum(fleet.gpus(promised_pods).values()), fleet.gpus(promised_pods)
    pods = sum(promised_pods(task) for task in fleet.tasks.values())
    batches = sum(promised_pods(task) > 0 for task in fleet.tasks.values())
    for key in fleet.unfinished:
        batch = fleet.tasks[key].batch
        verdict = fleet.book.look(key, fleet.now)
        if verdict.admitted or verdict.reason in HELD_UP or promised_pods(fleet.tasks[key]):
            continue
        least = min_pods(batch, usable_pods(batch))
        fits = held + least * batch.spec.gpus <= (spec.capacity.gpus or 0)
        fits &= spec.capacity.pods is None or pods + least <= spec.capacity.pods
        fits &= spec.capacity.batches is None or batches < spec.capacity.batches
        mine = per_namespace[batch.metadata.namespace] + least * batch.spec.gpus
        fits &= spec.per_namespace.gpus is None or mine <= spec.per_namespace.gpus
        assert not fits, f"{key} waits for what is free: {verdict.message}"


def submit_something(fleet: Fleet, number: int) -> None:
    dice = fleet.random
    shards = dice.choice([1, 1, 2, 3, 6])
    spec: dict[str, Any] = {
        "priority": dice.choice([0, 0, 0, 5, 9]),
        "resources": {"gpus": dice.choice([0, 1, 1, 1, 2])},
    }
    if dice.random() < 0.5:
        spec["minParallelism"] = dice.randrange(1, shards + 1)
    if dice.random() < 0.2:
        spec["completionDeadlineSeconds"] = 36_000
    model = dice.choice(["good", "good", "bad"])
    key = f"{dice.choice('abc')}/batch-{number}"
    fleet.submit(key, shards=shards, work=dice.randrange(1, 8), model=model, **spec)


def meddle(fleet: Fleet) -> None:
    """Users change their minds, and models break."""
    dice = fleet.random
    if fleet.unfinished and dice.random() < 0.1:
        changes: list[dict[str, Any]] = [{"suspend": True}, {"suspend": False}, {"priority": 7}, {"parallelism": 2}]
        fleet.change(dice.choice(fleet.unfinished), **{**dice.choice(changes), "min_parallelism": None})
    if dice.random() < 0.02:
        fleet.broken["bad"] = fleet.now + timedelta(seconds=dice.randrange(20, 300))
    if dice.random() < 0.02:
        fleet.restart()


def live_through(fleet: Fleet) -> None:
    for number in range(ROUNDS):
        if number < ROUNDS // 2 and fleet.random.random() < 0.5:
            submit_something(fleet, number)
        meddle(fleet)
        fleet.operate()
        check_limits(fleet)
        check_probes(fleet)
        fleet.tick()
        check_limits(fleet)
        if fleet.random.random() < 0.05:
            check_nothing_is_idle(fleet)


def come_to_an_end(fleet: Fleet) -> None:
    """Nobody meddles any more, and all models work: whatever can be done is."""
    fleet.kind = True
    fleet.broken.clear()
    for key in fleet.unfinished:
        fleet.change(key, suspend=False)
    for _ in range(2000):
        fleet.settle()
        waiting = [key for key in fleet.unfinished if fleet.book.look(key, fleet.now).reason != Reason.EXCEEDS_CAPACITY]
        if not waiting:
            return
        fleet.tick()
        check_limits(fleet)
        check_probes(fleet)
    said = {key: fleet.book.look(key, fleet.now).message for key in waiting}
    raise AssertionError(f"these never end: {said}")


@pytest.mark.parametrize("block", range(8))
def test_admission_keeps_its_promises_in_every_world(block: int) -> None:
    ends: Counter[str] = Counter()
    deaths = probes = 0
    for seed in range(block, WORLDS, 8):
        fleet = Fleet(seed)
        try:
            live_through(fleet)
            come_to_an_end(fleet)
        except AssertionError as error:
            raise AssertionError(f"seed {seed}: {error}") from error
        ends += Counter(task.batch.status.summary.state for task in fleet.tasks.values())
        deaths += fleet.deaths
        probes += len(fleet.probes)
    assert ends["Complete"] > ends["WorkerFailed"] > 0, "the worlds are varied enough to mean something"
    assert min(deaths, probes) > 0


@pytest.mark.parametrize("seed", range(12))
def test_a_backlog_is_shared_evenly(seed: int) -> None:
    """While all of them have something to run, no namespace has more than one batch more than another."""
    fleet = Fleet(seed, with_gpus(3 + seed % 7, reserveAfterSeconds=100_000), kind=True)
    names = "abcd"[: 2 + seed % 3]
    for number in range(12):
        for name in names:
            fleet.submit(f"{name}/batch-{number}", shards=1, work=fleet.random.randrange(2, 9), resources={"gpus": 1})
    fleet.kind, compared = False, 0
    while len(fleet.unfinished) > len(names) * 3:
        fleet.operate()
        fleet.tick()
        fleet.settle()
        check_limits(fleet)
        running = fleet.gpus(promised_pods)
        idle = Counter(key[0] for key in fleet.unfinished if not promised_pods(fleet.tasks[key]))
        if all(idle[name] for name in names):
            compared += 1
            held = [running[name] for name in names]
            assert max(held) - min(held) <= 1, held
    assert compared > 3


def seconds_until_large_starts(seed: int, patience: int) -> int | None:
    """How long a batch waits that needs all GPUs, while small ones keep coming that need one each; None for longer than six minutes."""
    fleet = Fleet(seed, with_gpus(4, reserveAfterSeconds=patience), kind=True)
    for number in range(-5, 72):
        for name in "pq":
            fleet.submit(f"a/{name}{number + 5}", shards=1, work=fleet.random.randrange(2, 6), resources={"gpus": 1})
        if number == 0:
            fleet.submit("a/large", shards=4, work=3, minParallelism=4, resources={"gpus": 1})
        fleet.settle()
        fleet.tick()
        check_limits(fleet)
        if number > 0 and promised_pods(fleet.tasks["a/large"]):
            return number * 5
    return None


@pytest.mark.parametrize("seed", range(3))
def test_a_large_batch_is_not_passed_for_ever(seed: int) -> None:
    """After a while what becomes free is kept for it: then it waits for no longer than the longest small one takes."""
    waited = seconds_until_large_starts(seed, patience=60)
    assert waited is not None
    assert waited <= 60 + 6 + 5 * 6 + 15
    assert seconds_until_large_starts(seed, patience=100_000) is None, "without that it is"


def test_a_batch_that_gives_way_drains_and_goes_on_later() -> None:
    fleet = Fleet(1, with_gpus(4), kind=True)
    fleet.submit("a/low", shards=4, work=10, minParallelism=4, resources={"gpus": 1})
    for _ in range(3):
        fleet.settle()
        fleet.tick()
    low = fleet.tasks["a/low"]
    assert len(low.running) == 4
    left = list(low.work)
    fleet.submit("b/high", shards=2, work=4, priority=9, resources={"gpus": 1}, minParallelism=2)
    high, states = fleet.tasks["b/high"], []
    while not high.batch.status.finished:
        fleet.settle()
        states.append((low.batch.status.summary.state, high.batch.status.summary.state))
        fleet.tick()
        check_limits(fleet)
    assert states[0] == ("Draining", "Waiting")
    assert ("Waiting", "Running") in states
    assert low.batch.status.queue is not None or low.running
    assert low.work <= left, "what is done is done"
    while fleet.unfinished:
        fleet.settle()
        fleet.tick()
    assert {task.batch.status.summary.state for task in fleet.tasks.values()} == {"Complete"}


def test_an_elastic_batch_shrinks_for_another_and_grows_again() -> None:
    fleet = Fleet(1, with_gpus(4), kind=True)
    fleet.submit("a/low", shards=4, work=30, resources={"gpus": 1})
    for _ in range(3):
        fleet.settle()
        fleet.tick()
    low = fleet.tasks["a/low"]
    fleet.submit("b/high", shards=3, work=4, priority=9, resources={"gpus": 1}, minParallelism=3)
    sizes = []
    while not low.batch.status.finished:
        fleet.settle()
        fleet.tick()
        check_limits(fleet)
        assert low.job is not None
        assert not low.job["spec"]["suspend"], "it gives back only what is needed"
        sizes.append((len(low.running), low.job["spec"]["parallelism"]))
    assert (1, 1) in sizes
    assert sizes.index((1, 1)) < sizes.index((4, 4)), "the Job was patched down, and up again"


def main() -> None:
    """How many worlds a second, on one core."""
    began = time.process_time()
    looks = 0
    for seed in range(WORLDS):
        fleet = Fleet(seed)
        live_through(fleet)
        come_to_an_end(fleet)
        looks += fleet.converged
    seconds = time.process_time() - began
    print(f"{WORLDS} worlds, {looks} looks, {seconds:.1f} s: {WORLDS / seconds:.1f} worlds/s")


if __name__ == "__main__":
    main()
