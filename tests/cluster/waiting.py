"""Waiting for what another process brings about: patiently, and with a message that says what was there instead."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

from headrace.shells.kube.errors import ApiError, TransientFailure

PATIENCE_SECONDS = 240.0
"""A machine that does much else may let a process stand still for minutes; what never comes is told of after this time."""
FIRST_LOOK_SECONDS, LAST_LOOK_SECONDS = 0.05, 0.4
"""How soon to look again: what lasts is asked for less often, for asking takes time from what is waited for."""
T = TypeVar("T")


def nothing() -> str:
    """A report where there is nothing more to say."""
    return ""


def eventually(
    holds: Callable[[], T], what: str, report: Callable[[], object] = nothing, seconds: float = PATIENCE_SECONDS
) -> T:
    """Wait until something is true, and return it; `report` tells what there is if it never is.

    An API server that does not answer for a moment is no answer: it is asked again.
    """
    deadline, pause = time.monotonic() + seconds, FIRST_LOOK_SECONDS
    while True:
        last: object
        try:
            found = holds()
        except TransientFailure as failure:
            last = failure
        else:
            if found:
                return found
            last = found
        assert time.monotonic() < deadline, (
            f"{what}: not within {seconds:.0f} s; the last look gave {last!r}.\n{_said(report)}"
        )
        time.sleep(pause)
        pause = min(LAST_LOOK_SECONDS, pause * 1.3)


def _said(report: Callable[[], object]) -> object:
    """What the report says; that it cannot be had must not hide what was waited for."""
    try:
        return report()
    except (ApiError, TransientFailure, OSError) as error:
        return f"there is no report: {error!r}"
