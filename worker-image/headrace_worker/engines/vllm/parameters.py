"""OpenAI's and vLLM's parameters of a request: from its body to the arguments of vLLM's `SamplingParams`. Pure.

Defaults are those of the engine `transformers`, so that the same batch means the same on either: `max_tokens` is the room left in the
context for chats and 16 for completions, `temperature` and `top_p` are 1, and a record without `seed` that is drawn at random has one that
follows from its id, so a rerun gives the same answer as far as the rounding of batches does. Parameters that nobody knows are ignored.
"""

from __future__ import annotations

import hashlib
from typing import Any

from headrace.api.base import JsonObject
from headrace.api.model import Task
from headrace.api.records import Request
from headrace_worker.engines.transformers.parameters import (
    COMPLETION_MAX_TOKENS,
    invalid,
    number,
    stop_texts,
    wanted_tokens,
)

MOST_CHOICES = 128
"""`n`, as OpenAI has it."""
MOST_LOGPROBS = 20
_NUMBERS: dict[str, dict[str, Any]] = {
    "temperature": {"at_least": 0, "at_most": 2},
    "top_p": {"above": 0, "at_most": 1},
    "top_k": {"at_least": -1, "whole": True},
    "min_p": {"at_least": 0, "at_most": 1},
    "presence_penalty": {"at_least": -2, "at_most": 2},
    "frequency_penalty": {"at_least": -2, "at_most": 2},
    "repetition_penalty": {"above": 0, "at_most": 2},
    "min_tokens": {"at_least": 0, "whole": True},
    "seed": {"whole": True, "at_least": -(2**63), "at_most": 2**63 - 1},
    "n": {"at_least": 1, "at_most": MOST_CHOICES, "whole": True},
}
"""Numbers that are handed on under their own names, and their bounds."""
_FLAG = (bool, "true or false")
_KINDS: dict[str, tuple[type, str]] = {
    "ignore_eos": _FLAG,
    "include_stop_str_in_output": _FLAG,
    "skip_special_tokens": _FLAG,
}
"""What is handed on likewise, and what it must be."""
_LISTS: dict[str, tuple[type, str]] = {
    "stop_token_ids": (int, "a list of token ids"),
    "allowed_token_ids": (int, "a list of token ids"),
    "bad_words": (str, "a list of texts"),
}
"""Lists, and what must be in them: vLLM looks at some of that only where it falls over it."""
_MOST_BIAS = 100
_REFUSED = ("tools", "functions", "echo", "suffix", "best_of", "use_beam_search", "stream", "audio", "prompt_logprobs")
"""What would change the answer, and is not done."""


def sampling(request: Request, task: Task, room: int) -> dict[str, Any]:
    """The arguments of `SamplingParams`, with `room` tokens left in the context. Raises `RecordError` (invalid_request)."""
    body = request.body
    _refuse(body)
    default = COMPLETION_MAX_TOKENS if task == Task.COMPLETION else room
    given = {
        **{name: number(body, name, **bounds) for name, bounds in _NUMBERS.items()},
        **{name: _of_kind(body, name, kind, words) for name, (kind, words) in _KINDS.items()},
        **{name: _list_of(body, name, kind, words) for name, (kind, words) in _LISTS.items()},
        "logit_bias": _biases(body),
        "stop": list(stop_texts(body)) or None,
        "logprobs": wanted_logprobs(body, task),
        "structured_outputs": _structured(body),
    }
    chosen = {name: value for name, value in given.items() if value is not None}
    if "seed" not in chosen and chosen.get("temperature", 1.0) > 0:
        chosen["seed"] = int.from_bytes(hashlib.blake2b(request.custom_id.encode(), digest_size=4).digest())
    return {"max_tokens": min(room, wanted_tokens(body) or default), **chosen}


def wanted_logprobs(body: JsonObject, task: Task) -> int | None:
    """Of how many tokens at each place the log-probability is wanted, besides that of the token itself; None when it is not."""
    if task == Task.COMPLETION:
        found = number(body, "logprobs", at_least=0, at_most=MOST_LOGPROBS, whole=True)
        return None if found is None else int(found)
    if not _of_kind(body, "logprobs", bool, "true or false"):
        if body.get("top_logprobs"):
            raise invalid("top_logprobs", "may be set only when logprobs is true")
        return None
    return int(number(body, "top_logprobs", at_least=0, at_most=MOST_LOGPROBS, whole=True) or 0)


def _refuse(body: JsonObject) -> None:
    for name in _REFUSED:
        if body.get(name):
            raise invalid(name, "must be absent: the engine vllm of this worker cannot do that")


def _of_kind(body: JsonObject, name: str, kind: type, words: str) -> Any:
    found = body.get(name)
    if found is not None and not isinstance(found, kind):
        raise invalid(name, f"must be {words}")
    return found


def _list_of(body: JsonObject, name: str, kind: type, words: str) -> list[Any] | None:
    found = body.get(name)
    if found is not None and not (isinstance(found, list) and all(type(it) is kind for it in found)):
        raise invalid(name, f"must be {words}")
    return found


def _biases(body: JsonObject) -> dict[int, float] | None:
    """By token id, which is a text in JSON and a number for vLLM."""
    found = _of_kind(body, "logit_bias", dict, "an object of token ids and numbers")
    if found is None:
        return None
    if not all(token.isascii() and token.isdecimal() for token in found):
        raise invalid("logit_bias", "must have token ids for names")
    named = {f"logit_bias.{token}": value for token, value in found.items()}
    numbers = (number(named, name, at_least=-_MOST_BIAS, at_most=_MOST_BIAS) for name in named)
    return {int(token): float(value or 0) for token, value in zip(found, numbers, strict=True)}


def _structured(body: JsonObject) -> dict[str, Any] | None:
    """The form that an answer must have: what vLLM's `StructuredOutputsParams` is given; None for a free text."""
    wanted = _of_kind(body, "response_format", dict, "an object")
    match (wanted or {}).get("type", "text"):
        case "text":
            return None
        case "json_object":
            return {"json_object": True}
        case "json_schema":
            described = wanted.get("json_schema")
            schema = described.get("schema") if isinstance(described, dict) else None
            if not isinstance(schema, dict):
                raise invalid("response_format.json_schema.schema", "must be an object: a JSON schema")
            return {"json": schema}
        case _:
            raise invalid("response_format.type", "must be text, json_object or json_schema")
