"""Outputs in every form: the same lines come back, the same run gives the same bytes, and whoever reads an output reads all of them."""

from __future__ import annotations

import gzip
import itertools
import re
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import orjson
import pyarrow.parquet as pq
import pytest
import zstandard

from headrace.api.fileformats import Compression, OutputFormat
from headrace.api.output import OutputFile
from headrace.api.records import ErrorCode, RecordError, error_line, result_line
from headrace.api.results import Wanted
from headrace.api.worker import ExitCode, Role
from headrace_worker.outputfiles import Damaged, FileKind, OutputWriter, read_lines
from headrace_worker.results import records
from headrace_worker.revisions import committed_folders
from headrace_worker.stores.local import LocalStore, file_uri
from worker_rig import Folder, Zygote, chat_line

STORE = LocalStore()
KINDS = [FileKind(*both) for both in itertools.product(OutputFormat, Compression)]
LINES = [
    result_line("batch_req_1", "r1", {"text": "Grüße\u2028", "n": [1.5, 2**53, None], "deep": {"a": []}}, 1),
    result_line("batch_req_2", "r2", {}, 2, {"endpoint": "a"}, "5f"),
    error_line("batch_req_3", "r3", RecordError(ErrorCode.ENGINE_ERROR, "it broke", "x"), 3),
]


def write(folder: Path, kind: FileKind, lines: list[bytes]) -> tuple[str, OutputFile]:
    uri = file_uri(str(folder / f"out{kind.ending}"))
    with ExitStack() as stack:
        writer = OutputWriter(STORE, uri, f"out{kind.ending}", stack, kind)
        for line in lines:
            writer.write(line)
    return uri, writer.file()


@pytest.mark.parametrize("kind", KINDS, ids=lambda it: f"{it.form} {it.compression}")
@pytest.mark.parametrize("lines", [[], LINES, LINES * 3000], ids=["nothing", "a few", "many"])
def test_the_lines_of_a_file_come_back(tmp_path: Path, kind: FileKind, lines: list[bytes]) -> None:
    uri, file = write(tmp_path, kind, lines)
    assert list(read_lines(STORE, uri, file)) == lines
    assert file.records == len(lines)
    assert file.bytes == (tmp_path / file.path).stat().st_size
    content = (tmp_path / file.path).read_bytes()
    write(tmp_path, kind, lines)
    assert (tmp_path / file.path).read_bytes() == content, "the same lines give the same file"


@pytest.mark.parametrize("kind", KINDS, ids=lambda it: f"{it.form} {it.compression}")
def test_a_file_that_was_changed_is_not_believed(tmp_path: Path, kind: FileKind) -> None:
    uri, file = write(tmp_path, kind, LINES)
    content = bytearray((tmp_path / file.path).read_bytes())
    content[len(content) // 2] ^= 1
    (tmp_path / file.path).write_bytes(content)
    with pytest.raises(Damaged):
        list(read_lines(STORE, uri, file))


def test_other_programs_can_read_them(tmp_path: Path) -> None:
    for kind, unpack in (
        (FileKind(compression=Compression.GZIP), gzip.decompress),
        (
            FileKind(compression=Compression.ZSTD),
            lambda it: zstandard.ZstdDecompressor().decompressobj().decompress(it),
        ),
    ):
        _, file = write(tmp_path, kind, LINES)
        assert unpack((tmp_path / file.path).read_bytes()) == b"".join(LINES)
    _, file = write(tmp_path, FileKind(OutputFormat.PARQUET, Compression.ZSTD), LINES)
    rows = pq.read_table(tmp_path / file.path).to_pylist()
    assert [(row["custom_id"], row["attempts"]) for row in rows] == [("r1", 1), ("r2", 2), ("r3", 3)]
    assert orjson.loads(rows[0]["response"])["body"]["text"] == "Grüße\u2028"
    assert (rows[0]["error"], rows[2]["response"]) == (None, None)
    assert orjson.loads(rows[1]["headrace"]) == {"endpoint": "a"}
    assert orjson.loads(rows[2]["error"])["code"] == "engine_error"


def a_folder(path: Path, kind: FileKind, **fields: Any) -> Folder:
    path.mkdir(exist_ok=True)
    engine = {"name": "mock", "mock": {"errorPercent": 20}}
    told = {"outputFormat": kind.form, "outputCompression": kind.compression}
    folder = Folder(path, {"engine": engine, "shards": 2, "retries": {"limit": 0}, **told, **fields})
    folder.write_input(*(chat_line(number, f"How are you, {number}?") for number in range(200)))
    return folder


def lines_of(folder: Folder) -> list[bytes]:
    """But for the second in which it was planned."""
    uri = file_uri(str(folder.output))
    found = records(STORE, uri, committed_folders(STORE, uri).values(), Wanted.ALL)
    return [re.sub(rb'"created":\d+', b'"created":0', line) for line in found]


def run(folder: Folder, zygote: Zygote) -> None:
    assert zygote.run(folder, Role.PLAN).wait() == ExitCode.DONE
    for shard in range(2):
        worker = zygote.run(folder, Role.RUN, shard)
        assert worker.wait() == ExitCode.DONE, worker.log


@pytest.mark.parametrize("kind", KINDS[1:], ids=lambda it: f"{it.form} {it.compression}")
def test_a_batch_and_its_retry_have_the_same_lines_in_every_form(
    tmp_path: Path, zygote: Zygote, kind: FileKind
) -> None:
    plain, other = a_folder(tmp_path / "plain", FileKind()), a_folder(tmp_path / "other", kind)
    for folder in (plain, other):
        run(folder, zygote)
    assert len(lines_of(plain)) == 200
    assert lines_of(other) == lines_of(plain)
    assert {file.name.split(".", 2)[2] for file in (other.output / "results").iterdir()} == {kind.ending[1:]}
    for folder in (plain, other):
        folder.fields |= {"round": 1, "engine": {"name": "mock"}}
        run(folder, zygote)
    assert lines_of(other) == lines_of(plain)
    assert {file.name[:11] for file in (other.output / "results").iterdir()} == {"00000.r1.a1", "00001.r1.a1"}
