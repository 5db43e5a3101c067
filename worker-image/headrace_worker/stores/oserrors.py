"""What the errors of the operating system mean for a store, and what the user can do about them."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager

from headrace_worker.stores.base import NoSpace, NotFound, NotWritable, StoreError

_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_CLOSED = frozenset(
    {
        errno.EACCES,
        errno.EPERM,
        errno.EROFS,
        errno.ENOENT,
        errno.ENOTDIR,
        errno.EISDIR,
        errno.ENAMETOOLONG,
        errno.ELOOP,
        errno.EOPNOTSUPP,
    }
)


@contextmanager
def reading(uri: str) -> Iterator[None]:
    """Turn what the operating system says about reading `uri` into `StoreError`s."""
    try:
        yield
    except (FileNotFoundError, NotADirectoryError) as error:
        raise NotFound(f"{uri} is not there: check its path, and that its volume is mounted") from error
    except OSError as error:
        if error.errno in _CLOSED:
            raise StoreError(
                f"{uri} cannot be read ({error.strerror}): make it a file that the worker may read"
            ) from error
        raise


@contextmanager
def writing(uri: str) -> Iterator[None]:
    """Turn what the operating system says about writing `uri` into `StoreError`s."""
    try:
        with running_out(uri):
            yield
    except OSError as error:
        if error.errno in _CLOSED:
            raise NotWritable(
                f"{uri} cannot be written ({error.strerror}): make output.uri a folder that the worker may write to"
            ) from error
        raise


@contextmanager
def running_out(uri: str) -> Iterator[None]:
    """Turn the lack of room for `uri` into `NoSpace`, and leave every other error as it is."""
    try:
        yield
    except OSError as error:
        if error.errno in _FULL:
            raise NoSpace(
                f"{uri} cannot be written ({error.strerror}): make room there, or make output.uri a larger place"
            ) from error
        raise
