"""`headrace results`: the records of a batch in the order of its input, as far as their shards are committed."""

from __future__ import annotations

import shutil
import sys
from typing import Any

import orjson

from headrace.api.fanoutjob import FanOutJob
from headrace.api.kinds import OurObject
from headrace.api.reasons import ConditionType
from headrace.api.results import Wanted
from headrace.cli.exits import BAD_INPUT, CliError
from headrace.cli.options import JsonOutput, Where
from headrace.cli.place import named_batch, open_target
from headrace.cli.text import plain, plural, remark

_ID_WIDTH = 24
"""At most; a longer `custom_id` is cut in the table, never in the JSON."""


def results(
    where: Where, name: str, output: JsonOutput, *, errors: bool, everything: bool, limit: int | None = None
) -> int:
    """Print results, errors or both. Raises `CliError`, `StateError`."""
    if errors and everything:
        raise CliError("UsageError", "--errors and --all cannot be used together: --all has the errors too", BAD_INPUT)
    wanted = Wanted.ALL if everything else Wanted.FAILED if errors else Wanted.SUCCEEDED
    take = _write_line if output == JsonOutput.JSON else _write_row
    with open_target(where) as target:
        batch = target.find(named_batch(target, name)).batch
        if batch.status.output is None:
            raise CliError("NoOutput", f"{batch.metadata.name} has no output: {_why(batch)}")
        report = target.results(batch, wanted, limit, take)
    sys.stdout.flush()
    if report.failure is not None:
        raise CliError(report.failure.reason, report.failure.message)
    _remark_state(batch, report.shards)
    if not report.records and report.shards:
        remark(f"no record {'has failed' if errors else 'has succeeded'}")
    return 0


def _remark_state(batch: OurObject, committed: int) -> None:
    """While it runs, say that this is not all."""
    name = batch.metadata.name
    if isinstance(batch, FanOutJob):
        if not committed:
            remark(f"{name} has not been joined yet; what a branch has so far: headrace results {name}-BRANCH")
        return
    total = batch.status.shards.total
    if not batch.status.is_true(ConditionType.COMPLETE) and committed < total:
        remark(f"{name} is not complete: these are the records of {committed} of {plural(total, 'shard')}")


def _write_line(line: bytes) -> None:
    sys.stdout.buffer.write(line)


def _write_row(line: bytes) -> None:
    record = orjson.loads(line)
    width = shutil.get_terminal_size((100, 24)).columns if sys.stdout.isatty() else 400
    custom_id = plain(record["custom_id"], _ID_WIDTH)
    sys.stdout.write(f"{custom_id:<{_ID_WIDTH}}  {plain(summary_of(record), max(20, width - _ID_WIDTH - 2))}\n")


def summary_of(record: dict[str, Any]) -> str:
    """The gist of a record: what it says, or what went wrong."""
    if record["error"] is not None:
        return f"{record['error']['code']}: {record['error']['message']}"
    body = record["response"]["body"]
    choice: dict[str, Any] = next(iter(body.get("choices") or ()), {})
    text = choice.get("text") or (choice.get("message") or {}).get("content")
    if text is not None:
        return str(text)
    vectors = [item.get("embedding") for item in body.get("data") or () if isinstance(item, dict)]
    if vectors and isinstance(vectors[0], list):
        return f"{plural(len(vectors), 'embedding')} of {len(vectors[0])} numbers"
    return orjson.dumps(body).decode()


def _why(batch: OurObject) -> str:
    failed = batch.status.condition(ConditionType.FAILED)
    return f"{failed.reason}: {failed.message}" if failed is not None else "its input has not been read yet"
