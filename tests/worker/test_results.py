"""Reading what a batch has left: in the order of its input, as far as it is committed, and with a word about what is missing."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import orjson
import pytest

from headrace.api.results import ResultsReport, Wanted, parse_results_report
from headrace.api.worker import ExitCode
from headrace_worker import main as front_door
from headrace_worker.results import BROKEN_PIPE, records
from headrace_worker.revisions import committed_folders
from headrace_worker.stores.local import LocalStore
from worker_rig import IDENTITY, PYTHONPATH

STORE = LocalStore()


def a_line(number: int, *, failed: bool) -> bytes:
    """Record `number` of the whole input."""
    row: dict[str, Any] = {"id": f"batch_req_{number:012}", "custom_id": f"r{number}"}
    error = {"code": "mock_error", "message": "no"} if failed else None
    response = None if failed else {"status_code": 200, "body": {}}
    return orjson.dumps({**row, "response": response, "error": error}, option=orjson.OPT_APPEND_NEWLINE)


def commit(output: Path, shard: int, first: int, size: int) -> None:
    """Commit a shard of so many records, every second of which has failed."""
    kinds = {
        "results": [a_line(n, failed=False) for n in range(first, first + size) if not n % 2],
        "errors": [a_line(n, failed=True) for n in range(first, first + size) if n % 2],
    }
    files: dict[str, Any] = {}
    for kind, lines in kinds.items():
        path = output / kind / f"{shard:05}.a1.jsonl"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content := b"".join(lines))
        told = {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
        files[kind] = {"path": f"{kind}/{path.name}", "records": len(lines), **told}
    said = {"version": 1, "batch": IDENTITY.to_object(), "shard": shard, "attempt": 1, "reprocessed": 0, **files}
    counts = {"total": size, "succeeded": len(kinds["results"]), "failed": len(kinds["errors"])}
    whole = {**said, "records": counts, "usage": {}, "batches": 1, "batchedRecords": size}
    path = output / "_headrace" / "shards" / f"{shard:05}" / "commit.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(orjson.dumps(whole))


@pytest.fixture
def output(tmp_path: Path) -> Path:
    """Three shards, of which the second is not committed."""
    folder = tmp_path / "my output"
    commit(folder, 0, 0, 4)
    (folder / "_headrace" / "shards" / "00001").mkdir()
    (folder / "_headrace" / "shards" / "00001" / "a1.journal").write_text("")
    commit(folder, 2, 8, 4)
    return folder


def ids(lines: bytes) -> list[str]:
    return [orjson.loads(line)["custom_id"] for line in lines.splitlines()]


def read(capfdbinary: pytest.CaptureFixture[bytes], *words: str) -> tuple[int, list[str], ResultsReport]:
    """What the program writes and says."""
    code = front_door.main(["results", *words])
    said = capfdbinary.readouterr()
    report = parse_results_report(said.err)
    assert report is not None
    return code, ids(said.out), report


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        pytest.param([], ["r0", "r2", "r8", "r10"], id="the results"),
        pytest.param(["--errors"], ["r1", "r3", "r9", "r11"], id="the errors"),
        pytest.param(["--all"], ["r0", "r1", "r2", "r3", "r8", "r9", "r10", "r11"], id="both"),
        pytest.param(["--all", "--limit", "3"], ["r0", "r1", "r2"], id="the first three"),
    ],
)
def test_results_are_in_the_order_of_the_input(
    output: Path, capfdbinary: pytest.CaptureFixture[bytes], words: list[str], expected: list[str]
) -> None:
    code, found, report = read(capfdbinary, "--output", output.as_uri(), *words)
    assert (code, found) == (ExitCode.DONE, expected)
    assert report == ResultsReport(shards=2, records=len(expected))


def test_results_of_an_output_that_is_not_there(tmp_path: Path, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    code, found, report = read(capfdbinary, "--output", (tmp_path / "nothing").as_uri())
    assert (code, found, report) == (ExitCode.DONE, [], ResultsReport())


def test_results_whose_file_has_gone_say_so_after_what_there_is(
    output: Path, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    (output / "results" / "00002.a1.jsonl").unlink()
    code, found, report = read(capfdbinary, "--output", output.as_uri())
    assert (code, found, report.records) == (ExitCode.JOB_FAILED, ["r0", "r2"], 2)
    assert report.failure is not None
    assert report.failure.reason == "OutputDamaged"
    assert "results/00002.a1.jsonl" in report.failure.message


@pytest.mark.parametrize(
    ("uri", "reason"),
    [("ftp://x/y", "UnsupportedScheme"), ("file:relative", "OutputUnreadable")],
    ids=["no store", "no URI of a file"],
)
def test_results_of_a_place_that_cannot_be_read(
    capfdbinary: pytest.CaptureFixture[bytes], uri: str, reason: str
) -> None:
    code, _, report = read(capfdbinary, "--output", uri)
    assert code == ExitCode.JOB_FAILED
    assert report.failure is not None
    assert report.failure.reason == reason


def test_results_of_a_damaged_commit(output: Path, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    (output / "_headrace" / "shards" / "00000" / "commit.json").write_text("{")
    _, _, report = read(capfdbinary, "--output", output.as_uri())
    assert report.failure is not None
    assert report.failure.reason == "CommitDamaged"


def test_records_of_a_shard_that_goes_meanwhile_are_left_out(output: Path) -> None:
    shards = committed_folders(STORE, output.as_uri())
    assert list(shards) == [0, 2]
    (output / "_headrace" / "shards" / "00000" / "commit.json").unlink()
    found = records(STORE, output.as_uri(), shards.values(), Wanted.SUCCEEDED)
    assert ids(b"".join(found)) == ["r8", "r10"]


def a_process(*words: str) -> subprocess.Popen[bytes]:
    """The worker in a process of its own."""
    environment = {**os.environ, "PYTHONPATH": PYTHONPATH}
    command = [sys.executable, "-m", "headrace_worker", *words]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def test_results_to_a_reader_that_goes_away_end_without_a_word(tmp_path: Path) -> None:
    commit(tmp_path, 0, 0, 40_000)
    process = a_process("results", "--output", tmp_path.as_uri())
    assert process.stdout is not None
    assert ids(process.stdout.readline()) == ["r0"]
    process.stdout.close()
    assert process.stderr is not None
    assert process.stderr.read() == b""
    assert process.wait() == BROKEN_PIPE


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_hold_waits_to_be_told_to_stop(number: signal.Signals) -> None:
    process = a_process("hold")
    assert process.stderr is not None
    assert process.stderr.readline() == b"waiting for somebody to read\n"
    process.send_signal(number)
    process.communicate()
    assert process.returncode == ExitCode.DONE


@pytest.mark.parametrize(
    "said", [b"", b"Traceback\nboom", b'{"kind": "plan"}'], ids=["nothing", "a crash", "another report"]
)
def test_parse_results_report_of_what_is_none(said: bytes) -> None:
    assert parse_results_report(said) is None


def test_parse_results_report_after_warnings() -> None:
    assert parse_results_report(b'a warning\n{"kind": "results", "records": 3}\n') == ResultsReport(records=3)
