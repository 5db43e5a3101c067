"""Builders for the worker's side: records, input files and configurations."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import orjson

from headrace.api.worker import PlanReport, WorkerConfig

NOW = 1_768_478_400


def a_chat(custom_id: str | None = "r1", content: str = "Say hello.", **fields: Any) -> bytes:
    """One line of OpenAI's batch file; `fields` replace those of the record, and None leaves one out."""
    record = {
        "custom_id": custom_id,
        "method": "POST",
        "url": "/v1/chat/completions",
        "body": {"messages": [{"role": "user", "content": content}]},
        **fields,
    }
    return orjson.dumps({name: value for name, value in record.items() if value is not None}) + b"\n"


def a_config(folder: Path, *, source: str = "in.jsonl", uid: str = "uid-1", **fields: Any) -> WorkerConfig:
    """The configuration of a batch that reads `folder/source` and writes to `folder/out`; `fields` in camelCase."""
    spec = {"format": "openai", **fields.pop("input", {})}
    return WorkerConfig.parse(
        {
            "batch": {"namespace": "default", "name": "reviews", "uid": uid},
            "model": {"name": "tiny"},
            "engine": {"name": "mock"},
            "input": {"uri": f"{folder.as_uri()}/{source}", **spec},
            "planUri": f"{folder.as_uri()}/out/_headrace/plan.jsonl",
            "outputUri": f"{folder.as_uri()}/out/",
            "batching": {},
            "shards": 1,
            "retries": {},
            **fields,
        }
    )


def write_files(folder: Path, files: Mapping[str, bytes | Iterable[bytes]]) -> None:
    """Files by their paths below a folder."""
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else b"".join(content))


def no_progress(report: PlanReport) -> None:
    """Where nobody looks."""
