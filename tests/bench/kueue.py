"""The same GPU Jobs through a Bulkhead and through Kueue, on one real control plane: how long until all are admitted, and what lies idle.

    python tests/bench/kueue.py [--quick] [--jobs 500] [--rounds 1] [--json FILE]

- headrace: batches in a Bulkhead that has so many GPUs
- kueue: their run Jobs alone, as plain Jobs with a queue name, in a ClusterQueue that has as many; no Headrace at work
- both: the batches with a `queueName`, so that Kueue admits and Headrace mirrors

All are created at once, as fast as the API server takes them. Each Job has one pod with one GPU, which works for the same time; pods are
played, Jobs are not. A GPU lies idle while nobody works on it, from the first creation until the last Job is released. Contenders take
turns, so that a busy moment of the machine hits all. Kueue stays beside Headrace in its turn, with its webhook before every Job.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))

import orjson

from builders import PLACE, BatchBuilder, a_batch
from cluster.fixtures import COMPILE
from cluster.kueue_controller import Kueue
from cluster.kueue_queues import QUEUE, queue_up
from cluster.operator_process import OperatorProcess
from cluster.operator_rig import RECORDS, Plane, Rig, manifest, started_plane
from cluster.operator_workers import Fate, Pod
from cluster.waiting import eventually
from headrace.api.base import JsonObject
from headrace.core.children import queued_run_job
from headrace.shells.kube.resources import BATCHES, BULKHEADS, JOBS, Resource

CONTENDERS = ("headrace", "kueue", "both")
PATIENCE_SECONDS = 1800.0
CREATES_AT_ONCE = 32


@dataclass(frozen=True)
class Settings:
    """How much is measured."""

    rounds: int = 1
    jobs: int = 500
    gpus: int = 16
    seconds: float = 2.0
    """How long each pod works."""

    @property
    def ideal_seconds(self) -> float:
        """Until the last Job could be admitted, were no time lost."""
        return ((self.jobs - 1) // self.gpus) * self.seconds


QUICK = Settings(rounds=1, jobs=60, gpus=6)


@dataclass(frozen=True)
class Figures:
    """What one turn has shown."""

    admitted_seconds: float
    """From the first creation to the release of the last Job."""
    idle_gpu_seconds: float

    def idle_percent(self, gpus: int) -> float:
        """Idle time as a share of all that the GPUs had."""
        return 100 * self.idle_gpu_seconds / (gpus * self.admitted_seconds)


class Lives:
    """Notes when each pod began to work."""

    def __init__(self, seconds: float) -> None:
        self._seconds, self.began = seconds, list[float]()

    def fate(self, _: Pod) -> Fate:
        """Every pod works for the same time."""
        self.began.append(time.perf_counter())
        return Fate(seconds=self._seconds)

    def worked_until(self, moment: float) -> float:
        """Seconds of work of all pods together, up to some moment."""
        return sum(min(self._seconds, max(0.0, moment - began)) for began in self.began)


class Releases:
    """Notes when each Job was seen released for the first time."""

    def __init__(self, rig: Rig) -> None:
        self._rig, self.at, self._shown = rig, dict[str, float](), 0
        self._watching = rig.plane.background.start(self._watch())

    def wait(self, count: int, operator: OperatorProcess | None) -> float:
        """Wait until so many are released; returns when that was."""

        def done() -> bool:
            if operator is not None and not operator.alive:
                operator.start()  # it has lost its lease on a busy machine, and begins again as a pod would
            self._show(count)
            return len(self.at) >= count

        eventually(done, f"{count} Jobs released", lambda: len(self.at), PATIENCE_SECONDS)
        self._watching.cancel()
        return max(self.at.values())

    def _show(self, count: int) -> None:
        """Say how far it is, ten times in all."""
        if len(self.at) >= self._shown + count / 10:
            self._shown = len(self.at)
            print(f"  {self._shown} of {count} released", file=sys.stderr, flush=True)

    async def _watch(self) -> None:
        version = "0"
        while True:  # the API server ends the stream of who reads too slowly in a burst
            async for event in self._rig.plane.api.watch(JOBS, self._rig.namespace, "", version, 3600):
                job = event["object"]
                version = job["metadata"]["resourceVersion"]
                if event["type"] in ("ADDED", "MODIFIED") and not job["spec"].get("suspend"):
                    self.at.setdefault(job["metadata"]["name"], time.perf_counter())


def batch(rig: Rig, number: int, **spec: Any) -> BatchBuilder:
    """One of the batches: one shard, one pod, one GPU."""
    builder = BatchBuilder(f"b{number}", a_batch().inline(*RECORDS).sharded(1).spec)
    return builder.with_meta(namespace=rig.namespace).with_spec(resources={"gpus": 1}, **spec)


def plain_job(builder: BatchBuilder) -> JsonObject:
    """The run Job of a batch that there is not."""
    job = queued_run_job(builder.validated(len(RECORDS)).build(), PLACE, pods=1)
    del job["metadata"]["ownerReferences"]
    return job


async def create(rig: Rig, resource: Resource, objects: Iterable[JsonObject]) -> None:
    """Create them, as fast as the API server takes them."""
    gate = asyncio.Semaphore(CREATES_AT_ONCE)

    async def one(body: JsonObject) -> None:
        async with gate:
            await rig.plane.api.create(resource, rig.namespace, body)

    await asyncio.gather(*map(one, objects))


def wanted(rig: Rig, settings: Settings, contender: str) -> tuple[Resource, list[JsonObject]]:
    """What is to be created, with the quota that it is counted against in place."""
    if contender == "headrace":
        head = {"apiVersion": BULKHEADS.api_version, "kind": BULKHEADS.kind, "metadata": {"name": rig.namespace}}
        rig.create(BULKHEADS, {**head, "spec": {"capacity": {"gpus": settings.gpus}}})
        return BATCHES, [manifest(batch(rig, n, bulkheadName=rig.namespace)) for n in range(settings.jobs)]
    queue_up(rig, settings.gpus)
    batches = [batch(rig, n, queueName=QUEUE) for n in range(settings.jobs)]
    return (JOBS, list(map(plain_job, batches))) if contender == "kueue" else (BATCHES, list(map(manifest, batches)))


def turn(plane: Plane, folder: Path, settings: Settings, contender: str) -> Figures:
    """One contender admits them all."""
    rig, lives = Rig(plane, folder), Lives(settings.seconds)
    rig.script.fate = lives.fate
    resource, objects = wanted(rig, settings, contender)
    operator = rig.operator(kubeconfig=plane.cluster.kubeconfig).start().wait_ready() if contender != "kueue" else None
    releases = Releases(rig)
    began = time.perf_counter()
    plane.background.run(create(rig, resource, objects), PATIENCE_SECONDS)
    admitted = releases.wait(settings.jobs, operator)
    eventually(
        lambda: len(lives.began) >= settings.jobs, "every pod at work", lambda: len(lives.began), PATIENCE_SECONDS
    )
    rig.close()
    idle = settings.gpus * (admitted - began) - lives.worked_until(admitted)
    return Figures(admitted - began, idle)


def measure(plane: Plane, folder: Path, settings: Settings) -> dict[str, list[Figures]]:
    """All turns of all contenders."""
    found: dict[str, list[Figures]] = {contender: [] for contender in CONTENDERS}
    for number in range(settings.rounds):
        for contender in CONTENDERS:
            figures = turn(plane, folder, settings, contender)
            found[contender].append(figures)
            shown = f"{figures.admitted_seconds:.1f} s, {figures.idle_percent(settings.gpus):.0f} % idle"
            print(f"round {number + 1} of {settings.rounds}, {contender}: {shown}", file=sys.stderr, flush=True)
    return found


def table(found: dict[str, list[Figures]], settings: Settings) -> str:
    """The figures for people; medians over the rounds."""
    head = f"{settings.jobs} Jobs of {settings.seconds:.0f} s on {settings.gpus} GPUs; at best {settings.ideal_seconds:.0f} s"
    lines = [head]
    for contender, turns in found.items():
        seconds = statistics.median(it.admitted_seconds for it in turns)
        idle = statistics.median(it.idle_gpu_seconds for it in turns)
        percent = statistics.median(it.idle_percent(settings.gpus) for it in turns)
        lines.append(
            f"  {contender:9} all admitted after {seconds:6.1f} s   {idle:6.0f} GPU-seconds idle ({percent:.0f} %)"
        )
    return "\n".join([*lines, *compared(found)])


def compared(found: dict[str, list[Figures]]) -> list[str]:
    """Each contender beside Kueue alone; below 1 it is ahead."""
    alone = found["kueue"]
    seconds = statistics.median(it.admitted_seconds for it in alone)
    idle = statistics.median(it.idle_gpu_seconds for it in alone)
    return [
        f"  {contender} / kueue: {statistics.median(it.admitted_seconds for it in turns) / seconds:.2f} of the time, "
        f"{statistics.median(it.idle_gpu_seconds for it in turns) / idle:.2f} of the idle GPU time"
        for contender, turns in found.items()
        if contender != "kueue"
    ]


def parse(arguments: Sequence[str]) -> tuple[Settings, Path | None]:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="few Jobs, one round")
    parser.add_argument("--jobs", type=int, help="Jobs of each turn")
    parser.add_argument("--rounds", type=int, help="turns of each contender")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    chosen = parser.parse_args(arguments)
    settings = QUICK if chosen.quick else Settings()
    return replace(settings, rounds=chosen.rounds or settings.rounds, jobs=chosen.jobs or settings.jobs), chosen.json


def main(arguments: Sequence[str]) -> int:
    """Measure, and print."""
    settings, file = parse(arguments)
    os.environ.setdefault(COMPILE, "1")
    with tempfile.TemporaryDirectory() as folder, started_plane(Path(folder) / "plane", print) as plane:
        Kueue(plane.cluster).up()
        found = measure(plane, Path(folder), settings)
    print(table(found, settings))
    if file is not None:
        file.write_bytes(orjson.dumps({"settings": settings, "turns": found}, option=orjson.OPT_INDENT_2))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
