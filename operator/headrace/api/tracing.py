"""Where a piece of work stands in a trace: W3C trace contexts, the spans that are told of, and which records are worth one.

Everything here is a value: who makes a span knows how the work has ended, so that a failure is never lost to sampling.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from hashlib import blake2b, sha256
from typing import NamedTuple, Self

TRACEPARENT = "TRACEPARENT"
"""Environment variable with the context that a process works in, as OpenTelemetry has it."""
ENDPOINT = "OTEL_EXPORTER_OTLP_ENDPOINT"
"""Environment variable with the URL of a collector."""
TRACES_ENDPOINT = "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"
"""The same, where traces go elsewhere than the rest; its path is taken as it is."""
RECORD_RATIO = "HEADRACE_TRACE_RECORD_RATIO"
"""Environment variable: the share of the records that get a span although they have not failed, from 0 to 1."""
DEFAULT_RECORD_RATIO = 0.01

_TRACEPARENT = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")
_SAMPLED = 1
_RANDOM_BITS = 56
"""The last bits of a trace id, which are random by the W3C's word; a UUID has its random bits there too."""


class TraceContext(NamedTuple):
    """A place in a trace: the span that whatever is done there belongs to."""

    trace_id: str
    """32 hexadecimal digits."""
    span_id: str
    """16 hexadecimal digits."""
    sampled: bool = True
    """Whether spans of the trace are kept that tell of no failure."""

    @classmethod
    def parse(cls, traceparent: str) -> Self | None:
        """The context in a `traceparent`; None when it is none, for then a trace is begun anew, as the W3C has it."""
        found = _TRACEPARENT.fullmatch(traceparent)
        if found is None:
            return None
        version, trace_id, span_id, flags, rest = found.groups()
        void = version == "ff" or not int(trace_id, 16) or not int(span_id, 16)
        if void or (version == "00" and rest is not None):
            return None
        return cls(trace_id, span_id, bool(int(flags, 16) & _SAMPLED))

    def __str__(self) -> str:
        """As a `traceparent`."""
        return f"00-{self.trace_id}-{self.span_id}-{int(self.sampled):02x}"


@dataclass(frozen=True, slots=True)
class SpanEvent:
    """A moment within a span that is worth a word."""

    name: str
    time: datetime
    attributes: Mapping[str, str | int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Span:
    """A piece of work that is over."""

    name: str
    context: TraceContext
    """Its own ids."""
    parent_id: str | None
    start: datetime
    end: datetime
    attributes: Mapping[str, str | int] = field(default_factory=dict)
    error: str = ""
    """Why it has failed, in a word or a sentence; empty when it has not."""
    events: tuple[SpanEvent, ...] = ()


def trace_id_of(uid: str) -> str:
    """The id of the trace of an object that begins one: its uid without the dashes, so that whoever knows the one knows the other."""
    digits = uid.replace("-", "").lower()
    return digits if re.fullmatch("[0-9a-f]{32}", digits) and int(digits, 16) else sha256(uid.encode()).hexdigest()[:32]


def span_id_of(*parts: str | int) -> str:
    """The id of a span that follows from what it tells of: who comes after a crash gives the same."""
    return blake2b("\0".join(map(str, parts)).encode(), digest_size=8).hexdigest()


def within(random_id: str, ratio: float) -> bool:
    """Whether a hexadecimal id with random digits at its end falls into this share of all ids."""
    return int(random_id, 16) % (1 << _RANDOM_BITS) < ratio * (1 << _RANDOM_BITS)


def record_sampled(context: TraceContext, custom_id: str, ratio: float) -> bool:
    """Whether a record that has not failed gets a span. All branches and attempts of a trace answer alike for a record."""
    return context.sampled and within(span_id_of(context.trace_id, custom_id), ratio)


def is_wanted(env: Mapping[str, str]) -> bool:
    """Whether an environment says where spans go."""
    off = env.get("OTEL_SDK_DISABLED", "").lower() == "true" or env.get("OTEL_TRACES_EXPORTER", "otlp") == "none"
    return not off and bool(env.get(TRACES_ENDPOINT) or env.get(ENDPOINT))


def parse_ratio(text: str) -> float:
    """A share from 0 to 1. Raises `ValueError` with a sentence."""
    try:
        ratio = float(text)
    except ValueError:
        ratio = -1.0
    if not 0 <= ratio <= 1:
        raise ValueError(f"must be a number from 0 to 1, not {text!r}")
    return ratio
