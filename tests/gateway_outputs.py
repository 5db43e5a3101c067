"""What the workers of a batch leave, written by hand: an answer to each of its records, as its one shard commits them."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import orjson

from headrace.api.kinds import OurObject


def write_output(
    folder: Path, batch: OurObject, custom_ids: Sequence[str], results: str = "results/00000.a1.jsonl"
) -> None:
    """Fill the output folder of a batch; `results`: where its commit says that the answers are."""
    identity = {key: getattr(batch.metadata, key) for key in ("namespace", "name", "uid")}
    lines = b"".join(map(_line, range(len(custom_ids)), custom_ids))
    commit = {
        "batch": identity,
        "shard": 0,
        "attempt": 1,
        "results": _written(folder, results, lines, len(custom_ids)),
        "errors": _written(folder, "errors/00000.a1.jsonl", b"", 0),
        "records": {"total": len(custom_ids), "succeeded": len(custom_ids)},
        "usage": {},
        "batches": 1,
        "batchedRecords": len(custom_ids),
        "reprocessed": 0,
    }
    _written(folder, "_headrace/owner.json", orjson.dumps(identity), 0)
    _written(folder, "_headrace/shards/00000/commit.json", orjson.dumps(commit), 0)


def _line(number: int, custom_id: str) -> bytes:
    response = {"status_code": 200, "request_id": f"r{number}", "body": {"asked": custom_id}}
    line = {"id": f"batch_req_{number:012}", "custom_id": custom_id, "response": response, "error": None}
    return orjson.dumps(line, option=orjson.OPT_APPEND_NEWLINE)


def _written(folder: Path, path: str, data: bytes, records: int) -> dict[str, Any]:
    (folder / path).parent.mkdir(parents=True, exist_ok=True)
    (folder / path).write_bytes(data)
    return {"path": path, "records": records, "bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
