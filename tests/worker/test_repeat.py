"""A run that is repeated gives the same bytes, however its records are put into batches, and whatever went wrong on the way."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import orjson
import pytest

from headrace.api.output import BatchManifest
from headrace.api.worker import PlanReport
from headrace_worker.manifest import iter_shards, read_header, write_batch_manifest_if_complete
from headrace_worker.planning.plan import plan
from headrace_worker.progress import Live
from headrace_worker.recorder import Surroundings
from headrace_worker.shard import run_shard
from headrace_worker.stores.local import LocalStore
from tiny_models import save_llama, save_tokenizer
from worker_rig import CREATED, IDENTITY, Folder, chat_line

STORE = LocalStore()
BATCHINGS: list[dict[str, Any]] = [
    {"maxBatchSize": 64, "orderBy": "none"},
    {"maxBatchSize": 1, "maxWaitMilliseconds": 0},
    {"maxBatchSize": 7, "orderBy": "prefix", "maxBatchTokens": 40},
]


def run(folder: Folder, number: int, **fields: Any) -> tuple[BatchManifest, dict[str, bytes]]:
    """Plan and work, as batch number so-and-so, planned at another second; its manifest, and its files."""
    identity = IDENTITY.model_copy(update={"uid": f"run-{number}"})
    again = Folder(
        folder.path, {**folder.fields, "batch": identity.to_object(), **fields}, folder.path / f"run-{number}"
    )
    config = again.config()
    assert plan(config, None, CREATED + number, lambda _: None).error_count == 0
    header = read_header(STORE, config.plan_uri)
    for shard in iter_shards(STORE, config.plan_uri):
        assert run_shard(config, header, shard, Surroundings(Live(PlanReport()))).committed
    manifest = write_batch_manifest_if_complete(STORE, config)
    assert manifest is not None
    files = {
        it.path: (again.output / it.path).read_bytes() for one in manifest.shards for it in (one.results, one.errors)
    }
    return manifest, files


def assert_repeatable(folder: Folder, runs: list[dict[str, Any]]) -> dict[str, bytes]:
    found = [run(folder, number, **fields) for number, fields in enumerate(runs)]
    first, files = found[0]
    for manifest, others in found[1:]:
        assert others == files
        assert manifest.shards == first.shards, "the manifests have the same digests"
    return files


@pytest.mark.parametrize(
    "form", [{}, {"outputFormat": "parquet"}, {"outputCompression": "gzip"}], ids=["jsonl", "parquet", "gzip"]
)
def test_a_rerun_gives_the_same_bytes_however_records_are_batched(tmp_path: Path, form: dict[str, Any]) -> None:
    """Also of records that fail."""
    folder = Folder(tmp_path, {"engine": {"name": "mock", "mock": {"errorPercent": 30}}, "shards": 3, **form})
    folder.write_input(*(chat_line(number, f"How are you, {number}?" * (1 + number % 5)) for number in range(60)))
    files = assert_repeatable(folder, [{"batching": batching} for batching in BATCHINGS])
    if not form:
        assert all(files.values()), "each shard has results and errors"
        for content in files.values():
            ids = [orjson.loads(line)["id"] for line in content.splitlines()]
            assert ids == sorted(ids), "in the order of the input"


@pytest.mark.model
def test_a_rerun_of_a_model_gives_the_same_bytes_however_records_are_batched(tmp_path: Path) -> None:
    """Greedy, in float32, where the answer to a record does not depend on its batch mates."""
    model = save_llama(tmp_path / "model")
    save_tokenizer(model, 128)
    source = {"name": "tiny", "task": "completion", "source": {"path": str(model)}}
    told = {"model": source, "engine": {"name": "transformers"}, "parameters": {"temperature": 0, "max_tokens": 12}}
    folder = Folder(tmp_path, told)
    prompts = [[1 + (number * 7 + at) % 100 for at in range(1 + number % 9)] for number in range(24)]
    lines = [{"custom_id": f"r{number}", "body": {"prompt": prompt}} for number, prompt in enumerate(prompts)]
    folder.write_input(*(orjson.dumps(line, option=orjson.OPT_APPEND_NEWLINE) for line in lines))
    files = assert_repeatable(folder, [{"batching": batching} for batching in BATCHINGS])
    assert len(files["results/00000.a1.jsonl"].splitlines()) == 24
