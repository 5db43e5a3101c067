"""What a worker is told by its environment. Whatever is wrong there is `BadConfig`: no retry will mend it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import orjson

from headrace.api.base import InvalidSpec
from headrace.api.worker import Env, WorkerConfig, shard_at
from headrace_worker.errors import JobFailed
from headrace_worker.stores.patterns import is_glob

_MOST_SHARDS = 10_000
DEFAULT_TERMINATION_LOG = Path("/dev/termination-log")


@dataclass(frozen=True, slots=True)
class Surface:
    """Where the worker shows itself."""

    metrics_port: int | None = None
    """0 takes a free one; None: no metrics."""
    metrics_port_file: Path | None = None
    drain_on_eof: bool = False


def bad_config(message: str) -> JobFailed:
    """The failure of a wrong setting; the message names it."""
    return JobFailed("BadConfig", message)


def termination_log(env: Mapping[str, str]) -> tuple[Path, bool]:
    """The file for the report, and whether it may be created: the default is there in every pod, and nowhere else."""
    told = env.get(Env.TERMINATION_LOG)
    return (Path(told), True) if told else (DEFAULT_TERMINATION_LOG, False)


def load_config(env: Mapping[str, str]) -> WorkerConfig:
    """The configuration. Raises `JobFailed` naming every wrong field."""
    text = env.get(Env.CONFIG)
    if not text:
        raise bad_config(f"{Env.CONFIG} must be set to the worker's configuration as JSON")
    try:
        data = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise bad_config(f"{Env.CONFIG} must be JSON; line {error.lineno} column {error.colno}: {error.msg}") from error
    if not isinstance(data, dict):
        raise bad_config(f"{Env.CONFIG} must be a JSON object")
    try:
        config = WorkerConfig.parse(data)
    except InvalidSpec as error:
        raise bad_config(f"{Env.CONFIG}: {error}") from error
    if is_glob(config.output_uri):
        raise bad_config(f"{Env.CONFIG}: outputUri must name one folder, without * and ?, not {config.output_uri}")
    return config


def load_surface(env: Mapping[str, str]) -> Surface:
    """Metrics port and the like. Raises `JobFailed`."""
    port_file = env.get(Env.METRICS_PORT_FILE)
    return Surface(
        metrics_port=_number(env, Env.METRICS_PORT, 65535) if env.get(Env.METRICS_PORT) else None,
        metrics_port_file=Path(port_file) if port_file else None,
        drain_on_eof=env.get(Env.DRAIN_ON_EOF) == "1",
    )


def shard_index(env: Mapping[str, str], retried_shards: str | None = None) -> int:
    """Which shard, of all or of those that are retried. Raises `JobFailed` when that is not said."""
    index = _number(env, Env.SHARD, _MOST_SHARDS - 1)
    try:
        return shard_at(index, retried_shards)
    except IndexError as error:
        raise bad_config(f"{Env.SHARD} is {index}: there are not so many shards in {retried_shards}") from error


def _number(env: Mapping[str, str], name: Env, most: int) -> int:
    text = env.get(name, "")
    if not (text.isascii() and text.isdecimal()) or int(text) > most:
        raise bad_config(f"{name} must be a whole number from 0 to {most}, not {text!r}")
    return int(text)
