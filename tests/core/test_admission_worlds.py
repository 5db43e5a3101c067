"""Very many very small clusters: no limit is exceeded, nothing lies idle that somebody could use, shares are fair, and all comes to an end.

A run of the tests lives through two thousand. `make worlds` lives through a hundred thousand on all cores, and says how long they take and
how much has happened in them; `make worlds WORLDS=1000000` through more. A world that breaks a promise is named by its seed.
"""

from __future__ import annotations

import os
import sys
import time
from collections import Counter
from datetime import timedelta
from multiprocessing import Pool

import pytest

from admission_builders import with_gpus
from headrace.api.reasons import Reason
from tiny_fleet import TinyFleet, some_bulkheads

WORLDS = int(os.environ.get("HEADRACE_TINY_WORLDS", "2000"))
BLOCKS = 8
ROUNDS = 14
PART = 5000
"""Worlds that one core lives through at a time."""
BULKHEADS = some_bulkheads(257)
"""A prime number of them, so that each meets ever other worlds."""
NAMESPACES = "abc"


def check_limits(fleet: TinyFleet) -> None:
    """Neither what pods have nor what statuses promise exceeds a limit, and no pod runs that no status speaks of."""
    capacity, share = fleet.bulkhead.spec.capacity, fleet.bulkhead.spec.per_namespace.gpus
    promised, had = fleet.gpus(promised=True), fleet.gpus(promised=False)
    assert promised.total() <= (capacity.gpus or 0), f"promised: {promised}"
    assert all(had[name] <= promised[name] for name in had), f"{had} run of {promised}"
    assert share is None or max(promised.values(), default=0) <= share, f"of a namespace: {promised}"
    if capacity.batches is not None:
        assert sum(task.status.held > 0 for task in fleet.tasks.values()) <= capacity.batches


def check_probes(fleet: TinyFleet) -> None:
    """Of those that a half-open breaker has let through, one at most runs at a time."""
    for name, breaker in fleet.book.breakers.known.items():
        sent = fleet.probes.get((name, breaker.opened_at), ()) if breaker.opened_at is not None else ()
        assert sum(fleet.tasks[key].status.held > 0 for key in sent) <= 1, f"{name}: {sent}"


def check_nothing_is_idle(fleet: TinyFleet) -> None:
    """All is heard: nobody waits for what is free, and a breaker that may be tried is."""
    fleet.settle()
    spec, promised = fleet.bulkhead.spec, fleet.gpus(promised=True)
    batches = sum(task.status.held > 0 for task in fleet.tasks.values())
    for key in fleet.unfinished:
        task, verdict = fleet.tasks[key], fleet.book.look(key, fleet.now)
        if task.status.held or verdict.admitted or verdict.reason not in (Reason.QUOTA_EXCEEDED, Reason.BREAKER_OPEN):
            continue
        shape = task.demand(task.status).shape
        needs = shape.gpus * shape.min_pods
        fits = promised.total() + needs <= (spec.capacity.gpus or 0)
        fits &= spec.capacity.batches is None or batches < spec.capacity.batches
        fits &= spec.per_namespace.gpus is None or promised[task.asked.namespace] + needs <= spec.per_namespace.gpus
        if verdict.reason == Reason.QUOTA_EXCEEDED:
            assert not fits, f"{key} waits for what is free: {verdict.message}"
        else:
            assert not fits or not fleet.half_open(key), (
                f"{key} waits for a probe, and nobody is one: {verdict.message}"
            )


def submit_something(fleet: TinyFleet) -> None:
    dice = fleet.random
    shards = dice.choice((1, 1, 2, 3))
    fleet.submit(
        dice.choice(NAMESPACES),
        shards,
        dice.choice(("model good", "model good", "model bad")),
        gpus=dice.choice((0, 1, 1, 2)),
        at_least=dice.randrange(1, shards + 1),
        priority=dice.choice((0, 0, 5)),
        work=dice.randrange(1, 5),
    )


def live_through(fleet: TinyFleet) -> None:
    dice = fleet.random
    if dice.random() < 0.2:
        fleet.open_breaker("model bad")
    for number in range(ROUNDS):
        if number < ROUNDS // 2 and dice.random() < 0.7:
            submit_something(fleet)
        if dice.random() < 0.06:
            fleet.broken["model bad"] = fleet.now + timedelta(seconds=dice.randrange(20, 200))
        if dice.random() < 0.03:
            fleet.restart()
        fleet.operate()
        check_limits(fleet)
        check_probes(fleet)
        fleet.tick()
        check_limits(fleet)
    check_nothing_is_idle(fleet)


