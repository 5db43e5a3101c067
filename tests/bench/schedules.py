"""What schedules cost when none is due: CPU and memory of the operator on a real control plane with its real CronJob controller.

    python tests/bench/schedules.py [--count 5000] [--seconds 60] [--json FILE]

Each schedule has its CronJob, its status and the times of its next three runs; the next tick is months away. The same operator is measured
before the first one is made, so that what it costs without any is known. Creation is timed beside it, and what is written then echoes for
a while: CPU is measured again and again until it falls no more. All measurements are printed; the last one counts.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

import psutil

from bench.cluster_operator import PATIENCE_SECONDS, an_operator, rss_mib, run, say
from builders import a_batch
from cluster.operator_rig import RECORDS, Plane, Rig, started_plane
from cluster.waiting import eventually
from headrace.shells.kube.resources import CRON_JOBS, SCHEDULES
from schedule_builders import a_schedule

AT_ONCE = 32
REST_SECONDS = 20.0
"""Before anything is measured."""
STILL_FALLING = 0.8
"""A measurement below so much of the one before it is followed by another."""
MOST_MEASUREMENTS = 8


@dataclass(frozen=True)
class Settings:
    """The command line."""

    count: int
    seconds: float
    file: Path | None


async def create(rig: Rig, count: int) -> None:
    """Create schedules, as fast as the API server takes them."""
    gate = asyncio.Semaphore(AT_ONCE)
    template = a_schedule("H H 1 1 *").of_batch(**a_batch().inline(*RECORDS).spec).with_spec(jitterSeconds=600)

    async def one(number: int) -> None:
        async with gate:
            body = template.manifest | {"metadata": {"name": f"report-{number}"}}
            await rig.plane.api.create(SCHEDULES, rig.namespace, body)

    await asyncio.gather(*map(one, range(count)))


async def ticking(rig: Rig) -> int:
    """How many CronJobs are let tick."""
    pages = [page async for page in rig.plane.api.pages(CRON_JOBS, rig.namespace)]
    return sum(not cron["spec"]["suspend"] for page in pages for cron in page["items"])


def cpu_percent(process: psutil.Process, seconds: float) -> float:
    """Of one core, over that time."""
    before = process.cpu_times()
    time.sleep(seconds)
    after = process.cpu_times()
    spent: float = after.user + after.system - before.user - before.system
    return 100 * spent / seconds


def cpu_percent_at_rest(process: psutil.Process, seconds: float) -> float:
    """Of one core, once it falls no more."""
    time.sleep(REST_SECONDS)
    found = [cpu_percent(process, seconds)]
    while len(found) < MOST_MEASUREMENTS and (len(found) == 1 or found[-1] < STILL_FALLING * found[-2]):
        found.append(cpu_percent(process, seconds))
    say(f"in {seconds:.0f} s each: {', '.join(f'{each:.2f}' for each in found)} % CPU")
    return found[-1]


def measure(plane: Plane, folder: Path, settings: Settings) -> dict[str, float]:
    """All figures."""
    rig = Rig(plane, folder)
    operator = an_operator(rig).start().wait_ready()
    process = psutil.Process(operator.pid)
    empty = {"cpu_percent_empty": cpu_percent_at_rest(process, settings.seconds), "rss_mib_empty": rss_mib(process)}
    began = time.perf_counter()
    run(rig, create(rig, settings.count))
    eventually(
        lambda: rig.run(ticking(rig)) == settings.count, "all tick", lambda: rig.run(ticking(rig)), PATIENCE_SECONDS
    )
    took = time.perf_counter() - began
    operator.wait_until(lambda health: not health["queue"]["depth"])
    full = {"cpu_percent": cpu_percent_at_rest(process, settings.seconds), "rss_mib": rss_mib(process)}
    rig.close()
    return {"schedules": settings.count, "made_per_second": settings.count / took, **empty, **full}


def parse(arguments: Sequence[str]) -> Settings:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=5_000, help="schedules")
    parser.add_argument("--seconds", type=float, default=60.0, help="how long CPU is measured")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    chosen = parser.parse_args(arguments)
    return Settings(chosen.count, chosen.seconds, chosen.json)


def main(arguments: Sequence[str]) -> int:
    """Measure, and print."""
    settings = parse(arguments)
    with tempfile.TemporaryDirectory() as folder, started_plane(Path(folder) / "plane", print) as plane:
        found = measure(plane, Path(folder), settings)
    print(f"{found['schedules']:.0f} schedules, of which none is due; made at {found['made_per_second']:.0f} a second")
    for name, ending in (("without any", "_empty"), ("with all", "")):
        cpu, rss = found[f"cpu_percent{ending}"], found[f"rss_mib{ending}"]
        print(f"  {name:11} {cpu:5.2f} % CPU of one core, {rss:6.1f} MiB")
    if settings.file is not None:
        settings.file.write_text(json.dumps(found, indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
