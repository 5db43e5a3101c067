"""What a fan-out costs, and what a bad branch costs the good ones.

    python tests/bench/fanout.py [--quick] [--rounds 5] [--json FILE]

- isolation: seconds until branches a and c are complete while b is killed again and again, hangs, or fails every record, as a ratio to
  the same fan-out without b; real processes on this machine, with a mock engine that takes its time
- writes: requests that change something, for a fan-out of 50 branches of 20 shards on a real control plane
- join: a million records with three answers each: records a second, and the most memory

The worlds of the first figure take turns, so that a busy moment of the machine hits all of them.
"""

from __future__ import annotations

import argparse
import json
import re
import statistics
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))

import yaml

from cluster.operator_rig import Rig, fan_out_manifest, started_plane
from e2e.test_local import Desk
from fanout_builders import a_fan_out as builder
from headrace.shells.kube.resources import FAN_OUTS
from worker_fanout import a_fan_out
from worker_rig import worker_environment

PATIENCE_SECONDS = 1200.0
GOOD = {"latencyMilliseconds": 200}
WORLDS: Mapping[str, Mapping[str, int] | None] = {
    "without b": None,
    "b killed": {**GOOD, "crashPercent": 100},
    "b hangs": {"latencyMilliseconds": 3_600_000},
    "b fails": {**GOOD, "errorPercent": 100},
}
"""What the mock engine of the branch b does; None: there is no such branch."""


@dataclass(frozen=True)
class Settings:
    """The command line, and the sizes that follow from it."""

    rounds: int = 5
    records: int = 400
    branches: int = 50
    shards: int = 20
    at_once: int = 10
    """Branches at work at once: the hollow pods of all share one process, which should not be what is measured."""
    joined: int = 1_000_000


QUICK = Settings(rounds=1, records=40, branches=5, shards=4, joined=20_000)


