"""What `gateway.py` measures about single requests."""

from __future__ import annotations

import asyncio
import http.client
import json
import re
import statistics
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from gateway_rig import QUICK, Gateway, environment, gateway
from headrace.api.asking import RequestRecord
from headrace.gateway.queues.jetstream import connected
from headrace.gateway.queues.natsserver import Address
from laptop import eventually

HERE = Path(__file__).parent
ENDLESS = {
    "model": {"name": "endless"},
    "engine": {"name": "mock", "mock": {"latencyMilliseconds": 3_600_000}},
    "terminationGracePeriodSeconds": 1,
}
"""Its batch never ends, so that nothing is measured but the door."""
ENGINE_MILLISECONDS = 200
POOL_WINDOW_MILLISECONDS = 50
STEADY = {
    "model": {"name": "steady"},
    "engine": {"name": "mock", "mock": {"latencyMilliseconds": ENGINE_MILLISECONDS}},
    "batching": {"maxBatchSize": 64},
}
"""Each of its batches takes the same time, however many requests it has."""
ROUTES: list[dict[str, Any]] = [
    {
        "name": "endless",
        "model": "endless",
        "window": {"maxBatchSize": 1, "maxWaitMilliseconds": 0},
        "maxOpenBatches": 1,
        "maxQueued": 1_000_000,
    },
    {"name": "quick", "model": "quick", "maxQueued": 1_000_000},
    {
        "name": "fill",
        "model": "quick",
        "window": {"maxBatchSize": 64, "maxBatchTokens": 1_000_000, "maxWaitMilliseconds": 1000},
    },
    {
        "name": "push",
        "model": "quick",
        "window": {"maxBatchSize": 1000, "maxBatchTokens": 1_000_000, "maxWaitMilliseconds": 10_000},
    },
    {
        "name": "pool",
        "model": "steady",
        "window": {"maxBatchSize": 64, "maxWaitMilliseconds": POOL_WINDOW_MILLISECONDS},
        "target": {"warmPool": {"min": 1, "max": 1}},
    },
]
"""`quick` has the windows of anybody who says nothing about them."""
WINDOW_REQUESTS = 64
UNDER_WAY = ("validating", "in_progress", "finalizing")
SOCKETS = 2000
ALONE = 30
"""Requests of a warm pool in a round."""
PUSHED = 500
"""Requests whose ends are told in a round, each to another socket."""

Figures = dict[str, list[float]]
"""By what is measured, a figure for each round."""


@contextmanager
def served(folder: Path) -> Iterator[Gateway]:
    """A gateway with all routes."""
    with gateway(folder, "bench", routes=ROUTES, models=[QUICK, ENDLESS, STEADY]) as found:
        yield found
        found.stop()  # workers too: they write into the folder


