"""Log-probabilities of generated tokens, where a request asks for them, in the forms of OpenAI's endpoints.

They are the model's own, of its logits as they are: neither temperature nor the cutting of unlikely tokens changes them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from headrace.api.base import JsonObject
from headrace_worker.engines.transformers.parameters import Sampling

_DECIMALS = 4
"""More differ with the size of a batch, and a rerun gives the same bytes."""
_REPLACEMENT = "\ufffd"


class Scored(NamedTuple):
    """A token with its log-probability."""

    token: int
    logprob: float


class TokenLogprobs(NamedTuple):
    """One place of an answer."""

    chosen: Scored
    likeliest: list[Scored]


class Wanted(Protocol):
    """A sequence that may want them."""

    @property
    def sampling(self) -> Sampling:
        """Says how many."""

    @property
    def logprobs(self) -> list[TokenLogprobs]:
        """Those of the tokens so far."""


@torch.inference_mode()
def note(logits: Tensor, tokens: Sequence[int | None], sequences: Sequence[Wanted]) -> None:
    """Add what is known about the next token of each sequence that wants it, and has one; logits of shape [sequences, vocabulary]."""
    came = {row: token for row, token in enumerate(tokens) if token is not None}
    rows = [row for row in came if sequences[row].sampling.logprobs is not None]
    if not rows:
        return
    whole = logits[rows].float().log_softmax(-1)
    chosen = whole.gather(-1, torch.tensor([[came[row]] for row in rows], device=whole.device)).tolist()
    most = max(sequences[row].sampling.logprobs or 0 for row in rows)
    likeliest = whole.topk(min(most, whole.shape[-1]))
    for row, own, values, places in zip(
        rows, chosen, likeliest.values.tolist(), likeliest.indices.tolist(), strict=True
    ):
        count = sequences[row].sampling.logprobs
        first = [Scored(*pair) for pair in zip(places[:count], values[:count], strict=True)]
        sequences[row].logprobs.append(TokenLogprobs(Scored(came[row], own[0]), first))


def of_chat(places: Sequence[TokenLogprobs], texts: Callable[[int, int], str]) -> JsonObject:
    """`logprobs` of a chat's choice; `texts` says how a token reads at a place of the answer."""

    def entry(place: int, scored: Scored) -> dict[str, Any]:
        text = texts(place, scored.token)
        known = None if _REPLACEMENT in text else list(text.encode())  # a part of a character has no text of its own
        return {"token": text, "logprob": round(scored.logprob, _DECIMALS), "bytes": known}

    content = [
        {**entry(i, one.chosen), "top_logprobs": [entry(i, other) for other in one.likeliest]}
        for i, one in enumerate(places)
    ]
    return {"content": content, "refusal": None}


def of_completion(places: Sequence[TokenLogprobs], texts: Callable[[int, int], str]) -> JsonObject:
    """`logprobs` of a completion's choice; offsets count the characters of its text."""
    tokens = [texts(i, one.chosen.token) for i, one in enumerate(places)]
    offsets = [0]
    for token in tokens[:-1]:
        offsets.append(offsets[-1] + len(token))
    return {
        "tokens": tokens,
        "token_logprobs": [round(one.chosen.logprob, _DECIMALS) for one in places],
        "top_logprobs": [
            {texts(i, other.token): round(other.logprob, _DECIMALS) for other in reversed(one.likeliest)} for i, one in enumerate(places)
        ],
        "text_offset": offsets[: len(tokens)],
    }  # fmt: skip
