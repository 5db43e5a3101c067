"""Inputs that are compressed, or no lines of JSON: the same records, whatever file they are in and wherever a shard begins."""

from __future__ import annotations

import csv
import gzip
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard

from headrace.api.base import JsonObject
from headrace.api.worker import PlanReport, Shard, WorkerConfig
from headrace_worker.errors import JobFailed
from headrace_worker.formats import parquetrows
from headrace_worker.formats.shards import read_shard, verify_shard
from headrace_worker.manifest import iter_shards
from headrace_worker.planning.plan import plan
from headrace_worker.stores.local import LocalStore
from worker_builders import NOW, a_config, no_progress, write_files

STORE = LocalStore()
TEXTS = ("plain", 'with "quotes", commas', "over\nseveral\n\nlines", "Grüße \u2028 from \x1c afar", "", "x" * 5000)
RECORDS: list[JsonObject] = [{"custom_id": f"r{number}", "text": TEXTS[number % len(TEXTS)]} for number in range(60)]


def as_jsonl(records: list[JsonObject]) -> bytes:
    return b"".join(orjson.dumps(record, option=orjson.OPT_APPEND_NEWLINE) for record in records)


def as_csv(records: list[JsonObject], delimiter: str = ",") -> bytes:
    file = io.StringIO(newline="")
    writer = csv.DictWriter(file, ["custom_id", "text"], delimiter=delimiter)
    writer.writeheader()
    writer.writerows(records)
    return file.getvalue().encode()


def as_parquet(records: list[JsonObject]) -> bytes:
    """In row groups of seven."""
    file = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(records), file, row_group_size=7)
    return file.getvalue()


def zstd(content: bytes) -> bytes:
    return zstandard.ZstdCompressor().compress(content)


def in_pieces(pack: Callable[[bytes], bytes], content: bytes) -> bytes:
    """Members, or frames, one after the other, as programs write them that append or work in parallel."""
    return b"".join(pack(content[at : at + 1000]) for at in range(0, len(content), 1000))


PACKERS: dict[str, Callable[[list[JsonObject]], bytes]] = {
    "csv": as_csv,
    "csv.gz": lambda it: gzip.compress(as_csv(it)),
    "parquet": as_parquet,
    "jsonl.gz": lambda it: gzip.compress(as_jsonl(it)),
    "jsonl.zst": lambda it: zstd(as_jsonl(it)),
}
FILES: dict[str, bytes] = {
    "in.jsonl.gz": gzip.compress(as_jsonl(RECORDS)),
    "in.jsonl.zst": zstd(as_jsonl(RECORDS)),
    "pieces.jsonl.GZ": in_pieces(gzip.compress, as_jsonl(RECORDS)),
    "pieces.jsonl.zstd": in_pieces(zstd, as_jsonl(RECORDS)),
    "in.csv": as_csv(RECORDS),
    "mark.csv": b"\xef\xbb\xbf" + as_csv(RECORDS),
    "in.csv.gz": gzip.compress(as_csv(RECORDS)),
    "in.tsv": as_csv(RECORDS, "\t"),
    "in.parquet": as_parquet(RECORDS),
}


def form_of(name: str) -> str:
    return "jsonl" if ".jsonl" in name else "parquet" if name.endswith(".parquet") else "csv"


def config_of(folder: Path, source: str, shards: int = 1) -> WorkerConfig:
    return a_config(folder, source=source, input={"format": form_of(source)}, shards=shards)


def planned(config: WorkerConfig) -> PlanReport:
    return plan(config, None, NOW, no_progress)


def shards_of(config: WorkerConfig) -> list[Shard]:
    assert planned(config).error_count == 0
    return list(iter_shards(STORE, config.plan_uri))


def read(config: WorkerConfig, shard: Shard) -> list[JsonObject]:
    found = (request for _, request in read_shard(STORE, shard, config.input, config.model))
    return [{"custom_id": it.custom_id, "text": it.body["messages"][0]["content"]} for it in found]


