"""A forward pass as one call of our own kernels, for CPUs on which these have matrix products.

What Python and torch take between two operations is as long as many of the operations; here they are asked once a step. What the vocabulary
says is not even written down where only its likeliest token is wanted.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from headrace_worker.engines.transformers import native
from headrace_worker.engines.transformers.attention import Step
from headrace_worker.engines.transformers.fused import FusedDecoder
from headrace_worker.engines.transformers.joined import Layer, joined_layers
from headrace_worker.engines.transformers.tiled import TiledLinear


class WholeDecoder(FusedDecoder):
    """A model all of whose linear layers are tiled."""

    def __init__(self, model: Any) -> None:
        """`model` has been through `join_projections`, which could tile its layers."""
        super().__init__(model)
        self._width, self._dtype = model.config.hidden_size, model.dtype
        self._vocabulary = self._head.out_features
        self._described = (native.Layer * len(self._layers))(*map(_described, self._layers))
        self._described_head = self._head.description()
        self._widths = {
            "normed": self._width,
            "attended": self._heads * self._size,
            "gated": model.config.intermediate_size,
        }
        self._qkv_stride = (self._heads + 2 * self._key_heads) * self._size + native.PANEL
        """Not a power of two, or all rows would want the same few places of the processor's own memory."""
        self._room = 0
        self._buffers: dict[str, Tensor] = {}

    def forward(self, tokens: Sequence[int], step: Step) -> Tensor:
        """The logits after the last token of each sequence, of shape [sequences, vocabulary], in float32."""
        logits = torch.empty(len(step.lengths), self._vocabulary)
        self._run(tokens, step, logits)
        return logits

    def likeliest(self, tokens: Sequence[int], step: Step) -> Tensor:
        """The likeliest token after each sequence; -1 where the logits are no numbers."""
        return self._run(tokens, step, None)

    def _run(self, tokens: Sequence[int], step: Step, logits: Tensor | None) -> Tensor:
        assert native.LIBRARY is not None
        self._make_room(len(tokens))
        ids, best = torch.tensor(tokens), torch.empty(len(step.lengths), dtype=torch.int64)
        attention = self._arguments(step)
        self._reads(attention, self._buffers["qkv"])
        attention.query_token = attention.key_token = attention.value_token = self._qkv_stride
        attention.out = self._buffers["attended"].data_ptr()
        attention.out_token, attention.out_panel = native.PANEL, (self._room + 1) * native.PANEL
        for layer, described in zip(self._layers, self._described, strict=True):
            held = step.cache.layer_like(layer.index, self._embedding, self._key_heads, self._size)
            described.keys, described.values = held.keys.data_ptr(), held.values.data_ptr()
        arguments = native.Pass(
            ctypes.pointer(attention),
            self._described,
            ctypes.pointer(self._described_head),
            self._embedding.data_ptr(),
            self._norm.data_ptr(),
            ids.data_ptr(),
            **{name: buffer.data_ptr() for name, buffer in self._buffers.items()},
            logits=None if logits is None else logits.data_ptr(),
            likeliest=best.data_ptr(),
            layer_count=len(self._layers),
            width=self._width,
            room=self._room,
            epsilon=self._epsilon,
        )
        native.LIBRARY.forward(arguments, self._dtype)
        return best

    def _make_room(self, rows: int) -> None:
        """Buffers for so many tokens."""
        if rows > self._room:
            self._room = -(-rows // native.LANES) * native.LANES
            sizes = self._widths.items()
            self._buffers = {name: native.panels(rows, width, self._dtype) for name, width in sizes}
            self._buffers["residual"] = native.panels(rows, self._width, torch.float32)
            self._buffers["qkv"] = torch.empty(self._room, self._qkv_stride, dtype=self._dtype)


def written_out(model: Any) -> FusedDecoder | None:
    """The model written out; None for one whose projections could not be joined."""
    if not joined_layers(model):
        return None
    return WholeDecoder(model) if isinstance(model.lm_head, TiledLinear) else FusedDecoder(model)


def _described(layer: Layer) -> native.Layer:
    norms = layer.before_attention.data_ptr(), layer.before_mlp.data_ptr()
    linears = [each for each in (layer.qkv, layer.out, layer.gate_up, layer.down) if isinstance(each, TiledLinear)]
    return native.Layer(*norms, *(each.description() for each in linears), window=layer.window or 0)
