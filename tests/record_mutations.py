"""Record files gone wrong: good inputs of every format with random changes to their bytes and to their JSON, and what must hold of each.

`python tests/fuzz_records.py --files 100000` takes as many as one likes; the suite takes some hundreds. A file is planned as a batch is.
Then either each thing that is wrong has a line, a code and a sentence; or the records can be read again as they were planned, and the
engine takes or refuses each with a code. There is no third way.
"""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import orjson

from headrace.api.records import RecordError, Request
from headrace.api.worker import PlanReport, WorkerConfig
from headrace_worker import engines
from headrace_worker.engines.base import Engine
from headrace_worker.formats.shards import read_shard
from headrace_worker.manifest import iter_shards
from headrace_worker.planning.plan import plan
from headrace_worker.stores.local import LocalStore
from worker_builders import NOW, a_chat, a_config, no_progress

MOST_CHANGES = 2
PIXEL = "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
PIECES = (
    b"\n", b"\r\n", b"\r", b"\x00", b"\xff", b"\xef\xbb\xbf", b"\xed\xa0\x80", b"{", b"}", b"[", b"]", b'"', b"\\", b"\\u0000", b"\\ud800",
    b",", b":", b"null", b"NaN", b"1e999", b"-0", b"9" * 400, b"[" * 2000, b'{"a":' * 500, b" " * 100, b"\xe2\x80\xa8", b"{{ x }}", b"\x0c",
)  # fmt: skip
"""What breaks readers: line ends, text that is none, halves of JSON, numbers and depths that nobody means."""
VALUES: tuple[Any, ...] = (
    None, True, 0, -1, 2**70, 1e308, "", "\x00", "a" * 600, "ünï\u200b\u2028", [], [[]], {}, {"a": None}, [None], {"role": "user"},
    [{"role": "user", "content": [{"type": "text", "text": "x"}]}], [{"type": "image_url", "image_url": {"url": "file:///etc/passwd"}}],
    [{"type": "image_url", "image_url": {"url": PIXEL[:60]}}], "{{ x", "http://169.254.169.254/", "r1", "r1#0000",
)  # fmt: skip
NAMES = (
    "custom_id",
    "body",
    "url",
    "method",
    "messages",
    "text",
    "content",
    "model",
    "part",
    "",
    "__class__",
    "x" * 300,
)


@dataclass(frozen=True)
class Seed:
    """A good input, and how it is read."""

    content: bytes
    fields: Mapping[str, Any]
    """Fields of the worker's configuration, in camelCase."""


def _lines(*records: dict[str, Any]) -> bytes:
    return b"".join(orjson.dumps(record) + b"\n" for record in records)


_TEXTS = _lines(*({"custom_id": f"r{n}", "text": f"One. Two {n}.\fThree.\nFour."} for n in range(4)))
_PICTURE = [{"type": "text", "text": "What is it?"}, {"type": "image_url", "image_url": {"url": PIXEL}}]
SEEDS: Mapping[str, Seed] = {
    "openai": Seed(b"".join(a_chat(f"r{n}", temperature=None) for n in range(4)), {}),
    "embeddings": Seed(
        b"".join(a_chat(f"r{n}", url="/v1/embeddings", body={"input": ["a", "b"]}) for n in range(3)),
        {"model": {"name": "tiny", "task": "embedding"}},
    ),
    "jsonl": Seed(_TEXTS, {"input": {"format": "jsonl"}}),
    "template": Seed(
        _TEXTS, {"input": {"format": "jsonl", "prompt": {"template": "{% for c in text %}{{ c | upper }}{% endfor %}"}}}
    ),
    "when": Seed(_TEXTS, {"input": {"format": "jsonl", "when": "size(record.text) > 2"}}),
    "content": Seed(_lines({"custom_id": "r1", "content": _PICTURE}), {"input": {"format": "jsonl"}}),
    "text": Seed(b"One file, one record.\n", {"input": {"format": "text"}}),
    "chunks": Seed(_TEXTS, {"input": {"format": "jsonl", "split": {"by": "chunks", "size": 8}}, "shards": 3}),
    "pages": Seed(b"One.\fTwo.\f", {"input": {"format": "text", "split": {"by": "pages", "size": 1}}}),
}


def mutated(content: bytes, rng: Random) -> bytes:
    """The file with one or two random changes."""
    for _ in range(rng.randint(1, MOST_CHANGES)):
        content = rng.choice(_CHANGES)(content, rng)
    return content


def _span(content: bytes, rng: Random) -> tuple[int, int]:
    start = rng.randint(0, len(content))
    return start, min(len(content), start + rng.choice((0, 1, 1, 5, 200)))


