"""What the batcher costs: microseconds a record, from `add` until it is in a batch, with many others waiting.

Run it with `python tests/bench/batcher.py`; the figures are CPU time on one core, the best of five.
"""

from __future__ import annotations

import random
import sys
import time

from headrace.api.common import OrderBy
from headrace.api.records import Request
from headrace_worker.batcher import Batcher, BatchLimits
from headrace_worker.engines.base import Work

BATCH = 64
ROUNDS = 500


def works(count: int) -> list[Work]:
    """Records with prompts of 1 to 4,000 tokens, most of them short, on a few hundred system prompts."""
    rng = random.Random(7)
    systems = [f"You are assistant number {i}, and you answer briefly." for i in range(300)]
    return [
        Work(
            position,
            Request(
                str(position), {"messages": [{"role": "user", "content": f"{rng.choice(systems)} {rng.random()}"}]}
            ),
            tokens=min(4000, int(rng.lognormvariate(5, 1)) + 1),
        )
        for position in range(count)
    ]


def cost_microseconds(order_by: OrderBy, waiting: int) -> float:
    """Keep `waiting` records waiting, and pass others through batch by batch."""
    batcher = Batcher(BatchLimits(BATCH, 10**9, 1.0, order_by))
    supply = works(waiting + BATCH * ROUNDS)
    for work in supply[:waiting]:
        batcher.add(work, 0.0)
    passed, rest = 0, iter(supply[waiting:])
    began = time.process_time()
    for now in range(ROUNDS):
        for _ in range(BATCH):
            batcher.add(next(rest), float(now))
        passed += len(batcher.next_batch(float(now), BATCH, more_coming=True))
    return (time.process_time() - began) * 1e6 / passed


def main() -> int:
    """Print a row an order and a column a queue length."""
    lengths = (1_000, 10_000, 100_000)
    print("order_by".ljust(10), *(f"{length:>10,}" for length in lengths), "waiting; microseconds a record")
    for order_by in OrderBy:
        costs = [min(cost_microseconds(order_by, length) for _ in range(5)) for length in lengths]
        print(order_by.ljust(10), *(f"{cost:10.2f}" for cost in costs))
    return 0


if __name__ == "__main__":
    sys.exit(main())
