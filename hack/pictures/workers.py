"""Real workers that work as long as a picture needs them: with a mock model, with endpoints to ask, and with a small real model."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

from cluster.processes import free_ports
from endpoint_server import Answer, Asked, EndpointServer, chat_body, endpoint_server, engine_settings, fails, says
from headrace.api.worker import Env, Role
from tiny_models import save_llama
from worker_rig import Folder, WorkerProcess, chat_line

RECORDS = 60_000
"""More than any of them does."""
WORDS = ("once", "upon", "a", "midnight", "dreary", "while", "I", "pondered", "weak", "and", "weary")


@dataclass
class Worker:
    """One that works on a folder, on a metrics port that stays the same when it is started again."""

    folder: Folder
    port: int = field(default_factory=lambda: free_ports(1)[0])
    process: WorkerProcess | None = None

    def start(self) -> None:
        """Start it, or start it again: it goes on where it was."""
        env = {
            Env.METRICS_PORT.value: str(self.port),
            Env.DRAIN_ON_EOF.value: "1",
        }
        self.process = WorkerProcess(self.folder, Role.RUN, env=env)

    def kill(self) -> None:
        """As a lost node does."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()


class Servers:
    """Two endpoints: one is quick; the other is slow, at times overloaded, and for a while broken."""

    def __init__(self, quick: EndpointServer, slow: EndpointServer) -> None:
        self.quick, self.slow = quick, slow
        quick.answer, slow.answer = _after(0.05, 0.15), self._moody
        self.broken = False

    def _moody(self, handler: BaseHTTPRequestHandler, asked: Asked) -> None:
        if self.broken:
            fails(503, "the model is being loaded")(handler, asked)
        elif random.random() < 0.06:
            fails(429, "too many requests", retry_after="1")(handler, asked)
        elif random.random() < 0.02:
            fails(400, "the prompt is too long")(handler, asked)
        else:
            _after(0.2, 0.6)(handler, asked)


@contextmanager
def working(folder: Path) -> Iterator[tuple[list[Worker], Servers]]:
    """The three, and the endpoints of the second."""
    with ExitStack() as stack:
        servers = Servers(*(stack.enter_context(endpoint_server()) for _ in range(2)))
        listed = [
            {"name": name, "url": server.url} for name, server in (("hall-a", servers.quick), ("hall-b", servers.slow))
        ]
        mock = {"latencyMilliseconds": 400, "errorPercent": 4, "errorAttempts": 2}
        tiny = {"name": "tiny", "task": "chat", "source": {"path": str(save_llama(folder / "model"))}}
        kinds: list[dict[str, Any]] = [
            {"engine": {"name": "mock", "mock": mock}, "batching": {"maxBatchSize": 24, "maxBatchTokens": 800}},
            {
                "engine": engine_settings(*listed),
                "model": {"name": "m"},
                "batching": {"maxBatchSize": 12, "maxBatchTokens": 4096},
            },
            {
                "engine": {"name": "transformers"},
                "model": tiny,
                "batching": {"maxBatchSize": 8, "maxBatchTokens": 1024},
                "parameters": {"max_tokens": 24},
            },
        ]
        workers = [_prepared(folder / f"worker-{number}", fields) for number, fields in enumerate(kinds)]
        for worker in workers:
            stack.callback(worker.kill)
            worker.start()
        yield workers, servers


def _prepared(path: Path, fields: dict[str, Any]) -> Worker:
    path.mkdir(parents=True)
    folder = Folder(path, {"gpus": 1, "retries": {"limit": 2}, **fields})
    dice = random.Random(path.name)
    folder.write_input(
        *(chat_line(number, " ".join(dice.choices(WORDS, k=dice.randrange(4, 40)))) for number in range(RECORDS))
    )
    assert WorkerProcess(folder, Role.PLAN).wait() == 0, (path / f"log-{Role.PLAN}").read_text()
    return Worker(folder)


def _after(least: float, most: float) -> Answer:
    def answer(handler: BaseHTTPRequestHandler, asked: Asked) -> None:
        time.sleep(random.uniform(least, most))
        tokens = (len(asked.text.split()), random.randrange(8, 60))
        says(chat_body(asked.text, asked.body["model"], tokens))(handler, asked)

    return answer
