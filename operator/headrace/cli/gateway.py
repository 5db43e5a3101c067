"""`headrace gateway --local`: single requests, and OpenAI's Files and Batches, on this machine."""

from __future__ import annotations

import logging
import socket
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from headrace.api.asking import Webhooks
from headrace.api.tenancy import Tenant
from headrace.cli.exits import BAD_INPUT, FAILED, CliError
from headrace.cli.signals import Signals
from headrace.cli.text import remark, say
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
    """What the command line says, wherever the batches are."""

    models: Path
    namespace: str | None
    host: str
    port: int
    max_file_bytes: int
    nats: str | None
    nats_credentials: Path | None
    tenants: Path | None


@dataclass(frozen=True, slots=True)
class LocalOptions:
    """What it says besides about this machine."""

    state_dir: Path
    max_runs: int


def gateway(options: Mapping[str, Any], local: Mapping[str, Any]) -> int:
    """Serve until told to stop. Raises `CliError` when it cannot begin."""
    asked, here, parts = Options(**options), LocalOptions(**local), load_parts("places.here", "gathering.poolhere")
    namespace = asked.namespace or "default"
    check_namespace(namespace)
    state = StateDir(here.state_dir)
    models = load_models(asked.models, lambda batch: problems(batch, state))
    identities = who_is_who(parts, asked, namespace, models.webhooks)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    with ExitStack() as stack:
        _only_one(stack, state)
        listener = stack.enter_context(open_listener(asked, parts))
        signals = stack.enter_context(Signals("stopping: batches put their work away; once more kills their workers"))
        runs = stack.enter_context(Runs(state, signals, here.max_runs, ASIDE))
        places = parts["here"].Heres(state, models, runs)
        places.take_over()
        hosts = LOOPBACK if asked.host in LOOPBACK else None
        limits = parts["limits"].Limits(file_bytes=asked.max_file_bytes)
        nats = queue_server(asked, parts) or state.root / "nats"
        door = parts["door"].Door(
            places,
            identities,
            limits,
            listener,
            hosts,
            nats,
            lambda route, _: parts["poolhere"].LocalWorkers(state, namespace, route, models.served(route)),
        )
        with told_of_no_queue(parts):
            parts["serving"].run(parts["door"].keep_open(door, signals, lambda: tell(listener)))
    return 0


Parts = Mapping[str, Any]
"""Modules of the gateway by name."""
_EVERYWHERE = ("door", "tenants.identities", "tenants.keyfile", "web.limits", "queues.natsserver", "web.serving")


def who_is_who(parts: Parts, asked: Options, namespace: str, webhooks: Webhooks | None) -> Any:
    """The `Identities`; `webhooks` are those of the file of the models. Raises `CliError` and `ManifestError`."""
    if asked.tenants is None:
        if asked.host not in LOOPBACK:
            remark(f"there are no keys: whoever reaches {asked.host} may use it; say --tenants FILE")
        return parts["identities"].Everybody(Tenant(name="everybody", namespace=namespace, webhooks=webhooks))
    if webhooks is not None:
        message = (
            f"{asked.models} has webhooks, whose keys all tenants would share: give each its own in {asked.tenants}"
        )
        raise CliError("InvalidSpec", message, BAD_INPUT)
    return parts["keyfile"].KeyFile(asked.tenants)


def load_parts(*names: str) -> Parts:
    """The gateway's own modules; their libraries are an extra that most do without."""
    try:
        return {name.rpartition(".")[2]: import_module(f"headrace.gateway.{name}") for name in (*_EVERYWHERE, *names)}
    except ModuleNotFoundError as error:
        extras = "gateway,operator" if "cluster" in names else "gateway"
        message = f"{error.name} is not installed: pip install 'headrace[{extras}]'"
        raise CliError("NotInstalled", message, FAILED) from error


def queue_server(asked: Options, parts: Parts) -> Any:
    """The NATS server that is named; None when none is."""
    return parts["natsserver"].Address(asked.nats, credentials=asked.nats_credentials) if asked.nats else None


@contextmanager
def told_of_no_queue(parts: Parts) -> Iterator[None]:
    """Turn that there is no server into a `CliError`."""
    try:
        yield
    except parts["natsserver"].NoServer as error:
        raise CliError("NoQueue", str(error), FAILED) from error


def _only_one(stack: ExitStack, state: StateDir) -> None:
    try:
        stack.enter_context(locked(state.root / "locks" / "gateway"))
    except Busy as busy:
        message = f"another gateway has the state folder {state.root}: it is {busy}"
        raise CliError("AlreadyRunning", message, FAILED) from busy


def open_listener(asked: Options, parts: Parts) -> socket.socket:
    """The socket that is asked for. Raises `CliError`."""
    try:
        listener: socket.socket = parts["serving"].listening(asked.host, asked.port)
    except OSError as error:
        why = (error.strerror or str(error)).partition(" (while")[
            0
        ]  # after which asyncio's sockets say it all once more
        message = f"cannot listen at {asked.host}:{asked.port}: {why}; choose another --port or --host"
        raise CliError("CannotListen", message, BAD_INPUT) from error
    return listener


def tell(listener: socket.socket) -> None:
    """Say where it listens."""
    host, port = listener.getsockname()[:2]
    shown = f"[{host}]" if ":" in host else host
    say(f"listening: base URL http://{shown}:{port}/v1")
    sys.stdout.flush()
