"""Drawing the next token of each sequence.

The random number of a token is a hash of its record's seed and its place in the answer. So neither batch mates nor a restart nor being
put back after running out of memory can change an answer.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor

from headrace_worker.engines.transformers import native
from headrace_worker.engines.transformers.parameters import Sampling

_USUAL_CANDIDATES = 1024
"""So many likeliest tokens nearly always hold the wanted share of the probability; sorting a whole vocabulary takes much longer."""
NOTHING = -1
"""Instead of a token where there are no numbers to choose one by."""


class Draw(Protocol):
    """A sequence that wants its next token."""

    @property
    def sampling(self) -> Sampling:
        """How it is drawn."""

    @property
    def generated(self) -> int:
        """How many tokens have been drawn."""


@torch.inference_mode()
def next_tokens(logits: Tensor, sequences: Sequence[Draw]) -> list[int | None]:
    """The next token of each sequence, from logits of shape [sequences, vocabulary]; None where these are no numbers."""
    chosen = likeliest(logits)
    heated = any(one.sampling.temperature > 0 for one in sequences)
    known = chosen.tolist() if heated else []
    drawn = [i for i, token in enumerate(known) if token != NOTHING and sequences[i].sampling.temperature > 0]
    cut = [i for i in drawn if sequences[i].sampling.top_p < 1 or sequences[i].sampling.top_k]
    whole = sorted(set(drawn) - set(cut))
    for rows, draw in ((whole, _draw_from_all), (cut, _draw_from_likeliest)):
        if rows:
            chosen[rows] = draw(logits[rows], [sequences[i] for i in rows])
    return as_tokens(chosen)


def likeliest(logits: Tensor) -> Tensor:
    """The likeliest token of each row; -1 where the logits are no numbers."""
    own = native.LIBRARY is not None and not logits.is_cuda and native.can(logits.dtype, native.LANES)
    chosen = native.LIBRARY.greatest(logits.contiguous()) if own and native.LIBRARY is not None else logits.argmax(-1)
    # The greatest is NaN where any of them is. A logit of -inf alone is a token that must not come.
    return chosen.where(logits.amax(-1).isfinite(), NOTHING)


def as_tokens(chosen: Tensor) -> list[int | None]:
    """A list, with None instead of -1."""
    return [None if token == NOTHING else token for token in chosen.tolist()]


def uniform(seed: str, place: int) -> float:
    """A number from 0 to 1, 1 excluded, that is the same in every run."""
    digest = hashlib.blake2b(f"{seed}/{place}".encode(), digest_size=8).digest()
    return (int.from_bytes(digest) >> 11) / 2**53


def _draw_from_all(logits: Tensor, sequences: Sequence[Draw]) -> Tensor:
    return _pick(_probabilities(logits, sequences), _luck(logits, sequences))


def _draw_from_likeliest(logits: Tensor, sequences: Sequence[Draw]) -> Tensor:
    probabilities, luck = _probabilities(logits, sequences), _luck(logits, sequences)
    vocabulary = logits.shape[-1]
    top_p = _column([one.sampling.top_p for one in sequences], logits)
    top_k = _column([one.sampling.top_k or vocabulary for one in sequences], logits)
    width = min(_USUAL_CANDIDATES, vocabulary)
    likeliest, tokens = probabilities.topk(width)
    chosen = _nucleus(likeliest, tokens, top_p, top_k, luck)
    missing = (likeliest.sum(-1, keepdim=True) < top_p) | (top_k < vocabulary)
    unsure = (missing & (top_k > width)).flatten().nonzero().flatten()
    if len(unsure):
        likeliest, tokens = probabilities[unsure].sort(descending=True)
        chosen[unsure] = _nucleus(likeliest, tokens, top_p[unsure], top_k[unsure], luck[unsure])
    return chosen


def _nucleus(likeliest: Tensor, tokens: Tensor, top_p: Tensor, top_k: Tensor, luck: Tensor) -> Tensor:
    """Draw from the `top_k` likeliest tokens, and of these from the first that reach `top_p` of their probability."""
    rank = torch.arange(likeliest.shape[-1], device=likeliest.device)
    kept = likeliest.where(rank < top_k, 0)
    # Of all tokens the whole is 1, also where only the likeliest of them have been looked at.
    whole = kept.sum(-1, keepdim=True).where(top_k <= likeliest.shape[-1], 1)
    kept = kept.where(kept.cumsum(-1) - kept < top_p * whole, 0)
    return tokens.gather(-1, _pick(kept, luck)[:, None])[:, 0]


def _probabilities(logits: Tensor, sequences: Sequence[Draw]) -> Tensor:
    heat = _column([one.sampling.temperature for one in sequences], logits)
    return (logits.double() / heat).softmax(-1)


def _luck(logits: Tensor, sequences: Sequence[Draw]) -> Tensor:
    return _column([uniform(one.sampling.seed, one.generated) for one in sequences], logits)


def _pick(weights: Tensor, luck: Tensor) -> Tensor:
    """The place where the running sum of the weights passes `luck` of the whole."""
    sums = weights.cumsum(-1)
    places = torch.searchsorted(sums, luck * sums[:, -1:], right=True)[:, 0]
    return places.clamp(max=weights.shape[-1] - 1)


def _column(numbers: Sequence[float], like: Tensor) -> Tensor:
    return torch.tensor(numbers, dtype=torch.float64, device=like.device)[:, None]
