"""How fast `plan` reads a large input, and in how much memory, beside the least that any planner must do.

    python tests/bench/plan.py [--records 1000000] [--rounds 3] [--json]

The limit is one pass that does nothing but `orjson.loads` and SHA-256 of every line. Each round measures both, each in a process
of its own; the best round counts, since everything else on the machine only ever makes them slower. Speed and ratio are by the
processor time of one core: there is one thread, and it never waits.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import orjson
from rich.console import Console
from rich.table import Table

from headrace.api.worker import WorkerConfig
from headrace_worker.planning.plan import plan

LINE_BYTES = 300
SHARDS = 8
LIMIT, PLAN = "loads + sha256", "plan"


def write_input(path: Path, records: int) -> None:
    """Chat requests of exactly 300 bytes a line."""
    with path.open("wb", buffering=1024**2) as file:
        for number in range(records):
            file.write(a_line(number, "Is this review good or bad? ".ljust(LINE_BYTES - len(a_line(number, "")), "x")))


def a_line(number: int, content: str) -> bytes:
    messages = [{"role": "system", "content": "Answer with one word."}, {"role": "user", "content": content}]
    record = {
        "custom_id": f"review-{number:07d}",
        "method": "POST",
        "url": "/v1/chat/completions",
        "body": {"messages": messages, "max_tokens": 8},
    }
    return orjson.dumps(record, option=orjson.OPT_APPEND_NEWLINE)


def do_limit(folder: Path) -> None:
    """The least: parse and hash every line."""
    loads, update = orjson.loads, hashlib.sha256().update
    with (folder / "in.jsonl").open("rb", buffering=1024**2) as stream:
        for line in stream:
            loads(line)
            update(line)


def do_plan(folder: Path) -> None:
    """All of it: checks, ids, shards, manifest."""
    with tempfile.TemporaryDirectory(dir=folder) as output:
        report = plan(a_config(folder, Path(output)), None, 0, lambda _: None)
    if report.error_count or report.shards != SHARDS:
        raise SystemExit(f"the input was not planned: {report}")


def a_config(folder: Path, output: Path) -> WorkerConfig:
    return WorkerConfig.parse(
        {
            "batch": {"namespace": "bench", "name": "plan", "uid": "1"},
            "model": {"name": "tiny"},
            "engine": {"name": "mock"},
            "input": {"uri": f"{folder.as_uri()}/in.jsonl"},
            "planUri": f"{output.as_uri()}/_headrace/plan.jsonl",
            "outputUri": output.as_uri(),
            "batching": {},
            "shards": SHARDS,
            "retries": {},
        }
    )


SUBJECTS: dict[str, Callable[[Path], None]] = {LIMIT: do_limit, PLAN: do_plan}


def measure_here(subject: str, folder: Path) -> None:
    """In a process of its own: print seconds and the peak of the resident memory, this interpreter included."""
    began, used = time.perf_counter(), time.process_time()
    SUBJECTS[subject](folder)
    seconds, cpu_seconds = time.perf_counter() - began, time.process_time() - used
    # Not ru_maxrss: that one also remembers the process that this one was forked from.
    peak = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert peak is not None
    print(json.dumps({"seconds": seconds, "cpu_seconds": cpu_seconds, "peak_rss_mib": int(peak[1]) / 1024}))


def measure(subject: str, folder: Path) -> dict[str, float]:
    command = [sys.executable, __file__, "--subject", subject, "--folder", str(folder)]
    measured: dict[str, float] = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    return measured


def bench(records: int, rounds: int) -> dict[str, dict[str, float]]:
    """For each subject the best of all rounds: seconds, MB/s, microseconds a record, peak memory, times the limit."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_input(folder / "in.jsonl", records)
        runs = [{subject: measure(subject, folder) for subject in SUBJECTS} for _ in range(rounds)]
    best = {subject: min((run[subject] for run in runs), key=lambda one: one["cpu_seconds"]) for subject in SUBJECTS}
    for one in best.values():
        one["mb_per_second"] = records * LINE_BYTES / one["cpu_seconds"] / 1e6
        one["microseconds_per_record"] = one["cpu_seconds"] / records * 1e6
        one["times_the_limit"] = one["cpu_seconds"] / best[LIMIT]["cpu_seconds"]
    return best


def show(best: dict[str, dict[str, float]], records: int) -> None:
    table = Table(title=f"planning {records:,} records of {LINE_BYTES} bytes")
    for heading in ("", "seconds", "CPU s", "MB/s", "µs a record", "RSS MiB", "times"):
        table.add_column(heading, justify="right" if heading else "left")
    for subject, one in best.items():
        names = (
            "seconds",
            "cpu_seconds",
            "mb_per_second",
            "microseconds_per_record",
            "peak_rss_mib",
            "times_the_limit",
        )
        table.add_row(subject, *(f"{one[name]:.2f}" for name in names))
    Console().print(table)


def main() -> None:
    parser = argparse.ArgumentParser(description="Measures the role plan beside a named limit.")
    parser.add_argument("--records", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", action="store_true", help="print JSON in place of the table")
    parser.add_argument("--subject", choices=SUBJECTS, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.subject:
        measure_here(asked.subject, asked.folder)
        return
    best = bench(asked.records, asked.rounds)
    if asked.json:
        print(json.dumps({"records": asked.records, "line_bytes": LINE_BYTES, "subjects": best}))
    else:
        show(best, asked.records)


if __name__ == "__main__":
    main()
