"""Fixtures of the worker's tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import settings

from worker_rig import Zygote

settings.register_profile("no deadlines: a busy machine is not a wrong answer", deadline=None)
settings.load_profile("no deadlines: a busy machine is not a wrong answer")


@pytest.fixture(scope="session")
def zygote() -> Iterator[Zygote]:
    """Starts real workers quickly, one at a time."""
    with Zygote() as started:
        yield started
