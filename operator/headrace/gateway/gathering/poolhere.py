"""The workers of a warm pool as processes of this machine, each at the other end of two pipes."""

from __future__ import annotations

import asyncio
import itertools
import os
import signal
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import suppress
from pathlib import Path

from headrace.api.asking import RequestRoute
from headrace.api.gateway import ServedModel
from headrace.api.worker import Failure, Role, parse_report
from headrace.core.asking.pool import pool_batch
from headrace.core.children import single_job
from headrace.gateway.clocks import WallClock
from headrace.gateway.gathering.poolworkers import End
from headrace.shells.local.containers import WORKER, Programs, command_line, container_of, environment, grace_seconds
from headrace.shells.local.place import installation
from headrace.shells.local.state import StateDir
from headrace.shells.local.turns import take_usual_turns

_LONGEST_LINE_BYTES = 256 * 1024 * 1024
_NOTHING: Failure | None = None


class LocalWorkers:
    """Starts them. Each has a folder with its log, which the next one of its number goes on with."""

    def __init__(
        self, state: StateDir, namespace: str, route: RequestRoute, served: ServedModel, programs: Programs = WORKER
    ) -> None:
        pool = route.target.warm_pool
        assert pool is not None, "that is what they are for"
        batch = pool_batch(route, served, namespace)
        self._job = single_job(batch, installation(state, state.batch(namespace, batch.metadata.name)), Role.SERVE, 0)
        self._programs, self._companions = programs, pool.max
        self._folder = state.root / "pools" / route.name
        self._taken: set[int] = set()

    async def begin(self) -> None:
        """There is nothing to look for: workers end with whoever has started them."""

    def found(self) -> Sequence[LocalWorker]:
        """None."""
        return ()

    async def close(self) -> None:
        """Nothing is looked for."""

    async def start(self) -> LocalWorker:
        """Start one. Raises `OSError`."""
        number = next(number for number in itertools.count() if number not in self._taken)
        folder = self._folder / str(number)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "termination").unlink(missing_ok=True)
        with (folder / "log").open("ab") as log:
            process = await asyncio.create_subprocess_exec(
                *command_line(container_of(self._job), self._programs),
                env=environment(self._job, 0, folder, self._companions),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=log,
                limit=_LONGEST_LINE_BYTES,
                start_new_session=True,  # Ctrl-C is for the gateway, which then tells its workers
            )
        take_usual_turns(process.pid)
        self._taken.add(number)
        return LocalWorker(process, folder, grace_seconds(self._job), lambda: self._taken.discard(number))


class LocalWorker:
    """One of them."""

    def __init__(self, process: asyncio.subprocess.Process, folder: Path, grace: int, gone: Callable[[], None]) -> None:
        """`gone` is called when it has ended."""
        self.name = f"{folder.parent.name}-{folder.name}"
        self.since, self.obstacle = WallClock().now(), _NOTHING
        self._process, self._folder, self._grace, self._gone = process, folder, grace, gone
        self._killing: asyncio.TimerHandle | None = None

    def tell(self, line: bytes) -> None:
        """Write to its standard input; it reads when it is free."""
        assert self._process.stdin is not None
        self._process.stdin.write(line)

    async def lines(self) -> AsyncIterator[bytes]:
        """Read its standard output. A line that was cut off by its death is none."""
        assert self._process.stdout is not None
        while (line := await self._process.stdout.readline()).endswith(b"\n"):
            yield line

    async def end(self) -> End:
        """Wait for it, and read its last words."""
        code = await self._process.wait()
        if self._killing is not None:
            self._killing.cancel()
        self._gone()
        report = None
        with suppress(FileNotFoundError):
            report = parse_report((self._folder / "termination").read_bytes())
        return End(code if code >= 0 else 128 - code, report.failure if report is not None else None)

    def stop(self) -> None:
        """Send the signal; after its grace period it is killed."""
        with suppress(ProcessLookupError):
            self._process.terminate()
        self._killing = asyncio.get_running_loop().call_later(self._grace, self.kill)

    def leave(self) -> None:
        """As if told to stop: nobody would find it."""
        self.stop()

    def kill(self) -> None:
        """Kill it and whatever it has started."""
        if self._process.returncode is None:
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
