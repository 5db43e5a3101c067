"""The operator as a process of its own, that a test may kill.

Processes are forked from one that has everything imported already: a test that kills the operator a hundred times starts it a hundred
times, and would otherwise wait for Python's imports most of the time.
"""

from __future__ import annotations

import asyncio
import ctypes
import json
import logging
import multiprocessing
import os
import signal
import sys
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from headrace.core.election import LeaseTerms
from headrace.core.observed import Installation
from headrace.core.tracing.settings import tracing_of
from headrace.shells.kube.operator import Options, run_operator
from headrace.tracing import Silent, open_tracer

from .processes import free_ports, tail
from .waiting import PATIENCE_SECONDS, eventually

_FORKS = multiprocessing.get_context("forkserver")
_PR_SET_PDEATHSIG = 1


@dataclass(frozen=True)
class Setup:
    """How one operator is started; plain values, for they travel to another process."""

    kubeconfig: Path
    log: Path
    identity: str = "operator-1"
    namespaces: tuple[str, ...] = ()
    lease_namespace: str = "default"
    lease_terms: LeaseTerms = field(default_factory=LeaseTerms)
    metrics_port: int = 9400
    port: int = field(default_factory=lambda: free_ports(1)[0])
    more: dict[str, Any] = field(default_factory=dict)
    """Further fields of the operator's options."""
    default_output: str = "file:///out"
    traces: dict[str, str] = field(default_factory=dict)
    """Environment variables that say where spans go."""


def _main(setup: Setup) -> None:
    """The body of the process."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)  # no operator outlives the tests
    out = os.open(setup.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.dup2(out, 1)
    os.dup2(out, 2)
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    os.environ.update(setup.traces)
    tracing = tracing_of(setup.traces)
    tracer = open_tracer("headrace-operator") if tracing is not None else Silent()
    options = Options(
        installation=Installation(
            default_output=setup.default_output, metrics_port=setup.metrics_port, tracing=tracing
        ),
        tracer=tracer,
        namespaces=setup.namespaces,
        lease_namespace=setup.lease_namespace,
        lease_terms=setup.lease_terms,
        kubeconfig=setup.kubeconfig,
        host="127.0.0.1",
        port=setup.port,
        identity=setup.identity,
        **setup.more,
    )
    code = asyncio.run(run_operator(options))
    tracer.close()
    sys.exit(code)


class OperatorProcess:
    """One operator: it may be started again after it has ended."""

    def __init__(self, setup: Setup) -> None:
        self.setup = setup
        self._process: Any = None
        self.starts = 0
        """How often it was started."""

    def start(self, **changes: Any) -> OperatorProcess:
        """Start it, with some of its setup changed; returns itself."""
        self.setup = replace(self.setup, **changes)
        _FORKS.set_forkserver_preload(["headrace.shells.kube.operator"])
        self._process = _FORKS.Process(target=_main, args=(self.setup,), daemon=True)
        self._process.start()
        self.starts += 1
        return self

    @property
    def pid(self) -> int:
        """Of the process that runs now."""
        return int(self._process.pid)

    @property
    def alive(self) -> bool:
        """Whether it runs."""
        return self._process is not None and self._process.is_alive()

    @property
    def log(self) -> str:
        """All that it has written."""
        return self.setup.log.read_text() if self.setup.log.exists() else ""

    def kill(self) -> None:
        """End it with no warning, as a crash would."""
        self._process.kill()
        self.wait()

    def stop(self) -> int:
        """Ask it to end, and wait; returns the exit code."""
        self._process.terminate()
        return self.wait()

    def wait(self, seconds: float = PATIENCE_SECONDS) -> int:
        """Wait for its end; returns the exit code, -9 when it was killed."""
        self._process.join(seconds)
        assert not self.alive, f"the operator did not end within {seconds} s:\n{tail(self.setup.log)}"
        return int(self._process.exitcode)

    def get(self, path: str) -> tuple[int, str]:
        """Status and body of `/healthz`, `/readyz` or `/metrics`; 0 while there is no answer."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.setup.port}{path}", timeout=5) as response:
                return response.status, response.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()
        except OSError:
            return 0, ""

    def health(self) -> dict[str, Any]:
        """What `/readyz` says; empty while there is no answer."""
        _, body = self.get("/readyz")
        return dict(json.loads(body)) if body else {}

    def wait_until(self, holds: Callable[[dict[str, Any]], bool], seconds: float = PATIENCE_SECONDS) -> dict[str, Any]:
        """Wait until that holds of its health, which is returned."""

        def health() -> dict[str, Any] | None:
            assert self.alive, f"the operator ended:\n{tail(self.setup.log)}"
            found = self.health()
            return found if found and holds(found) else None

        found = eventually(health, "its health", self._report, seconds)
        assert found is not None
        return found

    def wait_ready(self, seconds: float = PATIENCE_SECONDS) -> OperatorProcess:
        """Wait until it leads and watches; returns itself."""
        self.wait_until(lambda health: health["ready"] and health["leading"], seconds)
        return self

    def until_metric(self, line: str) -> None:
        """Wait until `/metrics` has that line; what a status tells is counted only when its write has been answered."""
        eventually(lambda: line in self.metrics(), f"the metric {line}", lambda: "\n".join(self.metrics()))

    def metrics(self) -> list[str]:
        """The lines of `/metrics`; none while there is no answer."""
        return self.get("/metrics")[1].splitlines()

    def _report(self) -> str:
        return f"{self.health()}\n{tail(self.setup.log)}"
