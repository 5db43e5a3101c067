"""A run worth looking at: on a real control plane, with a real operator, real workers beside it, and a Prometheus that scrapes them all.

The operator's pods are played as its tests play them, so the run needs no node: batches of several sizes that share eight GPUs and wait
for each other, some that preempt, fail, drift or lose records; a model that is broken, until its breaker lets it be; fan-outs with a
slow branch; schedules that tick each minute, and are late.
"""

from __future__ import annotations

import random
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from builders import BatchBuilder, a_batch
from cluster.operator_rig import Rig, fan_out_manifest, started_plane
from cluster.operator_workers import Fate, Pod
from cluster.proxy import answer, calls_to
from fanout_builders import a_fan_out
from headrace.api.base import JsonObject
from headrace.api.worker import ExitCode, Role
from headrace.shells.kube.resources import BULKHEADS, FAN_OUTS, SCHEDULES
from prometheus_server import Prometheus, scraping
from schedule_builders import a_schedule

from .answers import Page, ask_all
from .workers import Servers, Worker, working

ALERTS = Path("charts/headrace/files/alerts.yaml")
NAMESPACES = ("search", "reviews")
SHARDS, RECORDS = 8, 448
BUDGET = {"name": "day", "resource": "gpuSeconds", "limit": 9000, "windowSeconds": 86400}
STEPS = 240
"""Points of a line."""
SECONDS = {"small": (2.0, 3.0), "large": (9.0, 14.0)}
"""How long a pod of a branch of that name works."""


def answers_of_a_run(seconds: float) -> tuple[Page, ...]:
    """Live for so long, then ask."""
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        with started_plane(place / "plane", print) as plane:
            rigs = [Rig(plane, place, namespace) for namespace in NAMESPACES]
            try:
                return _with_operator(rigs, place, seconds)
            finally:
                for rig in rigs:
                    rig.close()


def _with_operator(rigs: list[Rig], place: Path, seconds: float) -> tuple[Page, ...]:
    operator = rigs[0].operator(namespaces=NAMESPACES).start().wait_ready()
    for rig in rigs:
        rig.script.records, rig.script.shards, rig.script.fate = RECORDS, SHARDS, _fate
    with working(place) as (workers, servers):
        targets = {operator.setup.port: {"pod": "headrace-0"}}
        for number, worker in enumerate(workers):
            targets[worker.port] = {"pod": f"worker-{number}", "namespace": NAMESPACES[number % 2]}
        with scraping(place, targets, ALERTS.resolve()) as prometheus:
            began = time.time()
            _live(rigs, workers, servers, began + seconds)
            with _asking(prometheus, began, time.time()) as ask:
                return ask_all(ask)


@contextmanager
def _asking(prometheus: Prometheus, began: float, ended: float) -> Iterator[Callable[[str], list[dict[str, Any]]]]:
    step = max(1.0, (ended - began) / STEPS)
    yield lambda expression: prometheus.query_range(expression, began, ended, step)


def _fate(pod: Pod) -> Fate:
    """How a pod lives follows from the name of its batch."""
    name, dice = pod.config.batch.name, random.Random(pod.uid)
    if pod.role != Role.RUN:
        return Fate(seconds=0.2)
    if name.startswith("broken") or (name.startswith("partial") and name.endswith("base")):
        return Fate(exit_code=ExitCode.JOB_FAILED, seconds=1.0)
    least, most = next((span for word, span in SECONDS.items() if name.endswith(word)), (3.0, 8.0))
    late = dice.uniform(0, 45) if name.startswith(("hourly", "nightly")) else 0.0
    seconds, failed = dice.uniform(least, most), dice.choice((0, 0, 0, 1, 2, 6))
    return Fate(seconds=seconds, gpu_seconds=round(seconds), failed_records=failed, begins_late_seconds=late)


def _live(rigs: list[Rig], workers: list[Worker], servers: Servers, until: float) -> None:
    dice = random.Random(4)
    _bulkheads(rigs[0])
    _schedules(rigs)
    number = 0
    while time.time() < until:
        number += 1
        rig = rigs[number % 2]
        rig.submit(_batch(f"batch-{number}", dice, bulkheadName="overnight"))
        if number % 2:
            rig.submit(
                _batch(f"index-{number}", dice, bulkheadName="default", evaluation={"reference": "s3://out/may/"})
            )
        if number % 3 == 2:
            rig.submit(_batch(f"urgent-{number}", dice, bulkheadName="overnight", priority=100))
            _fan_out(rigs[number // 3 % 2], f"{'partial' if number % 4 == 0 else 'answers'}-{number}")
        if number % 5 == 3:
            rig.submit(_batch(f"broken-{number}", dice, bulkheadName="overnight", model={"name": "new-model"}))
            rig.proxy.on(calls_to("jobs", "create"), answer(500, "InternalError"), times=1)
        if number % 9 == 6:
            workers[0].kill()
            workers[0].start()
        servers.broken = number % 8 in (4, 5)
        time.sleep(dice.uniform(3, 5))
        if number % 3 == 1:  # what is suspended gives back what it holds
            rig.edit(f"batch-{number}", suspend=True)
            time.sleep(4)
            rig.edit(f"batch-{number}", suspend=False)
        time.sleep(dice.uniform(3, 6))


def _bulkheads(rig: Rig) -> None:
    head = {"apiVersion": BULKHEADS.api_version, "kind": BULKHEADS.kind}
    specs: dict[str, dict[str, Any]] = {
        "overnight": {"capacity": {"gpus": 16}, "budgets": [BUDGET]},
        "default": {"capacity": {"gpus": 12}},
    }
    for name, spec in specs.items():
        rig.create(BULKHEADS, {**head, "metadata": {"name": name}, "spec": spec})


def _schedules(rigs: list[Rig]) -> None:
    for schedule in (
        a_schedule("* * * * *", "hourly")
        .of_batch(shards=SHARDS)
        .with_spec(maxDriftSeconds=20, concurrencyPolicy="Forbid"),
        a_schedule("*/2 * * * *", "nightly").of_fan_out("small", "large", branches=_branches("small", "large")),
        a_schedule("0 4 * * *", "archive").with_spec(suspend=True),
    ):
        for rig in rigs:
            rig.create(SCHEDULES, schedule.manifest)


def _batch(name: str, dice: random.Random, **spec: Any) -> BatchBuilder:
    sizes = {"resources": {"gpus": 1}, "batching": {"maxBatchSize": dice.choice((58, 64, 72))}}
    return replace(a_batch(name).sharded(SHARDS), spec={**a_batch().sharded(SHARDS).spec, **sizes, **spec})


def _fan_out(rig: Rig, name: str) -> None:
    built = a_fan_out().with_spec(branches=_branches("small", "base", "large")).policy("Quorum", 2)
    rig.create(FAN_OUTS, fan_out_manifest(replace(built, name=name)))


def _branches(*names: str) -> list[JsonObject]:
    return [{**branch, "shards": SHARDS} for branch in a_fan_out(*names).spec["branches"]]
