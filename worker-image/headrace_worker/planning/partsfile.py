"""The file of the parts of images, which `plan` writes while it looks at the input, and cuts into shards afterwards.

It is named after the batch, so that a batch that is refused leaves the folder to another; and it stays, for it is what the records are
read from.
"""

from __future__ import annotations

from typing import Self

import orjson

from headrace.api.base import JsonObject
from headrace.api.records import MAX_RECORD_BYTES, ErrorCode, RecordError
from headrace.api.sharding import ShardCutter
from headrace.api.worker import WorkerConfig
from headrace_worker.errors import JobFailed
from headrace_worker.failures import output_failures
from headrace_worker.formats.lines import lines
from headrace_worker.planning.outputfile import OutputFile
from headrace_worker.stores import open_store


class PartsFile(OutputFile):
    """Of an input that is read as it is there is none."""

    def __init__(self, config: WorkerConfig) -> None:
        super().__init__(open_store(config.output_uri), config.records.uri or "")
        self._config = config

    def __enter__(self) -> Self:
        if self.wanted:
            self.open()
        return super().__enter__()

    @property
    def wanted(self) -> bool:
        """Whether the records are not in the input itself."""
        return self._config.records is not self._config.input

    def add(self, part: JsonObject) -> None:
        """Write a part down. Raises `RecordError` when it is larger than a record may be, `JobFailed` when there is no room for it."""
        if not self.wanted:
            return
        line = orjson.dumps(part, option=orjson.OPT_APPEND_NEWLINE)
        if len(line) > MAX_RECORD_BYTES:
            most = MAX_RECORD_BYTES // 1024**2
            message = f"a part has {len(line) / 1024**2:.1f} MiB; it must have at most {most} MiB: make input.split.size smaller"
            raise RecordError(ErrorCode.SPLIT_ERROR, message, "content")
        self.write(line)

    def delete(self) -> None:
        """Of an input that is refused nothing stays."""
        if self.wanted:
            with output_failures():
                self.store.delete(self.uri)

    def cut(self, parents: int) -> ShardCutter:
        """The parts of so many records, cut into shards."""
        (found,) = self.store.list(self.uri)
        cutter = ShardCutter(self._config.shards, found.size)
        cutter.begin(found.uri, found.size)
        with self.store.open(found.uri) as stream:
            for start, end, number, raw in lines(stream):
                if isinstance(raw, RecordError):  # it was written a moment ago, and was shorter
                    raise JobFailed("InputChanged", f"{found.uri} was changed while it was read: {raw.message}")
                cutter.add(start, end, number, raw)
        cutter.parents = parents
        return cutter
