"""The KV cache: one row for each running sequence, in one tensor a layer.

Row i belongs to the i-th running sequence, so that the attention of all decoding sequences is one batched product over the first
rows, with nothing gathered. Tensors are as large as the running sequences need, in steps, and are made when a layer is first used: their
shapes come from the keys and values themselves, so no model needs to be known here.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from headrace_worker.engines.transformers import native
from headrace_worker.engines.transformers.memory import on_large_pages

_ROW_STEP = 8
"""Rows are made in steps of this, from 1, 2, 4 on."""
_LENGTH_STEP = 128
_LARGE = 1024 * 1024
"""Bytes from which on a tensor is put on large pages."""


@dataclass(slots=True)
class LayerCache:
    """Keys and values of one layer, each of shape [rows, heads, length, size]; blocked keys of [rows, heads, blocks, size, 16]."""

    keys: Tensor
    values: Tensor

    @property
    def blocked(self) -> bool:
        """Whether the keys lie as our own kernels want them."""
        return self.keys.dim() == 5


class KVCache:
    """Keys and values of all layers, within a budget."""

    def __init__(self, budget: int) -> None:
        """`budget` in bytes."""
        self.budget = budget
        self.rows = self.length = 0
        self._layers: dict[int, LayerCache] = {}
        self._token_bytes = 0

    def bytes_for(self, rows: int, length: int) -> int:
        """What so many sequences of so many tokens would take; exact once every layer has been used."""
        return _whole_rows(rows) * _round_up(length, _LENGTH_STEP) * self._token_bytes

    def fits(self, rows: int, length: int) -> bool:
        """Whether so many sequences of so many tokens are within the budget."""
        return self.bytes_for(rows, length) <= self.budget

    def reserve(self, rows: int, length: int) -> None:
        """Make room. When one side must grow the other shrinks to what is needed, else the product would only ever grow."""
        if rows > self.rows or length > self.length:
            self.rows, self.length = _whole_rows(rows), _round_up(length, _LENGTH_STEP)

    def layer(self, index: int, key: Tensor, value: Tensor) -> LayerCache:
        """The cache of a layer as large as reserved, for keys and values of shape [1, heads, tokens, head size]."""
        held = self._layers.get(index)
        if held is None:
            held = LayerCache(self._no_keys(key, value), self._empty(value))
            self._token_bytes += key[0, :, 0].nbytes + value[0, :, 0].nbytes
        held = self._layers[index] = self._fitting(held)
        return held

    def layer_like(self, index: int, like: Tensor, heads: int, size: int) -> LayerCache:
        """The cache of a layer whose keys and values have so many heads of that size, of the type of `like`."""
        held = self._layers.get(index)
        if held is not None and (held.values.shape[0], held.values.shape[2]) == (self.rows, self.length):
            return held
        shape = like.new_empty(1, heads, 1, size)
        return self.layer(index, shape, shape)

    def share(self, source: int, target: int, length: int) -> None:
        """Let a new row begin with the first `length` tokens of another; room has been reserved."""
        for index, held in self._layers.items():
            self._layers[index] = self._fitting(held)
        self.move(source, target, length)

    @torch.inference_mode()
    def move(self, source: int, target: int, length: int) -> None:
        """Copy the first `length` tokens of one row to another."""
        for layer in self._layers.values():
            columns = _blocks(length) if layer.blocked else length
            layer.keys[target, :, :columns] = layer.keys[source, :, :columns]
            layer.values[target, :, :length] = layer.values[source, :, :length]

    @torch.inference_mode()
    def wipe(self, row: int) -> None:
        """Make a row zeros again: what it held is no number, and would be in the way of whoever comes next."""
        for layer in self._layers.values():
            layer.keys[row] = 0
            layer.values[row] = 0

    @torch.inference_mode()
    def release(self) -> None:
        """Give the memory back; every row is lost."""
        for layer in self._layers.values():
            layer.keys, layer.values = layer.keys[:0, :, :0].clone(), layer.values[:0, :, :0].clone()
        self.rows = self.length = 0

    @torch.inference_mode()
    def _fitting(self, held: LayerCache) -> LayerCache:
        """As large as reserved: what there is if it is, else a copy."""
        if (held.values.shape[0], held.values.shape[2]) == (self.rows, self.length):
            return held
        return LayerCache(self._resized(held.keys), self._resized(held.values))

    def _no_keys(self, key: Tensor, value: Tensor) -> Tensor:
        _, heads, _, size = key.shape
        if key.is_cuda or value.shape[-1] != size or not native.can(key.dtype, size):
            return self._empty(key)
        return _zeros(key, (self.rows, heads, _blocks(self.length), size, native.LANES))

    def _empty(self, like: Tensor) -> Tensor:
        """Zeros, because what lies beyond a sequence is multiplied by zero and must not be NaN."""
        _, heads, _, size = like.shape
        if like.is_cuda:  # the GPU's kernel wants the heads of one token side by side
            return like.new_zeros(self.rows, self.length, heads, size).transpose(1, 2)
        return _zeros(like, (self.rows, heads, self.length, size))

    def _resized(self, old: Tensor) -> Tensor:
        blocked = old.dim() == 5
        shape = (self.rows, old.shape[1], _blocks(self.length), *old.shape[3:])
        new = _zeros(old, shape) if blocked else self._empty(old)
        rows, columns = min(old.shape[0], self.rows), min(old.shape[2], new.shape[2])
        new[:rows, :, :columns] = old[:rows, :, :columns]
        return new


def _zeros(like: Tensor, shape: Sequence[int]) -> Tensor:
    """Zeros; on large pages where they are many and on a CPU, for at each step most of them are read."""
    size = math.prod(shape) * like.itemsize
    if like.is_cuda or size < _LARGE:
        return like.new_zeros(shape)
    return on_large_pages(size).view(like.dtype).view(*shape)


def _blocks(length: int) -> int:
    return -(-length // native.LANES)


def _whole_rows(rows: int) -> int:
    return 1 << (rows - 1).bit_length() if 0 < rows < _ROW_STEP else _round_up(rows, _ROW_STEP)


def _round_up(number: int, step: int) -> int:
    return -(-number // step) * step
