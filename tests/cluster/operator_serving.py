"""The workers of warm pools: real ones, each a process that listens at the loopback address of its hollow pod."""

from __future__ import annotations

import asyncio
import os
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from headrace.api.worker import Env

from .operator_workers import Pod

ROOTS = os.pathsep.join(str(Path(__file__).parents[2] / name) for name in ("operator", "worker-image"))


@dataclass
class Serving:
    """One that was started."""

    pod: Pod
    process: asyncio.subprocess.Process
    last_words: Path

    async def ended(self) -> tuple[int, str]:
        """Wait for its end, by itself or because its pod was told to stop; its exit code, and its last words."""
        ended, stopped = asyncio.create_task(self.process.wait()), asyncio.create_task(self.pod.stopped.wait())
        try:
            await asyncio.wait([ended, stopped], return_when=asyncio.FIRST_COMPLETED)
            if not ended.done():
                with suppress(ProcessLookupError):
                    self.process.terminate()
            code = await ended
        finally:
            ended.cancel()
            stopped.cancel()
        said = self.last_words.read_text() if self.last_words.exists() else ""
        return (code if code >= 0 else 128 - code), said


@asynccontextmanager
async def serving(pod: Pod) -> AsyncIterator[Serving]:
    """A worker while the block lasts."""
    with tempfile.TemporaryDirectory() as folder:
        last_words = Path(folder) / "termination"
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-P", "-m", "headrace_worker", "serve"),
            env={
                **os.environ,
                **pod.env,
                "PYTHONPATH": ROOTS,
                Env.POD_IP: pod.address,
                Env.METRICS_PORT: "0",
                Env.TERMINATION_LOG: str(last_words),
            },
            stdin=asyncio.subprocess.DEVNULL,
        )
        pod.process = process.pid
        try:
            yield Serving(pod, process, last_words)
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
