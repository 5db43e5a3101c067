"""Fixtures of the tests of traces."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from otlp_collector import Collector, collecting


@pytest.fixture(scope="session")
def collector() -> Iterator[Collector]:
    """A real collector, and what is behind it."""
    with collecting() as found:
        yield found
