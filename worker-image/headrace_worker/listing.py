"""The role `list`: how many objects of the input were modified in its window, and since when the oldest of them waits.

Which objects count is decided as `plan` decides it later for the run of that window. Only the listing is read, and as a stream: however
many objects there are, they take no memory.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime

from headrace.api.window import DataWindow
from headrace.api.worker import ListReport, WorkerConfig
from headrace_worker.config import bad_config
from headrace_worker.errors import JobFailed
from headrace_worker.failures import input_failures
from headrace_worker.stores import open_store


def list_objects(config: WorkerConfig) -> ListReport:
    """Count the objects. Raises `JobFailed` (`InputUnreadable`, `UnsupportedScheme`, `BadConfig`).

    Other than a run, for which no data is as good as any, this fails when the store says that the bucket is not there: whoever waits for
    new objects would wait for ever at a name that is misspelt.
    """
    uri, window = config.input.uri, config.input.window
    if uri is None or window is None:
        raise bad_config("input.uri and input.window must be set to list the objects of a time")
    count, oldest = 0, None
    with input_failures():
        for modified in _modified(uri, window):
            count += 1
            oldest = modified if oldest is None else min(oldest, modified)
    return ListReport(window=window, objects=count, oldest_time=oldest)


def _modified(uri: str, window: DataWindow) -> Iterator[datetime]:
    """When each object in the window was modified."""
    for found in open_store(uri).scan(uri):
        if found.modified is None:
            message = f"{found.uri}: nothing tells when it was modified, and so nobody can know whether it is new"
            raise JobFailed("InputUnreadable", message)
        if window.covers(found.modified):
            yield found.modified
