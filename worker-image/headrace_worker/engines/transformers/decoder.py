"""One forward pass over many sequences: the new tokens of all of them in one row, through any causal model of transformers."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from headrace_worker.engines.transformers.attention import NAME, Step
from headrace_worker.engines.transformers.fused import FusedDecoder
from headrace_worker.engines.transformers.kv_cache import KVCache
from headrace_worker.engines.transformers.prefixes import Shared
from headrace_worker.engines.transformers.sampling import likeliest
from headrace_worker.errors import JobFailed

_TOLERANCE = {torch.float32: 1e-3, torch.bfloat16: 0.15, torch.float16: 0.05}
"""Largest relative difference of two right ways to compute the same logits; a wrong one differs by tenths."""
_UNFIT = (RuntimeError, TypeError, ValueError, LookupError, AttributeError)
"""What a model raises that cannot be run in this way."""


class PackedDecoder:
    """A causal language model that works on packed sequences."""

    def __init__(self, model: Any, cache: KVCache, fused: FusedDecoder | None = None) -> None:
        """`fused` is the same model written out, where it is one that can be.

        Raises `JobFailed` (ModelNotSupported) for a model that gives other results when its sequences are packed.
        """
        self._model = model
        self.cache = cache
        self._device = next(model.parameters()).device
        self._fused: FusedDecoder | None = None
        if "logits_to_keep" not in inspect.signature(model.forward).parameters:
            raise _not_supported(model, "it cannot give the logits of chosen tokens only")
        try:
            expected = self._expected()
            if fused is not None and self._error(expected, fused) <= _TOLERANCE[model.dtype]:
                return
            error = self._error(expected, None)
        except _UNFIT as unfit:
            raise _not_supported(model, str(unfit)) from unfit
        if not error <= _TOLERANCE[model.dtype]:
            raise _not_supported(model, f"packed sequences give other results (relative difference {error:.2g})")

    @torch.inference_mode()
    def forward(
        self,
        decoding: Sequence[Sequence[int]],
        prompts: Sequence[Sequence[int]],
        shared: Sequence[Shared] = (),
    ) -> Tensor:
        """The logits after the last token of each sequence, of shape [sequences, vocabulary].

        All sequences are given whole. Of `decoding`, whose rows of the cache come first, all but the last token is cached. The beginning
        of each of the `prompts` may be `shared` with one of `decoding`, or be in its own row already; it is not computed again.
        """
        tokens, positions, step = self.pack(decoding, prompts, shared)
        if self._fused is not None:
            return self._fused.forward(tokens, step)
        logits: Tensor = self._model(
            input_ids=torch.tensor([tokens], device=self._device),
            position_ids=torch.tensor([positions], device=self._device),
            use_cache=False,
            logits_to_keep=step.last_tokens,
            packed_step=step,
        ).logits[0]
        return logits

    @torch.inference_mode()
    def likeliest(
        self,
        decoding: Sequence[Sequence[int]],
        prompts: Sequence[Sequence[int]],
        shared: Sequence[Shared] = (),
    ) -> Tensor:
        """As `forward`, of the logits only where the greatest is: the likeliest tokens; -1 where the logits are no numbers."""
        if self._fused is None:
            return likeliest(self.forward(decoding, prompts, shared))
        tokens, _, step = self.pack(decoding, prompts, shared)
        return self._fused.likeliest(tokens, step)

    def pack(
        self, decoding: Sequence[Sequence[int]], prompts: Sequence[Sequence[int]], shared: Sequence[Shared]
    ) -> tuple[list[int], list[int], Step]:
        """The new tokens in one row, their positions, and how the row is cut; room has been made for them."""
        whole = [*decoding, *prompts]
        self.cache.reserve(len(whole), max(map(len, whole)))
        known = [prefix.length for prefix in shared] or [0] * len(prompts)
        for row, prefix in enumerate(shared, start=len(decoding)):
            if prefix.length and prefix.row != row:
                self.cache.share(prefix.row, row, prefix.length)
        lengths = list(zip(map(len, prompts), known, strict=True))
        step = Step(self.cache, [len(ids) for ids in decoding], lengths, self._device)
        tokens = [ids[-1] for ids in decoding]
        positions = [len(ids) - 1 for ids in decoding]
        for ids, begin in zip(prompts, known, strict=True):
            tokens += ids[begin:]
            positions += range(begin, len(ids))
        return tokens, positions, step

    @torch.inference_mode()
    def _expected(self) -> Tensor:
        """What the model by itself says after the two samples; sets the model's attention."""
        alone = [
            self._model(input_ids=torch.tensor([ids], device=self._device), use_cache=False) for ids in self._samples()
        ]
        self._model.set_attn_implementation(NAME)
        return torch.stack([output.logits[0, -1] for output in alone]).float()

    @torch.inference_mode()
    def _error(self, expected: Tensor, fused: FusedDecoder | None) -> float:
        """How far a packed step, half of it from the cache, is from what the model says by itself.

        It finds whatever ties the tokens of a row together outside of attention (recurrent layers, convolutions), other positions, and
        other attention: better refused here than wrong results by the million.
        """
        self._fused = fused
        first, second = self._samples()
        self.forward([], [first[:-1]])
        found = self.forward([first], [second]).float()
        self.cache.release()
        return float((found - expected).norm() / (expected - expected.mean()).norm())

    def _samples(self) -> tuple[list[int], list[int]]:
        ids = [997 * (i + 1) % self._model.config.get_text_config().vocab_size for i in range(12)]
        return ids[:7], ids[7:]


def _not_supported(model: Any, why: str) -> JobFailed:
    return JobFailed(
        "ModelNotSupported",
        f"the engine transformers cannot batch a {type(model).__name__}: {why.splitlines()[0] if why else 'it fails'}. "
        "Use another model, or the engine vllm",
    )