def isolation(settings: Settings, world: Mapping[str, int] | None) -> float:
    """Seconds from the command to the later one of a and c."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        _write_fan_out(folder, settings.records, world)
        began = time.time()
        running = Desk(folder, uuid.uuid4().hex).start("run", "-f", "answers.yaml", "-q")
        done = [folder / f".headrace/output/default/answers/branches/{branch}/manifest.json" for branch in "ac"]
        while not all(file.exists() for file in done):
            if time.time() > began + PATIENCE_SECONDS:
                raise TimeoutError(f"a and c are not complete after {PATIENCE_SECONDS:.0f} s")
            time.sleep(0.02)
        took = max(file.stat().st_mtime for file in done) - began
        running.terminate()
        running.communicate()
        return took


def _write_fan_out(folder: Path, records: int, world: Mapping[str, int] | None) -> None:
    mocks = {"a": GOOD, **({"b": world} if world is not None else {}), "c": GOOD}
    branches = [
        {
            "name": name,
            "model": {"name": "mock"},
            "engine": {"name": "mock", "mock": dict(mock)},
            "batching": {"maxBatchSize": 4},
        }
        for name, mock in mocks.items()
    ]
    spec = {
        "input": {"uri": "in.jsonl", "format": "jsonl"},
        "branches": branches,
        "completionPolicy": {"mode": "BestEffort"},
    }
    head = {"apiVersion": "headrace.dev/v1alpha1", "kind": "FanOutJob", "metadata": {"name": "answers"}}
    (folder / "answers.yaml").write_text(yaml.safe_dump({**head, "spec": spec}))
    (folder / "in.jsonl").write_text(
        "\n".join(json.dumps({"custom_id": f"r{n}", "text": "say"}) for n in range(records))
    )


def writes(settings: Settings) -> int:
    """Requests that change something, from the creation of the fan-out to its end."""
    with tempfile.TemporaryDirectory() as name, started_plane(Path(name) / "plane", say) as plane:
        rig = Rig(plane, Path(name))
        operator = rig.operator(kubeconfig=rig.plane.cluster.kubeconfig).start().wait_ready()
        wanted = builder(*(f"b{number}" for number in range(settings.branches)))
        for branch in wanted.spec["branches"]:
            wanted = wanted.with_branch(branch["name"], shards=settings.shards, parallelism=settings.shards)
        records = [{"custom_id": f"r{number}", "text": "say"} for number in range(10 * settings.shards)]
        source = {"inline": records, "format": "jsonl"}
        rig.create(FAN_OUTS, fan_out_manifest(wanted.with_spec(input=source, maxParallelBranches=settings.at_once)))
        deadline = time.monotonic() + PATIENCE_SECONDS
        while (state := rig.state(FAN_OUTS, "answers")) != "Complete":
            if time.monotonic() > deadline:
                raise TimeoutError(f"the fan-out is still {state} after {PATIENCE_SECONDS:.0f} s")
            time.sleep(0.5)
        found = re.search(r"^headrace_api_writes_total (\S+)$", operator.get("/metrics")[1], re.MULTILINE)
        rig.close()
    assert found is not None
    return int(float(found[1]))


def join(settings: Settings) -> dict[str, float]:
    """Records a second and MiB, in a process of its own."""
    with tempfile.TemporaryDirectory() as name:
        ids = [f"r{number:07}" for number in range(settings.joined)]
        fan_out = a_fan_out(Path(name), ids)
        for branch in ("one", "two", "three"):
            fan_out.answer(branch, dict.fromkeys(ids, "x" * 200), shards=4)
        began = time.perf_counter()
        ended = subprocess.run(
            [sys.executable, "-c", _JOIN], env=worker_environment(fan_out), capture_output=True, text=True, check=True
        )
        seconds = time.perf_counter() - began
    records, peak_kib = map(int, ended.stdout.split())
    assert records == settings.joined
    return {"seconds": seconds, "records_per_second": records / seconds, "peak_mib": peak_kib / 1024}


_JOIN = """
import os
from headrace_worker.config import load_config
from headrace_worker.joining.join import join
print(join(load_config(os.environ), lambda _: None).records.succeeded)
print(next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")))
"""


def say(line: str) -> None:
    """Show how far it is: all figures together take some minutes."""
    print(line, file=sys.stderr, flush=True)


def measure(settings: Settings) -> dict[str, Any]:
    """All figures."""
    seconds: dict[str, list[float]] = {world: [] for world in WORLDS}
    for turn in range(settings.rounds):
        for world, mock in WORLDS.items():
            seconds[world].append(isolation(settings, mock))
            say(f"isolation {turn + 1} of {settings.rounds}, {world}: {seconds[world][-1]:.1f} s")
    alone = seconds["without b"]
    return {
        "isolation_seconds": seconds,
        "isolation_ratio": {
            world: statistics.median(a / b for a, b in zip(found, alone, strict=True))
            for world, found in seconds.items()
        },
        "branches": settings.branches,
        "shards": settings.shards,
        "writes": writes(settings),
        "joined": settings.joined,
        "join": join(settings),
    }


def table(found: Mapping[str, Any]) -> str:
    """The figures for people."""
    lines = ["until a and c are complete"]
    for world, seconds in found["isolation_seconds"].items():
        lines.append(
            f"  {world:10} {' '.join(f'{each:6.1f}' for each in seconds)} s   {found['isolation_ratio'][world]:.2f} x without b"
        )
    each = found["writes"] / found["branches"]
    lines.append(
        f"{found['branches']} branches of {found['shards']} shards: {found['writes']} writes, {each:.1f} a branch"
    )
    joined = found["join"]
    lines.append(
        f"join of {found['joined']:,} records with three answers: {joined['seconds']:.0f} s, "
        f"{joined['records_per_second']:,.0f} a second, {joined['peak_mib']:.0f} MiB"
    )
    return "\n".join(lines)


def parse(arguments: Sequence[str]) -> tuple[Settings, Path | None]:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="small sizes, one round")
    parser.add_argument("--rounds", type=int, help="turns of each world")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    chosen = parser.parse_args(arguments)
    settings = QUICK if chosen.quick else Settings()
    return replace(settings, rounds=chosen.rounds or settings.rounds), chosen.json


def main(arguments: Sequence[str]) -> int:
    """Measure, and print."""
    settings, file = parse(arguments)
    found = measure(settings)
    print(table(found))
    if file is not None:
        file.write_text(json.dumps(found, indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
