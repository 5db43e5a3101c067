"""How traces are made here, as OpenTelemetry's environment variables say it, and what of that workers are told."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from headrace.api.base import JsonObject
from headrace.api.tracing import (
    ENDPOINT,
    RECORD_RATIO,
    TRACES_ENDPOINT,
    TraceContext,
    is_wanted,
    parse_ratio,
    within,
)

HEADERS = "OTEL_EXPORTER_OTLP_HEADERS"
SAMPLER = "OTEL_TRACES_SAMPLER"
SAMPLER_ARG = "OTEL_TRACES_SAMPLER_ARG"
HEADERS_SECRET = "HEADRACE_TRACE_HEADERS_SECRET"  # noqa: S105 - a name
"""`SECRET/KEY`: where workers find the headers of their exports, in their own namespaces."""

_PROTOCOLS = ("OTEL_EXPORTER_OTLP_PROTOCOL", "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL")
_PROTOCOL = "http/protobuf"
_TOLD = (
    ENDPOINT,
    TRACES_ENDPOINT,
    "OTEL_EXPORTER_OTLP_TIMEOUT",
    "OTEL_EXPORTER_OTLP_COMPRESSION",
    "OTEL_RESOURCE_ATTRIBUTES",
    "OTEL_BSP_SCHEDULE_DELAY",
    "OTEL_BSP_MAX_QUEUE_SIZE",
    "OTEL_BSP_MAX_EXPORT_BATCH_SIZE",
    "OTEL_BSP_EXPORT_TIMEOUT",
    RECORD_RATIO,
)
"""What workers are told by value. Headers may be credentials, and go by reference only; files of certificates are not in their pods."""
_RATIOS = {"always_on": 1.0, "always_off": 0.0}


@dataclass(frozen=True, slots=True)
class Sampler:
    """Which traces are kept whole; of the others only failures are."""

    ratio: float = 1.0
    parent_based: bool = True
    """Whether who hands on a context has the say about its trace."""

    @classmethod
    def parse(cls, name: str, argument: str) -> Sampler:
        """The sampler that `OTEL_TRACES_SAMPLER` and `OTEL_TRACES_SAMPLER_ARG` name. Raises `ValueError` with a sentence."""
        kind = name.removeprefix("parentbased_")
        if kind == "traceidratio":
            try:
                ratio = parse_ratio(argument or "1")
            except ValueError as error:
                raise ValueError(f"{SAMPLER_ARG} {error}") from error
        elif kind in _RATIOS:
            ratio = _RATIOS[kind]
        else:
            known = ", ".join((*_RATIOS, "traceidratio"))
            raise ValueError(
                f"{SAMPLER} must be one of {known}, or one of these with parentbased_ in front, not {name!r}"
            )
        return cls(ratio, parent_based=kind != name)

    def samples(self, trace_id: str, given: TraceContext | None) -> bool:
        """Whether a trace is kept whole; `given` is the context that it was begun in elsewhere."""
        if given is not None and self.parent_based:
            return given.sampled
        return within(trace_id, self.ratio)


@dataclass(frozen=True, slots=True)
class Tracing:
    """That there are traces, and how."""

    sampler: Sampler = Sampler()
    variables: Mapping[str, str] = field(default_factory=dict)
    """Environment variables of workers, by value."""
    references: Mapping[str, JsonObject] = field(default_factory=dict)
    """Environment variables of workers, by `valueFrom`."""


def tracing_of(env: Mapping[str, str]) -> Tracing | None:
    """What an environment says; None when there are no traces. Raises `ValueError` with a sentence that names the variable."""
    if not is_wanted(env):
        return None
    check_exporter(env)
    sampler = Sampler.parse(env.get(SAMPLER) or "parentbased_always_on", env.get(SAMPLER_ARG, ""))
    told = {name: env[name] for name in _TOLD if env.get(name)}
    return Tracing(sampler, told, _references(env.get(HEADERS_SECRET, "")))


def check_exporter(env: Mapping[str, str]) -> None:
    """Raise `ValueError` with a sentence when spans cannot be sent as the environment says."""
    for name in _PROTOCOLS:
        if env.get(name, _PROTOCOL) not in ("", _PROTOCOL):
            raise ValueError(f"{name} must be {_PROTOCOL}, not {env[name]!r}: collectors listen to it on port 4318")
    for name in (ENDPOINT, TRACES_ENDPOINT):
        url = urlsplit(env.get(name) or "http://unset")
        if url.scheme not in ("http", "https") or not url.hostname:
            raise ValueError(f"{name} must be an http:// or https:// URL, not {env[name]!r}")
        if url.username is not None:
            raise ValueError(f"{name} must have no user and no password in it: credentials belong into {HEADERS}")
    try:
        parse_ratio(env.get(RECORD_RATIO) or "0")
    except ValueError as error:
        raise ValueError(f"{RECORD_RATIO} {error}") from error


def _references(secret: str) -> dict[str, JsonObject]:
    """Optional: in a namespace that has no such Secret, a collector that asks for none must do."""
    if not secret:
        return {}
    name, slash, key = secret.partition("/")
    if not (name and slash and key):
        raise ValueError(f"{HEADERS_SECRET} must be SECRET/KEY, not {secret!r}")
    return {HEADERS: {"secretKeyRef": {"name": name, "key": key, "optional": True}}}
