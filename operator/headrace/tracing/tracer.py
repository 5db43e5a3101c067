"""Who takes spans that are over: nobody, or OpenTelemetry's SDK, which is an extra that everything works without."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import Protocol

from headrace.api.tracing import Span

logger = logging.getLogger(__name__)


class Tracer(Protocol):
    """Takes spans. Nothing here ever blocks for long or raises: a trace is worth less than the work that it tells of."""

    def send(self, spans: Iterable[Span]) -> None:
        """Put them into a queue that is bounded; where it is full, the oldest in it are lost."""

    def close(self) -> None:
        """Send what waits, for two seconds at most, and say how many spans were lost."""


class Silent:
    """Tells nobody."""

    def send(self, spans: Iterable[Span]) -> None:
        """Nothing."""

    def close(self) -> None:
        """Nothing."""


def open_tracer(service: str) -> Tracer:
    """A tracer as OpenTelemetry's environment variables say. Where that cannot be, one that is silent, with the reason in the log."""
    try:
        from headrace.tracing.otlp import OtlpTracer  # noqa: PLC0415 - an extra, and slow to import

        return OtlpTracer(service)
    except ModuleNotFoundError as error:
        logger.warning("no traces: %s is not installed: pip install 'headrace[tracing]'", error.name)
    except Exception as error:  # noqa: BLE001 - whatever is wrong with it, the work goes on without
        logger.warning("no traces: %s: %s", type(error).__name__, error)
    return Silent()