@pytest.mark.parametrize("shards", [1, 4])
@pytest.mark.parametrize("name", FILES)
def test_a_file_has_the_same_records_in_every_form(tmp_path: Path, name: str, shards: int) -> None:
    write_files(tmp_path, {name: FILES[name]})
    config = config_of(tmp_path, name, shards)
    cut = shards_of(config)
    assert len(cut) == shards
    assert [record for shard in cut for record in read(config, shard)] == RECORDS
    sizes = [shard.records for shard in cut]
    assert max(sizes) - min(sizes) < len(RECORDS) / 2, "shards are of about equal size, by what is in the file"
    for shard in cut:
        verify_shard(STORE, shard, config.input)


@pytest.mark.parametrize("form", ["csv", "parquet", "jsonl.gz"])
def test_a_shard_spans_files_in_every_form(tmp_path: Path, form: str) -> None:
    pack = PACKERS[form]
    write_files(tmp_path / "in", {f"a.{form}": pack(RECORDS[:20]), f"b.{form}": pack(RECORDS[20:])})
    config = a_config(tmp_path, source=f"in/*.{form}", input={"format": form.split(".", maxsplit=1)[0]}, shards=2)
    first, second = shards_of(config)
    assert {len(first.segments), len(second.segments)} == {1, 2}
    assert read(config, first) + read(config, second) == RECORDS


def test_an_input_of_openai_requests_may_be_compressed(tmp_path: Path) -> None:
    line = {"custom_id": "r1", "body": {"messages": [{"role": "user", "content": "Hello"}]}}
    write_files(tmp_path, {"in.jsonl.gz": gzip.compress(as_jsonl([line]))})
    config = a_config(tmp_path, source="in.jsonl.gz")
    (shard,) = shards_of(config)
    assert read(config, shard) == [{"custom_id": "r1", "text": "Hello"}]


def test_fields_of_parquet_have_their_types(tmp_path: Path) -> None:
    row = {
        "custom_id": "r1",
        "n": 3,
        "price": 0.5,
        "tags": ["a", "b"],
        "of": {"x": None},
        "raw": b"\x00\xff",
        "no": None,
    }
    write_files(tmp_path, {"in.parquet": as_parquet([row])})
    template = "{{ n + 1 }} {{ price }} {{ tags[1] }} {{ of.x }} {{ raw }} {{ no }}"
    spec = {"format": "parquet", "prompt": {"template": template}}
    config = a_config(tmp_path, source="in.parquet", input=spec)
    (shard,) = shards_of(config)
    assert read(config, shard) == [{"custom_id": "r1", "text": "4 0.5 b None AP8= None"}]


def test_large_rows_of_parquet_are_unpacked_a_few_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parquetrows, "_BYTES_AT_ONCE", 1024 * 1024)
    file = tmp_path / "in.parquet"
    table = pa.Table.from_pylist([{"custom_id": f"r{n}", "raw": bytes(256 * 1024)} for n in range(64)])
    pq.write_table(table, file, use_dictionary=False, compression="zstd", write_batch_size=4)
    del table
    before = pa.total_allocated_bytes()
    with file.open("rb") as stream:
        rows = parquetrows.rows(stream)
        next(rows)
        assert pa.total_allocated_bytes() - before < 8 * 1024 * 1024
        assert sum(1 for _ in rows) == 63


