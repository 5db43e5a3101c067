"""A real collector: Rotel, a program of its own that takes OTLP and passes it on by OTLP, here to a receiver of ours.

It is in a Python package, as `make setup` installs it where there is one for the machine.
"""

from __future__ import annotations

import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import pytest

from cluster.processes import free_ports
from laptop import eventually
from otlp_receiver import Receiver, receiving


@dataclass(frozen=True)
class Collector:
    """Where it listens, and what has come out at its other end."""

    endpoint: str
    behind: Receiver


@contextmanager
def collecting() -> Iterator[Collector]:
    """A collector, inside the block; skips the test where there is none."""
    found = find_spec("rotel")
    if found is None or found.origin is None:
        pytest.skip("no collector: the Python package rotel is not installed here")
    program = Path(found.origin).with_name("rotel-agent")
    with receiving() as behind:
        http, grpc = free_ports(2)
        options = {
            "--otlp-http-endpoint": f"127.0.0.1:{http}",
            "--otlp-grpc-endpoint": f"127.0.0.1:{grpc}",
            "--exporter": "otlp",
            "--otlp-exporter-endpoint": behind.url,
            "--otlp-exporter-protocol": "http",
            "--batch-timeout": "100ms",
        }
        words = [word for option in options.items() for word in option]
        process = subprocess.Popen([program, "start", *words], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            eventually(lambda: process.poll() is not None or _listens(http))
            if process.poll() is not None:
                pytest.skip(f"no collector: {program} does not run here (it wants the shared library of its Python)")
            yield Collector(f"http://127.0.0.1:{http}", behind)
        finally:
            process.terminate()
            process.wait()


def _listens(port: int) -> bool:
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", port)) == 0
