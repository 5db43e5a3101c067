"""Requests a second of the engine `openai`, from one pod, beside the `openai` package in a plain loop with as many requests at once.

    python tests/bench/endpoints.py speed [--requests 20000] [--at-once 128] [--rounds 3]
    python tests/bench/endpoints.py limited [--seconds 30] [--pods 1]

`speed`: a server of two processes on this machine that answers at once. Contenders take turns:

- headrace: a whole shard, from the input file to the commit, with journal and metrics
- engine: the engine alone, without a shard around it
- bare: the server's own ceiling: the same requests, written beforehand, over as many raw connections by a process that only counts answers
- openai: `AsyncOpenAI` in `asyncio.gather` behind a semaphore, its own retries off, answers thrown away (if the package is installed)

`limited`: two servers that take 0.2 s to answer. One lets 10 requests a second through (a bucket of 10 tokens) and refuses the rest with
429 and `Retry-After: 1`; the other works on 8 at once and lets more wait. Told are final errors, throughput as a share of
what both allow together (50 a second), and the share of the limited one in each 5 s. With `--pods` so many workers share the records,
and what each of them had of the answers is told too.
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
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))

import orjson
from aiohttp import web

from endpoint_server import chat_body
from headrace.api.records import Request
from headrace.api.worker import Env, PlanReport, ShardReport
from headrace_worker.drain import Drain
from headrace_worker.engines.base import Outcome
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


def a_folder(path: Path, records: int, at_once: int, *urls: str, shards: int = 1) -> Folder:
    """A planned batch of so many records."""
    endpoints = [{"name": f"e{number}", "url": url} for number, url in enumerate(urls)]
    fields = {
        "model": {"name": "m"},
        "engine": {"name": "openai", "openai": {"endpoints": endpoints}},
        "shards": shards,
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


class _Connection(asyncio.Protocol):
    """Sends the same request again as soon as it is answered, as long as there are any left."""

    def __init__(self, request: bytes, left: list[int], over: asyncio.Event) -> None:
        self._request, self._left, self._over, self._missing = request, left, over, 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._next()

    def data_received(self, data: bytes) -> None:
        """Answers are all alike: a head, and as many bytes as `ANSWER` has."""
        if not self._missing:
            self._missing = data.index(b"\r\n\r\n") + 4 + len(ANSWER)
        self._missing -= len(data)
        if not self._missing:
            self._left[1] -= 1
            self._next()

    def _next(self) -> None:
        if self._left[0]:
            self._left[0] -= 1
            self._transport.write(self._request)
        elif not self._left[1]:
            self._over.set()


def by_bare(url: str, requests: int, at_once: int) -> None:
    """Nothing but bytes."""
    host, _, port = url.removeprefix("http://").partition(":")
    body = orjson.dumps({"messages": [{"role": "user", "content": PROMPT}], "model": "m"})
    head = (
        f"POST /v1/chat/completions HTTP/1.1\r\nHost: {host}:{port}\r\nAccept: application/json\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )

    async def ask_all() -> None:
        left, over = [requests, requests], asyncio.Event()
        loop = asyncio.get_running_loop()
        for _ in range(at_once):
            await loop.create_connection(lambda: _Connection(head.encode() + body, left, over), host, int(port))
        await over.wait()

    asyncio.run(ask_all())


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


CONTENDERS = {"headrace": by_headrace, "engine": by_engine, "bare": by_bare, "openai": by_openai}
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


class Tally:
    """What became of all requests, by the time and by who answered whom."""

    def __init__(self) -> None:
        self.began, self.errors, self.windows = time.monotonic(), 0, [Counter[str]()]
        self.by_pod: Counter[int] = Counter()
        self.rate = 0.0
        """Answers a second as long as there were records to be taken: what then is under way waits for the slots of one server."""
        self._one_at_a_time = threading.Lock()

    def add(self, pod: int, outcomes: Iterable[Outcome], *, is_busy: bool) -> None:
        """Count what a pod was handed back."""
        with self._one_at_a_time:
            while time.monotonic() - self.began > 5 * len(self.windows):
                self.windows.append(Counter())
            for outcome in outcomes:
                self.errors += outcome.error is not None
                self.windows[-1][(outcome.about or {}).get("endpoint", "none")] += 1
                self.by_pod[pod] += 1
            if is_busy:
                self.rate = self.by_pod.total() / (time.monotonic() - self.began)


def a_pod(folder: Folder, pod: int, works: deque[Request], tally: Tally) -> EndpointsEngine:
    """One worker that takes records as long as there are any."""
    engine = EndpointsEngine(folder.config(), env={Env.SHARD: str(pod)})
    engine.load()
    while works or engine.running:
        taken = [works.popleft() for _ in range(min(engine.room, len(works)))]
        engine.submit([engine.prepare(int(it.custom_id), it) for it in taken])
        tally.add(pod, engine.step(), is_busy=len(works) > 0)
    engine.close()
    return engine


def limited(asked: argparse.Namespace) -> None:
    """Print errors, throughput and shares."""
    allowed = RATE + SLOTS / LATENCY_SECONDS
    body = {"messages": [{"role": "user", "content": PROMPT}]}
    with served(Bucket) as slow, served(Slots) as fast, tempfile.TemporaryDirectory() as path:
        records = int(allowed * asked.seconds)
        folder = a_folder(Path(path), records, 64, slow, fast, shards=asked.pods)
        works, tally = deque(Request(str(number), body) for number in range(records)), Tally()
        with ThreadPoolExecutor(asked.pods) as pods:
            engines = list(pods.map(lambda pod: a_pod(folder, pod, works, tally), range(asked.pods)))
    share = tally.rate / allowed
    print(f"{tally.errors / records:.2%} errors, {share:.1%} of the {allowed:.0f} a second that are allowed")
    shares = (f"{it['e0'] / max(1, it.total()):.2f}" for it in tally.windows)
    print("share of the limited one in each 5 s:", " ".join(shares))
    for name in ("e0", "e1"):
        outcomes = sum((engine.stats.endpoints[name].outcomes for engine in engines), Counter[str]())
        limits = [engine.stats.endpoints[name].limit for engine in engines]
        print(f"  {name}: {dict(outcomes)}, limits at the end {limits}")
    print("answers of each pod:", *(tally.by_pod[pod] for pod in range(asked.pods)))


def main() -> int:
    """Measure what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["speed", "limited"])
    parser.add_argument("--requests", type=int, default=20_000)
    parser.add_argument("--at-once", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=int, default=30)
    parser.add_argument("--pods", type=int, default=1)
    asked = parser.parse_args()
    {"speed": speed, "limited": limited}[asked.what](asked)
    return 0


if __name__ == "__main__":
    sys.exit(main())
