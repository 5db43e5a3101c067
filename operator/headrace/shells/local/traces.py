"""Traces of what is run on this machine: one tracer a process, as OpenTelemetry's environment variables say, and none without them."""

from __future__ import annotations

import atexit
import logging
import os
from functools import cache

from headrace.core.tracing.settings import Tracing, tracing_of
from headrace.tracing import Silent, Tracer, open_tracer

logger = logging.getLogger(__name__)


@cache
def tracing_here() -> Tracing | None:
    """How traces are made in this process. What is wrong in the environment is said once, and then there are none."""
    try:
        return tracing_of(os.environ)
    except ValueError as error:
        logger.warning("no traces: %s", error)
        return None


@cache
def tracer_here() -> Tracer:
    """Who takes the spans of this process. What waits at its end is sent then."""
    if tracing_here() is None:
        return Silent()
    tracer = open_tracer("headrace")
    atexit.register(tracer.close)
    return tracer
