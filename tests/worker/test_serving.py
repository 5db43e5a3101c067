"""A worker of a warm pool: one model load, one line for each request, and no request that hurts another."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from headrace.api.worker import Env, ExitCode, MicroBatch, ServeReport, ToldRequest, parse_report

ROOTS = os.pathsep.join(str(Path(__file__).parents[2] / name) for name in ("operator", "worker-image"))


class Pooled:
    """A worker as a process of its own."""

    def __init__(self, process: subprocess.Popen[bytes], folder: Path) -> None:
        self.process, self._folder = process, folder

    def tell(self, *names: str, attempt: int = 1, **body: Any) -> None:
        asked = {"messages": [{"role": "user", "content": "hello"}], **body}
        requests = tuple(ToldRequest(custom_id=name, body=asked, attempt=attempt) for name in names)
        assert self.process.stdin is not None
        self.process.stdin.write(MicroBatch(requests=requests).line())
        self.process.stdin.flush()

    def hear(self) -> Any:
        """The next line that it says; None for its end."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        return json.loads(line) if line else None

    def until_free(self) -> dict[str, Any]:
        """The lines up to the next at which it is free, by `custom_id`."""
        lines: dict[str, Any] = {}
        while "free" not in (said := self.hear()):
            lines[said["custom_id"]] = said
        return lines

    @property
    def report(self) -> ServeReport:
        """Its last words."""
        found = parse_report((self._folder / "termination").read_bytes())
        assert isinstance(found, ServeReport)
        return found


@contextmanager
def serving(folder: Path, **settings: Any) -> Iterator[Pooled]:
    config = {
        "batch": {"namespace": "default", "name": "chat", "uid": "u"},
        "model": {"name": "m"},
        "engine": {"name": "mock", "mock": settings.pop("mock", {})},
        "input": {"uri": "file:///none"},
        "planUri": "file:///none",
        "outputUri": "file:///none",
        "batching": {},
        "shards": 1,
        "retries": {"limit": 1, "backoff": {"baseSeconds": 1, "capSeconds": 1}},
        **settings,
    }
    process = subprocess.Popen(
        [sys.executable, "-m", "headrace_worker", "serve"],
        env={
            **os.environ,
            "PYTHONPATH": ROOTS,
            Env.CONFIG: json.dumps(config),
            Env.TERMINATION_LOG: str(folder / "termination"),
        },
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        bufsize=-1,
    )
    try:
        yield Pooled(process, folder)
    finally:
        process.kill()
        process.wait()
        for pipe in (process.stdin, process.stdout):
            assert pipe is not None
            with suppress(BrokenPipeError):
                pipe.close()


def test_requests_of_many_windows_are_answered_by_one_worker(tmp_path: Path) -> None:
    with serving(tmp_path, parameters={"max_tokens": 1}) as worker:
        assert worker.until_free() == {}, "it says when the model is loaded"
        for window in (["a", "b"], ["c"]):
            worker.tell(*window)
            lines = worker.until_free()
            assert sorted(lines) == window
            used = [line["response"]["body"]["usage"] for line in lines.values()]
            assert {usage["completion_tokens"] for usage in used} == {1}
        assert worker.process.stdin is not None
        worker.process.stdin.close()
        assert worker.process.wait() == ExitCode.DRAINED
        assert worker.report.records.total == 3


def test_request_that_the_engine_refuses_hurts_no_other(tmp_path: Path) -> None:
    with serving(tmp_path) as worker:
        worker.tell("bad", max_tokens=-1)
        worker.tell("good")
        lines: dict[str, Any] = {}
        while len(lines) < 2:
            lines |= worker.until_free()
        assert lines["bad"]["error"]["code"] == "invalid_request"
        assert lines["bad"]["attempts"] == 0
        assert lines["good"]["response"]["status_code"] == 200


def test_signal_lets_the_batch_in_hand_be_said_and_no_other_be_begun(tmp_path: Path) -> None:
    with serving(tmp_path, mock={"latencyMilliseconds": 1}) as worker:
        worker.tell("a")
        assert sorted(worker.until_free() | worker.until_free()) == ["a"]
        worker.process.send_signal(signal.SIGTERM)
        assert worker.hear() is None
        assert worker.process.wait() == ExitCode.DRAINED
        assert worker.report.failure is None


def test_model_that_cannot_be_loaded_is_a_failure_with_its_reason(tmp_path: Path) -> None:
    with serving(tmp_path, model={"name": "m", "task": "image-classification"}) as worker:
        assert worker.hear() is None
        assert worker.process.wait() == ExitCode.JOB_FAILED
        assert worker.report.failure is not None
        assert worker.report.failure.reason == "TaskNotSupported"


def test_try_that_killed_an_earlier_worker_counts(tmp_path: Path) -> None:
    """The mock engine kills the worker of each first try."""
    with serving(tmp_path, mock={"crashPercent": 100}) as worker:
        worker.tell("a")
        assert worker.until_free() == {}
        assert worker.hear() is None
        assert worker.process.wait() == -signal.SIGKILL
    with serving(tmp_path, mock={"crashPercent": 100}) as worker:
        worker.tell("a", attempt=2)
        assert (worker.until_free() | worker.until_free())["a"]["attempts"] == 2