@contextmanager
def peer(folder: Path) -> Iterator[int]:
    """The app that publishes and does nothing else; gives its port."""
    words = [sys.executable, str(HERE / "gateway_peer.py"), str(folder)]
    process = subprocess.Popen(words, env=environment("bench"), stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        yield int(process.stdout.readline().split()[-1])
    finally:
        process.terminate()
        process.wait()
        end_server(folder)


def end_server(folder: Path) -> None:
    """End the NATS server that a killed process has left."""
    if (folder / "server.pid").exists():
        subprocess.run(["kill", (folder / "server.pid").read_text().strip()], check=False)


def load(port: int, **asked: Any) -> Mapping[str, Any]:
    """Calls from a process of their own."""
    words = [sys.executable, str(HERE / "gateway_load.py"), json.dumps({"host": "127.0.0.1", "port": port, **asked})]
    found: dict[str, Any] = json.loads(
        subprocess.run(words, env=environment("bench"), stdout=subprocess.PIPE, text=True, check=True).stdout
    )
    if set(found["statuses"]) != {"202"}:
        raise SystemExit(f"not all was accepted: {found['statuses']}")
    return found


def percentile(values: Sequence[float], percent: int) -> float:
    """The smallest value that so many percent are not above."""
    return sorted(values)[max(0, -(-len(values) * percent // 100) - 1)]


def accepting(folder: Path, rounds: int, seconds: float, rate: float) -> Figures:
    """How long a request takes to be accepted at a steady rate: with nothing else to do, and while batches run on the same cores."""
    figures: Figures = {}
    with served(folder) as found:
        keep_busy(found)
        for _ in range(rounds):
            for model, what in (("endless", "door alone"), ("quick", "batches run")):
                eventually(lambda: not waiting(found))
                told = load(found.address[1], seconds=seconds, rate=rate, model=model)
                for percent in (50, 99):
                    name = f"accept p{percent} at {rate:g}/s, {what}, ms"
                    figures.setdefault(name, []).append(percentile(told["milliseconds"], percent))
                figures.setdefault(f"of that the load's own, p99, {what}, ms", []).append(percentile(told["late"], 99))
    return figures


def rate(folder: Path, rounds: int, seconds: float) -> Figures:
    """The most requests a second that are accepted, beside the peer. They take turns, each first in every other round."""
    figures: Figures = {"accepted/s": [], "peer, published/s": [], "accepted / peer": []}
    with served(folder) as found, peer(folder / "peer") as port:
        keep_busy(found)
        ports = {"accepted/s": found.address[1], "peer, published/s": port}
        for number in range(rounds):
            for name in sorted(ports, reverse=bool(number % 2)):
                told = load(ports[name], seconds=seconds, model="endless")
                figures[name].append(len(told["milliseconds"]) / told["seconds"])
            figures["accepted / peer"].append(figures["accepted/s"][-1] / figures["peer, published/s"][-1])
    return figures


def keep_busy(found: Gateway) -> None:
    """Have the only batch of the endless route under way: from now on its requests are accepted, and wait."""
    first = found.post("/v1/requests", body("endless")).json["id"]
    eventually(lambda: found.ask("GET", f"/v1/requests/{first}").json["status"] == "in_progress")
    batch = found.ask("GET", f"/v1/requests/{first}").json["batch_id"]
    eventually(lambda: found.client.batches.retrieve(batch).status == "in_progress")


def fill(folder: Path, rounds: int) -> Figures:
    """How full the batch is of those that are posted inside one window."""
    figures: Figures = {"batch fill": [], "batches of one window": []}
    with served(folder) as found, ThreadPoolExecutor(WINDOW_REQUESTS) as callers:
        for _ in range(rounds):
            answers = callers.map(
                lambda _: found.post("/v1/requests?route=fill", body("quick")), range(WINDOW_REQUESTS)
            )
            ids = [answer.json["id"] for answer in answers]
            batches = Counter(found.answered(name)["batch_id"] for name in ids)
            figures["batch fill"].append(statistics.mean(batches.values()) / WINDOW_REQUESTS)
            figures["batches of one window"].append(len(batches))
    return figures


def body(model: str) -> dict[str, Any]:
    """A request."""
    return {"model": model, "messages": [{"role": "user", "content": "hello"}]}


def push(folder: Path, rounds: int) -> Figures:
    """How long after a request has ended a socket is told, while thousands are open; it has ended when the gateway has found its answer."""
    figures: Figures = {}
    with served(folder) as found, sockets(found) as opened:
        for _ in range(rounds):
            told = opened(posted(found))
            ended = {one.id: one.ended or 0 for one in asyncio.run(records(folder, [*told]))}
            late = [1000 * at - ended[name] for name, at in told.items()]
            for percent in (50, 99):
                name = f"completion to push p{percent}, {SOCKETS} sockets open, ms"
                figures.setdefault(name, []).append(percentile(late, percent))
    return figures


def posted(found: Gateway) -> list[str]:
    """Requests that wait for their window."""
    connection, ids = http.client.HTTPConnection(*found.address), []
    for _ in range(PUSHED):
        words = json.dumps(body("quick"))
        connection.request("POST", "/v1/requests?route=push", words, {"Content-Type": "application/json"})
        ids.append(json.loads(connection.getresponse().read())["id"])
    connection.close()
    return ids


@contextmanager
def sockets(found: Gateway) -> Iterator[Callable[[list[str]], dict[str, float]]]:
    """Thousands of open sockets; the function says when each of some requests was said to be completed, in seconds since the epoch."""
    words = [sys.executable, str(HERE / "gateway_sockets.py"), *map(str, found.address), str(SOCKETS)]
    process = subprocess.Popen(
        words, env=environment("bench"), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdin is not None
    assert process.stdout is not None
    says = process.stdout

    def told(ids: list[str]) -> dict[str, float]:
        assert process.stdin is not None
        process.stdin.write(json.dumps(ids) + "\n")
        process.stdin.flush()
        if says.readline() != "waiting\n":
            raise SystemExit("the sockets have ended")
        found: dict[str, float] = json.loads(says.readline())
        return found

    try:
        if says.readline() != "open\n":
            raise SystemExit("the sockets cannot be opened")
        yield told
    finally:
        process.kill()
        process.communicate()


def pool(folder: Path, rounds: int) -> Figures:
    """How long requests take from end to end whose worker has the model loaded: some that come alone, one after the other."""
    figures: Figures = {}
    bound = POOL_WINDOW_MILLISECONDS + 1.2 * ENGINE_MILLISECONDS
    with served(folder) as found:
        asked_alone(found)  # the worker is there, and has the model
        for _ in range(rounds):
            ids = [asked_alone(found) for _ in range(ALONE)]
            took = [float((one.ended or 0) - one.accepted) for one in asyncio.run(records(folder, ids))]
            figures.setdefault("warm pool, accepted to answered, p50, ms", []).append(statistics.median(took))
            figures.setdefault("warm pool p50 / (window + 1.2 x engine)", []).append(statistics.median(took) / bound)
    return figures


def asked_alone(found: Gateway) -> str:
    """A request that has been answered."""
    name: str = found.post("/v1/requests?route=pool", body("steady")).json["id"]
    shown = found.answered(name)
    if shown["status"] != "completed":
        raise SystemExit(f"a request of the warm pool has not been answered: {shown}")
    return name


async def records(folder: Path, ids: Sequence[str]) -> list[RequestRecord]:
    """What the store keeps of each of these requests; times are in milliseconds since the epoch."""
    config = (folder / ".headrace" / "nats" / "server.conf").read_text()
    host, token = re.findall(r'"([^"]*)"', config)[:2]
    async with connected(Address(f"nats://{host}", token)) as stores:
        store = stores.of("default")
        found = [await store.record(name) for name in ids]
    return [kept.record for kept in found if kept is not None]


def waiting(found: Gateway) -> bool:
    """Whether batches are under way, apart from the one that never ends."""
    return sum(batch.status in UNDER_WAY for batch in found.client.batches.list(limit=100).data) > 1
