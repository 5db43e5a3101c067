"""Inputs that are split, and `reduce`: parts are records of their own, and what was split is put together in its order."""

from __future__ import annotations

import random
import signal
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.api.records import MAX_RECORD_BYTES, ErrorCode
from headrace.api.splitting import Split, SplitBy, part_id, spans
from headrace.api.worker import ExitCode, JoinReport, Role, Shard, WorkerConfig
from headrace_worker.errors import JobFailed
from headrace_worker.formats.shards import read_shard
from headrace_worker.joining import reduction
from headrace_worker.joining.join import join
from headrace_worker.manifest import iter_shards, read_header
from headrace_worker.planning.plan import plan
from headrace_worker.stores.local import LocalStore
from worker_builders import NOW, a_config, no_progress, write_files
from worker_fanout import FanOut
from worker_rig import CREATED, Folder, Zygote

STORE = LocalStore()
LOST = ErrorCode.ENGINE_ERROR
TEXTS = st.lists(st.text(alphabet="ab. \n\fé👋", max_size=60), min_size=1, max_size=8)


@st.composite
def splits(draw: st.DrawFn) -> Split:
    size = draw(st.integers(1, 20))
    kinds = st.sampled_from([by for by in SplitBy if not by.of_images])
    return Split(by=draw(kinds), size=size, overlap=draw(st.integers(0, size - 1)))


def rows(texts: Sequence[str]) -> list[bytes]:
    return [orjson.dumps({"custom_id": f"r{n}", "text": text}) + b"\n" for n, text in enumerate(texts)]


def parts_of(texts: Sequence[str], split: Split) -> dict[str, str]:
    """The parts that there must be, by their ids."""
    return {
        part_id(f"r{n}", position): text[start:end]
        for n, text in enumerate(texts)
        for position, (start, end) in enumerate(spans(text, split))
    }


def planned(config: WorkerConfig) -> list[Shard]:
    assert plan(config, None, NOW, no_progress).errors == ()
    return list(iter_shards(STORE, config.plan_uri))


def a_split_config(folder: Path, texts: Sequence[str], split: Split, as_files: bool, **fields: Any) -> WorkerConfig:
    """A batch over these texts, as the lines of one file or as files of the format text."""
    more = {"split": split.to_object(), **fields.pop("input", {})}
    if as_files:
        write_files(folder / "in", {f"r{n}": text.encode() for n, text in enumerate(texts)})
        return a_config(folder, source="in", input={"format": "text", **more}, **fields)
    write_files(folder, {"in.jsonl": rows(texts)})
    return a_config(folder, input={"format": "jsonl", **more}, **fields)


def said(config: WorkerConfig, shard: Shard) -> dict[str, str]:
    """What the model is asked, by the ids of the parts; `position` counts without a gap."""
    found = list(read_shard(STORE, shard, config.input, config.model))
    assert [position for position, _ in found] == list(range(shard.records))
    return {request.custom_id: request.body["messages"][0]["content"] for _, request in found}


@settings(max_examples=150, deadline=None)
@given(texts=TEXTS, split=splits(), shards=st.integers(1, 12), as_files=st.booleans())
def test_every_part_is_in_one_shard_once_and_in_order(
    texts: list[str], split: Split, shards: int, as_files: bool
) -> None:
    with tempfile.TemporaryDirectory() as name:
        config = a_split_config(Path(name), texts, split, as_files, shards=shards)
        found = planned(config)
        expected = parts_of(texts, split)
        read = [said(config, shard) for shard in found]
        assert [item for shard in read for item in shard.items()] == list(expected.items())
        assert len(found) <= shards
        assert [shard.first_record for shard in found] == [sum(map(len, read[:n])) for n in range(len(read))]
        header = read_header(STORE, config.plan_uri)
        assert (header.records, header.parents, header.shards) == (len(expected), len(texts), len(found))


@settings(max_examples=60, deadline=None)
@given(texts=TEXTS, split=splits(), shards=st.integers(1, 12), limit=st.integers(1, 8), digit=st.integers(0, 3))
def test_parts_that_are_not_for_the_batch_change_nothing_for_the_others(
    texts: list[str], split: Split, shards: int, limit: int, digit: int
) -> None:
    """A condition sees parts, a limit counts whole records."""
    when = f"record.part.position % 4 == {digit}"
    with tempfile.TemporaryDirectory() as name:
        more = {"when": when, "limit": limit}
        config = a_split_config(Path(name), texts, split, as_files=False, shards=shards, input=more)
        parts = parts_of(texts[:limit], split)
        expected = {name: text for name, text in parts.items() if int(name[-4:]) % 4 == digit}
        report = plan(config, None, NOW, no_progress)
        assert [problem.code for problem in report.errors] == ([] if expected else ["no_record_taken"])
        if expected:
            read = [said(config, shard) for shard in iter_shards(STORE, config.plan_uri)]
            assert [item for shard in read for item in shard.items()] == list(expected.items())


