"""`headrace gateway`: single requests, and OpenAI's Files and Batches, on this machine."""

from __future__ import annotations

import logging
import socket
import sys
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from headrace.api.tenancy import Tenant
from headrace.cli.exits import BAD_INPUT, FAILED, CliError
from headrace.cli.signals import Signals
from headrace.cli.text import say
from headrace.shells.local.containers import ASIDE
from headrace.shells.local.files import Busy, locked
from headrace.shells.local.place import problems
from headrace.shells.local.runs import Runs
from headrace.shells.local.state import StateDir
from headrace.shells.manifests import check_namespace
from headrace.shells.served import load_models

LOOPBACK = frozenset({"127.0.0.1", "::1", "localhost"})
"""Names of this machine that mean it nowhere else."""


@dataclass(frozen=True, slots=True)
class Options:
    """What the command line says."""

    models: Path
    state_dir: Path
    namespace: str
    host: str
    port: int
    max_runs: int
    max_file_bytes: int
    nats: str | None


def gateway(options: Mapping[str, Any]) -> int:
    """Serve until told to stop. Raises `CliError` when it cannot begin."""
    asked, parts = Options(**options), _parts()
    check_namespace(asked.namespace)
    state = StateDir(asked.state_dir)
    models = load_models(asked.models, lambda batch: problems(batch, state))
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    with ExitStack() as stack:
        _only_one(stack, state)
        listener = stack.enter_context(_listener(parts, asked))
        signals = stack.enter_context(Signals("stopping: batches put their work away; once more kills their workers"))
        runs = stack.enter_context(Runs(state, signals, asked.max_runs, ASIDE))
        places = parts.here.Heres(state, models, runs)
        places.take_over()
        hosts = LOOPBACK if asked.host in LOOPBACK else None
        everybody = Tenant(name="everybody", namespace=asked.namespace)
        limits = parts.limits.Limits(file_bytes=asked.max_file_bytes)
        door = parts.door.Door(
            places,
            everybody,
            limits,
            listener,
            hosts,
            asked.nats,
            state.root / "nats",
            lambda route: parts.poolhere.LocalWorkers(state, asked.namespace, route, models.served(route)),
        )
        try:
            parts.serving.run(parts.door.keep_open(door, signals, lambda: _tell(listener)))
        except parts.natsserver.NoServer as error:
            raise CliError("NoQueue", str(error), FAILED) from error
    return 0


@dataclass(frozen=True, slots=True)
class _Parts:
    """What needs the extra."""

    door: Any
    here: Any
    limits: Any
    natsserver: Any
    poolhere: Any
    serving: Any


def _parts() -> _Parts:
    """The gateway's own modules; their libraries are an extra that most do without."""
    try:
        names = ("door", "here", "limits", "natsserver", "poolhere", "serving")
        return _Parts(*(import_module(f"headrace.gateway.{name}") for name in names))
    except ModuleNotFoundError as error:
        message = f"{error.name} is not installed: pip install 'headrace[gateway]'"
        raise CliError("NotInstalled", message, FAILED) from error


def _only_one(stack: ExitStack, state: StateDir) -> None:
    try:
        stack.enter_context(locked(state.root / "locks" / "gateway"))
    except Busy as busy:
        message = f"another gateway has the state folder {state.root}: it is {busy}"
        raise CliError("AlreadyRunning", message, FAILED) from busy


def _listener(parts: _Parts, asked: Options) -> socket.socket:
    try:
        listener: socket.socket = parts.serving.listening(asked.host, asked.port)
    except OSError as error:
        message = f"cannot listen at {asked.host}:{asked.port}: {error.strerror}; choose another --port or --host"
        raise CliError("CannotListen", message, BAD_INPUT) from error
    return listener


def _tell(listener: socket.socket) -> None:
    host, port = listener.getsockname()[:2]
    shown = f"[{host}]" if ":" in host else host
    say(f"listening: base URL http://{shown}:{port}/v1")
    sys.stdout.flush()
