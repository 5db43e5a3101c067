"""Kernels of our own for a CPU, called through a C interface, so that no version of torch is baked in; absent where none were compiled.

`LIBRARY` is None then, or when `HEADRACE_NATIVE` is 0: whoever calls has torch's operations to fall back on, and gives the same results.
"""

from __future__ import annotations

import ctypes
import os
from ctypes import POINTER, c_float, c_int32, c_int64, c_void_p
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from headrace.api.worker import Env
from headrace_worker.engines.transformers.native.build import library

LANES = 16
"""Numbers in one vector. Widths must be multiples of it, and so many tokens lie side by side in a block of keys."""
LARGEST_HEAD = 512
_DTYPES = {torch.float32: "float32", torch.bfloat16: "bfloat16"}


class Attention(ctypes.Structure):
    """The arguments of the attention kernel, as `kernels.cpp` explains them."""

    _fields_ = (
        *((name, c_void_p) for name in ("query", "key", "value")),
        *((f"{name}_{of}", c_int64) for name in ("query", "key", "value") for of in ("token", "head")),
        *((name, c_void_p) for name in ("out", "keys", "values", "cosines", "sines", "starts", "lengths")),
        *((name, c_int32) for name in ("sequences", "heads", "key_heads", "size", "length", "window")),
        ("scaling", c_float),
    )


class Kernels:
    """The functions of one library."""

    def __init__(self, path: Path) -> None:
        """Raises `OSError` when it cannot be loaded."""
        for runtime in sorted(Path(torch.__file__).parent.glob("lib/libgomp*")):
            ctypes.CDLL(str(runtime), mode=ctypes.RTLD_GLOBAL)
        found = ctypes.CDLL(str(path))
        self._functions: dict[tuple[str, torch.dtype], Any] = {}
        signatures: dict[str, tuple[Any, ...]] = {
            "attention": (POINTER(Attention),),
            "add_rms_norm": (c_void_p, c_void_p, c_void_p, c_void_p, c_int64, c_int64, c_float),
            "silu_multiply": (c_void_p, c_void_p, c_int64, c_int64),
            "greatest": (c_void_p, c_void_p, c_int64, c_int64),
        }
        for name, arguments in signatures.items():
            for dtype, suffix in _DTYPES.items():
                function = getattr(found, f"{name}_{suffix}")
                function.argtypes, function.restype = arguments, None
                self._functions[name, dtype] = function

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


def can(dtype: torch.dtype, size: int) -> bool:
    """Whether the kernels take this number format and head size."""
    return LIBRARY is not None and dtype in _DTYPES and size % LANES == 0 and size <= LARGEST_HEAD


def load() -> Kernels | None:
    """The library for this CPU; None where there is none, or it is not wanted."""
    path = library(torch.backends.cpu.get_cpu_capability().lower())
    if os.environ.get(Env.NATIVE, "1") == "0" or not path.exists():
        return None
    try:
        return Kernels(path)
    except OSError:  # made for another system: torch's own operations do the same
        return None


LIBRARY = load()
