"""Records that an earlier batch has left without a result, taken up by a later one: planned and worked on where they lie."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.api.records import ErrorCode, RecordError, error_line, result_line
from headrace.api.worker import PlanReport
from headrace_worker.formats.shards import read_shard
from headrace_worker.journal import ShardJournal
from headrace_worker.layout import record_id
from headrace_worker.ledger import Entry
from headrace_worker.manifest import iter_shards, read_header
from headrace_worker.planning.plan import plan
from headrace_worker.stores.local import LocalStore, file_uri
from worker_fanout import FanOut
from worker_rig import CREATED, Folder

STORE = LocalStore()


@dataclass
class Batch:
    """One of several batches on the same documents, each with an output of its own."""

    root: Path
    name: str
    source: str
    """A file or a glob below the root."""
    after: Batch | None = None
    """The batch whose undone records it takes up."""
    spec: tuple[tuple[str, Any], ...] = ()
    """More of its input."""
    shards: int = 1

    @property
    def folder(self) -> Folder:
        carried = {} if self.after is None else {"carriedFrom": file_uri(str(self.after.folder.output)) + "/"}
        source = {"uri": file_uri(str(self.root)) + f"/{self.source}", "format": "jsonl", **dict(self.spec), **carried}
        return Folder(self.root / self.name, {"input": source, "shards": self.shards})

    def plan(self) -> PlanReport:
        """Read the input."""
        report = plan(self.folder.config(), None, CREATED, lambda _: None)
        assert not report.errors, report
        return report

    def work(self, failing: Collection[str] = ()) -> Batch:
        """Work on all of it, plan included; some records fail."""
        self.plan()
        config = self.folder.config()
        header = read_header(STORE, config.plan_uri)
        for shard in list(iter_shards(STORE, config.plan_uri)):
            claimed = ShardJournal.claim(STORE, config.output_uri, shard, header)
            assert isinstance(claimed, ShardJournal)
            with claimed as journal:
                for position, request in read_shard(STORE, shard, config.input, config.model):
                    journal.append([_entry(record_id(shard, position), position, request.custom_id, failing)])
                journal.commit()
        return self

    def ids(self) -> list[str]:
        """Its records in their order."""
        config = self.folder.config()
        shards = iter_shards(STORE, config.plan_uri)
        return [it.custom_id for shard in shards for _, it in read_shard(STORE, shard, config.input, config.model)]


def _entry(line_id: str, position: int, custom_id: str, failing: Collection[str]) -> Entry:
    if custom_id in failing:
        return Entry(position, error_line(line_id, custom_id, RecordError(ErrorCode.ENGINE_ERROR, "it broke"), 1), True)
    return Entry(position, result_line(line_id, custom_id, {"answer": "yes"}, 1))


def write_lines(path: Path, ids: Collection[str]) -> None:
    """A file with a line for each of these records."""
    rows = ({"custom_id": custom_id, "text": f"Say {custom_id}."} for custom_id in ids)
    path.write_bytes(b"".join(orjson.dumps(row, option=orjson.OPT_APPEND_NEWLINE) for row in rows))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Three files of five records each."""
    for name in "abc":
        write_lines(tmp_path / f"{name}.jsonl", [f"{name}{number}" for number in range(5)])
    return tmp_path


def test_plan_takes_up_what_has_failed_before_what_is_new(root: Path) -> None:
    first = Batch(root, "first", "a.jsonl").work(failing=["a1", "a2", "a4"])
    second = Batch(root, "second", "b.jsonl", first)
    report = second.plan()
    assert (report.records, report.carried) == (8, 3)
    assert second.ids() == ["a1", "a2", "a4", "b0", "b1", "b2", "b3", "b4"]
    assert second.plan() == report, "planning twice gives what planning once gave"


def test_plan_takes_up_what_was_taken_up_before_and_has_failed_again(root: Path) -> None:
    first = Batch(root, "first", "a.jsonl").work(failing=["a1", "a2"])
    second = Batch(root, "second", "b.jsonl", first).work(failing=["a2", "b3"])
    third = Batch(root, "third", "c.jsonl", second).work()
    assert third.ids()[:3] == ["a2", "b3", "c0"]
    assert Batch(root, "fourth", "a.jsonl", third).plan().carried is None


def test_plan_takes_up_all_of_a_shard_that_was_never_committed(root: Path) -> None:
    first = Batch(root, "first", "a.jsonl", shards=2)
    first.work(failing=["a0"])
    shutil.rmtree(first.folder.private(1))
    second = Batch(root, "second", "b.jsonl", first)
    second.plan()
    (later,) = list(iter_shards(STORE, first.folder.config().plan_uri))[1:]
    assert second.ids()[: 1 + later.records] == ["a0", *[f"a{number}" for number in range(5 - later.records, 5)]]


