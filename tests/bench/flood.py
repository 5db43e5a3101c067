"""Whether a flood in one bulkhead holds up another, on a real control plane.

    python tests/bench/flood.py [--rounds 5] [--flood 200] [--batches 40] [--json FILE]

Bulkhead `b` gets batches at a steady pace; each is let in at once. The time to start of a batch is that from its creation until it is
admitted and its run Job is there. There are four kinds of rounds, which take turns, so that a busy moment of the machine hits all:

- alone: nothing else happens
- beside: hundreds wait in bulkhead `a`, which has room for one batch, and have been told their places in line
- flooded: those hundreds come at this very moment
- floor: the same flood beside the operator, in a namespace that it does not serve; a bare client writes what it would have written

The floor is what sharing the machine and the API server costs in any case. The flood comes from a process of its own, so that whoever
measures is not held up by it. There are no pods: only the operator and the API server work.
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
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))

from bench.cluster_operator import (
    BATCH,
    JOB_CONTROLLER,
    PATIENCE_SECONDS,
    Bare,
    an_operator,
    percentile,
    run,
    say,
    steps,
    write,
)
from cluster.operator_rig import Plane, Rig, manifest, started_plane
from cluster.waiting import eventually
from headrace.api.base import JsonObject
from headrace.api.inferencebatch import InferenceBatch
from headrace.api.meta import ConditionStatus
from headrace.api.reasons import ConditionType, Reason
from headrace.core.observed import Verdict
from headrace.shells.kube.api import Api
from headrace.shells.kube.operator import AT_WORK_FOR_ONE
from headrace.shells.kube.resources import BATCHES, BULKHEADS, JOBS, Resource

KINDS = ("alone", "beside", "flooded", "floor")
A_SECOND = 5.0
"""Batches of `b`."""
CREATES_AT_ONCE = 32
"""Of the flood."""
SETTLING_SECONDS = 20.0
"""What a status says of a line is at most 15 seconds old: by then nothing that is written is left from the moment of the flood."""
MARK = {"bench": "calm"}
WAITS = Verdict(
    admitted=False, reason=Reason.QUOTA_EXCEEDED, message="needs 1 batch, 1 of 1 used", position=100, ahead=99
)


@dataclass(frozen=True)
class Settings:
    """The command line."""

    rounds: int
    flood: int
    batches: int


class Starts:
    """Notes when each batch of `b` was created, was admitted and got its run Job."""

    def __init__(self, rig: Rig) -> None:
        self._rig = rig
        self.created: dict[str, float] = {}
        self._ends: dict[Resource, dict[str, float]] = {BATCHES: {}, JOBS: {}}
        self._watching = [rig.plane.background.start(self._watch(resource)) for resource in self._ends]

    @property
    def done(self) -> bool:
        """Whether all that were created have started."""
        return all(self.created.keys() <= ends.keys() for ends in self._ends.values())

    def milliseconds(self) -> list[float]:
        """The time to start of each; nothing is noted any more."""
        for watch in self._watching:
            watch.cancel()
        ends = {name: max(ends[name] for ends in self._ends.values()) for name in self.created}
        return [1000 * max(0.0, ends[name] - at) for name, at in self.created.items()]

    async def _watch(self, resource: Resource) -> None:
        selector = ",".join(f"{name}={value}" for name, value in MARK.items()) if resource is BATCHES else ""
        version = "0"
        while True:
            async for event in self._rig.plane.api.watch(resource, self._rig.namespace, selector, version, 3600):
                obj = event["object"]
                version = obj["metadata"]["resourceVersion"]
                if event["type"] in ("ADDED", "MODIFIED") and (resource is JOBS or _admitted(obj)):
                    name = obj["metadata"]["name"].removesuffix("-run")
                    self._ends[resource].setdefault(name, time.perf_counter())


def _admitted(batch: JsonObject) -> bool:
    found = {it["type"]: it["status"] for it in batch.get("status", {}).get("conditions", ())}
    return found.get(ConditionType.ADMITTED) == ConditionStatus.TRUE


def bulkhead(rig: Rig, short: str, **capacity: int) -> str:
    """Make a Bulkhead for one round; its name."""
    name = f"{rig.namespace}-{short}"
    head = {"apiVersion": BULKHEADS.api_version, "kind": BULKHEADS.kind, "metadata": {"name": name}}
    rig.create(BULKHEADS, {**head, "spec": {"capacity": capacity}})
    return name


async def submit_steadily(rig: Rig, name: str, count: int, starts: Starts) -> None:
    """Batches for `b`, one after the other."""
    began = time.perf_counter()
    for number in range(count):
        await asyncio.sleep(began + number / A_SECOND - time.perf_counter())
        batch = BATCH.with_spec(bulkheadName=name)
        body = manifest(batch) | {"metadata": {"name": f"calm-{number}", "labels": MARK}}
        await rig.plane.api.create(BATCHES, rig.namespace, body)
        starts.created[f"calm-{number}"] = time.perf_counter()


async def _flood(count: int, bulkhead: str, api: Api, namespace: str, ready: Any, go: Any, *, answered: bool) -> None:
    """All at once; `answered` by what the operator would write, with as many hands as it has for one flow."""
    bodies = [
        manifest(replace(BATCH.with_spec(bulkheadName=bulkhead), name=f"flood-{number}")) for number in range(count)
    ]
    ready.set()
    go.wait()
    gate, hands = asyncio.Semaphore(CREATES_AT_ONCE), asyncio.Semaphore(AT_WORK_FOR_ONE)

    async def one(body: JsonObject) -> None:
        async with gate:
            made = await api.create(BATCHES, namespace, body)
        if answered:
            async with hands:
                batch = InferenceBatch.parse(made)
                await write(api, batch, steps(batch, WAITS))

    await asyncio.gather(*map(one, bodies))


def one_round(plane: Plane, folder: Path, settings: Settings, kind: str) -> list[float]:
    """Milliseconds to the start of each batch of `b`."""
    rig = Rig(plane, folder)
    narrow, wide = bulkhead(rig, "a", batches=1), bulkhead(rig, "b", batches=10 * settings.batches)
    operator = an_operator(rig).start().wait_ready()
    flooded = Rig(plane, folder) if kind == "floor" else rig
    flood = Bare(flooded, partial(_flood, settings.flood, narrow, answered=kind == "floor"))
    starts = Starts(rig)
    if kind != "alone":
        flood.go()
    if kind == "beside":
        eventually(lambda: answered(rig) == settings.flood, "the flood waits", lambda: answered(rig), PATIENCE_SECONDS)
        time.sleep(SETTLING_SECONDS)
    run(rig, submit_steadily(rig, wide, settings.batches, starts))

    def started() -> bool:
        assert operator.alive, operator.log
        return starts.done

    eventually(started, "all of b started", lambda: len(starts.created), PATIENCE_SECONDS)
    found = starts.milliseconds()
    if kind == "flooded":
        show(rig)
    flood.end()
    for used in {rig, flooded}:
        used.close()
    return found


def answered(rig: Rig) -> int:
    """How many batches there are of which the operator has said whether they may start."""
    return sum(
        any(it["type"] == ConditionType.ADMITTED for it in batch.get("status", {}).get("conditions", ()))
        for batch in rig.all(BATCHES)
    )


def show(rig: Rig) -> None:
    """What a user sees of the flood."""
    say(str(rig.kubectl("get", "bh", f"{rig.namespace}-a", f"{rig.namespace}-b")))
    say("\n".join(str(rig.kubectl("get", "ib", f"--namespace={rig.namespace}")).splitlines()[:8]))


def measure(plane: Plane, folder: Path, settings: Settings) -> JsonObject:
    """All rounds."""
    kinds: dict[str, list[list[float]]] = {kind: [] for kind in KINDS}
    one_round(plane, folder, replace(settings, batches=5), "alone")  # whatever is slow the first time
    for number in range(settings.rounds):
        for kind, found in kinds.items():
            found.append(one_round(plane, folder, settings, kind))
            shown = ", ".join(f"p{n} {percentile(found[-1], n):.0f} ms" for n in (50, 95))
            say(f"{number + 1} of {settings.rounds}, {kind}: {shown}")
    p95s = {kind: [percentile(each, 95) for each in found] for kind, found in kinds.items()}
    figures = {kind: [each for one in found for each in one] for kind, found in kinds.items()}
    return {
        "flood": settings.flood,
        "milliseconds": {
            kind: {"p50": percentile(all_, 50), "p95": percentile(all_, 95)} for kind, all_ in figures.items()
        },
        "p95_of_rounds": p95s,
        "p95_ratio_to_alone": {kind: ratio(p95s[kind], p95s["alone"]) for kind in KINDS[1:]},
        "p95_ratio_to_floor": ratio(p95s["flooded"], p95s["floor"]),
    }


def ratio(these: Sequence[float], those: Sequence[float]) -> float:
    """The median over the rounds."""
    return statistics.median(one / other for one, other in zip(these, those, strict=True))


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
