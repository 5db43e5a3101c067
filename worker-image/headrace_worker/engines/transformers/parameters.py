"""OpenAI's sampling parameters: from a request's body to `Sampling`.

`max_tokens` (or `max_completion_tokens`) defaults to what OpenAI and vLLM take: the room left in the context for chat, 16 for
completions; more than the room left is cut to it. `temperature` and `top_p` default to 1, `top_k` and `ignore_eos` are vLLM's. `stop`
is a text or a list of texts. Without `seed`, a record's own id is its seed, so a rerun gives the same answer.

A parameter that would change the answer and is not supported is refused unless it says what happens anyway (`n: 1`). Parameters
that nobody knows are ignored, as vLLM does.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import orjson

from headrace.api.base import JsonObject
from headrace.api.model import Task
from headrace.api.records import ErrorCode, RecordError, Request

COMPLETION_MAX_TOKENS = 16
"""OpenAI's default for the completions endpoint."""
MOST_LOGPROBS = 20
"""The most likeliest tokens that OpenAI's chat endpoint says, and vLLM's."""

_ONLY: dict[str, Any] = {
    "n": 1,
    "best_of": 1,
    "stream": False,
    "echo": False,
    "suffix": "",
    "prompt_logprobs": False,
    "frequency_penalty": 0,
    "presence_penalty": 0,
    "repetition_penalty": 1,
    "logit_bias": {},
    "min_p": 0,
    "min_tokens": 0,
    "stop_token_ids": [],
    "bad_words": [],
    "use_beam_search": False,
    "tools": [],
    "functions": [],
    "response_format": {"type": "text"},
    "modalities": ["text"],
}
"""Parameters with the only value that this engine can do."""


@dataclass(frozen=True, slots=True)
class Sampling:
    """How the tokens of one record are drawn, and when they end."""

    max_tokens: int
    temperature: float
    """0 takes the likeliest token always."""
    top_p: float
    """Draw from the likeliest tokens that together have this probability."""
    top_k: int
    """Draw from so many likeliest tokens; 0 from all."""
    seed: str
    stop: tuple[str, ...]
    """The answer ends before the first of these texts."""
    ignore_eos: bool = False
    """Go on to `max_tokens`, also when the model says that it is finished."""
    logprobs: int | None = None
    """Say how likely each token was, and so many of the likeliest in its place; None: say nothing."""


def sampling(request: Request, task: Task, room: int) -> Sampling:
    """The parameters of one request, with `room` tokens left in the context. Raises `RecordError` (invalid_request)."""
    body = request.body
    _refuse_unsupported(body)
    seed = number(body, "seed", whole=True)
    default = COMPLETION_MAX_TOKENS if task == Task.COMPLETION else room
    top_k = number(body, "top_k", at_least=-1, whole=True)
    return Sampling(
        max_tokens=min(room, wanted_tokens(body) or default),
        temperature=_or(number(body, "temperature", at_least=0, at_most=2), 1.0),
        top_p=_or(number(body, "top_p", above=0, at_most=1), 1.0),
        top_k=max(0, int(_or(top_k, 0))),
        seed=f"id:{request.custom_id}" if seed is None else f"seed:{int(seed)}",
        stop=stop_texts(body),
        ignore_eos=_flag(body, "ignore_eos"),
        logprobs=_chat_logprobs(body)
        if task == Task.CHAT
        else whole_number(body, "logprobs", at_least=0, at_most=MOST_LOGPROBS),
    )


def invalid(param: str, message: str) -> RecordError:
    """The error of a request whose field `param` must change."""
    return RecordError(ErrorCode.INVALID_REQUEST, f"{param} {message}", f"body.{param}")


def whole_number(body: JsonObject, name: str, *, at_least: int, at_most: int | None = None) -> int | None:
    """The whole number of that name; None when it is absent. Raises `RecordError` (invalid_request)."""
    found = number(body, name, at_least=at_least, at_most=at_most, whole=True)
    return None if found is None else int(found)


def _refuse_unsupported(body: JsonObject) -> None:
    for name in body.keys() & _ONLY.keys():
        given, only = body[name], _ONLY[name]
        if given is not None and (given != only or isinstance(given, bool) != isinstance(only, bool)):
            shown = orjson.dumps(only).decode()
            raise invalid(name, f"must be {shown} or absent: the engine transformers can do nothing else")


def wanted_tokens(body: JsonObject) -> int | None:
    """How many tokens an answer may have, if that is said. Raises `RecordError`."""
    for name in ("max_completion_tokens", "max_tokens"):
        found = number(body, name, at_least=1, whole=True)
        if found is not None:
            return int(found)
    return None


def stop_texts(body: JsonObject) -> tuple[str, ...]:
    """The texts that end an answer. Raises `RecordError`."""
    given = body.get("stop")
    if given is None:
        return ()
    texts = [given] if isinstance(given, str) else given
    if not isinstance(texts, list) or not all(isinstance(text, str) and text for text in texts):
        raise invalid("stop", "must be a text or a list of texts, none of them empty")
    return tuple(texts)


def _chat_logprobs(body: JsonObject) -> int | None:
    count = whole_number(body, "top_logprobs", at_least=0, at_most=MOST_LOGPROBS)
    if _flag(body, "logprobs"):
        return count or 0
    if count:
        raise invalid("top_logprobs", "must come with logprobs: true")
    return None


def _flag(body: JsonObject, name: str) -> bool:
    given = body.get(name)
    if not isinstance(given, bool | None):
        raise invalid(name, "must be true or false")
    return bool(given)


def number(
    body: JsonObject,
    name: str,
    *,
    at_least: float | None = None,
    above: float | None = None,
    at_most: float | None = None,
    whole: bool = False,
) -> float | None:
    """The number of that name; None when it is absent. Raises `RecordError` when it is none or out of bounds."""
    value = body.get(name)
    if value is None:
        return None
    fits = (
        isinstance(value, int if whole else int | float)
        and not isinstance(value, bool)
        and (at_least is None or value >= at_least)
        and (above is None or value > above)
        and (at_most is None or value <= at_most)
    )
    if not fits:
        bounds = [("of at least", at_least), ("above", above), ("at most", at_most)]
        said = " and ".join(f"{words} {bound:g}" for words, bound in bounds if bound is not None)
        kind = "a whole number" if whole else "a number"
        raise invalid(name, f"must be {kind} {said}".strip())
    return value  # type: ignore[no-any-return]  # checked above


def _or(value: float | None, default: float) -> float:
    return default if value is None else value
