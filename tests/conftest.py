"""What holds for all tests."""

from __future__ import annotations

import pytest


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Keep the tests on a real cluster together: in one process they share one control plane, and disturb the others least."""
    for item in items:
        if "cluster" in item.path.parts:
            item.add_marker(pytest.mark.xdist_group("cluster"))
