"""The forward pass of Llama and its like, written out for a CPU: the same arithmetic as transformers' modules, in far fewer calls.

A layer is four matrix products and four calls of our own kernels: queries, keys and values come from one product, gate and up of the MLP
from another, and a residual is added where it is normalised. Of the last layer only what logits are asked for is computed to the end.

`PackedDecoder` compares it with the model's own results before it is used, as it does with every model.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from headrace_worker.engines.transformers import native
from headrace_worker.engines.transformers.attention import Step, native_arguments
from headrace_worker.engines.transformers.joined import Layer, joined_layers
from headrace_worker.engines.transformers.sampling import likeliest

_ROW_STEP = 16
"""Rows of matrix products are a multiple of this, as they are inside of the processor's own; fewer are left as they are."""


class FusedDecoder:
    """A model whose projections have been joined; runs packed steps."""

    def __init__(self, model: Any) -> None:
        """`model` has been through `join_projections`, which could join them, and `pack_linear_layers`."""
        config, base = model.config, model.model
        self._heads, self._key_heads = config.num_attention_heads, config.num_key_value_heads
        self._size = base.layers[0].self_attn.head_dim
        self._scaling = base.layers[0].self_attn.scaling
        self._epsilon = base.norm.variance_epsilon
        self._embedding, self._norm, self._head = base.embed_tokens.weight, base.norm.weight, model.lm_head
        self._rotary = base.rotary_emb
        self._cosines = self._sines = torch.empty(0, self._size // 2)
        self._layers = joined_layers(model)

    def forward(self, tokens: Sequence[int], step: Step) -> Tensor:
        """The logits after the last token of each sequence, of shape [sequences, vocabulary]."""
        kernels = native.LIBRARY
        assert kernels is not None
        residual = nn.functional.embedding(torch.tensor(_padded(tokens)), self._embedding)
        arguments, delta = self._arguments(step), None
        for layer in self._layers:
            normed = kernels.add_rms_norm(residual, delta, layer.before_attention, self._epsilon)
            attended = self._attend(step, layer, arguments, layer.qkv(normed))
            if layer.index == len(self._layers) - 1 and len(step.lengths) < len(tokens):
                last = torch.tensor(_padded([end - 1 for end in step.starts[1:]]))
                attended, residual = attended[last], residual[last]
            normed = kernels.add_rms_norm(residual, layer.out(attended), layer.before_mlp, self._epsilon)
            delta = layer.down(kernels.silu_multiply(layer.gate_up(normed)))
        logits: Tensor = self._head(kernels.add_rms_norm(residual, delta, self._norm, self._epsilon))
        return logits[: len(step.lengths)]

    def likeliest(self, tokens: Sequence[int], step: Step) -> Tensor:
        """The likeliest token after each sequence; -1 where the logits are no numbers."""
        return likeliest(self.forward(tokens, step))

    def _arguments(self, step: Step) -> native.Attention:
        """What the attention of this step is told, as far as it is the same in every layer."""
        if len(self._cosines) < step.cache.length:
            positions = torch.arange(step.cache.length)[None]
            angles = self._rotary(torch.empty(0), positions)
            self._cosines, self._sines = (table[0, :, : self._size // 2].contiguous() for table in angles)
        arguments = native_arguments(step, self._scaling)
        arguments.cosines, arguments.sines = self._cosines.data_ptr(), self._sines.data_ptr()
        arguments.heads, arguments.key_heads, arguments.size = self._heads, self._key_heads, self._size
        arguments.query_head = arguments.key_head = arguments.value_head = self._size
        width = (self._heads + 2 * self._key_heads) * self._size
        arguments.query_token = arguments.key_token = arguments.value_token = width
        return arguments

    def _reads(self, arguments: native.Attention, qkv: Tensor) -> None:
        """Say where queries, keys and values are, that lie side by side."""
        begin, bytes_per_head = qkv.data_ptr(), self._size * qkv.element_size()
        arguments.query = begin
        arguments.key = begin + self._heads * bytes_per_head
        arguments.value = begin + (self._heads + self._key_heads) * bytes_per_head

    def _attend(self, step: Step, layer: Layer, arguments: native.Attention, qkv: Tensor) -> Tensor:
        """From queries, keys and values side by side to what the heads have found, [tokens, heads * size]."""
        assert native.LIBRARY is not None
        held = step.cache.layer_like(layer.index, qkv, self._key_heads, self._size)
        out = qkv.new_zeros(qkv.shape[0], self._heads * self._size)  # rows of padding are nobody's and stay so
        self._reads(arguments, qkv)
        arguments.out_token = self._heads * self._size
        arguments.out, arguments.keys, arguments.values = out.data_ptr(), held.keys.data_ptr(), held.values.data_ptr()
        arguments.window = layer.window or 0
        native.LIBRARY.attention(arguments, qkv.dtype)
        return out


def _padded(rows: Sequence[int]) -> list[int]:
    """Zeros at the end: oneDNN prepares a kernel for each number of rows, which takes longer than a few rows too many."""
    exact = len(rows) <= _ROW_STEP
    return [*rows, *([0] * (0 if exact else -len(rows) % _ROW_STEP))]
