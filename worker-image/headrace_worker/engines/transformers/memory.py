"""Telling "out of memory" from other errors, and getting memory back."""

from __future__ import annotations

import torch


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that there is no memory. On a CPU torch has no class of its own for that."""
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or "can't allocate memory" in str(error)


def release_memory() -> None:
    """Give what torch keeps in reserve back to the device."""
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
