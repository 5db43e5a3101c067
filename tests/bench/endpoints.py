"""Requests a second of the engine `openai`, from one pod, beside the `openai` package in a plain loop with as many requests at once.

    python tests/bench/endpoints.py speed [--requests 20000] [--at-once 128] [--rounds 3]
    python tests/bench/endpoints.py limited [--seconds 30]

`speed`: a server of two processes on this machine that answers at once. Contenders take turns:

- headrace: a whole shard, from the input file to the commit, with journal and metrics
- engine: the engine alone, without a shard around it
- openai: `AsyncOpenAI` in `asyncio.gather` behind a semaphore, its own retries off, answers thrown away (if the package is installed)

`limited`: two servers that take 0.2 s to answer. One lets 10 requests a second through (a bucket of 10 tokens) and refuses the rest with
429 and `Retry-After: 1`; the other works on 8 at once and lets more wait. Told are final errors, throughput as a share of
what both allow together (50 a second), and the share of the limited one in each 5 s.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib
import importlib.util
import multiprocessing
import socket
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))

import orjson
from aiohttp import web

from endpoint_server import chat_body
from headrace.api.records import Request
from headrace.api.worker import PlanReport, ShardReport
from headrace_worker.drain import Drain
from headrace_worker.engines.openai import EndpointsEngine
from headrace_worker.manifest import read_header, read_shard_entry
from headrace_worker.planning.plan import plan
from headrace_worker.progress import Live
from headrace_worker.recorder import Surroundings
from headrace_worker.shard import run_shard
from headrace_worker.stores import open_store
from worker_rig import CREATED, Folder, chat_line

PROMPT = "Summarise this review in one sentence: it came late, it was heavy, and the cat loves it."
ANSWER = orjson.dumps(chat_body("It came late, but the cat loves it.", "m"))
LATENCY_SECONDS = 0.2
RATE, SLOTS = 10, 8


async def at_once(request: web.Request) -> web.Response:
    """The trivial server."""
    await request.read()
    return web.Response(body=ANSWER, content_type="application/json")


def refuse() -> web.Response:
    """The answer of a server that has too much to do."""
    return web.json_response({"error": {"message": "too many requests"}}, status=429, headers={"Retry-After": "1"})


class Bucket:
    """Lets so many requests a second through."""

    def __init__(self) -> None:
        self._level, self._at = float(RATE), time.monotonic()

    async def __call__(self, request: web.Request) -> web.Response:
        await request.read()
        now = time.monotonic()
        self._level, self._at = min(RATE, self._level + RATE * (now - self._at)), now
        if self._level < 1:
            return refuse()
        self._level -= 1
        await asyncio.sleep(LATENCY_SECONDS)
        return web.Response(body=ANSWER, content_type="application/json")


class Slots:
    """Works on so many requests at once; the others wait."""

    def __init__(self) -> None:
        self._slots = asyncio.Semaphore(SLOTS)

    async def __call__(self, request: web.Request) -> web.Response:
        await request.read()
        async with self._slots:
            await asyncio.sleep(LATENCY_SECONDS)
        return web.Response(body=ANSWER, content_type="application/json")


def _serve(listening: socket.socket, make: Callable[[], Any]) -> None:
    app = web.Application()
    app.router.add_post("/v1/chat/completions", make())
    web.run_app(app, sock=listening, print=None, access_log=None, handle_signals=False)


@contextmanager
def served(make: Callable[[], Any], processes: int = 1) -> Iterator[str]:
    """The URL of a server in processes of its own."""
    with socket.create_server(("127.0.0.1", 0), backlog=1024) as listening:
        spawn = multiprocessing.get_context("fork")
        running = [spawn.Process(target=_serve, args=(listening, make), daemon=True) for _ in range(processes)]
        for process in running:
            process.start()
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        for process in running:
            process.terminate()
            process.join()


def trivial() -> Any:
    """What answers at once."""
    return at_once


def a_folder(path: Path, records: int, at_once: int, *urls: str, balancing: str = "LeastRequests") -> Folder:
    """A planned batch of so many records."""
    endpoints = [{"name": f"e{number}", "url": url} for number, url in enumerate(urls)]
    fields = {
        "model": {"name": "m"},
        "engine": {"name": "openai", "openai": {"endpoints": endpoints, "loadBalancing": balancing}},
        "batching": {"maxBatchSize": at_once},
    }
    folder = Folder(path, fields)
    folder.write_input(*(chat_line(number, PROMPT) for number in range(records)))
    plan(folder.config(), None, CREATED, lambda _: None)
    return folder


def run(folder: Folder, around: Surroundings) -> ShardReport:
    """Do the one shard."""
    config = folder.config()
    store = open_store(config.plan_uri)
    header, shard = read_header(store, config.plan_uri), read_shard_entry(store, config.plan_uri, 0)
    return run_shard(config, header, shard, around)


def by_headrace(url: str, requests: int, at_once: int) -> None:
    """A whole shard."""
    with tempfile.TemporaryDirectory() as path:
        report = run(a_folder(Path(path), requests, at_once, url), Surroundings(Live(PlanReport()), Drain()))
    assert report.records.succeeded == requests


def by_engine(url: str, requests: int, at_once: int) -> None:
    """The engine alone."""
    with tempfile.TemporaryDirectory() as path:
        engine = EndpointsEngine(a_folder(Path(path), 1, at_once, url).config())
    body = {"messages": [{"role": "user", "content": PROMPT}]}
    works = [engine.prepare(number, Request(f"r{number}", body)) for number in range(requests)]
    engine.load()
    done = 0
    while done < requests:
        room = engine.room
        engine.submit(works[:room])
        del works[:room]
        done += sum(outcome.error is None for outcome in engine.step())
    engine.close()


def by_openai(url: str, requests: int, at_once: int) -> None:
    """The package of OpenAI."""
    openai = importlib.import_module("openai")

    async def ask_all() -> None:
        places = asyncio.Semaphore(at_once)
        async with openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as client:

            async def ask() -> None:
                async with places:
                    await client.chat.completions.create(model="m", messages=[{"role": "user", "content": PROMPT}])

            await asyncio.gather(*(ask() for _ in range(requests)))

    asyncio.run(ask_all())


CONTENDERS = {"headrace": by_headrace, "engine": by_engine, "openai": by_openai}
OPENAI_SHARE = 4
"""The peer gets one request in so many: it is slower, and nobody wants to wait."""


def speed(asked: argparse.Namespace) -> None:
    """Print requests a second of each."""
    if importlib.util.find_spec("openai") is None:
        del CONTENDERS["openai"]
        print("the package openai is not installed: measured without it", file=sys.stderr)
    rates: dict[str, list[float]] = {name: [] for name in CONTENDERS}
    with served(trivial, processes=2) as url:
        for _ in range(asked.rounds):
            for name, contender in CONTENDERS.items():
                requests = asked.requests // (OPENAI_SHARE if name == "openai" else 1)
                began, worked = time.perf_counter(), time.process_time()
                contender(url, requests, asked.at_once)
                seconds, busy = time.perf_counter() - began, time.process_time() - worked
                rates[name].append(requests / seconds)
                print(
                    f"  {name}: {requests / seconds:,.0f} a second, {requests / busy:,.0f} a CPU second",
                    file=sys.stderr,
                )
    for name, found in rates.items():
        print(f"{name}: {statistics.median(found):,.0f} requests a second")


def limited(asked: argparse.Namespace) -> None:
    """Print errors, throughput and shares."""
    allowed = RATE + SLOTS / LATENCY_SECONDS
    with served(Bucket) as slow, served(Slots) as fast, tempfile.TemporaryDirectory() as path:
        records = int(allowed * asked.seconds)
        folder = a_folder(Path(path), records, 64, slow, fast)
        engine = EndpointsEngine(folder.config())
        engine.load()
        body = {"messages": [{"role": "user", "content": PROMPT}]}
        works = [engine.prepare(number, Request(f"r{number}", body)) for number in range(records)]
        began, errors, windows = time.monotonic(), 0, [Counter[str]()]
        while works or engine.running:
            room = engine.room
            engine.submit(works[:room])
            del works[:room]
            for outcome in engine.step():
                errors += outcome.error is not None
                windows[-1][(outcome.about or {}).get("endpoint", "none")] += 1
            if time.monotonic() - began > 5 * len(windows):
                windows.append(Counter())
        seconds = time.monotonic() - began
        engine.close()
    print(
        f"{errors / records:.2%} errors, {records / seconds / allowed:.1%} of the {allowed:.0f} a second that are allowed"
    )
    print("share of the limited one in each 5 s:", " ".join(f"{it['e0'] / max(1, it.total()):.2f}" for it in windows))
    for name, stats in engine.stats.endpoints.items():
        print(f"  {name}: {dict(stats.outcomes)}")


def main() -> int:
    """Measure what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["speed", "limited"])
    parser.add_argument("--requests", type=int, default=20_000)
    parser.add_argument("--at-once", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=int, default=30)
    asked = parser.parse_args()
    {"speed": speed, "limited": limited}[asked.what](asked)
    return 0


if __name__ == "__main__":
    sys.exit(main())
