"""A worker that speaks the contract and does no work: it starts in milliseconds, and ends as it is told.

The environment variable FAKE_WORKER has its orders as JSON, all of them optional:

* `records`, `shards`: what `plan` reports; `bad`: how many bad lines it reports instead;
* `exits`: exit codes of the pods of a shard by turns, `{"0": [1, 0]}`; 0 once they are used up;
* `hold`: pods of these shards wait until they are told to stop; `deaf`: they do not even listen to that;
* `plan_exit`: the exit code of `plan`, with a failure that says so;
* `serve`: pods show their progress while they wait.

The words `results` and `list` are not faked: what a batch has left, and what is new, is read by the real worker.

Each pod leaves a file `<role>-<shard>-<turn>` in the folder FAKE_WORKER_LOG, with its environment.
"""

from __future__ import annotations

import http.server
import json
import os
import signal
import sys
import threading
from pathlib import Path
from typing import Any

ORDERS: dict[str, Any] = json.loads(os.environ.get("FAKE_WORKER", "{}"))
LOG = Path(os.environ["FAKE_WORKER_LOG"])
RECORDS, SHARDS = ORDERS.get("records", 10), ORDERS.get("shards", 2)


def main() -> int:
    """Play the role that the command line names."""
    if sys.argv[1] in ("results", "list"):
        return read_really()
    role, shard = sys.argv[1], os.environ.get("JOB_COMPLETION_INDEX", "0")
    turn = take_turn(role, shard)
    print(f"{role} {shard}, turn {turn}")
    play = {"plan": plan, "run": run, "finalize": finalize}[role]
    return play(int(shard), turn)


def read_really() -> int:
    """Become the real worker."""
    roots = [str(Path(__file__).parents[2] / part) for part in ("operator", "worker-image")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(roots)}
    os.execve(sys.executable, [sys.executable, "-P", "-m", "headrace_worker", *sys.argv[1:]], environment)


def take_turn(role: str, shard: str) -> int:
    """The number of this pod among those of its shard, from 1, written down with its environment."""
    for turn in range(1, 1000):
        try:
            with (LOG / f"{role}-{shard}-{turn}").open("x") as stream:
                json.dump(dict(os.environ), stream)
        except FileExistsError:
            continue
        return turn
    raise AssertionError("a pod was started a thousand times")


def plan(_: int, turn: int) -> int:
    """Report what the orders say is in the input."""
    report: dict[str, Any] = {
        "kind": "plan",
        "records": RECORDS,
        "shards": SHARDS,
        "estimatedPromptTokens": 5 * RECORDS,
    }
    if "bad" in ORDERS:
        lines = [{"line": n + 1, "code": "invalid_json", "message": "no JSON"} for n in range(ORDERS["bad"])]
        report = {"kind": "plan", "errorCount": len(lines), "errors": lines[:20]}
    exits = ORDERS.get("plan_exit", [])
    code = exits[turn - 1] if turn <= len(exits) else 0
    if code:
        report["failure"] = {"reason": "InputUnreadable", "message": "the disk is on fire"}
    say(report)
    return code


def run(shard: int, turn: int) -> int:
    """Answer the records of the shard at once, or wait to be told to stop."""
    if shard in ORDERS.get("hold", ()) and turn == 1:
        return wait(shard)
    exits = ORDERS.get("exits", {}).get(str(shard), [])
    code: int = exits[turn - 1] if turn <= len(exits) else 0
    if code == 0:
        say(shard_report(shard, turn, committed=True))
    elif code > 42:
        say(shard_report(shard, turn) | {"failure": {"reason": "Broken", "message": f"shard {shard} is broken"}})
    return code


def wait(shard: int) -> int:
    """Stand for a pod in the middle of its work."""
    told = threading.Event()
    if shard in ORDERS.get("deaf", ()):
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    else:
        signal.signal(signal.SIGTERM, lambda *_: told.set())
        threading.Thread(target=tell_at_end_of_input, args=[told], daemon=True).start()
    if ORDERS.get("serve"):
        serve(shard)
    (LOG / f"waits-{shard}").touch()
    while not told.wait(0.05):
        pass
    say(shard_report(shard, 1))
    return 42


def tell_at_end_of_input(told: threading.Event) -> None:
    """The shell is gone."""
    sys.stdin.read()
    told.set()


def finalize(_: int, __: int) -> int:
    """Report the sums: what has no result is an error now."""
    done = len(list(LOG.glob("done-*"))) * RECORDS // SHARDS
    say({"kind": "finalize", "records": {"total": RECORDS, "succeeded": done, "failed": RECORDS - done, "pending": 0}})
    return 0


def shard_report(shard: int, turn: int, *, committed: bool = False) -> dict[str, Any]:
    """How far the shard is: all of it, or one record."""
    size = RECORDS // SHARDS
    if committed:
        (LOG / f"done-{shard}").touch()
    done = size if committed else 1
    records = {"total": size, "succeeded": done, "failed": 0, "pending": size - done}
    usage = {"promptTokens": 5 * done, "completionTokens": 3 * done, "gpuSeconds": 0}
    counts = {"attempt": turn, "committed": committed, "batches": 1, "batchedRecords": done}
    return {"kind": "shard", "shard": shard, "records": records, "usage": usage, "recordsPerSecond": "2.5", **counts}


def say(report: dict[str, Any]) -> None:
    """Leave the last words."""
    Path(os.environ["HEADRACE_TERMINATION_LOG"]).write_text(json.dumps(report))


def serve(shard: int) -> None:
    """Show the progress at a port of its own."""
    body = json.dumps(shard_report(shard, 1)).encode()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    Path(os.environ["HEADRACE_METRICS_PORT_FILE"]).write_text(str(server.server_address[1]))


if __name__ == "__main__":
    sys.exit(main())