@pytest.mark.parametrize("limit", [None, 1])
def test_one_long_text_is_cut_into_shards_of_about_equal_parts(limit: int | None, tmp_path: Path) -> None:
    split = Split(by=SplitBy.LINES, size=3)
    more = {"limit": limit} if limit else {}
    config = a_split_config(tmp_path, ["line\n" * 3000], split, as_files=True, shards=7, input=more)
    sizes = [shard.records for shard in planned(config)]
    assert (sum(sizes), len(sizes)) == (1000, 7)
    assert max(sizes) - min(sizes) <= 1
    header = read_header(STORE, config.plan_uri)
    assert header.input_bytes == 15_000, "shards that share a record count its bytes once"


def test_plan_refuses_records_that_cannot_be_split(tmp_path: Path) -> None:
    split = Split(by=SplitBy.LINES, size=3)
    config = a_split_config(tmp_path, ["x"], split, as_files=False)
    lines = [b'{"custom_id": "a", "text": "x"}\n', b'{"custom_id": "b"}\n', b'{"custom_id": "a", "text": "y"}\n']
    write_files(tmp_path, {"in.jsonl": lines})
    report = plan(config, None, NOW, no_progress)
    assert [(problem.line, problem.code, problem.param) for problem in report.errors] == [
        (2, "split_error", "text"),
        (3, "duplicate_custom_id", "custom_id"),
    ]


def test_read_shard_notices_that_a_text_has_changed(tmp_path: Path) -> None:
    config = a_split_config(tmp_path, ["a\nb\nc\n"], Split(by=SplitBy.LINES, size=1), as_files=True, shards=3)
    last = planned(config)[-1]
    write_files(tmp_path / "in", {"r0": b"a\nB\nc\n"})
    with pytest.raises(JobFailed, match="InputChanged"):
        list(read_shard(STORE, last, config.input, config.model))


def test_a_batch_that_is_split_has_a_result_for_each_part_however_often_it_is_killed(
    tmp_path: Path, zygote: Zygote
) -> None:
    texts = [f"{n}: " + "word " * 40 for n in range(48)]
    split = Split(by=SplitBy.CHUNKS, size=20, overlap=3)
    engine = {"name": "mock", "mock": {"latencyMilliseconds": 100}}
    told = {"input": {"uri": (tmp_path / "input.jsonl").as_uri(), "format": "jsonl", "split": split.to_object()}}
    folder = Folder(tmp_path, {**told, "engine": engine, "batching": {"maxBatchSize": 2}})
    folder.write_input(*rows(texts))
    plan(folder.config(), None, NOW, no_progress)
    killed = 0
    for size in (1, 2000, 8000):
        worker = zygote.start(folder, Role.RUN)
        while folder.journal_bytes() < size and not worker.ended():
            time.sleep(0.002)  # the kill may come at any moment; this is no more than the way to one
        worker.kill()
        killed += worker.wait() == -signal.SIGKILL
    folder.fields["engine"] = {"name": "mock"}  # what is left is done quickly
    assert zygote.start(folder, Role.RUN).wait() == ExitCode.DONE
    assert killed == 3
    assert [row["custom_id"] for row in folder.lines("results")] == list(parts_of(texts, split))
    assert folder.commit()["records"]["total"] == len(parts_of(texts, split))


# reduce


def a_reduction(path: Path, texts: Sequence[str], split: Split, **reduce: Any) -> FanOut:
    """A planned fan-out whose records are split."""
    uri = (path / "input.jsonl").as_uri()
    fields = {"input": {"uri": uri, "format": "jsonl", "split": split.to_object()}}
    fan_out = FanOut(path, fields, aggregation={"type": "reduce", "reduce": reduce})
    fan_out.write_input(*rows(texts))
    assert plan(fan_out.config(), None, CREATED, no_progress).errors == ()
    return fan_out


@settings(max_examples=80, deadline=None)
@given(texts=TEXTS, split=splits(), shards=st.integers(1, 5))
def test_reducing_what_was_split_gives_the_texts_back(texts: list[str], split: Split, shards: int) -> None:
    """Of a model that says what it reads, without the overlaps that it has read twice."""
    split = split.model_copy(update={"overlap": 0})
    with tempfile.TemporaryDirectory() as name:
        fan_out = a_reduction(Path(name), texts, split, separator="")
        fan_out.answer("echo", parts_of(texts, split), shards=shards)
        fan_out.join()
        assert [(row["custom_id"], fan_out.said(row["custom_id"])) for row in fan_out.lines("results")] == [
            (f"r{n}", text) for n, text in enumerate(texts)
        ]
        assert [row["id"] for row in fan_out.lines("results")] == [f"batch_req_{n:012}" for n in range(len(texts))]


LINES = Split(by=SplitBy.LINES, size=1)


def reduced(
    path: Path, answers: Mapping[str, Mapping[str, Any]], texts: Sequence[str] = ("a\nb\nc",), **spec: Any
) -> FanOut:
    fan_out = a_reduction(path, texts, LINES, **spec)
    for branch, said_ in answers.items():
        fan_out.answer(branch, said_, weight=spec.get("weight", 1))
    return fan_out


