"""What tests of the worker share: small batches on disk, real worker processes, and a store that dies when it is told to."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, Self

import orjson

from headrace.api.worker import (
    BatchIdentity,
    Env,
    ExitCode,
    ManifestHeader,
    Report,
    Role,
    Segment,
    Shard,
    WorkerConfig,
    parse_report,
)
from headrace_worker.stores.base import Log, Store, StoredObject
from headrace_worker.stores.local import LocalStore, file_uri

ROOT = Path(__file__).parent.parent
PYTHONPATH = os.pathsep.join([str(ROOT / "operator"), str(ROOT / "worker-image")])
IDENTITY = BatchIdentity(namespace="default", name="reviews", uid="uid-reviews")
CREATED = 1_768_478_400
HEADER = ManifestHeader(batch=IDENTITY, created=CREATED, records=10, shards=1, input_bytes=100)


def a_shard(records: int, sha256: str = "0" * 64) -> Shard:
    """Shard 0 of some input that is never read."""
    segments = (Segment(uri="file:///nowhere", start=0, end=1),)
    return Shard(index=0, first_record=0, records=records, sha256=sha256, segments=segments)


def chat_line(number: int, text: str = "How are you?", **body: Any) -> bytes:
    """One line of an input in OpenAI's batch form."""
    request = {"messages": [{"role": "user", "content": text}], **body}
    return orjson.dumps({"custom_id": f"r{number}", "body": request}, option=orjson.OPT_APPEND_NEWLINE)


@dataclass
class Folder:
    """A batch in a temporary folder: its input, its output, and the configuration of its workers."""

    path: Path
    fields: dict[str, Any] = field(default_factory=dict)
    """Fields of the configuration that differ from the usual, in camelCase."""

    disk: Path | None = None
    """Where the output goes, if not below `path`."""

    @property
    def output(self) -> Path:
        """The output folder."""
        return (self.disk or self.path) / "out"

    def write_input(self, *lines: bytes) -> None:
        """Make these lines the input."""
        (self.path / "input.jsonl").write_bytes(b"".join(lines))

    def config_json(self) -> bytes:
        """What `HEADRACE_CONFIG` says."""
        usual = {
            "batch": IDENTITY.to_object(),
            "model": {"name": "mock"},
            "engine": {"name": "mock"},
            "input": {"uri": file_uri(str(self.path / "input.jsonl"))},
            "planUri": file_uri(str(self.output / "_headrace" / "plan.jsonl")),
            "outputUri": file_uri(str(self.output)) + "/",
            "batching": {},
            "shards": 1,
            "retries": {},
        }
        return orjson.dumps({**usual, **self.fields})

    def config(self) -> WorkerConfig:
        """The configuration."""
        return WorkerConfig.parse(orjson.loads(self.config_json()))

    def lines(self, kind: str) -> list[dict[str, Any]]:
        """All lines of the committed results or errors."""
        files = sorted((self.output / kind).glob("*.jsonl"))
        return [orjson.loads(line) for file in files for line in file.read_bytes().splitlines()]

    def commit(self, shard: int = 0) -> dict[str, Any]:
        """`commit.json` of a shard."""
        found: dict[str, Any] = orjson.loads((self.private(shard) / "commit.json").read_bytes())
        return found

    def commit_is_there(self, shard: int = 0) -> bool:
        """Whether a shard is committed."""
        return (self.private(shard) / "commit.json").exists()

    def private(self, shard: int = 0) -> Path:
        """The folder of a shard's journals."""
        return self.output / "_headrace" / "shards" / f"{shard:05}"

    def journal_bytes(self, shard: int = 0) -> int:
        """Bytes of all journals of a shard so far."""
        return sum(size_of(file) for file in self.private(shard).glob("*.journal"))


def size_of(file: Path) -> int:
    """Bytes of a file; 0 when it has just gone."""
    try:
        return file.stat().st_size
    except FileNotFoundError:
        return 0


class Worker:
    """A real worker, in a process of its own."""

    def __init__(self, folder: Folder, role: Role) -> None:
        self._termination = folder.path / f"termination-{role}"
        self._termination.unlink(missing_ok=True)
        self._log = folder.path / f"log-{role}"

    def wait(self) -> int:
        """The exit code, once it has ended; -9 when it was killed."""
        raise NotImplementedError

    def ended(self) -> bool:
        """Whether it has ended."""
        raise NotImplementedError

    def kill(self, number: signal.Signals = signal.SIGKILL) -> None:
        """Send a signal; a worker that has ended already does not mind."""
        raise NotImplementedError

    @property
    def report(self) -> Report | None:
        """Its termination message."""
        return parse_report(self._termination.read_bytes())

    @property
    def log(self) -> str:
        """What all workers of this role have said."""
        return self._log.read_text()


class WorkerProcess(Worker):
    """A worker that is started as a shell starts it."""

    def __init__(self, folder: Folder, role: Role, shard: int = 0, env: Mapping[str, str] | None = None) -> None:
        super().__init__(folder, role)
        with self._log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "headrace_worker", role],
                env=worker_environment(folder, shard)
                | {Env.TERMINATION_LOG.value: str(self._termination)}
                | dict(env or {}),
                stdin=subprocess.PIPE,
                stderr=log,
                stdout=log,
            )

    def wait(self) -> int:
        self.process.communicate(timeout=600)
        return self.process.returncode

    def ended(self) -> bool:
        return self.process.poll() is not None

    def kill(self, number: signal.Signals = signal.SIGKILL) -> None:
        self.process.send_signal(number)


