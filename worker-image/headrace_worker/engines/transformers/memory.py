"""Telling "out of memory" from other errors, getting memory back, and memory of which much is read at once."""

from __future__ import annotations

import mmap
from contextlib import suppress

import torch
from torch import Tensor


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that there is no memory. On a CPU torch has no class of its own for that."""
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or "can't allocate memory" in str(error)


def release_memory() -> None:
    """Give what torch keeps in reserve back to the device."""
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def on_large_pages(size: int) -> Tensor:
    """So many bytes, all zero, on large pages where the system has them. Raises `MemoryError`.

    A processor that reads much memory in order is otherwise held up by each small page: looking up where it is takes as long as reading it.
    """
    try:
        pages = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)  # shared memory has small pages only
    except OSError as error:
        raise MemoryError(f"no {size} bytes: {error.strerror}") from error
    if hasattr(mmap, "MADV_HUGEPAGE"):
        with suppress(OSError):  # a system without large pages: small ones do
            pages.madvise(mmap.MADV_HUGEPAGE)
    return torch.frombuffer(pages, dtype=torch.uint8)