def test_reduce_names_the_parts_that_are_missing(tmp_path: Path) -> None:
    fan_out = reduced(tmp_path, {"one": {"r0#0000": "A", "r0#0001": LOST, "r0#0002": "C"}}, separator="+")
    fan_out.join()
    assert fan_out.said("r0") == "A+C"
    assert fan_out.about("r0") == {
        "winner": None, "scores": {}, "contributing": ["one"], "missing": {},
        "parts": {"total": 3, "answered": 2, "missing": {"r0#0001": "no_answer"}},
    }  # fmt: skip
    (row,) = fan_out.lines("results")
    assert (row["attempts"], row["response"]["body"]["usage"]["total_tokens"]) == (3, 10)


def test_reduce_can_refuse_a_record_that_has_lost_a_part(tmp_path: Path) -> None:
    answers = {"one": {"r0#0000": "A", "r0#0001": LOST, "r0#0002": "C", "r1#0000": "D"}}
    fan_out = reduced(tmp_path, answers, ["a\nb\nc", "d"], missingParts="Fail")
    fan_out.join()
    (row,) = fan_out.lines("errors")
    assert (row["custom_id"], row["error"]["code"]) == ("r0", "parts_missing")
    assert "1 of 3 parts have no answer" in row["error"]["message"]
    assert fan_out.said("r1") == "D"
    counts = {"total": 2, "succeeded": 1, "failed": 1, "pending": 0}
    assert join(fan_out.config(), lambda _: None) == JoinReport.parse({"records": counts}), "records, not their parts"


def test_reduce_fills_the_holes_of_one_branch_from_another(tmp_path: Path) -> None:
    fan_out = a_reduction(tmp_path, ["a\nb\nc"], LINES)
    fan_out.answer("small", {"r0#0000": "1", "r0#0001": "2", "r0#0002": "3"})
    fan_out.answer("large", {"r0#0000": "I", "r0#0001": LOST, "r0#0002": None}, weight=5)
    fan_out.branches["dead"] = {"joined": False, "reason": "WorkerFailed"}
    fan_out.join()
    assert fan_out.said("r0") == "I\n2\n3"
    about = fan_out.about("r0")
    assert (about["contributing"], about["missing"]) == (["small", "large"], {"dead": "WorkerFailed"})


def test_reduce_gives_a_record_without_any_answer_an_error_line(tmp_path: Path) -> None:
    fan_out = reduced(tmp_path, {"one": {f"r0#000{n}": LOST for n in range(3)}})
    fan_out.join()
    (row,) = fan_out.lines("errors")
    assert row["error"]["code"] == "no_answer"
    assert row["error"]["message"].startswith("none of 3 parts has an answer: r0#0000: no branch has answered: one: ")
    assert row["headrace"]["missing"] == {"one": "engine_error"}


def test_reduce_holds_no_more_than_a_record_may_have(tmp_path: Path) -> None:
    half = "x" * (MAX_RECORD_BYTES // 2)
    fan_out = reduced(tmp_path, {"one": {"r0#0000": half, "r0#0001": half, "r1#0000": "b"}}, ["a\nb", "b"])
    fan_out.join()
    (row,) = fan_out.lines("errors")
    assert (row["custom_id"], row["error"]["code"]) == ("r0", "not_joinable")
    assert "more than 16 MiB" in row["error"]["message"]


def test_reduce_names_no_more_parts_than_it_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reduction, "NAMED_PARTS", 1)
    fan_out = reduced(tmp_path, {"one": {"r0#0000": "A", "r0#0001": LOST, "r0#0002": LOST}})
    fan_out.join()
    assert fan_out.about("r0")["parts"] == {"total": 3, "answered": 1, "missing": {"r0#0001": "no_answer"}}


def test_reduce_is_the_same_however_often_it_is_killed(tmp_path: Path, zygote: Zygote) -> None:
    texts, rng = ["line\n" * 400] * 8, random.Random(20260115)
    fan_out = a_reduction(tmp_path, texts, LINES)
    for branch, weight in {"one": 1, "two": 2}.items():
        answers = {name: rng.choice([f"{branch} {name}", LOST]) for name in parts_of(texts, LINES)}
        fan_out.answer(branch, answers, shards=3, weight=weight)
    assert zygote.run(fan_out, Role.JOIN).wait() == ExitCode.DONE
    expected, kills = below(fan_out), 0
    while kills < 20:
        for name in ("manifest.json", "_headrace/shards/00000/commit.json"):
            (fan_out.output / name).unlink(missing_ok=True)
        worker = zygote.start(fan_out, Role.JOIN)
        time.sleep(rng.random() * 0.2)  # no synchronisation: a random moment is the point
        worker.kill()
        kills += worker.wait() == -signal.SIGKILL
    assert zygote.run(fan_out, Role.JOIN).wait() == ExitCode.DONE
    assert {name: data for name, data in below(fan_out).items() if not name.endswith(".tmp")} == expected


def below(fan_out: FanOut) -> dict[str, bytes]:
    mine = (file for file in fan_out.output.rglob("*") if file.is_file() and "branches" not in file.parts)
    return {str(file): file.read_bytes() for file in mine}
