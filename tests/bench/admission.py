"""How long admission takes: all verdicts at once, and one event at a time, beside the least that any order costs.

    python tests/bench/admission.py [--waiting 10000] [--running 1000] [--bulkheads 64] [--rounds 9] [--json]

The floor of `admit` is to put the same keys in order once: `heapify`, then `heappop` until nothing is left. `admit` decides about all; what
is said about each is put in words when somebody asks for it, so reading every verdict is measured too. An event is what a shell does when a
batch has changed: `put`, then `look` at it. It is measured with all bulkheads full, in so few that each has room for the largest batch:
where most can never start there is little to decide. Its cost should not grow with the number of objects. Then the line moves for two
minutes: so many batches have to be looked at a second because their position or reason is another, and so long takes the tick that finds
them. The best round counts: everything else on the machine only ever makes them slower.
"""

from __future__ import annotations

import argparse
import gc
import heapq
import json
import random
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from rich.console import Console
from rich.table import Table

from headrace.api.bulkhead import Bulkhead
from headrace.core.admission.admit import admit
from headrace.core.admission.book import Book
from headrace.core.admission.demand import Demand, Shape, latest_start

NOW = datetime(2026, 1, 15, 12, tzinfo=UTC)
NAMESPACES, MODELS, SIZES = 16, 4, (1, 2, 4, 8)
EVENT_BULKHEADS = 8


def bulkheads(count: int, gpus: int) -> list[Bulkhead]:
    """So many bulkheads of so many GPUs."""
    head = {"apiVersion": "headrace.dev/v1alpha1", "kind": "Bulkhead"}
    spec = {"capacity": {"gpus": gpus}}
    return [Bulkhead.parse({**head, "metadata": {"name": f"bulkhead-{n}"}, "spec": spec}) for n in range(count)]


def demands(count: int, bulkheads: int, *, running: bool) -> list[Demand]:
    """So many batches of four sizes, three priorities, four models and sixteen namespaces."""
    dice = random.Random(count)
    made = []
    for number in range(count):
        namespace = f"team-{dice.randrange(NAMESPACES)}"
        created = NOW - timedelta(seconds=dice.randrange(500))
        pods = 1 if running else dice.choice(SIZES)
        demand = Demand(
            key=f"{namespace}/{'run' if running else 'wait'}-{number}",
            namespace=namespace,
            bulkhead=f"bulkhead-{number % bulkheads}",
            shape=Shape("nvidia.com/gpu", 1, 0, pods, (f"model {dice.randrange(MODELS)}",)),
            pods=pods,
            priority=dice.randrange(3),
            created=created,
            since=created,
            held=pods if running else 0,
            admitted=running,
            started=created if running else None,
            ends=NOW + timedelta(seconds=dice.randrange(3600)) if running else None,
            run_seconds=600.0,
        )
        made.append(demand)
    return made


def best(rounds: int, work: Callable[[], object]) -> float:
    """Seconds of processor time of the best round."""
    found = []
    for _ in range(rounds):
        gc.collect()
        began = time.process_time()
        work()
        found.append(time.process_time() - began)
    return min(found)


def sort_once(waiting: list[Demand]) -> None:
    """The floor: the keys of all that wait, in order."""
    heap = [(-demand.priority, latest_start(demand), demand.created, demand.key) for demand in waiting]
    heapq.heapify(heap)
    while heap:
        heapq.heappop(heap)


def event_seconds(objects: int, count: int, rounds: int) -> float:
    """One event among so many objects: of a batch that waits, of one that runs, and of one that ends and lets another in."""
    running, waiting = demands(objects // 10, count, running=True), demands(objects * 9 // 10, count, running=False)
    book = Book()
    full = max(1, len(running) // count)
    book.load((*running, *waiting), bulkheads(count, full), NOW)
    events = [_event(random.Random(number), waiting, running) for number in range(2000)]

    def work() -> None:
        for demand, again in events:
            book.put(demand, NOW)
            if again is not None:
                book.take_changed()
                book.put(again, NOW)
            else:
                book.look(demand.key, NOW)

    return best(rounds, work) / len(events)


def refreshing(waiting: list[Demand], running: list[Demand], full: list[Bulkhead]) -> tuple[float, float]:
    """Looks a second that a line asks for while it moves, and milliseconds of a tick; what runs takes ten minutes each."""
    book, known, now = Book(), {demand.key: demand for demand in (*running, *waiting)}, NOW
    book.load(known.values(), full, now)
    held, ended, looks, spent = [demand.key for demand in running], 0.0, 0, list[float]()
    for tick in range(-SETTLING_TICKS, 60):
        now += timedelta(seconds=TICK_SECONDS)
        ended += TICK_SECONDS * len(running) / 600 if tick >= 0 else 0.0
        while ended >= 1 and held:
            key, ended = held.pop(), ended - 1
            book.remove(key, now)
            del known[key]
        began = time.process_time()
        book.tick(now)
        spent.append(time.process_time() - began)
        told = book.take_changed() & known.keys()
        for key in told:
            known[key] = _written(book, known[key], now)
            book.put(known[key], now)
        looks += len(told) if tick >= 0 else 0
    return looks / (60 * TICK_SECONDS), 1000 * sum(spent) / len(spent)


TICK_SECONDS, SETTLING_TICKS = 2.0, 15


def _written(book: Book, demand: Demand, now: datetime) -> Demand:
    """The batch once somebody has looked at it."""
    verdict = book.look(demand.key, now)
    if not verdict.admitted:
        return replace(
            demand,
            said=verdict.reason,
            position=verdict.position,
            start=verdict.estimated_start,
            held=0,
            admitted=False,
        )
    return replace(demand, held=verdict.pods or 0, admitted=True, started=demand.started or now)


def _event(dice: random.Random, waiting: list[Demand], running: list[Demand]) -> tuple[Demand, Demand | None]:
    """A batch that has made progress; or one that ends, and comes again."""
    demand = dice.choice(waiting if dice.random() < 0.5 else running)
    if demand.held and dice.random() < 0.5:
        ended = replace(demand, held=0, admitted=False, started=None)
        return replace(ended, wants=False), ended
    return replace(demand, tokens=demand.tokens + 1), None


def main() -> None:
    """Measure, and say it as a table or as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--waiting", type=int, default=10_000)
    parser.add_argument("--running", type=int, default=1_000)
    parser.add_argument("--bulkheads", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    waiting = demands(options.waiting, options.bulkheads, running=False)
    running = demands(options.running, options.bulkheads, running=True)
    full = bulkheads(options.bulkheads, max(1, options.running // options.bulkheads))
    found = {
        "admit_ms": 1000 * best(options.rounds, lambda: admit(waiting, running, full, NOW)),
        "admit_and_read_ms": 1000 * best(options.rounds, lambda: dict(admit(waiting, running, full, NOW))),
        "sort_once_ms": 1000 * best(options.rounds, lambda: sort_once(waiting)),
        "event_us_of_1000": 1e6 * event_seconds(1_000, EVENT_BULKHEADS, options.rounds),
        "event_us_of_50000": 1e6 * event_seconds(50_000, EVENT_BULKHEADS, options.rounds),
    }
    found["looks_a_second"], found["tick_ms"] = refreshing(waiting, running, full)
    if options.json:
        print(json.dumps(found))
        return
    table = Table("what", "best", title=f"{options.waiting} wait, {options.running} run, {options.bulkheads} bulkheads")
    for what, value in found.items():
        table.add_row(what, f"{value:.1f}")
    Console().print(table)


if __name__ == "__main__":
    main()
