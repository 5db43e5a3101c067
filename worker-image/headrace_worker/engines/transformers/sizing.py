"""How many sequences run at once (`max_num_seqs`), and how many tokens a step has (`max_num_batched_tokens`), where the spec does not say.

Pure: from a model's configuration and the bytes that are free once its weights are loaded. The KV cache takes no memory ahead of time and
sequences are put back when it is full, so these are numbers to start with, not promises: too many cost work that is done again.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

TYPICAL_TOKENS = 1024
"""So long is a sequence taken to be, prompt and answer, unless the context is shorter."""
CACHE_SHARE = {"cpu": 0.5, "cuda": 0.8}
"""Part of the free memory that keys and values may take; the rest is for activations, and on a CPU for neighbours."""
MOST_SEQUENCES = {"cpu": 64, "cuda": 256}
"""More are hardly faster: by then the products of matrices are wide enough."""
STEP_TOKENS = {"cpu": 512, "cuda": 16384}
"""The most tokens of one forward pass: enough to keep the device busy, and a step of a small model stays below a second."""
LEAST_STEP_TOKENS = 16
"""The fewest, however little memory there is."""
_DRAWING_BYTES = 28
"""For each word of the vocabulary: the logits of a sequence, and their probabilities as they are drawn from."""
_UPCAST_BYTES = 8
"""For each number of a hidden state: norms are computed in float32."""


@dataclass(frozen=True, slots=True)
class StepLimits:
    """How much one forward pass may do."""

    max_sequences: int
    max_tokens: int
    """New tokens."""

    def halved(self, running: int) -> StepLimits:
        """Limits for when `running` sequences were too many."""
        return StepLimits(max(1, running // 2), max(1, self.max_tokens // 2))

    def doubled(self, most: StepLimits) -> StepLimits:
        """Limits on the way back."""
        return StepLimits(min(most.max_sequences, self.max_sequences * 2), min(most.max_tokens, self.max_tokens * 2))


@dataclass(frozen=True, slots=True)
class Footprint:
    """What a model takes besides its weights, in bytes."""

    cached_token: int
    """Keys and values of one token in all layers; 0 for a model that generates nothing."""
    step_token: int
    """What a forward pass holds for one token."""
    sequence: int
    """What drawing the next token of one sequence takes."""
    context: int
    """Longest sequence in tokens."""

    @classmethod
    def of(cls, config: Any, number_bytes: int, context: int, *, generates: bool) -> Self:
        """Of a model with this configuration, as transformers reads it, in numbers of so many bytes."""
        hidden, heads = int(config.hidden_size), int(config.num_attention_heads)
        key, value = _head_sizes(config, hidden // heads)
        key_heads = _key_heads(config, heads)
        cached = key_heads * (key + value)
        step = 4 * hidden + heads * (key + value) + cached + 3 * _intermediate(config, hidden)
        return cls(
            cached_token=int(config.num_hidden_layers) * cached * number_bytes if generates else 0,
            step_token=step * number_bytes + hidden * _UPCAST_BYTES,
            sequence=int(config.vocab_size) * _DRAWING_BYTES if generates else 0,
            context=context,
        )


def step_limits(
    takes: Footprint, free: int, device: str, max_sequences: int | None = None, max_tokens: int | None = None
) -> StepLimits:
    """Limits for so many free bytes on a kind of device; what is given stands, but for the most that a step may have."""
    cache = int(free * CACHE_SHARE[device])
    rest = free - cache
    length = min(TYPICAL_TOKENS, takes.context)
    most = MOST_SEQUENCES[device]
    if takes.cached_token:
        most = min(most, cache // (takes.cached_token * length), rest // 2 // takes.sequence)
    sequences = max_sequences or max(1, most)
    if max_tokens is not None:
        return StepLimits(sequences, min(max_tokens, STEP_TOKENS[device]))
    tokens = (rest - min(rest // 2, sequences * takes.sequence)) // takes.step_token
    return StepLimits(sequences, min(STEP_TOKENS[device], max(LEAST_STEP_TOKENS, tokens)))


def _key_heads(config: Any, heads: int) -> int:
    """Heads of keys and values: as many as of queries, or fewer that they share."""
    if getattr(config, "multi_query", False) and not getattr(config, "new_decoder_architecture", False):
        return 1
    return int(getattr(config, "num_key_value_heads", None) or getattr(config, "num_kv_heads", None) or heads)


def _head_sizes(config: Any, usual: int) -> tuple[int, int]:
    """Numbers of a key and of a value, for each head."""
    plain, rotated = getattr(config, "qk_nope_head_dim", None), getattr(config, "qk_rope_head_dim", None)
    if plain is not None and rotated is not None:  # keys of two parts, which are put together before they are cached
        return int(plain) + int(rotated), int(config.v_head_dim)
    size = int(getattr(config, "head_dim", None) or usual)
    return size, size


def _intermediate(config: Any, hidden: int) -> int:
    """Numbers between the two halves of an MLP, or of as many experts as look at one token."""
    wide = int(getattr(config, "intermediate_size", None) or getattr(config, "n_inner", None) or 4 * hidden)
    experts = int(getattr(config, "num_experts_per_tok", None) or 1)
    return max(wide, experts * int(getattr(config, "moe_intermediate_size", None) or wide))
