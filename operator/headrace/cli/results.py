"""`headrace results`: the records of a batch in the order of its input, as far as their shards are committed."""

from __future__ import annotations

import heapq
import shutil
import sys
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import unquote, urlsplit

import orjson
from pydantic import ConfigDict, ValidationError

from headrace.api.base import ApiModel
from headrace.api.inferencebatch import InferenceBatch
from headrace.api.output import OutputFile, ShardOutput
from headrace.api.reasons import ConditionType
from headrace.cli.app import JsonOutput, Where
from headrace.cli.exits import BAD_INPUT, CliError
from headrace.cli.place import find_batch
from headrace.cli.text import plain, plural, remark

_ID_WIDTH = 24
"""At most; a longer `custom_id` is cut in the table, never in the JSON."""


def results(
    where: Where, name: str, output: JsonOutput, *, errors: bool, everything: bool, limit: int | None = None
) -> int:
    """Print results, errors or both. Raises `CliError`, `StateError`."""
    if errors and everything:
        raise CliError("UsageError", "--errors and --all cannot be used together: --all has the errors too", BAD_INPUT)
    _, folder = find_batch(where, name)
    batch = folder.load()
    shards = list(committed_shards(output_folder(batch)))
    _remark_state(batch, len(shards))
    wanted = ("results", "errors") if everything else ("errors",) if errors else ("results",)
    lines = (line for shard in shards for line in _records(output_folder(batch), shard, wanted))
    write = sys.stdout.buffer.write if output == JsonOutput.JSON else _write_row
    count = 0
    for count, line in enumerate(islice(lines, limit), 1):  # noqa: B007 - how many there were is told below
        write(line)
    sys.stdout.flush()
    if not count and shards:
        remark(f"no record {'has failed' if errors else 'has succeeded'}")
    return 0


def output_folder(batch: InferenceBatch) -> Path:
    """Where the output of a batch is on this machine. Raises `CliError` when it is elsewhere."""
    output = batch.status.output
    if output is None:
        raise CliError("NoOutput", f"{batch.metadata.name} has no output: {_why(batch)}")
    if not output.uri.startswith("file://"):
        raise CliError("OutputElsewhere", f"the output is at {output.uri}: read it with the tools of that store")
    return Path(unquote(urlsplit(output.uri).path))


class _Commit(ApiModel):
    """The part of a shard's `commit.json` that says where its records are."""

    model_config: ClassVar[ConfigDict] = ConfigDict(extra="ignore")

    shard: int
    attempt: int
    results: OutputFile
    errors: OutputFile


def committed_shards(folder: Path) -> Iterator[ShardOutput]:
    """The shards that are done, in their order."""
    for path in sorted(folder.glob("_headrace/shards/*/commit.json")):
        try:
            commit = _Commit.model_validate_json(path.read_bytes())
        except ValidationError as error:
            raise CliError(
                "OutputDamaged", f"{path} is not the manifest of a shard: {error.errors()[0]['msg']}"
            ) from error
        yield ShardOutput(index=commit.shard, attempt=commit.attempt, results=commit.results, errors=commit.errors)


def _records(folder: Path, shard: ShardOutput, wanted: Iterable[str]) -> Iterable[bytes]:
    """The lines of a shard. An output line's `id` counts the records of the whole input, so sorting by it gives their order."""
    files = [_lines(folder / getattr(shard, kind).path) for kind in wanted]
    return files[0] if len(files) == 1 else heapq.merge(*files, key=lambda line: orjson.loads(line)["id"])


def _lines(path: Path) -> Iterator[bytes]:
    with path.open("rb") as stream:
        yield from stream


def _remark_state(batch: InferenceBatch, committed: int) -> None:
    """While it runs, say that this is not all."""
    name, total = batch.metadata.name, batch.status.shards.total
    if not batch.status.is_true(ConditionType.COMPLETE) and committed < total:
        remark(f"{name} is not complete: these are the records of {committed} of {plural(total, 'shard')}")


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


def _why(batch: InferenceBatch) -> str:
    failed = batch.status.condition(ConditionType.FAILED)
    return f"{failed.reason}: {failed.message}" if failed is not None else "its input has not been read yet"
