"""Kernels of our own for a CPU, called through a C interface, so that no version of torch is baked in; absent where none were compiled.

`LIBRARY` is None then, or when `HEADRACE_NATIVE` is 0: whoever calls has torch's operations to fall back on, and gives the same results.
"""

from __future__ import annotations

import ctypes
import os
from ctypes import POINTER, c_float, c_int64, c_void_p
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from headrace.api.worker import Env
from headrace_worker.engines.transformers.native.build import fitting
from headrace_worker.engines.transformers.native.structures import Attention, Layer, Linear, Pass

__all__ = [
    "LANES",
    "LARGEST_HEAD",
    "LIBRARY",
    "PANEL",
    "Attention",
    "Kernels",
    "Layer",
    "Linear",
    "Pass",
    "can",
    "load",
]

LANES = 16
"""Numbers in one vector. Widths must be multiples of it, and so many tokens lie side by side in a block of keys."""
PANEL = 32
"""Columns that lie together in what our own products read, and outputs in a block of weights."""
LARGEST_HEAD = 512
CPUINFO = Path("/proc/cpuinfo")
_DTYPES = {torch.float32: "float32", torch.bfloat16: "bfloat16"}
_SIGNATURES: dict[str, tuple[Any, ...]] = {
    "attention": (POINTER(Attention),),
    "add_rms_norm": (c_void_p, c_void_p, c_void_p, c_void_p, c_int64, c_int64, c_float),
    "silu_multiply": (c_void_p, c_void_p, c_int64, c_int64),
    "greatest": (c_void_p, c_void_p, c_int64, c_int64),
    "linear": (c_void_p, c_void_p, c_int64, c_int64, POINTER(Linear)),
    "forward": (POINTER(Pass),),
}
_OF_SOME = frozenset({"linear", "forward"})
"""Not in every library: an older CPU has torch's matrix products only."""


class Kernels:
    """The functions of one library."""

    def __init__(self, path: Path) -> None:
        """Raises `OSError` when it cannot be loaded, or the system does not let it run."""
        for runtime in sorted(Path(torch.__file__).parent.glob("lib/libgomp*")):
            ctypes.CDLL(str(runtime), mode=ctypes.RTLD_GLOBAL)
        found = ctypes.CDLL(str(path))
        if not found.allowed():
            raise OSError(f"{path.name}: the system does not give what it needs")
        self._functions: dict[tuple[str, torch.dtype], Any] = {}
        for name, arguments in _SIGNATURES.items():
            for dtype, suffix in _DTYPES.items():
                if name not in _OF_SOME or hasattr(found, f"{name}_{suffix}"):
                    function = getattr(found, f"{name}_{suffix}")
                    function.argtypes, function.restype = arguments, None
                    self._functions[name, dtype] = function

    def multiplies(self, dtype: torch.dtype) -> bool:
        """Whether it has matrix products, and so whole forward passes, of this number format."""
        return ("forward", dtype) in self._functions

    def forward(self, arguments: Pass, dtype: torch.dtype) -> None:
        """A whole forward pass."""
        self._functions["forward", dtype](arguments)

    def linear(self, rows: Tensor, layer: Linear) -> Tensor:
        """A linear layer alone."""
        given, found = to_panels(rows), panels(len(rows), layer.outputs, rows.dtype)
        self._functions["linear", rows.dtype](given.data_ptr(), found.data_ptr(), given.shape[1] - 1, len(rows), layer)
        return found[:, : len(rows)].transpose(0, 1).reshape(len(rows), -1)[:, : layer.outputs].contiguous()

    def attention(self, arguments: Attention, dtype: torch.dtype) -> None:
        """Put the new keys and values into the cache, and let every new token look at its sequence."""
        self._functions["attention", dtype](arguments)

    def add_rms_norm(self, residual: Tensor, delta: Tensor | None, weight: Tensor, epsilon: float) -> Tensor:
        """Add `delta` to `residual` in its place, and normalise that into a new tensor. All are contiguous."""
        out = torch.empty_like(residual)
        rows, width = residual.shape
        added = None if delta is None else delta.data_ptr()
        self._functions["add_rms_norm", residual.dtype](
            residual.data_ptr(), added, weight.data_ptr(), out.data_ptr(), rows, width, epsilon
        )
        return out

    def silu_multiply(self, both: Tensor) -> Tensor:
        """From gates and ups side by side to silu(gate) * up."""
        rows, width = both.shape[0], both.shape[1] // 2
        out = both.new_empty(rows, width)
        self._functions["silu_multiply", both.dtype](both.data_ptr(), out.data_ptr(), rows, width)
        return out

    def greatest(self, rows: Tensor) -> Tensor:
        """The first place of the greatest number of each row of a contiguous matrix; torch takes a multiple of the time."""
        out = torch.empty(rows.shape[0], dtype=torch.int64)
        self._functions["greatest", rows.dtype](rows.data_ptr(), out.data_ptr(), *rows.shape)
        return out


def panels(rows: int, columns: int, dtype: torch.dtype) -> Tensor:
    """An empty matrix in panels of 32 columns, as `matmul.h` says: whole tiles of rows, and a row between two panels."""
    return torch.zeros(-(-columns // PANEL), -(-rows // LANES) * LANES + 1, PANEL, dtype=dtype)


def to_panels(rows: Tensor) -> Tensor:
    """A matrix in panels, as wide as whole panels are."""
    made = panels(rows.shape[0], rows.shape[1], rows.dtype)
    made[:, : len(rows)] = rows.view(len(rows), -1, PANEL).transpose(0, 1)
    return made


def can(dtype: torch.dtype, size: int) -> bool:
    """Whether the kernels take this number format and head size."""
    return LIBRARY is not None and dtype in _DTYPES and size % LANES == 0 and size <= LARGEST_HEAD


def can_multiply(dtype: torch.dtype) -> bool:
    """Whether there are matrix products of this number format."""
    return LIBRARY is not None and LIBRARY.multiplies(dtype)


def load() -> Kernels | None:
    """The best library that this CPU can run; None, and torch's operations do the same, where there is none, or it is not wanted."""
    if os.environ.get(Env.NATIVE, "1") == "0":
        return None
    for path in fitting(cpu_flags()):
        try:
            return Kernels(path)
        except (OSError, AttributeError):  # of another system or an older release, or not allowed here
            continue
    return None


def cpu_flags(cpuinfo: Path = CPUINFO) -> frozenset[str]:
    """What Linux says that this CPU can."""
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    flags = next((line for line in lines if line.startswith("flags")), "")
    return frozenset(flags.partition(":")[2].split())


LIBRARY = load()
