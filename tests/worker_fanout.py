"""What tests of the join share: an input, and the outputs of branches as their workers would have left them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson

from headrace.api.records import ErrorCode, RecordError, error_line, result_line
from headrace.api.worker import WorkerConfig
from headrace_worker.joining.join import join
from headrace_worker.planning.plan import plan
from headrace_worker.stores.local import file_uri
from worker_rig import CREATED, Folder

Answer = str | ErrorCode | None
"""What a branch says to a record: a text, an error, or nothing."""


def chat_body(text: str | None) -> dict[str, Any]:
    """The body of a chat completion."""
    message = {"role": "assistant", "content": text}
    usage = {"prompt_tokens": 2, "completion_tokens": 3, "total_tokens": 5}
    return {"id": "c", "choices": [{"index": 0, "message": message, "finish_reason": "stop"}], "usage": usage}


@dataclass
class FanOut(Folder):
    """A FanOutJob in a temporary folder."""

    branches: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Each branch as the join is told of it."""
    aggregation: dict[str, Any] = field(default_factory=lambda: {"type": "first"})
    min_answers: int = 1
    round: int = 0

    def config_json(self) -> bytes:
        """What `HEADRACE_CONFIG` says."""
        told = orjson.loads(super().config_json())
        branches = [{"name": name, "weight": 1, "joined": True, **more} for name, more in self.branches.items()]
        told["fanOut"] = {
            "aggregation": self.aggregation,
            "branches": branches,
            "minAnswers": self.min_answers,
            "round": self.round,
        }
        return orjson.dumps(told)

    def plan(self, records: Iterable[str]) -> None:
        """Write and plan an input of these ids, each with something to say."""
        self.fields["input"] = {"uri": file_uri(str(self.path / "input.jsonl")), "format": "jsonl"}
        rows = ({"custom_id": custom_id, "text": f"Say {custom_id}."} for custom_id in records)
        self.write_input(*(orjson.dumps(row, option=orjson.OPT_APPEND_NEWLINE) for row in rows))
        self.plan_as_it_is()

    def plan_as_it_is(self) -> None:
        """Plan the input that is there."""
        report = plan(self.config(), check=None, now=CREATED, progress=lambda _: None)
        assert not report.errors, report

    def answer(self, branch: str, answers: Mapping[str, Answer], shards: int = 1, **told: Any) -> None:
        """Let a branch have left these answers, in their order."""
        self.branches[branch] = {**self.branches.get(branch, {}), **told}
        items = list(answers.items())
        size = -(-len(items) // shards) if items else 1
        parts = [items[start : start + size] for start in range(0, len(items), size)]
        out = self.output / "branches" / branch
        manifest = _manifest(self.config(), [_write_shard(out, index, part) for index, part in enumerate(parts)])
        out.mkdir(parents=True, exist_ok=True)
        (out / "manifest.json").write_bytes(orjson.dumps(manifest))

    def join(self) -> None:
        """Play the role."""
        join(self.config(), lambda _: None)

    def rows(self) -> dict[str, dict[str, Any]]:
        """The joined lines by `custom_id`."""
        rows = self.lines("results") + self.lines("errors")
        assert len({row["custom_id"] for row in rows}) == len(rows)
        return {row["custom_id"]: row for row in rows}

    def said(self, custom_id: str) -> str:
        """The text of the joined answer."""
        text: str = self.rows()[custom_id]["response"]["body"]["choices"][0]["message"]["content"]
        return text

    def about(self, custom_id: str) -> dict[str, Any]:
        """What the joined line says of how it came about."""
        about: dict[str, Any] = self.rows()[custom_id]["headrace"]
        return about


def a_fan_out(path: Path, records: Iterable[str], **aggregation: Any) -> FanOut:
    """A planned fan-out over records of these ids."""
    fan_out = FanOut(path, aggregation=aggregation or {"type": "first"})
    fan_out.plan(records)
    return fan_out


def _write_shard(out: Path, index: int, items: list[tuple[str, Answer]]) -> dict[str, Any]:
    results, errors = bytearray(), bytearray()
    for number, (custom_id, said) in enumerate(items):
        if isinstance(said, ErrorCode):
            errors += error_line(f"e{number}", custom_id, RecordError(said, "it went wrong"), 1)
        else:
            results += result_line(f"r{number}", custom_id, chat_body(said), 1)
    files = {"results": bytes(results), "errors": bytes(errors)}
    return {"index": index, "attempt": 1} | {
        kind: _write(out, f"{kind}/{index:05}.a1.jsonl", data) for kind, data in files.items()
    }


def _write(out: Path, name: str, data: bytes) -> dict[str, Any]:
    (out / name).parent.mkdir(parents=True, exist_ok=True)
    (out / name).write_bytes(data)
    return {"path": name, "records": data.count(b"\n"), "bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}


def _manifest(config: WorkerConfig, shards: list[dict[str, Any]]) -> dict[str, Any]:
    told = config.to_object()
    kept = {name: told[name] for name in ("batch", "model", "engine", "input", "parameters")}
    sums: dict[str, Any] = {"records": {}, "usage": {"promptTokens": 1}, "batches": 1, "batchedRecords": 1}
    return {"created": CREATED, "planSha256": "", **kept, **sums, "shards": shards}
