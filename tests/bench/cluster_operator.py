"""What the operator costs on a real control plane, beside a bare asyncio client that does the same writes and nothing else.

    python tests/bench/cluster_operator.py [--quick] [--kopf] [--rounds 3] [--json FILE]

- burst: seconds until each of many batches has its run Job and says Admitted, and the ratio to the bare client
- steady: milliseconds from a batch's creation to its first child at 20 batches a second, for both
- idle: CPU and memory with no and with many finished batches
- memory: what a live batch holds, and what is left when all are deleted
- writes: requests that change something, for one batch of four shards from its creation to its end

Contenders take turns, so that a busy moment of the machine hits all of them. The bare client has the same connection settings, as many
requests in flight, and its manifests ready. Batches have inline records and, but for the last figure, no pods: only the operator works.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import multiprocessing
import re
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))

import orjson
import psutil
from kubernetes.aio import client

from builders import BatchBuilder, a_batch
from cluster.operator_process import OperatorProcess
from cluster.operator_rig import RECORDS, Plane, Rig, manifest, started_plane
from cluster.waiting import eventually
from headrace.api.base import JsonObject
from headrace.api.inferencebatch import InferenceBatch
from headrace.api.reasons import ConditionType
from headrace.core.observed import LET_IN, Installation, Observed, Verdict
from headrace.core.reconcile import reconcile
from headrace.shells.kube import memory as memory_tidying
from headrace.shells.kube.api import Api
from headrace.shells.kube.operator import WORKERS, load_configuration
from headrace.shells.kube.resources import BATCHES, CONFIG_MAPS, JOBS, PODS, of

PLACE = Installation(default_output="file:///out")
PATIENCE_SECONDS = 1800.0
BATCH = a_batch().inline(*RECORDS).sharded(4)
OURS = tuple(resource.plural for resource in (BATCHES, JOBS, PODS, CONFIG_MAPS))
"""What comes and goes with batches."""
JOB_CONTROLLER = "kube-controller-manager"
"""While it is away, Jobs get no pods. It is never started again: it would first have to make the pods of thousands of Jobs."""
_FORKS = multiprocessing.get_context("forkserver")


@dataclass(frozen=True)
class Settings:
    """The command line, and the sizes that follow from it."""

    rounds: int = 3
    kopf: bool = False
    burst: int = 1_000
    rate: float = 20.0
    steady_seconds: float = 30.0
    finished: int = 5_000
    idle_seconds: float = 30.0

    @property
    def contenders(self) -> tuple[str, ...]:
        """Who takes turns."""
        return ("bare", "operator", *(("kopf",) if self.kopf else ()))


QUICK = Settings(rounds=1, burst=60, steady_seconds=4.0, finished=150, idle_seconds=5.0)


# the bare client, in a process of its own


def steps(batch: InferenceBatch, verdict: Verdict = LET_IN) -> list[JsonObject]:
    """What the operator writes for a batch that gets that verdict, in order: children as they are, a status by itself."""
    now, written, found = datetime.now(UTC), set[str](), list[JsonObject]()
    while True:
        plan = reconcile(Observed(batch, now, verdict=verdict, installation=PLACE))
        for child in plan.children or ():
            if child["metadata"]["name"] not in written:
                written.add(child["metadata"]["name"])
                found.append(child)
        if plan.status == batch.status:
            return found
        found.append({"status": plan.status.to_object()})
        batch = batch.model_copy(update={"status": plan.status})


async def write(api: Api, batch: InferenceBatch, todo: Sequence[JsonObject]) -> None:
    """Write all that, one after the other."""
    metadata = {"namespace": batch.metadata.namespace, "name": batch.metadata.name, "uid": batch.metadata.uid}
    for step in todo:
        if "kind" in step:
            await api.create(of(step), batch.metadata.namespace, step)
        else:
            await api.replace_status(BATCHES, metadata, step["status"])


async def _burst(api: Api, namespace: str, ready: Any, go: Any) -> None:
    items = [item async for page in api.pages(BATCHES, namespace) for item in page["items"]]
    todo = [(batch, steps(batch)) for batch in map(InferenceBatch.parse, items)]
    ready.set()
    go.wait()
    gate = asyncio.Semaphore(WORKERS)

    async def one(batch: InferenceBatch, found: list[JsonObject]) -> None:
        async with gate:
            await write(api, batch, found)

    await asyncio.gather(*(one(*each) for each in todo))


async def _react(api: Api, namespace: str, ready: Any, _: Any) -> None:
    version = [page["metadata"]["resourceVersion"] async for page in api.pages(BATCHES, namespace)][-1]
    ready.set()
    tasks = []
    async for event in api.watch(BATCHES, namespace, "", version, 3600):
        if event["type"] == "ADDED":
            batch = InferenceBatch.parse(event["object"])
            tasks.append(asyncio.create_task(write(api, batch, steps(batch))))


def _bare_main(work: Any, kubeconfig: Path, namespace: str, ready: Any, go: Any) -> None:
    async def main() -> None:
        async with client.ApiClient(await load_configuration(kubeconfig)) as api_client:
            await work(Api(api_client), namespace, ready, go)

    asyncio.run(main())


class Bare:
    """The bare client; ready, but not begun."""

    def __init__(self, rig: Rig, work: Any) -> None:
        self._go, ready = _FORKS.Event(), _FORKS.Event()
        arguments = (work, rig.plane.cluster.kubeconfig, rig.namespace, ready, self._go)
        self._process = _FORKS.Process(target=_bare_main, args=arguments, daemon=True)
        self._process.start()
        ready.wait(PATIENCE_SECONDS)

    def go(self) -> None:
        """Begin."""
        self._go.set()

    def end(self) -> None:
        """End it."""
        self._process.kill()
        self._process.join()


# who watches


class Spectator:
    """Notes when each batch was created, got its first child and its run Job, and said Admitted."""

    def __init__(self, rig: Rig) -> None:
        self._rig = rig
        self.created: dict[str, float] = {}
        self.first_child: dict[str, float] = {}
        self.run_job: dict[str, float] = {}
        self.admitted: dict[str, float] = {}
        sees = ((BATCHES, self._batch), (JOBS, self._job), (CONFIG_MAPS, self._config_map))
        self._watching = [rig.plane.background.start(self._watch(*each)) for each in sees]

    def wait(self, count: int) -> float:
        """Wait until so many batches have all; returns when that was."""

        def done() -> bool:
            return min(len(self.run_job), len(self.admitted), len(self.first_child)) >= count

        eventually(done, f"{count} batches admitted", lambda: len(self.admitted), PATIENCE_SECONDS)
        return max(*self.run_job.values(), *self.admitted.values())

    def end(self) -> None:
        """Stop watching."""
        for watch in self._watching:
            watch.cancel()

    async def _watch(self, resource: Any, see: Callable[[str, JsonObject], None]) -> None:
        version = "0"
        while True:  # the API server ends the stream of who reads too slowly in a burst
            async for event in self._rig.plane.api.watch(resource, self._rig.namespace, "", version, 3600):
                version = event["object"]["metadata"]["resourceVersion"]
                if event["type"] in ("ADDED", "MODIFIED"):
                    see(event["object"]["metadata"]["name"], event["object"])

    def _batch(self, name: str, batch: JsonObject) -> None:
        said = {condition["type"] for condition in batch.get("status", {}).get("conditions", ())}
        if ConditionType.ADMITTED in said:
            self.admitted.setdefault(name, time.perf_counter())

    def _job(self, name: str, _: JsonObject) -> None:
        self.run_job.setdefault(name.removesuffix("-run"), time.perf_counter())

    def _config_map(self, name: str, _: JsonObject) -> None:
        self.first_child.setdefault(name.removesuffix("-input"), time.perf_counter())


async def create(
    rig: Rig, names: Sequence[str], builder: BatchBuilder = BATCH, status: JsonObject | None = None
) -> None:
    """Create batches, as fast as the API server takes them."""
    gate = asyncio.Semaphore(32)

    async def one(name: str) -> None:
        async with gate:
            made = await rig.plane.api.create(BATCHES, rig.namespace, manifest(replace(builder, name=name)))
            if status is not None:
                await rig.plane.api.replace_status(BATCHES, made["metadata"], status)

    await asyncio.gather(*map(one, names))


def run(rig: Rig, work: Any) -> None:
    """Do some asynchronous work, however long it takes."""
    rig.plane.background.run(work, PATIENCE_SECONDS)


def an_operator(rig: Rig, contender: str = "operator") -> OperatorProcess:
    """An operator without a proxy, not started yet."""
    return rig.operator(kubeconfig=rig.plane.cluster.kubeconfig, more={"watch_with_kopf": contender == "kopf"})


# the figures


def burst(plane: Plane, folder: Path, settings: Settings, contender: str) -> float:
    """Seconds until every batch of a burst has its run Job and says Admitted."""
    rig = Rig(plane, folder)
    run(rig, create(rig, [f"b{number}" for number in range(settings.burst)]))
    spectator = Spectator(rig)
    if contender == "bare":
        bare = Bare(rig, _burst)
        began = time.perf_counter()
        bare.go()
    else:
        began = process_up(an_operator(rig, contender).start())
    took = spectator.wait(settings.burst) - began
    spectator.end()
    rig.close()
    return took


def process_up(operator: OperatorProcess) -> float:
    """When its process was up, as that of the bare client is: all imported, nothing listed."""
    while True:
        moment = time.perf_counter()
        if operator.health():
            return moment
        time.sleep(0.02)


def steady(plane: Plane, folder: Path, settings: Settings, contender: str) -> list[float]:
    """Milliseconds from each creation to its first child."""
    rig = Rig(plane, folder)
    if contender == "bare":
        bare = Bare(rig, _react)
    else:
        an_operator(rig, contender).start().wait_ready()
    spectator = Spectator(rig)

    async def create_steadily() -> None:
        began, tasks = time.perf_counter(), []
        for number in range(int(settings.rate * settings.steady_seconds)):
            await asyncio.sleep(began + number / settings.rate - time.perf_counter())
            tasks.append(asyncio.create_task(create_one(f"b{number}")))
        await asyncio.gather(*tasks)

    async def create_one(name: str) -> None:
        await rig.plane.api.create(BATCHES, rig.namespace, manifest(replace(BATCH, name=name)))
        spectator.created[name] = time.perf_counter()

    run(rig, create_steadily())
    spectator.wait(len(spectator.created))
    spectator.end()
    rig.close()
    if contender == "bare":
        bare.end()
    return [1000 * max(0.0, spectator.first_child[name] - at) for name, at in spectator.created.items()]


def finished_status() -> JsonObject:
    """The status of a batch that is complete."""
    moment = "2026-01-01T00:00:00Z"
    common = {
        "status": "True",
        "message": "10 records in 4 shards",
        "lastTransitionTime": moment,
        "observedGeneration": 1,
    }
    reasons = {"InputValidated": "InputValid", "Admitted": "Admitted", "Complete": "RecordsProcessed"}
    return {
        "observedGeneration": 1,
        "conditions": [{"type": kind, "reason": reason, **common} for kind, reason in reasons.items()],
        "records": {"total": 10, "succeeded": 10, "failed": 0, "pending": 0},
        "startTime": moment,
        "completionTime": moment,
        "summary": {"state": "Complete", "progress": "10/10", "fill": "", "eta": ""},
    }


def rss_mib(process: psutil.Process) -> float:
    """Resident memory."""
    return float(process.memory_info().rss) / 2**20


def rss_at_rest(process: psutil.Process) -> float:
    """Resident memory once the operator has had its time to tidy up."""
    time.sleep(2 * memory_tidying.INTERVAL_SECONDS)
    return rss_mib(process)


def idle(plane: Plane, folder: Path, settings: Settings, finished: int, contender: str) -> dict[str, float]:
    """CPU and memory of an operator with so many finished batches, when nothing happens."""
    rig = Rig(plane, folder)
    run(rig, create(rig, [f"b{number}" for number in range(finished)], status=finished_status()))
    operator = an_operator(rig, contender).start().wait_ready()
    operator.wait_until(
        lambda health: health["cached"]["inferencebatches"] == finished and not health["queue"]["depth"]
    )
    time.sleep(settings.idle_seconds / 2)  # let it come to rest: there is no event for that
    process = psutil.Process(operator.pid)
    before = process.cpu_times()
    time.sleep(settings.idle_seconds)
    after = process.cpu_times()
    spent = after.user + after.system - before.user - before.system
    figures = {"cpu_percent": 100 * spent / settings.idle_seconds, "rss_mib": rss_mib(process)}
    rig.close()
    say(f"idle, {contender}: {figures['cpu_percent']:.2f} % CPU with {finished} finished")
    return figures


def memory(plane: Plane, folder: Path, settings: Settings, contender: str) -> dict[str, float]:
    """What a live batch holds, and what is left when all are deleted."""
    rig = Rig(plane, folder)
    operator = an_operator(rig, contender).start().wait_ready()
    process = psutil.Process(operator.pid)
    fresh = rss_mib(process)
    run(rig, create(rig, ["first"]))  # what the first batch brings in is code, not what a batch holds
    rig.until_state("Starting", "first")
    empty, spectator = rss_at_rest(process), Spectator(rig)
    run(rig, create(rig, [f"b{number}" for number in range(settings.burst)]))
    spectator.wait(settings.burst)
    spectator.end()
    full = rss_at_rest(process)
    for kind in ("ib", "jobs", "cm"):  # who collects what belonged to a batch is away with the job controller
        rig.kubectl("delete", kind, "--all", "--namespace", rig.namespace, "--wait=false")
    operator.wait_until(lambda health: not any(health["cached"][kind] for kind in OURS), PATIENCE_SECONDS)
    left = rss_at_rest(process)
    rig.close()
    each = 1024 * (full - empty) / settings.burst
    say(f"memory, {contender}: {each:.1f} KiB a live batch, {left / empty:.2f} of it empty when all are deleted")
    return {
        "fresh_mib": fresh,
        "empty_mib": empty,
        "full_mib": full,
        "left_mib": left,
        "kib_each": each,
        "left_ratio": left / empty,
    }


def writes_each(plane: Plane, folder: Path) -> float:
    """Requests that change something, for one batch of four shards with pods. While the Job controller has nothing else to do."""
    rig, count = Rig(plane, folder), 10
    operator = an_operator(rig).start().wait_ready()
    names = [f"b{number}" for number in range(count)]
    run(rig, create(rig, names, a_batch().inline(*RECORDS).sharded(4)))
    for name in names:
        rig.until_state("Complete", name)
    found = re.search(r"^headrace_api_writes_total (\S+)$", operator.get("/metrics")[1], re.MULTILINE)
    assert found is not None
    rig.close()
    return float(found[1]) / count


def say(line: str) -> None:
    """Show how far it is: all figures together take a quarter of an hour."""
    print(line, file=sys.stderr, flush=True)


def percentile(values: Sequence[float], percent: float) -> float:
    """The smallest value that so many percent do not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * percent / 100))]


