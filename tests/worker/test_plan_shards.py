"""What holds for the shards of every input, and that inline records are planned like a file of them."""

from __future__ import annotations

import hashlib
import tempfile
from pathlib import Path

import orjson
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.api.manifest import lay_out_inline
from headrace.api.worker import WorkerConfig
from headrace_worker.formats.shards import read_shard
from headrace_worker.manifest import iter_shards
from headrace_worker.planning.plan import plan
from headrace_worker.stores.local import LocalStore
from worker_builders import NOW, a_chat, a_config, no_progress, write_files

STORE = LocalStore()

sizes = st.lists(st.integers(0, 300) | st.just(5000), min_size=1, max_size=40)
endings = st.sampled_from([b"", b"\n", b"\r\n\n", b" \n"])


@st.composite
def inputs(draw: st.DrawFn) -> list[list[bytes]]:
    """Files of valid lines, with blank ones in between, some without a last newline, at least one line in all."""
    files: list[list[bytes]] = [[]]
    for number, size in enumerate(draw(sizes)):
        if draw(st.integers(0, 5)) == 0:
            files.append([])
        files[-1].append(a_chat(f"r{number}", "x" * size) + draw(endings))
    for lines in filter(None, files):
        if draw(st.booleans()):
            lines[-1] = lines[-1].rstrip()
    return files


def planned(folder: Path, files: list[list[bytes]], shards: int, limit: int | None) -> WorkerConfig:
    write_files(folder / "in", {f"{number:03}.jsonl": lines for number, lines in enumerate(files)})
    config = a_config(folder, source="in", shards=shards, input={"limit": limit} if limit else {})
    report = plan(config, None, NOW, no_progress)
    assert report.error_count == 0
    return config


@settings(max_examples=75, deadline=None)
@given(files=inputs(), shards=st.integers(1, 50), limit=st.none() | st.integers(1, 50))
def test_shards_are_the_input_in_its_order(files: list[list[bytes]], shards: int, limit: int | None) -> None:
    records = [line for lines in files for line in lines][:limit]
    with tempfile.TemporaryDirectory() as name:
        config = planned(Path(name), files, shards, limit)
        found = list(iter_shards(STORE, config.plan_uri))
        assert [shard.index for shard in found] == list(range(len(found)))
        assert 1 <= len(found) <= min(shards, len(records))
        first = 0
        for shard in found:
            mine = records[first : first + shard.records]
            assert shard.first_record == first
            read = [request.custom_id for _, request in read_shard(STORE, shard, config.input, config.model)]
            assert read == [orjson.loads(line)["custom_id"] for line in mine]
            assert shard.sha256 == hashlib.sha256(b"".join(map(record_bytes, mine))).hexdigest()
            first += shard.records
        assert first == len(records)


def record_bytes(line: bytes) -> bytes:
    """The line with its own end, without the blank lines after it."""
    return line if line.endswith(b"}") else line[: line.index(b"\n") + 1]


@settings(max_examples=50, deadline=None)
@given(files=inputs(), shards=st.integers(1, 50))
def test_shards_are_of_about_equal_bytes(files: list[list[bytes]], shards: int) -> None:
    """No shard is larger than its share by more than the record at each of its ends."""
    lines = [line for file in files for line in file]
    with tempfile.TemporaryDirectory() as name:
        config = planned(Path(name), files, shards, None)
        share, longest = sum(map(len, lines)) / shards, max(map(len, lines))
        for shard in iter_shards(STORE, config.plan_uri):
            assert sum(segment.end - segment.start for segment in shard.segments) <= share + longest + 8


@settings(max_examples=50, deadline=None)
@given(lengths=st.lists(st.integers(0, 300), min_size=1, max_size=30), shards=st.integers(1, 40))
def test_inline_records_are_planned_like_a_file(lengths: list[int], shards: int) -> None:
    records = [orjson.loads(a_chat(f"r{number}", "x" * length)) for number, length in enumerate(lengths)]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        config = a_config(folder, shards=shards)
        inline = lay_out_inline(
            records,
            config.input,
            config.model,
            shards=shards,
            batch=config.batch,
            created=NOW,
            uri=config.input.uri or "",
        )
        write_files(folder, {"in.jsonl": inline.lines})
        report = plan(config, None, NOW, no_progress)
        assert inline.report is not None
        assert report.model_copy(update={"manifest_sha256": inline.report.manifest_sha256}) == inline.report
        header, shards_of_file = STORE.read(config.plan_uri).split(b"\n", 1)
        told, shards_of_inline = inline.manifest.split(b"\n", 1)
        assert shards_of_file == shards_of_inline
        assert orjson.loads(header) == {**orjson.loads(told), "modified": int((folder / "in.jsonl").stat().st_mtime)}


@settings(max_examples=60, deadline=None)
@given(files=inputs(), shards=st.integers(1, 20), wanted=st.sets(st.integers(0, 39), min_size=1))
def test_a_batch_that_is_routed_to_reads_its_records_and_no_others(
    files: list[list[bytes]], shards: int, wanted: set[int]
) -> None:
    """Whatever lies between them: every shard is read with its proof, in the order of the input, and no record comes twice."""
    ids = [orjson.loads(line)["custom_id"] for lines in files for line in lines]
    expected = [name for name in ids if int(name[1:]) in wanted]
    when = f"record.custom_id in {orjson.dumps([f'r{n}' for n in sorted(wanted)]).decode()}"
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_files(folder / "in", {f"{number:03}.jsonl": lines for number, lines in enumerate(files)})
        config = a_config(folder, source="in", shards=shards, input={"when": when})
        report = plan(config, None, NOW, no_progress)
        assert [problem.code for problem in report.errors] == ([] if expected else ["no_record_taken"])
        if not expected:
            return
        assert report.records == len(expected)
        found = list(iter_shards(STORE, config.plan_uri))
        read = [[r.custom_id for _, r in read_shard(STORE, shard, config.input, config.model)] for shard in found]
        assert [name for shard in read for name in shard] == expected
        assert [len(shard) for shard in read] == [shard.records for shard in found]
