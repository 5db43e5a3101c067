"""Linear layers whose weights lie as the products of our own kernels read them: `native/matmul.h` says how.

All weights of a model lie in a few large pieces of memory on large pages: at every step all of them are read, and with small pages
looking up where they are takes as long as that.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from headrace_worker.engines.transformers import native
from headrace_worker.engines.transformers.memory import on_large_pages
from headrace_worker.engines.transformers.native import PANEL

_PIECE = 64 * 1024 * 1024
_ALIGNMENT = 64


class Store:
    """Memory for the weights of one model."""

    def __init__(self) -> None:
        self._rest = torch.empty(0, dtype=torch.uint8)

    def kept(self, tensor: Tensor) -> Tensor:
        """A copy that lies in this memory."""
        size = -(-tensor.nbytes // _ALIGNMENT) * _ALIGNMENT
        if size > len(self._rest):
            self._rest = on_large_pages(max(size, _PIECE))
        place, self._rest = self._rest[: tensor.nbytes], self._rest[size:]
        return place.view(tensor.dtype).view(tensor.shape).copy_(tensor)


class TiledLinear(nn.Module):
    """A linear layer that holds its weight in blocks only."""

    weight: Tensor
    bias: Tensor | None

    def __init__(self, weight: Tensor, bias: Tensor | None, store: Store) -> None:
        super().__init__()
        self.out_features, self.in_features = weight.shape
        self.register_buffer("weight", store.kept(tiled(weight.detach())), persistent=False)
        self.register_buffer("bias", None if bias is None else bias.detach(), persistent=False)

    def description(self) -> native.Linear:
        """What the kernels are told."""
        bias = None if self.bias is None else self.bias.data_ptr()
        return native.Linear(self.weight.data_ptr(), bias, self.in_features, self.out_features)

    def forward(self, rows: Tensor) -> Tensor:
        """Of shape [..., in features] to [..., out features]."""
        assert native.LIBRARY is not None
        flat = rows.reshape(-1, self.in_features)
        return native.LIBRARY.linear(flat, self.description()).view(*rows.shape[:-1], self.out_features)


def can_tile(dtype: torch.dtype, *widths: int) -> bool:
    """Whether layers of this number format and with so many inputs can be tiled here."""
    return native.can_multiply(dtype) and all(width % PANEL == 0 for width in widths)


def tiled(weight: Tensor) -> Tensor:
    """From [outputs, inputs] to blocks."""
    outputs, inputs = weight.shape
    whole = nn.functional.pad(weight, (0, 0, 0, -outputs % PANEL))
    if weight.dtype == torch.float32:
        return whole.view(-1, PANEL, inputs).transpose(1, 2)
    return whole.view(-1, 2, 16, inputs // PANEL, 16, 2).permute(0, 3, 1, 4, 2, 5)
