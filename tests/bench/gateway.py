"""Large files through the gateway: how fast they go up and down, and in how much memory.

    python tests/bench/gateway.py [--megabytes 1024] [--json]

The client sends and takes the bytes piece by piece, over one connection each way, and keeps none of them. Memory is the most that the
gateway's process has ever held. Lists are timed over so many batches that are there already.
"""

from __future__ import annotations

import argparse
import http.client
import json
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from rich.console import Console
from rich.table import Table

from builders import a_batch
from gateway_rig import Gateway, gateway, peak_memory
from headrace.shells.local.converge import utc_now
from headrace.shells.local.objects import submit
from headrace.shells.local.state import StateDir

MEGABYTE = 2**20
BATCHES = 1000
MOST_MEMORY = 200
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


def measured(megabytes: int) -> dict[str, float]:
    """All figures."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        state = StateDir(folder / ".headrace")
        for number in range(BATCHES):
            submit(state, a_batch(f"b{number}").build(), utc_now(), replace=False)
        with gateway(folder, "bench", "--max-file-bytes", str(2**40)) as served:
            began = time.perf_counter()
            file_id = up(served, megabytes)
            uploaded = time.perf_counter()
            down(served, file_id, megabytes)
            downloaded = time.perf_counter()
            served.client.batches.list()
            listed = time.perf_counter()
            return {
                "upload MB/s": megabytes * MEGABYTE / 1e6 / (uploaded - began),
                "download MB/s": megabytes * MEGABYTE / 1e6 / (downloaded - uploaded),
                f"list of {BATCHES} batches, ms": 1000 * (listed - downloaded),
                "peak memory, MiB": peak_memory(served) / MEGABYTE,
            }


def main() -> int:
    """Measure and show; 1 when the gateway has held too much in memory."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--megabytes", type=int, default=1024)
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    figures = measured(asked.megabytes)
    if asked.json:
        print(json.dumps(figures))
    else:
        table = Table("what", "figure")
        for name, figure in figures.items():
            table.add_row(name, f"{figure:,.0f}")
        Console().print(table)
    return int(figures["peak memory, MiB"] >= MOST_MEMORY)


if __name__ == "__main__":
    sys.exit(main())
