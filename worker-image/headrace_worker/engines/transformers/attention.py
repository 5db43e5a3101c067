"""Attention for one packed row of tokens that belongs to many sequences.

transformers lets a model's attention be replaced by name. Everything else in a decoder treats each token alone, so the tokens of all
sequences can lie in one row with no padding, and only here do they fall apart again: each looks at its own sequence and no other.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cached_property
from itertools import accumulate, pairwise
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention.varlen import varlen_attn
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface

from headrace_worker.engines.transformers import native
from headrace_worker.engines.transformers.kv_cache import KVCache, LayerCache

NAME = "headrace_packed"
_UNSUPPORTED = ("softcap", "s_aux", "sinks", "position_bias")
"""Arguments of other models' attention that would change the result."""
_COLUMN_STEP = 16
"""Decode attention covers the longest sequence rounded up to this."""


class Step:
    """How one packed row is cut: one token of each decoding sequence, then prompts; sequence i has row i of the cache."""

    def __init__(
        self, cache: KVCache, decoding: Sequence[int], prompts: Sequence[tuple[int, int]], device: torch.device
    ) -> None:
        """`decoding` are lengths including the new token, `prompts` are lengths and how much of them is in the cache already."""
        self.cache = cache
        self.decoding = len(decoding)
        self.lengths = [*decoding, *(length for length, _ in prompts)]
        self.starts = list(
            accumulate([*([1] * len(decoding)), *(length - known for length, known in prompts)], initial=0)
        )
        self.device = device

    @cached_property
    def prompts(self) -> list[tuple[int, int, int, int]]:
        """Of each prompt: cache row, first token and end in the packed row, and how much of it has been cached before."""
        cuts = enumerate(pairwise(self.starts))
        return [(i, start, end, self.lengths[i] - (end - start)) for i, (start, end) in cuts if i >= self.decoding]

    @cached_property
    def last_tokens(self) -> Tensor:
        """Where the last token of each sequence is in the packed row."""
        return torch.tensor(self.starts[1:], device=self.device) - 1

    @cached_property
    def rows(self) -> Tensor:
        """Cache rows of the decoding sequences."""
        return torch.arange(self.decoding, device=self.device)

    @cached_property
    def slots(self) -> Tensor:
        """Where in its row each decoding sequence puts its new token."""
        return torch.tensor(self.lengths[: self.decoding], device=self.device) - 1

    @cached_property
    def columns(self) -> int:
        """Columns of the cache that the decoding sequences look at."""
        longest = max(self.lengths[: self.decoding])
        return min(self.cache.length, -(-longest // _COLUMN_STEP) * _COLUMN_STEP)

    def bias(self, window: int | None, dtype: torch.dtype) -> Tensor:
        """0 where a decoding sequence may look and -inf elsewhere, of shape [decoding, 1, 1, columns]."""
        known = self._biases.get(window)
        if known is None:
            column, slot = torch.arange(self.columns, device=self.device), self.slots[:, None]
            hidden = column > slot
            if window is not None:
                hidden |= column <= slot - window
            zeros = torch.zeros(hidden.shape, dtype=dtype, device=self.device)
            known = self._biases[window] = zeros.masked_fill_(hidden, -math.inf)[:, None, None]
        return known

    @cached_property
    def _biases(self) -> dict[int | None, Tensor]:
        return {}

    @cached_property
    def query_starts(self) -> Tensor:
        """`starts` as kernels want them."""
        return torch.tensor(self.starts, dtype=torch.int32, device=self.device)

    @cached_property
    def key_starts(self) -> Tensor:
        """First column of each row in the flattened cache."""
        rows = torch.arange(len(self.lengths) + 1, dtype=torch.int32, device=self.device)
        return rows * self.cache.length

    @cached_property
    def key_lengths(self) -> Tensor:
        """`lengths` as kernels want them."""
        return torch.tensor(self.lengths, dtype=torch.int32, device=self.device)


def packed_attention(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    _mask: Tensor | None,
    **options: Any,
) -> tuple[Tensor, None]:
    """What transformers calls in every layer: [1, heads, tokens, head size] to [1, tokens, heads, head size]."""
    step = _step(options)
    scaling = options.get("scaling") or query.shape[-1] ** -0.5
    window: int | None = options.get("sliding_window")
    layer = step.cache.layer(int(module.layer_idx), key, value)  # type: ignore[arg-type]
    if layer.blocked:
        return _by_own_kernel(step, layer, (query, key, value), scaling, window), None
    _store(step, layer, key, value)
    if varlen_can(query, value):
        return _ragged(step, layer, query, scaling, window)[None], None
    attended = query.new_empty(query.shape[2], query.shape[1], value.shape[3])
    if step.decoding:
        attended[: step.decoding] = _decode(step, layer, query[0, :, : step.decoding], scaling, window)
    for row, start, end, known in step.prompts:
        keys, values = key[:, :, start:end], value[:, :, start:end]
        if known:
            keys, values = (kept[row : row + 1, :, : step.lengths[row]] for kept in (layer.keys, layer.values))
        attended[start:end] = _prompt(query[:, :, start:end], keys, values, scaling, window)
    return attended[None], None


AttentionInterface.register(NAME, packed_attention)


def _step(options: dict[str, Any]) -> Step:
    """The step that the model has passed on. Raises `ValueError` for a model that passes nothing on, or wants more than is done here."""
    for name in _UNSUPPORTED:
        if options.get(name) is not None:
            raise ValueError(f"its attention uses {name}")
    step = options.get("packed_step")
    if not isinstance(step, Step):
        raise ValueError("it passes no arguments on to its attention")
    return step


def varlen_can(query: Tensor, value: Tensor) -> bool:
    """Whether torch's kernel for sequences of different lengths takes these: a GPU since Ampere, half precision, usual head sizes."""
    return (
        query.is_cuda
        and query.dtype in (torch.float16, torch.bfloat16)
        and query.shape[-1] == value.shape[-1] <= 256
        and query.shape[-1] % 8 == 0
        and torch.cuda.get_device_capability(query.device) >= (8, 0)
    )


def native_arguments(step: Step, scaling: float, window: int | None = None) -> native.Attention:
    """What our own kernel is told about a step, the same in every layer."""
    return native.Attention(
        starts=step.query_starts.data_ptr(),
        lengths=step.key_lengths.data_ptr(),
        sequences=len(step.lengths),
        length=step.cache.length,
        window=window or 0,
        scaling=scaling,
    )


def _by_own_kernel(
    step: Step, layer: LayerCache, tensors: tuple[Tensor, Tensor, Tensor], scaling: float, window: int | None
) -> Tensor:
    """Store and attend in one go, all sequences alike."""
    assert native.LIBRARY is not None
    arguments = native_arguments(step, scaling, window)
    query, key, value = (given if given.stride(-1) == 1 else given.contiguous() for given in tensors)
    for name, tensor in (("query", query), ("key", key), ("value", value)):
        setattr(arguments, name, tensor.data_ptr())
        setattr(arguments, f"{name}_head", tensor.stride(1))
        setattr(arguments, f"{name}_token", tensor.stride(2))
    out = query.new_empty(1, query.shape[2], query.shape[1], query.shape[3])
    arguments.out_token = out.stride(1)
    arguments.heads, arguments.key_heads, arguments.size = query.shape[1], key.shape[1], query.shape[3]
    arguments.out, arguments.keys, arguments.values = out.data_ptr(), layer.keys.data_ptr(), layer.values.data_ptr()
    native.LIBRARY.attention(arguments, query.dtype)
    return out


def _store(step: Step, layer: LayerCache, key: Tensor, value: Tensor) -> None:
    """Put the new keys and values where they belong in the cache."""
    if step.decoding:
        layer.keys[step.rows, :, step.slots] = key[0, :, : step.decoding].transpose(0, 1)
        layer.values[step.rows, :, step.slots] = value[0, :, : step.decoding].transpose(0, 1)
    for row, start, end, known in step.prompts:
        columns = slice(known, known + end - start)
        layer.keys[row, :, columns] = key[0, :, start:end]
        layer.values[row, :, columns] = value[0, :, start:end]


def _decode(step: Step, layer: LayerCache, query: Tensor, scaling: float, window: int | None) -> Tensor:
    """[heads, sequences, size] to [sequences, heads, size].

    Two batched products beat torch's own CPU kernel at one query a sequence. The query heads that share a key head are the rows of
    its product, so keys and values are never repeated.
    """
    heads, sequences, size = query.shape
    keys = layer.keys[:sequences, :, : step.columns]
    values = layer.values[:sequences, :, : step.columns]
    grouped = query.transpose(0, 1).reshape(sequences, keys.shape[1], heads // keys.shape[1], size)
    scores = torch.matmul(grouped * scaling, keys.transpose(-1, -2))
    scores += step.bias(window, scores.dtype)
    weights = scores.softmax(-1, dtype=torch.float32).to(values.dtype)
    return torch.matmul(weights, values).reshape(sequences, heads, -1)


def _prompt(query: Tensor, key: Tensor, value: Tensor, scaling: float, window: int | None) -> Tensor:
    """Causal attention of the last tokens of one prompt to all of it: [1, heads, tokens, size] to [tokens, heads, size]."""
    tokens, length = query.shape[2], key.shape[2]
    band = None
    if tokens < length or (window is not None and tokens > window):
        distance = torch.arange(length - tokens, length, device=query.device)[:, None] - torch.arange(
            length, device=query.device
        )
        band = (distance >= 0) & (distance < (window or length))
    attended = scaled_dot_product_attention(
        query, key, value, attn_mask=band, is_causal=band is None, scale=scaling, enable_gqa=True
    )
    return attended[0].transpose(0, 1)


def _ragged(step: Step, layer: LayerCache, query: Tensor, scaling: float, window: int | None) -> Tensor:
    """All sequences in one kernel, prompts and decoding ones alike: each query sees its row of the cache up to its own place."""
    rows = len(step.lengths)
    attended = varlen_attn(
        query[0].transpose(0, 1),
        layer.keys[:rows].transpose(1, 2).flatten(0, 1),
        layer.values[:rows].transpose(1, 2).flatten(0, 1),
        step.query_starts,
        step.key_starts,
        max(end - start for start, end in pairwise(step.starts)),
        max(step.lengths),
        scale=scaling,
        window_size=(-1 if window is None else window - 1, 0),
        enable_gqa=True,
        seqused_k=step.key_lengths,
    )
    assert isinstance(attended, Tensor)
    return attended
