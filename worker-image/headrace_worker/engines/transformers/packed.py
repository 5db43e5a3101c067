"""Linear layers on a CPU through oneDNN, with the weights put into its own blocked layout once, when the model is loaded.

The ordinary path reorders the weights in every call or does without. On AMD CPUs the packed layout is more than twice as fast; on
Intel CPUs it is a few percent. It is never switched on by measuring: results must not depend on how busy a machine was.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

_TYPICAL_ROWS = 64
"""Rows for which the layout is chosen; other numbers of rows are right too."""


class PackedLinear(nn.Module):
    """A linear layer that holds its weight in oneDNN's layout only."""

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        super().__init__()
        packed = torch.ops.mkldnn._reorder_linear_weight(weight.detach().contiguous(), _TYPICAL_ROWS)
        self.register_buffer("weight", packed, persistent=False)
        self.register_buffer("bias", None if bias is None else bias.detach(), persistent=False)

    def forward(self, rows: Tensor) -> Tensor:
        """Of shape [..., in features] to [..., out features]."""
        product: Tensor = torch.ops.mkldnn._linear_pointwise(rows, self.weight, self.bias, "none", [], "")
        return product


class PackedPart(nn.Module):
    """Some of the outputs of a linear layer that was made of several."""

    def __init__(self, joined: nn.Module, start: int, end: int) -> None:
        super().__init__()
        self.joined = joined
        self._start, self._end = start, end

    def forward(self, rows: Tensor) -> Tensor:
        """Of shape [..., in features] to [..., out features]."""
        product: Tensor = self.joined(rows)
        return product[..., self._start : self._end]


def pack_linear_layers(model: nn.Module) -> int:
    """Replace the linear layers of a model on a CPU, where oneDNN can; says how many. Takes no second copy of the weights."""
    dtype = next(model.parameters()).dtype
    if not can_pack(dtype):
        return 0
    names = [name for name, layer in model.named_modules() if isinstance(layer, nn.Linear | Conv1D)]
    for name in names:
        layer: Any = model.get_submodule(name)
        weight = layer.weight.t() if isinstance(layer, Conv1D) else layer.weight
        model.set_submodule(name, PackedLinear(weight, layer.bias))
    return len(names)


def can_pack(dtype: torch.dtype) -> bool:
    """Whether oneDNN packs weights of this number format here."""
    ops = torch.ops.mkldnn
    if not (torch._C._has_mkldnn and hasattr(ops, "_linear_pointwise")):
        return False
    if dtype == torch.bfloat16:
        return bool(ops._is_mkldnn_bf16_supported())
    return dtype == torch.float32
