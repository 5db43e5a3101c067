"""From what vLLM says of a finished request to a response in the form of OpenAI's endpoints."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from headrace.api.base import JsonObject
from headrace.api.model import Task
from headrace.api.records import ErrorCode, RecordError
from headrace_worker.engines.base import Outcome, Work
from headrace_worker.engines.transformers.responses import Responses

_LEAST = -9999.0
"""The log-probability of what cannot be; JSON has no infinity."""
_WHOLE = ("stop", "length")
"""Reasons with which an answer is one."""


def generated(work: Work, output: Any, task: Task, responses: Responses) -> Outcome:
    """The outcome of a record that was answered by generating."""
    read, written = len(output.prompt_token_ids), sum(len(one.token_ids) for one in output.outputs)
    broken = next((one.finish_reason for one in output.outputs if one.finish_reason not in _WHOLE), None)
    if broken is not None:
        message = f"vLLM has ended this answer before its end ({broken})"
        return Outcome(work, error=RecordError(ErrorCode.ENGINE_ERROR, message), retriable=True, prompt_tokens=read)
    body = responses.generated(work.request.custom_id, "", "stop", (read, written))
    likeliest: int | None = work.prepared.parameters.get("logprobs")
    body["choices"] = [_choice(one, task, likeliest) for one in output.outputs]
    return Outcome(work, body, prompt_tokens=read, completion_tokens=written)


def embedded(work: Work, outputs: Sequence[Any], responses: Responses, *, as_base64: bool) -> Outcome:
    """The outcome of a record whose inputs were embedded, in their order."""
    read = sum(len(output.prompt_token_ids) for output in outputs)
    vectors = [output.outputs.data.float() for output in outputs]
    return Outcome(work, responses.embeddings(vectors, read, as_base64=as_base64), prompt_tokens=read)


def _choice(one: Any, task: Task, likeliest: int | None) -> JsonObject:
    """One answer; `likeliest`: of how many tokens at each place the log-probability is wanted."""
    said = likeliest is not None
    if task == Task.CHAT:
        message = {"role": "assistant", "content": one.text, "refusal": None}
        content: JsonObject = {"message": message, "logprobs": _of_chat(one, likeliest or 0) if said else None}
    else:
        content = {"text": one.text, "logprobs": _of_completion(one) if said else None}
    return {"index": one.index, **content, "finish_reason": one.finish_reason}


def _of_chat(one: Any, likeliest: int) -> JsonObject:
    return {"content": [_place(here[token], here, likeliest) for token, here in _places(one)]}


def _places(one: Any) -> list[tuple[int, dict[int, Any]]]:
    """Each token of an answer with what is known of its place: itself, and the likeliest ones."""
    return list(zip(one.token_ids, one.logprobs, strict=True))


def _place(chosen: Any, here: dict[int, Any], likeliest: int) -> JsonObject:
    ranked = sorted(here.values(), key=lambda it: it.rank or 0)
    return {**_token(chosen), "top_logprobs": [_token(it) for it in ranked[:likeliest]]}


def _token(it: Any) -> JsonObject:
    text = it.decoded_token or ""
    return {"token": text, "logprob": _value(it), "bytes": list(text.encode("utf-8", errors="replace"))}


def _of_completion(one: Any) -> JsonObject:
    places = _places(one)
    texts = [here[token].decoded_token or "" for token, here in places]
    offsets = [0]
    for text in texts:
        offsets.append(offsets[-1] + len(text))
    return {
        "text_offset": offsets[:-1],
        "tokens": texts,
        "token_logprobs": [_value(here[token]) for token, here in places],
        "top_logprobs": [{it.decoded_token or "": _value(it) for it in here.values()} for _, here in places],
    }


def _value(it: Any) -> float:
    return max(float(it.logprob), _LEAST)
