"""The gateway's speed, and how much memory it takes, on the cores that are there.

    python tests/bench/gateway.py [SECTION ...] [--rounds 5] [--seconds 10] [--json]

- files: a gigabyte up and down, and in how much memory. The client keeps none of it; memory is the most that the gateway has ever held
- accept: how long a request takes to be accepted at 500 a second, whatever the server does meanwhile (see `gateway_load.py`): with
  nothing else to do, and while their batches run on the same cores
- rate: the most requests a second that are accepted, beside the same server and framework in one process that publish each
  to JetStream and do nothing else (`gateway_peer.py`). The two take turns
- push: how long after a request has its answer a socket is told, while 2,000 of them are open
- fill: how full the batch is of 64 requests that are posted inside one window

Each figure is the median of all rounds. The exit code is 1 when one does not keep its bound.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from rich.console import Console
from rich.table import Table

sys.path.insert(0, str(Path(__file__).parent.parent))

from bench.gateway_sections import Figures, accepting, fill, pool, push, rate
from builders import a_batch
from gateway_rig import Gateway, gateway, peak_memory
from headrace.shells.local.converge import utc_now
from headrace.shells.local.objects import submit
from headrace.shells.local.state import StateDir

MEGABYTE = 2**20
BATCHES = 1000
A_SECOND = 500
BOUNDS: Mapping[str, tuple[str, float]] = {
    "peak memory, MiB": ("<", 200),
    "accept p99 at 500/s, door alone, ms": ("<", 50),
    "accept p99 at 500/s, batches run, ms": ("<", 50),
    "accepted / peer": (">=", 0.5),
    "completion to push p99, 2000 sockets open, ms": ("<", 100),
    "batch fill": (">=", 0.95),
    "warm pool p50 / (window + 1.2 x engine)": ("<", 1),
}
HEAD = (
    b'--line\r\nContent-Disposition: form-data; name="purpose"\r\n\r\nbatch\r\n'
    b'--line\r\nContent-Disposition: form-data; name="file"; filename="large.jsonl"\r\n\r\n'
)
TAIL = b"\r\n--line--\r\n"


def body(megabytes: int) -> Iterator[bytes]:
    """A form with a file of that size."""
    piece = (b"x" * 1023 + b"\n") * 1024
    yield HEAD
    for _ in range(megabytes):
        yield piece
    yield TAIL


def up(served: Gateway, megabytes: int) -> str:
    """Upload; returns the id."""
    connection = http.client.HTTPConnection(*served.address, blocksize=MEGABYTE)
    length = len(HEAD) + megabytes * MEGABYTE + len(TAIL)
    headers = {"Content-Type": "multipart/form-data; boundary=line", "Content-Length": str(length)}
    connection.request("POST", "/v1/files", body(megabytes), headers)
    answer = json.loads(connection.getresponse().read())
    if answer.get("bytes") != megabytes * MEGABYTE:
        raise SystemExit(f"the file was not taken: {answer}")
    return str(answer["id"])


def down(served: Gateway, file_id: str, megabytes: int) -> None:
    """Download all of it."""
    connection = http.client.HTTPConnection(*served.address)
    connection.request("GET", f"/v1/files/{file_id}/content")
    response, size = connection.getresponse(), 0
    while piece := response.read(MEGABYTE):
        size += len(piece)
    if size != megabytes * MEGABYTE:
        raise SystemExit(f"{size} bytes came back")


def files(folder: Path, rounds: int, megabytes: int) -> Figures:
    """A large file up and down; and a list, of so many batches that are there already."""
    names = ("upload MB/s", "download MB/s", f"list of {BATCHES} batches, ms", "peak memory, MiB")
    figures: Figures = {name: [] for name in names}
    state = StateDir(folder / ".headrace")
    for number in range(BATCHES):
        submit(state, a_batch(f"b{number}").build(), utc_now(), replace=False)
    with gateway(folder, "bench", "--max-file-bytes", str(2**40)) as served:
        for _ in range(rounds):
            began = time.perf_counter()
            file_id = up(served, megabytes)
            uploaded = time.perf_counter()
            down(served, file_id, megabytes)
            downloaded = time.perf_counter()
            served.client.batches.list()
            listed = time.perf_counter()
            served.client.files.delete(file_id)
            size = megabytes * MEGABYTE / 1e6
            took = (size / (uploaded - began), size / (downloaded - uploaded), 1000 * (listed - downloaded))
            for name, figure in zip(names, (*took, peak_memory(served) / MEGABYTE), strict=True):
                figures[name].append(figure)
    return figures


def holds(name: str, figure: float) -> bool:
    """Whether a figure keeps its bound, if it has one."""
    which, bound = BOUNDS.get(name, ("", 0.0))
    return {"<": figure < bound, ">=": figure >= bound}.get(which, True)


def main() -> int:
    """Measure and show; 1 when a figure does not keep its bound."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("section", nargs="*", help="all, unless some are named")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=10, help="of a round of accept or rate")
    parser.add_argument("--megabytes", type=int, default=1024)
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    sections: dict[str, Callable[[Path], Figures]] = {
        "files": lambda folder: files(folder, asked.rounds, asked.megabytes),
        "accept": lambda folder: accepting(folder, asked.rounds, asked.seconds, A_SECOND),
        "rate": lambda folder: rate(folder, asked.rounds, asked.seconds),
        "push": lambda folder: push(folder, asked.rounds),
        "fill": lambda folder: fill(folder, asked.rounds),
        "pool": lambda folder: pool(folder, asked.rounds),
    }
    if unknown := {*asked.section} - {*sections}:
        parser.error(f"there is no section {', '.join(sorted(unknown))}; there are {', '.join(sections)}")
    busy, figures = os.getloadavg()[0], dict[str, list[float]]()
    for name in asked.section or sections:
        with tempfile.TemporaryDirectory() as folder:
            figures |= sections[name](Path(folder))
    medians = {name: statistics.median(values) for name, values in figures.items()}
    if asked.json:
        print(json.dumps({"load before": busy, "rounds": figures, "medians": medians}))
    else:
        show(figures, medians, busy)
    return int(not all(holds(name, figure) for name, figure in medians.items()))


def show(figures: Figures, medians: Mapping[str, float], busy: float) -> None:
    """A table."""
    table = Table("what", "median", "of", "bound", caption=f"load average before: {busy:.1f}")
    for name, values in figures.items():
        which, bound = BOUNDS.get(name, ("", None))
        kept = "" if bound is None else f"{which} {bound:g}" + ("" if holds(name, medians[name]) else ": not kept")
        table.add_row(name, f"{medians[name]:,.2f}", f"{min(values):,.2f} to {max(values):,.2f}", kept)
    Console().print(table)


if __name__ == "__main__":
    sys.exit(main())
