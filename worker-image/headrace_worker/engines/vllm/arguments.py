"""What vLLM is started with. Pure."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from difflib import get_close_matches
from typing import Any

from headrace.api.worker import WorkerConfig
from headrace_worker.errors import JobFailed

SET_BY_THE_SPEC = {
    "model": "model.source",
    "tokenizer": "model.source",
    "revision": "model.source.huggingFace.revision",
    "tokenizer_revision": "model.source.huggingFace.revision",
    "served_model_name": "model.name",
    "runner": "model.task",
    "convert": "model.task",
    "max_model_len": "model.contextTokens",
    "skip_tokenizer_init": "model.task",
    "disable_log_stats": "the worker's own metrics",
}
"""Arguments that would contradict a field of the spec, and that field."""
FIELD = "engine.vllm.arguments"


def engine_arguments(
    config: WorkerConfig, location: str, revision: str | None, context: int, known: Collection[str], release: str
) -> dict[str, Any]:
    """The engine arguments of a batch. Raises `JobFailed` for those that vLLM does not know, or that the spec says elsewhere."""
    given = {} if config.engine.vllm is None else config.engine.vllm.arguments
    check(given, known, release)
    derived: dict[str, Any] = {
        "model": location,
        "served_model_name": config.model.name,
        "max_model_len": context,
        "disable_log_stats": True,
    }
    if config.batching.max_batch_size is not None:  # else vLLM decides by itself
        derived["max_num_seqs"] = config.batching.max_batch_size
    if revision is not None:
        derived["revision"] = revision
    if config.gpus > 1:
        derived["tensor_parallel_size"] = config.gpus
    return {**derived, **given}


def check(given: Mapping[str, Any], known: Collection[str], release: str) -> None:
    """Raises `JobFailed` for the first argument that cannot be."""
    for name in given:
        if name in SET_BY_THE_SPEC:
            raise _wrong(name, f"must be absent: it follows from {SET_BY_THE_SPEC[name]}")
        if name not in known:
            alike = get_close_matches(name.replace("-", "_"), known, n=1)
            hint = f"; did you mean {alike[0]}?" if alike else ""
            raise _wrong(name, f"is no engine argument of {release}{hint}")


def most_sequences(config: WorkerConfig) -> int:
    """How many sequences vLLM runs at once, as far as that is known before it has started. Raises `JobFailed`."""
    given = {} if config.engine.vllm is None else config.engine.vllm.arguments
    found = given.get("max_num_seqs", config.batching.size)
    if not isinstance(found, int) or isinstance(found, bool) or found < 1:
        raise _wrong("max_num_seqs", "must be a whole number of at least 1")
    return found


def _wrong(name: str, what: str) -> JobFailed:
    return JobFailed("InvalidSpec", f"{FIELD}.{name} {what}")
