"""The shard manifest: which records each shard is. `plan` writes it; `run` and `finalize` read it."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from headrace.api.base import ApiModel, Count
from headrace.api.worker.config import BatchIdentity


class Segment(ApiModel):
    """A run of bytes of one input object: of what is in it, where it is compressed. Of Parquet, a row counts as the mean row's bytes."""

    uri: str
    start: Count
    end: Count
    """Exclusive."""
    line: Annotated[int, Field(ge=1)] = 1
    """Line number of its first line."""
    custom_id: str | None = None
    """For the format text: the id of the record that the segment is."""


class Shard(ApiModel):
    """One part of the input; always the same records."""

    index: Count
    first_record: Count
    """Number of its first record in the whole input, from 0."""
    first_part: Count = 0
    """Position of the first part that it takes of its first segment's first record, when the input is split."""
    records: Annotated[int, Field(ge=1)]
    sha256: str
    """Of its records' bytes, their line ends included, blank lines left out: an input that was changed after the plan is
    noticed before anything is committed."""
    segments: tuple[Segment, ...]


class ManifestHeader(ApiModel):
    """First line of the shard manifest; one `Shard` a line follows."""

    version: Literal[1] = 1
    batch: BatchIdentity
    created: Count
    """Seconds since the epoch."""
    modified: Count | None = None
    """The same of when the input was last modified, where that is known."""
    records: Count
    parents: Count | None = None
    """When the input is split: the records that it has. All other counts are of their parts."""
    carried: Count | None = None
    """Where an earlier batch is taken up: how many records, which come first, are of it."""
    shards: Count
    input_bytes: Count
    estimated_prompt_tokens: Count = 0

    @property
    def dated(self) -> int:
        """What every result carries as its `created`: the same in each run over the same input, so that a rerun gives the same bytes."""
        return self.created if self.modified is None else self.modified