def _insert(content: bytes, rng: Random) -> bytes:
    at = rng.randint(0, len(content))
    return content[:at] + rng.choice(PIECES) + content[at:]


def _overwrite(content: bytes, rng: Random) -> bytes:
    start, end = _span(content, rng)
    return content[:start] + rng.randbytes(end - start) + content[end:]


def _remove(content: bytes, rng: Random) -> bytes:
    start, end = _span(content, rng)
    return content[:start] + content[end:]


def _repeat_line(content: bytes, rng: Random) -> bytes:
    lines = content.splitlines(keepends=True) or [b""]
    lines.insert(rng.randint(0, len(lines)), rng.choice(lines))
    return b"".join(lines)


def _cut_off(content: bytes, rng: Random) -> bytes:
    return content[: rng.randint(0, len(content))]


def _change_json(content: bytes, rng: Random) -> bytes:
    """A line that stays JSON, with another value or another name somewhere in it."""
    lines = content.splitlines(keepends=True)
    if not lines:
        return content
    at = rng.randrange(len(lines))
    try:
        record = orjson.loads(lines[at])
    except orjson.JSONDecodeError:
        return content
    lines[at] = orjson.dumps(_with_change(record, rng), option=orjson.OPT_APPEND_NEWLINE | orjson.OPT_NON_STR_KEYS)
    return b"".join(lines)


def _with_change(value: Any, rng: Random) -> Any:
    """Go down a random way, and change what is at its end."""
    if isinstance(value, dict) and value and rng.random() < 0.8:
        name = rng.choice(list(value))
        if rng.random() < 0.2:
            return {**{k: v for k, v in value.items() if k != name}, rng.choice(NAMES): value[name]}
        return {**value, name: _with_change(value[name], rng)}
    if isinstance(value, list) and value and rng.random() < 0.8:
        at = rng.randrange(len(value))
        return [*value[:at], _with_change(value[at], rng), *value[at + 1 :]]
    new = rng.choice(VALUES)
    return _sayable(new)


def _sayable(value: Any) -> Any:
    """Orjson writes no integer of more than 64 bits; as a float it is as far from anything that is meant."""
    return float(value) if isinstance(value, int) and abs(value) > 2**63 else value


_CHANGES: tuple[Callable[[bytes, Random], bytes], ...] = (
    _insert,
    _overwrite,
    _remove,
    _repeat_line,
    _cut_off,
    _change_json,
    _change_json,
    _change_json,
)


def judge(content: bytes, fields: Mapping[str, Any], folder: Path) -> str:
    """`accepted` or `refused`; raises whatever should not be. `folder` is used up."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "in.jsonl").write_bytes(content)
    config = a_config(folder, **{**fields, "input": dict(fields.get("input", {}))})
    report = plan(config, None, NOW, no_progress)
    if report.error_count:
        _well_refused(report)
        return "refused"
    assert report.records, "neither a record nor a word about it"
    _well_planned(config, report)
    return "accepted"


def _well_refused(report: PlanReport) -> None:
    assert report.errors, "refused without a word"
    assert all(error.line >= 1 and error.code and error.message for error in report.errors), report.errors
    assert len(report.errors) <= report.error_count
    assert orjson.dumps(report.to_object())


def _well_planned(config: WorkerConfig, report: PlanReport) -> None:
    """Whoever works on it finds the very records, each with an id of its own."""
    store, ids = LocalStore(), Counter[str]()
    engine = engines.create(config, NOW)
    shards = list(iter_shards(store, config.plan_uri))
    for shard in shards:
        for position, request in read_shard(store, shard, config.input, config.model):
            ids[request.custom_id] += 1
            assert orjson.dumps(request.body)
            refusal = _refusal(engine, position, request)
            assert refusal is None or (refusal.code and refusal.message), refusal
    assert sum(ids.values()) == report.records == sum(shard.records for shard in shards)
    assert max(ids.values()) == 1, "two records of one custom_id"


def _refusal(engine: Engine, position: int, request: Request) -> RecordError | None:
    """Why the engine would not take a record; None when it would."""
    try:
        engine.prepare(position, request)
    except RecordError as error:
        return error
    return None


def fuzz(files: int, seed: int, folder: Path) -> Counter[str]:
    """Judge so many files; how many were accepted and refused. Raises `AssertionError` with the first that is neither."""
    rng, counts = Random(seed), Counter[str]()
    names = sorted(SEEDS)
    for number in range(files):
        name = names[number % len(names)]
        content = mutated(SEEDS[name].content, rng)
        try:
            counts[f"{name} {judge(content, SEEDS[name].fields, folder)}"] += 1
        except Exception as error:
            raise AssertionError(f"file {number} of seed {seed}, format {name}: {error!r}\n{content!r}") from error
        shutil.rmtree(folder)
    return counts
