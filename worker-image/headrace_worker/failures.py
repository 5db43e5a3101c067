"""What it means for the whole job when a store says no."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from headrace_worker.errors import JobFailed
from headrace_worker.stores.base import NoSpace, StoreError


@contextmanager
def input_failures() -> Iterator[None]:
    """A store that refuses inside the block is the input's: raises `JobFailed` (`InputUnreadable`)."""
    try:
        yield
    except StoreError as error:
        raise JobFailed("InputUnreadable", str(error)) from error


@contextmanager
def output_failures() -> Iterator[None]:
    """A store that refuses inside the block is the output's: raises `JobFailed` (`OutputFull`, `OutputNotWritable`)."""
    try:
        yield
    except NoSpace as error:
        raise JobFailed("OutputFull", str(error)) from error
    except StoreError as error:
        raise JobFailed("OutputNotWritable", str(error)) from error
