"""What a worker costs around its engine: records a second on one core, mock engine, from the input file to the commit.

Run it with `python tests/bench/shard.py [RECORDS]`.
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from headrace.api.worker import PlanReport, ShardReport
from headrace_worker.drain import Drain
from headrace_worker.manifest import read_header, read_shard_entry
from headrace_worker.planning.plan import plan
from headrace_worker.progress import Live
from headrace_worker.recorder import Surroundings
from headrace_worker.shard import run_shard
from headrace_worker.stores import open_store
from worker_rig import CREATED, Folder, chat_line

PROMPT = "Summarise this review in one sentence: it came late, it was heavy, and the cat loves it. "


def prepare(path: Path, records: int) -> Folder:
    """An input of so many records, planned."""
    folder = Folder(path, {"parameters": {"max_tokens": 32}})
    with (path / "input.jsonl").open("wb") as file:
        file.writelines(chat_line(number, PROMPT * (1 + number % 7)) for number in range(records))
    plan(folder.config(), None, CREATED, lambda _: None)
    return folder


def run(folder: Folder) -> ShardReport:
    """Do the one shard."""
    config = folder.config()
    store = open_store(config.plan_uri)
    header, shard = read_header(store, config.plan_uri), read_shard_entry(store, config.plan_uri, 0)
    return run_shard(config, header, shard, Surroundings(Live(PlanReport()), Drain()))


def main() -> int:
    """Print records a second, all in all."""
    records = int(sys.argv[1]) if len(sys.argv) > 1 else 200_000
    with tempfile.TemporaryDirectory() as path:
        folder = prepare(Path(path), records)
        began, worked = time.perf_counter(), time.process_time()
        report = run(folder)
        seconds, busy = time.perf_counter() - began, time.process_time() - worked
    assert report.committed
    assert report.records.succeeded == records
    print(
        f"{records:,} records in {seconds:.2f} s: {records / seconds:,.0f} a second, {records / busy:,.0f} a CPU second"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
