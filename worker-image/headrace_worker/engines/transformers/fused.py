"""The forward pass of Llama and its like, written out for a CPU: the same arithmetic as transformers' modules, in far fewer calls.

A layer is four matrix products and four calls of our own kernels: queries, keys and values come from one product, gate and up of the MLP
from another, and a residual is added where it is normalised. Of the last layer only what logits are asked for is computed to the end.

`PackedDecoder` compares it with the model's own results before it is used, as it does with every model.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import torch
from torch import Tensor, nn

from headrace_worker.engines.transformers import native
from headrace_worker.engines.transformers.attention import Step, native_arguments
from headrace_worker.engines.transformers.packed import PackedLinear, PackedPart, can_pack

MODEL_TYPES = frozenset({"llama", "mistral", "qwen2"})
_FIXED_ROTATIONS = frozenset({"default", "linear", "llama3", "yarn"})
"""Kinds of rotary positions whose angle depends on the position alone, not on how long a sequence is."""
_ROW_STEP = 16
"""Rows of matrix products are a multiple of this, as they are inside of the processor's own; fewer are left as they are."""


@dataclass(frozen=True, slots=True)
class _Layer:
    """What one layer consists of."""

    index: int
    before_attention: Tensor
    qkv: PackedLinear
    out: PackedLinear
    before_mlp: Tensor
    gate_up: PackedLinear
    down: PackedLinear
    window: int | None


class FusedDecoder:
    """A model whose projections have been joined; runs packed steps."""

    def __init__(self, model: Any) -> None:
        """`model` has been through `join_projections` and `pack_linear_layers`."""
        config, base = model.config, model.model
        self._heads, self._key_heads = config.num_attention_heads, config.num_key_value_heads
        self._size = base.layers[0].self_attn.head_dim
        self._scaling = base.layers[0].self_attn.scaling
        self._epsilon = base.norm.variance_epsilon
        self._embedding, self._norm, self._head = base.embed_tokens.weight, base.norm.weight, model.lm_head
        self._rotary = base.rotary_emb
        self._cosines = self._sines = torch.empty(0, self._size // 2)
        self._layers = [_layer(index, layer, config) for index, layer in enumerate(base.layers)]

    @classmethod
    def of(cls, model: Any) -> Self | None:
        """The model written out; None for one whose projections could not be joined."""
        joined = any(isinstance(module, PackedPart) for module in model.modules())
        return cls(model) if joined else None

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

    def _attend(self, step: Step, layer: _Layer, arguments: native.Attention, qkv: Tensor) -> Tensor:
        """From queries, keys and values side by side to what the heads have found, [tokens, heads * size]."""
        assert native.LIBRARY is not None
        held = step.cache.layer_like(layer.index, qkv, self._key_heads, self._size)
        out = qkv.new_zeros(qkv.shape[0], self._heads * self._size)  # rows of padding are nobody's and stay so
        begin, bytes_per_head = qkv.data_ptr(), self._size * qkv.element_size()
        arguments.query = begin
        arguments.key = begin + self._heads * bytes_per_head
        arguments.value = begin + (self._heads + self._key_heads) * bytes_per_head
        arguments.out, arguments.keys, arguments.values = out.data_ptr(), held.keys.data_ptr(), held.values.data_ptr()
        arguments.window = layer.window or 0
        native.LIBRARY.attention(arguments, qkv.dtype)
        return out


def _padded(rows: Sequence[int]) -> list[int]:
    """Zeros at the end: oneDNN prepares a kernel for each number of rows, which takes longer than a few rows too many."""
    exact = len(rows) <= _ROW_STEP
    return [*rows, *([0] * (0 if exact else -len(rows) % _ROW_STEP))]


def join_projections(model: Any) -> bool:
    """Make one layer of each layer's projections that read the same, where `FusedDecoder` can run the model; says whether it can.

    The model itself still works: its projections become parts of the joined ones.
    """
    if not _can_join(model):
        return False
    for layer in model.model.layers:
        attention, mlp = layer.self_attn, layer.mlp
        _join(attention, ("q_proj", "k_proj", "v_proj"))
        _join(mlp, ("gate_proj", "up_proj"))
    return True


def _can_join(model: Any) -> bool:
    config = model.config
    if getattr(config, "model_type", None) not in MODEL_TYPES or not hasattr(model, "lm_head"):
        return False
    attention = model.model.layers[0].self_attn
    return (
        can_pack(model.dtype)
        and native.can(model.dtype, attention.head_dim)
        and config.hidden_act in ("silu", "swish")
        and config.hidden_size % native.LANES == config.intermediate_size % native.LANES == 0
        and model.model.rotary_emb.rope_type in _FIXED_ROTATIONS
        and model.model.rotary_emb.inv_freq.numel() * 2 == attention.head_dim
    )


def _join(module: Any, names: tuple[str, ...]) -> None:
    layers = [getattr(module, name) for name in names]
    biases = [layer.bias for layer in layers]
    bias = None if biases[0] is None else torch.cat(biases)
    joined = PackedLinear(torch.cat([layer.weight for layer in layers]), bias)
    start = 0
    for name, layer in zip(names, layers, strict=True):
        setattr(module, name, PackedPart(joined, start, start + layer.out_features))
        start += layer.out_features


def _layer(index: int, layer: Any, config: Any) -> _Layer:
    attention, mlp = layer.self_attn, layer.mlp
    # Mistral has one window for all layers and knows it from the configuration; Llama has none.
    window = config.sliding_window if config.model_type == "mistral" else getattr(attention, "sliding_window", None)
    return _Layer(
        index,
        layer.input_layernorm.weight,
        attention.q_proj.joined,
        attention.o_proj,
        layer.post_attention_layernorm.weight,
        mlp.gate_proj.joined,
        mlp.down_proj,
        window,
    )