def measure(plane: Plane, folder: Path, settings: Settings) -> JsonObject:
    """All figures."""
    writes = writes_each(plane, folder)
    say(f"writes, operator: {writes:.1f} a batch")
    plane.cluster.kill(JOB_CONTROLLER)
    bursts: dict[str, list[float]] = {contender: [] for contender in settings.contenders}
    delays: dict[str, list[float]] = {contender: [] for contender in settings.contenders}
    for turn in range(settings.rounds):
        for contender in settings.contenders:
            bursts[contender].append(burst(plane, folder, settings, contender))
            say(f"burst {turn + 1} of {settings.rounds}, {contender}: {bursts[contender][-1]:.1f} s")
        for contender in settings.contenders:
            found = steady(plane, folder, settings, contender)
            delays[contender] += found
            say(f"steady {turn + 1} of {settings.rounds}, {contender}: p99 {percentile(found, 99):.0f} ms")
    acting = settings.contenders[1:]
    return {
        "burst_batches": settings.burst,
        "burst_seconds": bursts,
        "burst_ratio": {
            name: statistics.median(a / b for a, b in zip(bursts[name], bursts["bare"], strict=True)) for name in acting
        },
        "steady_ms": {n: {"p50": percentile(d, 50), "p99": percentile(d, 99)} for n, d in delays.items()},
        "idle": {
            name: {count: idle(plane, folder, settings, count, name) for count in (0, settings.finished)}
            for name in acting
        },
        "memory": {name: memory(plane, folder, settings, name) for name in acting},
        "writes_each": writes,
    }