def come_to_an_end(fleet: TinyFleet) -> None:
    """Nothing stands in the way any more: whatever can be done is."""
    fleet.kind = True
    fleet.broken.clear()
    fleet.settle()
    for _ in range(600):
        fleet.calm_down()
        check_limits(fleet)
        check_probes(fleet)
        left = [key for key in fleet.unfinished if fleet.tasks[key].status.held or not _hopeless(fleet, key)]
        if not left:
            return
        fleet.tick()
    said = {key: fleet.book.look(key, fleet.now).message for key in left}
    raise AssertionError(f"these never end: {said}")


def _hopeless(fleet: TinyFleet, key: str) -> bool:
    return fleet.book.look(key, fleet.now).reason == Reason.EXCEEDS_CAPACITY


def a_world(seed: int) -> TinyFleet:
    """From its beginning to its end. Raises `AssertionError` with its seed."""
    fleet = TinyFleet(seed, BULKHEADS[seed % len(BULKHEADS)])
    try:
        live_through(fleet)
        come_to_an_end(fleet)
    except AssertionError as error:
        raise AssertionError(f"seed {seed}: {error}") from error
    return fleet


class Tally(Counter[str]):
    """What has happened in many worlds."""

    def add(self, fleet: TinyFleet) -> None:
        """One more."""
        self["worlds"] += 1
        self["batches"] += len(fleet.tasks)
        self["failed"] += sum(task.status.failed for task in fleet.tasks.values())
        self["looks"] += fleet.looks
        self["deaths"] += fleet.deaths
        self["probes"] += len(fleet.probes)


@pytest.mark.parametrize("block", range(BLOCKS))
def test_admission_keeps_its_promises_in_very_many_worlds(block: int) -> None:
    tally = Tally()
    for seed in range(block, WORLDS, BLOCKS):
        tally.add(a_world(seed))
    assert min(tally[what] for what in ("batches", "failed", "deaths", "probes")) > 0, (
        f"the worlds are varied enough to mean something: {tally}"
    )


def share_a_backlog(seed: int) -> int:
    """While each namespace has something that waits, none has more than one batch more than another; how often that was looked at."""
    names = NAMESPACES[: 2 + seed % 2]
    fleet = TinyFleet(seed, with_gpus(2 + seed % 7, reserveAfterSeconds=3600))
    fleet.kind = True
    for _ in range(8):
        for name in names:
            work = fleet.random.randrange(1, 5)
            fleet.submit(name, 1, "model good", gpus=1, at_least=1, priority=0, work=work)
    fleet.kind, compared = False, 0
    for _ in range(12):
        fleet.operate()
        fleet.tick()
        fleet.settle()
        check_limits(fleet)
        waiting = {fleet.tasks[key].asked.namespace for key in fleet.unfinished if not fleet.tasks[key].status.held}
        held = [fleet.gpus(promised=True)[name] for name in names]
        if len(waiting) == len(names):
            compared += 1
            assert max(held) - min(held) <= 1, f"seed {seed}: {held}"
    return compared


def test_a_backlog_is_shared_to_within_one_batch_in_very_many_worlds() -> None:
    assert sum(share_a_backlog(seed) for seed in range(WORLDS // 20)) > WORLDS // 20


def some_worlds(seeds: range) -> Tally:
    tally = Tally()
    for seed in seeds:
        tally.add(a_world(seed))
    return tally


def main(worlds: int) -> None:
    """Live through the worlds of so many seeds, on all cores."""
    began, tally = time.perf_counter(), Tally()
    parts = [range(first, min(first + PART, worlds)) for first in range(0, worlds, PART)]
    with Pool() as cores:
        for found in cores.imap_unordered(some_worlds, parts):
            tally.update(found)
            print(f"{tally['worlds']} of {worlds} worlds", file=sys.stderr, flush=True)
    seconds = time.perf_counter() - began
    print(
        f"seeds 0 to {worlds - 1}, no promise broken: {dict(tally)} in {seconds:.0f} s, {worlds / seconds:.0f} worlds/s"
    )


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else WORLDS)