def test_plan_takes_up_files_of_the_format_text_but_none_that_it_reads_anyway(root: Path) -> None:
    for name in ("one", "two", "three"):
        (root / f"{name}.txt").write_text(f"About {name}.")
    text = (("format", "text"), ("prompt", {"template": "{{ text }}"}))
    first = Batch(root, "first", "*.txt", spec=text).work(failing=["one.txt", "two.txt"])
    second = Batch(root, "second", "t*.txt", first, spec=text)
    assert second.plan().carried == 1
    assert second.ids() == ["one.txt", "three.txt", "two.txt"]
    second.work()


def test_plan_of_an_empty_window_takes_up_what_has_failed(root: Path) -> None:
    first = Batch(root, "first", "a.jsonl").work(failing=["a3"])
    window = {"startTime": "2001-01-01T00:00:00Z", "endTime": "2001-01-02T00:00:00Z"}
    nothing_new = (("objects", "ModifiedInWindow"), ("window", window))
    second = Batch(root, "second", "b.jsonl", first, spec=nothing_new)
    assert second.plan().records == 1
    assert second.ids() == ["a3"]


def test_plan_counts_what_it_takes_up_towards_the_limit(root: Path) -> None:
    first = Batch(root, "first", "a.jsonl").work(failing=["a1", "a3"])
    second = Batch(root, "second", "b.jsonl", first, spec=(("limit", 3),))
    assert (second.plan().records, second.plan().carried) == (3, 2)
    assert second.ids() == ["a1", "a3", "b0"]


def test_plan_refuses_a_record_that_is_new_and_taken_up_at_once(root: Path) -> None:
    first = Batch(root, "first", "a.jsonl").work(failing=["a1"])
    write_lines(root / "again.jsonl", ["b0", "a1"])
    report = plan(Batch(root, "second", "again.jsonl", first).folder.config(), None, CREATED, lambda _: None)
    (problem,) = report.errors
    assert (problem.code, problem.line) == ("duplicate_custom_id", 2)
    assert "a.jsonl" in problem.message


@pytest.mark.parametrize("gone", ["the output", "the input"])
def test_plan_goes_on_without_what_is_not_there_any_more(
    root: Path, caplog: pytest.LogCaptureFixture, gone: str
) -> None:
    first = Batch(root, "first", "a.jsonl").work(failing=["a1"])
    shutil.rmtree(first.folder.output) if gone == "the output" else (root / "a.jsonl").unlink()
    with caplog.at_level(logging.WARNING):
        assert Batch(root, "second", "b.jsonl", first).plan().carried is None
    assert "taken up" in caplog.text


def test_plan_takes_up_only_lines_that_still_are_the_records(root: Path) -> None:
    first = Batch(root, "first", "a.jsonl").work(failing=["a1", "a3"])
    lines = (root / "a.jsonl").read_bytes().splitlines(keepends=True)
    (root / "a.jsonl").write_bytes(b"".join([*lines[:3], b"?" * (len(lines[3]) - 1) + b"\n", lines[4]]))
    second = Batch(root, "second", "b.jsonl", first)
    second.plan()
    assert second.ids()[:2] == ["a1", "b0"]


def test_plan_takes_up_what_no_branch_of_a_fan_out_has_answered(tmp_path: Path) -> None:
    """The fan-out and each of its branches plan for themselves, and all find the same."""
    ids = [f"a{number}" for number in range(4)]
    fan_out = FanOut(tmp_path / "first", aggregation={"type": "first"})
    fan_out.path.mkdir()
    fan_out.plan(ids)
    fan_out.answer("one", {it: ErrorCode.ENGINE_ERROR if it in ("a1", "a2") else "yes" for it in ids})
    fan_out.join()
    write_lines(tmp_path / "b.jsonl", ["b0"])
    uri = {"uri": file_uri(str(tmp_path / "b.jsonl")), "format": "jsonl"}
    again = {"input": {**uri, "carriedFrom": file_uri(str(fan_out.output))}}
    for folder in (FanOut(tmp_path / "second", again, branches={"one": {}}), Folder(tmp_path / "branch", again)):
        report = plan(folder.config(), None, CREATED, lambda _: None)
        assert (report.records, report.carried) == (3, 2)


@given(data=st.data(), shards=st.integers(1, 4), later_shards=st.integers(1, 4), blank=st.booleans())
def test_every_record_has_a_result_in_exactly_one_of_a_chain(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject, shards: int, later_shards: int, blank: bool
) -> None:
    root = tmp_path_factory.mktemp("chain")
    ids = [f"a{number}" for number in range(data.draw(st.integers(1, 12)))]
    write_lines(root / "a.jsonl", ids)
    if blank:
        (root / "a.jsonl").write_bytes((root / "a.jsonl").read_bytes().replace(b"\n", b"\n\n"))
    write_lines(root / "b.jsonl", ["b0"])
    failing = data.draw(st.sets(st.sampled_from(ids)))
    first = Batch(root, "first", "a.jsonl", shards=shards).work(failing)
    second = Batch(root, "second", "b.jsonl", first, shards=later_shards).work()
    done = [line["custom_id"] for batch in (first, second) for line in batch.folder.lines("results")]
    assert sorted(done) == sorted([*ids, "b0"])
