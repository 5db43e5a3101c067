"""Gateway and NATS server are killed again and again while requests come: what was accepted is answered, and nothing twice.

    python tests/gateway/test_chaos.py 500 [SEED]

kills so many times; the seed says when and whom.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import threading
import uuid
from collections import Counter
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from functools import partial
from http.client import HTTPException
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

from cluster.processes import free_ports
from gateway_rig import MARK, Gateway, gateway
from laptop import eventually, processes_with

KILLS = 50
SEED = 7
REQUESTS_A_KILL = 3
ROUTE = {"name": "quick", "model": "quick", "window": {"maxBatchSize": 8, "maxWaitMilliseconds": 3000}}
"""Its windows wait for more than one request: each batch is some processes."""


@dataclass
class Load:
    """Somebody who posts requests one after the other, each until it is accepted."""

    port: int
    requests: int
    accepted: dict[str, set[str]] = field(default_factory=dict)
    """By key, all ids that were given out for it."""
    over: threading.Event = field(default_factory=threading.Event)

    def run(self, served: Gateway) -> None:
        """Post them all; `served` stands for every gateway at that port."""
        for number in range(self.requests):
            eventually(partial(self._post, served, f"key-{number}"))
        self.over.set()

    def has_come_to(self, point: int) -> bool:
        """Whether so many were accepted."""
        return len(self.accepted) >= point

    def _post(self, served: Gateway, key: str) -> bool:
        body: dict[str, Any] = {"model": "quick", "messages": [{"role": "user", "content": key}]}
        with suppress(OSError, HTTPException):
            answer = served.post("/v1/requests", body, **{"Idempotency-Key": key})
            if answer.status in (200, 202):
                self.accepted.setdefault(key, set()).add(answer.json["id"])
                return True
            assert answer.status in (429, 503), answer.body
        return False


def kill_server(folder: Path) -> None:
    """Kill the NATS server, if there is one just now."""
    with suppress(OSError, ValueError):
        os.kill(int((folder / ".headrace/nats/server.pid").read_text()), signal.SIGKILL)


@pytest.mark.slow
def test_accepted_is_answered_once_whoever_is_killed(tmp_path: Path) -> None:
    live(tmp_path, KILLS, SEED)


def live(folder: Path, kills: int, seed: int) -> None:
    """Kill at so many points that chance has chosen, half of the time the one and half of the time the other."""
    chance, mark = random.Random(seed), uuid.uuid4().hex
    load = Load(free_ports(1)[0], REQUESTS_A_KILL * kills)
    points = sorted(chance.sample(range(1, load.requests), kills))
    with ExitStack() as stack:

        def started() -> Gateway:
            return stack.enter_context(gateway(folder, mark, "--port", str(load.port), routes=[ROUTE]))

        served = started()
        posting = threading.Thread(target=load.run, args=(served,))
        posting.start()
        for point in points:
            eventually(partial(load.has_come_to, point))
            if chance.random() < 0.5:
                kill_server(folder)
            else:
                served.stop(signal.SIGKILL)
                served = started()
        posting.join()
        assert load.over.is_set()

        ids = [name for names in load.accepted.values() for name in names]
        assert len(ids) == load.requests, "one id for each key"
        assert len(set(ids)) == load.requests, "no id twice"
        for name in ids:
            done = served.answered(name)
            assert (done["status"], done["response"]["status_code"]) == ("completed", 200)
        counted = Counter(_answered_in_batches(served))
        assert counted == Counter(ids), "each was answered in one batch, once"
        assert served.stop() == 0
    eventually(lambda: not list(processes_with(MARK, mark)))  # nothing is left, of those that were killed either


def _answered_in_batches(served: Gateway) -> list[str]:
    found = []
    for batch in served.client.batches.list():
        text = served.client.files.content(batch.output_file_id or "").text
        found += [json.loads(line)["custom_id"] for line in text.splitlines()]
    return found


if __name__ == "__main__":
    with TemporaryDirectory() as name:
        live(Path(name), int(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else SEED)
    print("all was answered, and nothing twice")
