"""Fixtures of the local shell; what they give is in `laptop`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from headrace.shells.local.state import StateDir
from laptop import FakeWorker, Laptop, local_batch


@pytest.fixture
def state(tmp_path: Path) -> StateDir:
    """An empty state folder."""
    return StateDir(tmp_path / "state")


@pytest.fixture
def worker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeWorker:
    """A worker that does no work."""
    log = tmp_path / "worker-log"
    log.mkdir()
    monkeypatch.setenv("FAKE_WORKER_LOG", str(log))

    def orders(**orders: Any) -> None:
        monkeypatch.setenv("FAKE_WORKER", json.dumps(orders))

    orders()
    return FakeWorker(log, orders)


@pytest.fixture
def laptop(state: StateDir, worker: FakeWorker) -> Laptop:
    """The batch `reviews`, submitted."""
    laptop = Laptop(state, state.batch("default", "reviews"), worker)
    laptop.submit(local_batch().build())
    return laptop
