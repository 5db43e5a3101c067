"""Fixtures of the worker's tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from object_store import S3, s3_server
from worker_rig import Zygote


@pytest.fixture(scope="session")
def zygote() -> Iterator[Zygote]:
    """Starts real workers quickly, one at a time."""
    with Zygote() as started:
        yield started


@pytest.fixture(scope="session")
def s3() -> Iterator[S3]:
    """An object store, and the environment that leads to it."""
    with s3_server() as server:
        yield server