class Zygote:
    """Starts workers within milliseconds, one after the other. Use it in a `with` block."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, str(Path(__file__).parent / "worker_zygote.py")],
            env={**os.environ, "PYTHONPATH": PYTHONPATH},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.communicate()

    def start(self, folder: Folder, role: Role, shard: int = 0, env: Mapping[str, str] | None = None) -> ForkedWorker:
        """A worker; the one before must have been waited for."""
        return ForkedWorker(folder, role, self._process, worker_environment(folder, shard) | dict(env or {}))

    def run(self, folder: Folder, role: Role, shard: int = 0, env: Mapping[str, str] | None = None) -> ForkedWorker:
        """A worker from its start to its end."""
        worker = self.start(folder, role, shard, env)
        worker.wait()
        return worker


class ForkedWorker(Worker):
    """A worker that is a fork of a `Zygote`."""

    def __init__(self, folder: Folder, role: Role, zygote: subprocess.Popen[bytes], env: Mapping[str, str]) -> None:
        super().__init__(folder, role)
        order = {
            "role": role,
            "env": {Env.TERMINATION_LOG.value: str(self._termination), **env},
            "log": str(self._log),
        }
        assert zygote.stdin is not None
        assert zygote.stdout is not None
        zygote.stdin.write(orjson.dumps(order, option=orjson.OPT_APPEND_NEWLINE))
        zygote.stdin.flush()
        self._said = zygote.stdout
        self._pid = int(self._said.readline())
        self._code: int | None = None

    def wait(self) -> int:
        if self._code is None:
            self._code = int(self._said.readline())
        return self._code

    def ended(self) -> bool:
        return self._code is not None or bool(select.select([self._said], [], [], 0)[0])

    def kill(self, number: signal.Signals = signal.SIGKILL) -> None:
        with suppress(ProcessLookupError):
            os.kill(self._pid, number)


def interrupted(
    folder: Folder,
    zygote: Zygote,
    most: int,
    interrupt: Callable[[Worker], int],
    check: Callable[[Worker], None] = lambda _: None,
) -> int:
    """Interrupt the workers of a shard until that has happened so many times, or one was done before it; then let the shard be done.

    `interrupt` returns the exit code that a worker has then; `check` is told of each that has it. Says how many those are.
    """
    for number in range(most):
        worker = zygote.start(folder, Role.RUN)
        expected = interrupt(worker)
        if worker.wait() == ExitCode.DONE:
            return number
        assert worker.wait() == expected, worker.log
        check(worker)
    last = zygote.run(folder, Role.RUN)
    assert last.wait() == ExitCode.DONE, last.log
    return most


def with_stopped_workers(folders: Iterator[Folder], stopped: Callable[[Folder], Worker], count: int) -> Iterator[Any]:
    """A folder of which so many workers are in the middle of the work, stopped; the workers.

    One that was done before it could be stopped is no use: then the next folder is taken.
    """
    for folder, _ in zip(folders, range(20), strict=False):
        workers = [stopped(folder) for _ in range(count)]
        if folder.commit_is_there() or any(worker.ended() for worker in workers):
            for worker in workers:
                worker.kill()
                worker.wait()
            continue
        yield folder
        yield from workers
        return
    raise AssertionError("workers are always done before they can be stopped")


def worker_environment(folder: Folder, shard: int = 0) -> dict[str, str]:
    """The environment of a worker."""
    return {
        **os.environ,
        "PYTHONPATH": PYTHONPATH,
        Env.CONFIG.value: folder.config_json().decode(),
        Env.SHARD.value: str(shard),
    }


class Died(BaseException):
    """The process ends here, as far as the test is concerned: nothing may catch it."""


@dataclass
class MortalStore:
    """A local store that dies at the n-th thing that would change it. Of an append a part is written first."""

    dies_at: int | None = None
    torn: float = 0.5
    """Share of the last append that is still written."""
    changes: int = 0
    _store: Store = field(default_factory=LocalStore)

    def list(self, pattern: str) -> Iterator[StoredObject]:
        return self._store.list(pattern)

    def scan(self, pattern: str) -> Iterator[StoredObject]:
        return self._store.scan(pattern)

    def open(self, uri: str, start: int = 0) -> AbstractContextManager[BinaryIO]:
        return self._store.open(uri, start)

    def read(self, uri: str) -> bytes:
        return self._store.read(uri)

    def exists(self, uri: str) -> bool:
        return self._store.exists(uri)

    def put(self, uri: str, data: bytes, *, if_absent: bool = False) -> None:
        self.change()
        self._store.put(uri, data, if_absent=if_absent)
        self.change()

    @contextmanager
    def writer(self, uri: str) -> Iterator[BinaryIO]:
        with self._store.writer(uri) as stream:
            yield stream
            self.change()
        self.change()

    @contextmanager
    def append(self, uri: str) -> Iterator[Log]:
        with self._store.append(uri) as log:
            yield MortalLog(log, self)

    def read_log(self, uri: str) -> AbstractContextManager[BinaryIO]:
        return self._store.read_log(uri)

    def delete(self, *uris: str) -> None:
        for uri in uris:
            self._store.delete(uri)
            self.change()

    def change(self, on_death: Callable[[], None] = lambda: None) -> None:
        """Count a change, and die when it is time."""
        self.changes += 1
        if self.dies_at is not None and self.changes >= self.dies_at:
            on_death()
            raise Died


@dataclass
class MortalLog:
    """The log of a `MortalStore`."""

    log: Log
    store: MortalStore

    @property
    def sync_pause(self) -> float:
        return self.log.sync_pause

    def append(self, data: bytes) -> None:
        self.store.change(on_death=lambda: self.log.append(data[: int(len(data) * self.store.torn)]))
        self.log.append(data)

    def sync(self) -> None:
        self.log.sync()

    def close(self) -> None:
        self.log.close()
