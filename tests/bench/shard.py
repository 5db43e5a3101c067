"""What a worker costs around its engine: records a CPU second, mock engine, from the input file to the commit, and its memory.

Beside it stands a floor: the same bytes read, hashed, parsed and written as JSON again, and nothing else. CPU seconds are those
of this process alone, so that a busy machine changes little. Run it with `python tests/bench/shard.py --records 1000000`.
"""

from __future__ import annotations

import argparse
import hashlib
import multiprocessing
import os
import resource
import sys
import tempfile
import time
from pathlib import Path

import orjson

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


def a_folder(path: Path) -> Folder:
    """The batch."""
    return Folder(path, {"parameters": {"max_tokens": 32}})


def prepare(path: Path, records: int) -> None:
    """Write an input of so many records, and plan it."""
    with (path / "input.jsonl").open("wb") as file:
        file.writelines(chat_line(number, PROMPT * (1 + number % 7)) for number in range(records))
    plan(a_folder(path).config(), None, CREATED, lambda _: None)


def run(path: Path) -> ShardReport:
    """Do the one shard."""
    config = a_folder(path).config()
    store = open_store(config.plan_uri)
    header, shard = read_header(store, config.plan_uri), read_shard_entry(store, config.plan_uri, 0)
    return run_shard(config, header, shard, Surroundings(Live(PlanReport()), Drain()))


def floor(path: Path) -> None:
    """The least that can be done with each record."""
    digest = hashlib.sha256()
    with (path / "input.jsonl").open("rb") as asked, (path / "floor.jsonl").open("wb") as answered:
        for line in asked:
            digest.update(line)
            answered.write(orjson.dumps(orjson.loads(line), option=orjson.OPT_APPEND_NEWLINE))
        answered.flush()
        os.fsync(answered.fileno())


def main() -> int:
    """Print records a second, memory, and the floor."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--records", type=int, default=200_000, help="records in the one shard (default: %(default)s)")
    records: int = parser.parse_args().records
    with tempfile.TemporaryDirectory() as name:
        path = Path(name)
        planner = multiprocessing.get_context("fork").Process(target=prepare, args=(path, records))
        planner.start()  # in a process of its own, so that its memory is not counted here
        planner.join()
        assert planner.exitcode == 0
        began, worked = time.perf_counter(), time.process_time()
        report = run(path)
        seconds, busy = time.perf_counter() - began, time.process_time() - worked
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        worked = time.process_time()
        floor(path)
        least = time.process_time() - worked
    assert report.committed
    assert report.records.succeeded == records
    print(
        f"{records:,} records in {seconds:.2f} s: {records / busy:,.0f} a CPU second, {1e6 * busy / records:.1f} us a record; "
        f"peak RSS {memory:.0f} MiB"
    )
    print(f"floor: {records / least:,.0f} a CPU second, {1e6 * least / records:.1f} us a record")
    return 0


if __name__ == "__main__":
    sys.exit(main())
