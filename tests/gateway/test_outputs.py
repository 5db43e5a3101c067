"""What a gateway to a cluster serves of the outputs of batches: of each its own, and nothing else that its credentials open."""

from __future__ import annotations

import asyncio
import json
from contextlib import aclosing
from pathlib import Path

import pytest

from builders import a_batch
from gateway_outputs import write_output
from headrace.api.batchstatus import InferenceBatchStatus, OutputStatus
from headrace.api.inferencebatch import InferenceBatch
from headrace.core.openai.ids import Part
from headrace.gateway.places.outputs import Outputs
from headrace.shells.local.state import StateError


def a_done_batch(uri: str, uid: str = "uid-1") -> InferenceBatch:
    """A batch of which all is known that matters here: who it is, and where its output is said to be."""
    batch = a_batch().build()
    metadata = batch.metadata.model_copy(update={"uid": uid})
    return batch.model_copy(update={"metadata": metadata, "status": InferenceBatchStatus(output=OutputStatus(uri=uri))})


def served(outputs: Outputs, batch: InferenceBatch) -> list[str]:
    """The ids in its results."""

    async def read() -> bytes:
        async with aclosing(await outputs.results(batch, Part.OUTPUT)) as pieces:
            return b"".join([piece async for piece in pieces])

    return [json.loads(line)["custom_id"] for line in asyncio.run(read()).splitlines()]


@pytest.fixture
def outputs(tmp_path: Path) -> Outputs:
    """A claim, on which a batch has left its output."""
    write_output(tmp_path / "data" / "out" / "one", a_done_batch(""), ["r0", "r1"])
    return Outputs({"data": tmp_path / "data"})


def test_an_output_is_served_to_the_batch_that_has_written_it_alone(outputs: Outputs) -> None:
    assert served(outputs, a_done_batch("claim://data/out/one/")) == ["r0", "r1"]
    with pytest.raises(StateError, match="not that of this batch"):
        served(outputs, a_done_batch("claim://data/out/one/", "uid-2"))


@pytest.mark.parametrize(
    "uri", ["claim://other/out/one", "file:///etc", "claim://data/out/../out/one", "claim://data/%2E%2E/data/out/one"]
)
def test_an_output_that_is_not_mounted_is_not_served_and_who_may_read_it_is_said(outputs: Outputs, uri: str) -> None:
    with pytest.raises(StateError, match="headrace results reviews may"):
        served(outputs, a_done_batch(uri))


def test_a_commit_leads_to_nothing_outside_of_its_output(outputs: Outputs, tmp_path: Path) -> None:
    batch = a_done_batch("claim://data/out/two")
    write_output(tmp_path / "data" / "out" / "two", batch, ["secret"], results="../../../secret.jsonl")
    with pytest.raises(StateError, match="not a path in the output"):
        served(outputs, batch)