def table(found: JsonObject) -> str:
    """The figures for people."""
    lines = [f"burst of {found['burst_batches']} batches"]
    for name, seconds in found["burst_seconds"].items():
        ratio = f"   {found['burst_ratio'][name]:.2f} x bare" if name in found["burst_ratio"] else ""
        lines.append(f"  {name:9} {' '.join(f'{each:6.1f}' for each in seconds)} s{ratio}")
    lines.append("creation to first child")
    lines += [
        f"  {name:9} p50 {at['p50']:6.0f} ms   p99 {at['p99']:6.0f} ms" for name, at in found["steady_ms"].items()
    ]
    lines.append("idle")
    for name, counts in found["idle"].items():
        for count, at in counts.items():
            lines.append(f"  {name:9} {count:6} finished: {at['cpu_percent']:5.2f} % CPU, {at['rss_mib']:6.1f} MiB")
    lines.append("memory")
    for name, at in found["memory"].items():
        each, left = (
            f"{at['kib_each']:.1f} KiB a live batch",
            f"{100 * at['left_ratio']:.0f} % of {at['empty_mib']:.1f} MiB",
        )
        lines.append(f"  {name:9} {at['fresh_mib']:.1f} MiB fresh; {each}; {left} when all are deleted")
    lines.append(f"writes for one batch of four shards: {found['writes_each']:.1f}")
    return "\n".join(lines)


def parse(arguments: Sequence[str]) -> tuple[Settings, Path | None]:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="small sizes, one round")
    parser.add_argument("--kopf", action="store_true", help="also with kopf as the watcher")
    parser.add_argument("--rounds", type=int, help="turns of each contender")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    chosen = parser.parse_args(arguments)
    settings = replace(QUICK if chosen.quick else Settings(), kopf=chosen.kopf)
    return replace(settings, rounds=chosen.rounds or settings.rounds), chosen.json


def main(arguments: Sequence[str]) -> int:
    """Measure, and print."""
    settings, file = parse(arguments)
    with tempfile.TemporaryDirectory() as folder, started_plane(Path(folder) / "plane", print) as plane:
        found = measure(plane, Path(folder), settings)
    print(table(found))
    if file is not None:
        file.write_bytes(orjson.dumps(json.loads(json.dumps(found)), option=orjson.OPT_INDENT_2))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