BAD: list[Any] = [
    ("in.csv", b"custom_id,text\na,1\nb\n", 3, "invalid_csv", "1 values; the first line has 2", "a row that is too short"),
    ("in.csv", b"custom_id,text\na,1\nb,1,2\n", 3, "invalid_csv", "3 values", "a row that is too long"),
    ("in.csv", b'custom_id,text\na,"1\n2"\nb,"3\n', 4, "invalid_csv", "no CSV", "a quotation mark that is never closed"),
    ("in.csv", b'custom_id,text\na,"1"2\n', 2, "invalid_csv", "no CSV", "text behind a quotation mark"),
    ("in.csv", b"custom_id,text\na,\xff\n", 2, "invalid_utf8", "byte 2", "a row that is not UTF-8"),
    ("in.csv", b"custom_id,text,text\na,1,2\n", 1, "invalid_csv", "two columns are called text", "a name twice"),
    ("in.csv", b"custom_id,\na,1\n", 1, "invalid_csv", "a column has no name", "a column without a name"),
    ("in.csv", b"id,text\na,1\n", 2, "missing_custom_id", "must be set", "no column custom_id"),
    ("in.csv", b"custom_id,text\n,1\n", 2, "invalid_custom_id", "1 to 512", "an empty custom_id"),
    ("in.csv", b"custom_id,text\na,1\na,2\n", 3, "duplicate_custom_id", "line 2", "a custom_id twice"),
    ("in.csv", b"custom_id,text\n", 1, "empty_input", "no records", "a file of names alone"),
    ("in.parquet", b"no", 1, "damaged_file", "no Parquet file", "a Parquet file that is none"),
    ("in.parquet", as_parquet(RECORDS)[:-20], 1, "damaged_file", "not whole", "half a Parquet file"),
    ("in.parquet", as_parquet([{"custom_id": 7, "text": ""}]), 1, "invalid_custom_id", "a string", "a number as an id"),
    ("in.jsonl.gz", as_jsonl(RECORDS), 1, "damaged_file", "(gzip)", "lines that are called compressed"),
    ("in.jsonl.zst", as_jsonl(RECORDS), 1, "damaged_file", "(zstd)", "lines that are called zstd"),
    ("in.jsonl.zst", zstd(as_jsonl(RECORDS))[:-9], 1, "damaged_file", "in the middle", "half a zstd file"),
    ("in.jsonl.gz", gzip.compress(as_jsonl(RECORDS))[:-9], 61, "damaged_file", "ended before", "gzip without its end"),
    ("in.jsonl.gz", gzip.compress(as_jsonl([*RECORDS, {"x": 1}])), 61, "missing_custom_id", "be set", "a bad line in it"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "content", "line", "code", "message"), [pytest.param(*it[:-1], id=it[-1]) for it in BAD]
)
def test_what_is_wrong_with_a_file_is_said_with_its_line(
    tmp_path: Path, name: str, content: bytes, line: int, code: str, message: str
) -> None:
    write_files(tmp_path, {name: content})
    report = planned(config_of(tmp_path, name, shards=2))
    problem = report.errors[0]
    assert (problem.line, problem.code) == (line, code)
    assert message in problem.message
    assert report.error_count == 1


def test_what_is_wrong_is_said_with_its_file(tmp_path: Path) -> None:
    write_files(tmp_path / "in", {"a.jsonl.gz": gzip.compress(as_jsonl(RECORDS)), "b.jsonl.gz": b"no"})
    (problem,) = planned(a_config(tmp_path, source="in", input={"format": "jsonl"})).errors
    assert (problem.file, problem.line, problem.code) == ("b.jsonl.gz", 1, "damaged_file")


@pytest.mark.parametrize("name", ["in.parquet", "in.csv.gz", "in.jsonl.zst"])
def test_a_file_that_has_changed_since_it_was_planned_is_noticed(tmp_path: Path, name: str) -> None:
    pack = PACKERS[name.removeprefix("in.")]
    write_files(tmp_path, {name: FILES[name]})
    config = config_of(tmp_path, name, shards=2)
    shards = shards_of(config)
    other = [{**record, "text": record["text"].swapcase()} for record in RECORDS]
    write_files(tmp_path, {name: pack(other)})
    for shard in shards:
        with pytest.raises(JobFailed, match=rf"InputChanged: .*{name}"):
            verify_shard(STORE, shard, config.input)


def test_a_file_that_unpacks_to_far_more_is_read_in_little_memory(tmp_path: Path) -> None:
    """A line of 256 MiB is never held: it is an error of its line, and the next line is read."""
    packer = zstandard.ZstdCompressor().compressobj()
    with (tmp_path / "in.jsonl.zst").open("wb") as file:
        for _ in range(256):
            file.write(packer.compress(bytes(1024 * 1024)))
        file.write(packer.compress(b"\n" + as_jsonl(RECORDS[:1])) + packer.flush())
    report = planned(config_of(tmp_path, "in.jsonl.zst"))
    assert [(it.line, it.code) for it in report.errors] == [(1, "line_too_long")]
    assert report.records == 2
