"""What holds for all tests."""

from __future__ import annotations

import os
import signal

import pytest
from hypothesis import HealthCheck, settings

settings.register_profile(
    "the same examples in every run, however busy the machine",
    deadline=None,
    derandomize=not os.environ.get("HEADRACE_NEW_EXAMPLES"),
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("the same examples in every run, however busy the machine")

# Tests press Ctrl-C in commands that they start. Where the tests themselves run in the background of a shell, it is ignored, which
# those commands would inherit.
signal.signal(signal.SIGINT, signal.default_int_handler)


# Where tests wait for programs of their own: control planes, operators, workers, servers.
WITH_PROGRAMS = frozenset({"cluster", "e2e", "gateway", "tracing"})


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Keep tests on a real cluster together unless they name a group: in one process they share one control plane.

    Tests of several programs at once get a second try, for a machine that stands still for half a minute; pytest names each that
    has needed it (RERUN) beside those that were skipped, so that it is looked at. Whatever is decided by us alone gets one try.
    """
    for item in items:
        if not WITH_PROGRAMS.isdisjoint(item.path.parts):
            item.add_marker(pytest.mark.flaky(reruns=1))
        if "cluster" in item.path.parts and item.get_closest_marker("xdist_group") is None:
            item.add_marker(pytest.mark.xdist_group("cluster"))
