"""Whether a flood in one bulkhead holds up another, on a real control plane.

    python tests/bench/flood.py [--rounds 5] [--flood 200] [--batches 40] [--json FILE]

Bulkhead `b` gets batches at a steady pace; each is let in at once. In every second round, bulkhead `a`, which has room for one batch, gets
hundreds at the same moment. The time to start of a batch is that from its creation until it is admitted and its run Job is released. The
rounds take turns, so that a busy moment of the machine hits both kinds. There are no pods: only the operator and the API server work.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from bench.cluster_operator import (
    BATCH,
    JOB_CONTROLLER,
    PATIENCE_SECONDS,
    Spectator,
    an_operator,
    create,
    percentile,
    run,
    say,
)
from cluster.operator_rig import Plane, Rig, eventually, manifest, started_plane
from headrace.api.base import JsonObject
from headrace.shells.kube.resources import BATCHES, BULKHEADS

A_SECOND = 5.0
"""Batches of `b`."""


@dataclass(frozen=True)
class Settings:
    """The command line."""

    rounds: int
    flood: int
    batches: int


def bulkhead(rig: Rig, short: str, **capacity: int) -> str:
    """Make a Bulkhead for one round; its name."""
    name = f"{rig.namespace}-{short}"
    head = {"apiVersion": BULKHEADS.api_version, "kind": BULKHEADS.kind, "metadata": {"name": name}}
    rig.create(BULKHEADS, {**head, "spec": {"capacity": capacity}})
    return name


async def submit_steadily(rig: Rig, name: str, count: int, spectator: Spectator) -> None:
    """Batches for `b`, one after the other."""
    began = time.perf_counter()
    for number in range(count):
        await asyncio.sleep(began + number / A_SECOND - time.perf_counter())
        batch = BATCH.with_spec(bulkheadName=name)
        body = manifest(batch) | {"metadata": {"name": f"calm-{number}"}}
        await rig.plane.api.create(BATCHES, rig.namespace, body)
        spectator.created[f"calm-{number}"] = time.perf_counter()


async def together(rig: Rig, settings: Settings, flood: int, spectator: Spectator) -> None:
    """The flood all at once, and beside it the steady ones."""
    narrow, wide = bulkhead_names(rig)
    names = [f"flood-{number}" for number in range(flood)]
    await asyncio.gather(
        create(rig, names, BATCH.with_spec(bulkheadName=narrow)),
        submit_steadily(rig, wide, settings.batches, spectator),
    )


def bulkhead_names(rig: Rig) -> tuple[str, str]:
    """Of `a` and `b`."""
    return f"{rig.namespace}-a", f"{rig.namespace}-b"


def one_round(plane: Plane, folder: Path, settings: Settings, flood: int) -> list[float]:
    """Milliseconds to the start of each batch of `b`."""
    rig = Rig(plane, folder)
    bulkhead(rig, "a", batches=1)
    bulkhead(rig, "b", batches=10 * settings.batches)
    operator = an_operator(rig).start().wait_ready()
    spectator = Spectator(rig)
    run(rig, together(rig, settings, flood, spectator))

    def started() -> bool:
        assert operator.alive, operator.log
        return set(spectator.created) <= set(spectator.run_job) & set(spectator.admitted)

    eventually(started, "all of b started", lambda: len(spectator.run_job), PATIENCE_SECONDS)
    spectator.end()
    if flood:
        show(rig)
    rig.close()
    ends = {name: max(spectator.run_job[name], spectator.admitted[name]) for name in spectator.created}
    return [1000 * max(0.0, ends[name] - at) for name, at in spectator.created.items()]


def show(rig: Rig) -> None:
    """What a user sees of the flood."""
    say(str(rig.kubectl("get", "bh", *bulkhead_names(rig))))
    say("\n".join(str(rig.kubectl("get", "ib", f"--namespace={rig.namespace}")).splitlines()[:8]))


def measure(plane: Plane, folder: Path, settings: Settings) -> JsonObject:
    """All rounds."""
    kinds: dict[str, list[list[float]]] = {"alone": [], "flooded": []}
    for number in range(settings.rounds):
        for kind, found in kinds.items():
            found.append(one_round(plane, folder, settings, settings.flood if kind == "flooded" else 0))
            say(f"{number + 1} of {settings.rounds}, {kind}: p95 {percentile(found[-1], 95):.0f} ms")
    p95s = {kind: [percentile(each, 95) for each in found] for kind, found in kinds.items()}
    figures = {kind: [each for one in found for each in one] for kind, found in kinds.items()}
    return {
        "flood": settings.flood,
        "milliseconds": {
            kind: {"p50": percentile(all_, 50), "p95": percentile(all_, 95)} for kind, all_ in figures.items()
        },
        "p95_of_rounds": p95s,
        "p95_ratio": statistics.median(
            after / before for before, after in zip(p95s["alone"], p95s["flooded"], strict=True)
        ),
    }


def main(arguments: Sequence[str]) -> int:
    """Measure, and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5, help="turns of each kind")
    parser.add_argument("--flood", type=int, default=200, help="batches that flood `a`")
    parser.add_argument("--batches", type=int, default=40, help="batches of `b` in each round")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    chosen = parser.parse_args(arguments)
    settings = Settings(chosen.rounds, chosen.flood, chosen.batches)
    with tempfile.TemporaryDirectory() as folder, started_plane(Path(folder) / "plane", print) as plane:
        plane.cluster.kill(JOB_CONTROLLER)
        found = measure(plane, Path(folder), settings)
    print(json.dumps(found, indent=2))
    if chosen.json is not None:
        chosen.json.write_text(json.dumps(found))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
