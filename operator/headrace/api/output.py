"""What a finished batch or fan-out leaves: `manifest.json`, the one file that readers trust."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from headrace.api.aggregation import Aggregation
from headrace.api.base import ApiModel, FreeObject
from headrace.api.batchstatus import RecordCounts, Usage
from headrace.api.engines import Engine
from headrace.api.input import Input
from headrace.api.model import Model
from headrace.api.reuse import Reused
from headrace.api.worker import BatchIdentity, JoinBranch

MANIFEST_FILE = "manifest.json"
"""Its name in the output folder."""
PLAN_FILE = "plan.jsonl"
"""The name of the shard manifest."""
PLAN_PATH = f"_headrace/{PLAN_FILE}"
"""Where it is in the output folder, of all batches but those whose inline records were planned without a pod."""

_Count = Annotated[int, Field(ge=0)]


class OutputFile(ApiModel):
    """One file of the output, JSON lines in the form of OpenAI's batch output."""

    path: str
    """Relative to the output folder."""
    records: _Count
    """Its lines."""
    bytes: _Count
    sha256: str


class ShardOutput(ApiModel):
    """What one shard has left; its records are in one of the two files, each in the order of the input."""

    index: _Count
    attempt: Annotated[int, Field(ge=1)]
    """Which attempt has committed."""
    results: OutputFile
    errors: OutputFile


class BatchManifest(ApiModel):
    """`manifest.json`: everything to find the results, and everything to repeat the run."""

    version: Literal[1] = 1
    batch: BatchIdentity
    created: _Count
    """Seconds since the epoch, when the batch was planned."""
    plan_sha256: str
    """Of the shard manifest, which has the hash of every shard's input."""
    model: Model
    engine: Engine
    input: Input
    parameters: FreeObject
    records: RecordCounts
    usage: Usage
    resumed_from: str | None = None
    """The output folder of the batch whose results were kept; each of their lines says which batch has made it."""
    reused: Reused = Field(default_factory=Reused)
    batches: _Count
    batched_records: _Count
    """Sum of the sizes of all batches: fill = batched_records / (batches · maxBatchSize)."""
    shards: tuple[ShardOutput, ...]


class JoinManifest(ApiModel):
    """`manifest.json` of a FanOutJob. What made the answers is in the manifests of its branches, `branches/NAME/manifest.json`."""

    version: Literal[1] = 1
    kind: Literal["FanOutJob"] = "FanOutJob"
    batch: BatchIdentity
    """The FanOutJob."""
    created: _Count
    """Seconds since the epoch, when the input was read."""
    input: Input
    aggregation: Aggregation
    branches: tuple[JoinBranch, ...]
    round: _Count
    """Which retry was joined."""
    records: RecordCounts
    usage: Usage
    """Of all branches that were joined, together."""
    shards: tuple[ShardOutput, ...]
    """One, in the order of the input."""
