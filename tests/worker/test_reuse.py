"""Answers that are there already: of an earlier batch, of equal records, of a cache. Nobody is asked or counted twice."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import orjson
import pytest

from headrace.api.model import Task
from headrace.api.records import ErrorCode, RecordError, Request
from headrace.api.worker import ExitCode, Role, ShardReport
from headrace_worker.engines.base import Outcome, Work
from headrace_worker.ledger import CACHED, EQUAL, RESUMED, Entry, entry_line, entry_of
from headrace_worker.sharing import Sharing
from headrace_worker.stores.local import file_uri
from worker_rig import IDENTITY, Folder, Zygote, chat_line

GREEDY = {"temperature": 0}


def a_folder(path: Path, lines: list[bytes], shards: int = 1, **fields: Any) -> Folder:
    path.mkdir(exist_ok=True)
    identity = IDENTITY.model_copy(update={"uid": path.name})
    folder = Folder(path, {"batch": identity.to_object(), "shards": shards, "parameters": GREEDY, **fields})
    folder.write_input(*lines)
    return folder


def run(folder: Folder, zygote: Zygote, shards: int = 1) -> list[dict[str, Any]]:
    """Plan and work; the lines, results before errors."""
    assert zygote.run(folder, Role.PLAN).wait() == ExitCode.DONE
    for shard in range(shards):
        worker = zygote.run(folder, Role.RUN, shard)
        assert worker.wait() == ExitCode.DONE, worker.log
    return folder.lines("results") + folder.lines("errors")


def uri_of(folder: Folder) -> str:
    return file_uri(str(folder.output)) + "/"


def text_of(line: dict[str, Any]) -> str:
    text: str = line["response"]["body"]["choices"][0]["message"]["content"]
    return text


@pytest.mark.parametrize("shards", [1, 3])
def test_a_batch_takes_over_what_an_earlier_one_has_answered(tmp_path: Path, zygote: Zygote, shards: int) -> None:
    """Of forty records five are changed, ten are new and stand before the others, and some had failed."""
    failing = {"engine": {"name": "mock", "mock": {"errorPercent": 20}}, "retries": {"limit": 0}}
    lines = [chat_line(number) for number in range(40)]
    first = a_folder(tmp_path / "first", lines, shards, **failing)
    before = {line["custom_id"]: line for line in run(first, zygote, shards)}
    failed = {name for name, line in before.items() if line["error"]}
    assert 0 < len(failed) < 20
    changed = [chat_line(number, "What has changed?") if number < 5 else line for number, line in enumerate(lines)]
    again = [*(chat_line(number) for number in range(100, 110)), *changed]
    second = a_folder(tmp_path / "second", again, shards, resumeFrom=uri_of(first))
    after = {line["custom_id"]: line for line in run(second, zygote, shards)}
    assert len(after) == 50
    kept = {name for name, line in after.items() if "resumed_from" in line.get("headrace", {})}
    assert kept == {f"r{number}" for number in range(5, 40)} - failed
    for name in kept:
        assert after[name]["headrace"]["resumed_from"] == "default/reviews@first"
        assert after[name]["response"]["body"] == before[name]["response"]["body"]
    assert [line["id"] for line in after.values()] == [f"batch_req_{number:012}" for number in range(50)]
    commits = [second.commit(shard) for shard in range(shards)]
    assert sum(commit["reused"]["resumed"] for commit in commits) == len(kept)
    assert sum(commit["batchedRecords"] for commit in commits) == 50 - len(kept), "nothing else was asked"
    manifest = orjson.loads((second.output / "manifest.json").read_bytes())
    assert (manifest["resumedFrom"], manifest["reused"]["resumed"]) == (
        uri_of(first),
        len(kept),
    )
    asked = [line for line in after.values() if line["custom_id"] not in kept]
    used = sum(line["response"]["body"]["usage"]["completion_tokens"] for line in asked)
    assert manifest["usage"]["completionTokens"] == used


def test_what_was_taken_over_twice_says_who_has_made_it(tmp_path: Path, zygote: Zygote) -> None:
    lines = [chat_line(number) for number in range(5)]
    first = a_folder(tmp_path / "first", lines)
    run(first, zygote)
    second = a_folder(tmp_path / "second", lines, resumeFrom=uri_of(first))
    run(second, zygote)
    third = a_folder(tmp_path / "third", lines, resumeFrom=uri_of(second))
    assert {line["headrace"]["resumed_from"] for line in run(third, zygote)} == {"default/reviews@first"}


@pytest.mark.parametrize(
    "change",
    [{"parameters": {"temperature": 0, "max_tokens": 3}}, {"model": {"name": "another"}}],
    ids=["other parameters", "another model"],
)
def test_what_was_asked_otherwise_is_asked_again(tmp_path: Path, zygote: Zygote, change: dict[str, Any]) -> None:
    lines = [chat_line(number) for number in range(5)]
    first = a_folder(tmp_path / "first", lines)
    run(first, zygote)
    second = a_folder(tmp_path / "second", lines, resumeFrom=uri_of(first), **change)
    assert not any("resumed_from" in line.get("headrace", {}) for line in run(second, zygote))


@pytest.mark.parametrize(("uri", "reason"), [("nowhere", "ResumeFromMissing"), ("out", "ResumeFromItself")])
def test_a_batch_that_cannot_be_resumed_is_found_out_by_plan(
    tmp_path: Path, zygote: Zygote, uri: str, reason: str
) -> None:
    folder = a_folder(tmp_path / "one", [chat_line(1)])
    if uri == "out":
        run(folder, zygote)
        (folder.output / "_headrace" / "plan.jsonl").unlink()
    folder.fields["resumeFrom"] = file_uri(str(folder.path / uri)) + "/"
    worker = zygote.run(folder, Role.PLAN)
    assert worker.wait() == ExitCode.JOB_FAILED
    assert worker.report is not None
    assert worker.report.failure is not None
    assert worker.report.failure.reason == reason


@pytest.mark.parametrize("kind", [RESUMED, EQUAL, CACHED])
def test_a_journal_says_where_an_answer_is_from(kind: bytes) -> None:
    entry = Entry(3, b"{}\n", reused=kind)
    assert entry_of(entry_line(entry)) == entry


def test_equal_records_of_a_shard_are_asked_once(tmp_path: Path, zygote: Zygote) -> None:
    """Whatever the order of their fields; those that are drawn at random are asked each time, unless they have a seed."""
    texts: list[tuple[str, dict[str, Any]]] = [
        ("same", {}),
        ("same", {"temperature": 0}),
        ("other", {}),
        ("same", {"temperature": 1}),
        ("same", {"temperature": 1}),
    ]
    texts += [("same", {"temperature": 1, "seed": 7}), ("same", {"seed": 7, "temperature": 1})]
    lines = [chat_line(number, text, **body) for number, (text, body) in enumerate(texts)]
    folder = a_folder(tmp_path / "one", lines, dedup={"scope": "input"}, batching={"maxBatchSize": 2})
    found = {line["custom_id"]: line for line in run(folder, zygote)}
    equal = {
        name: line["headrace"]["equal_to"] for name, line in found.items() if "equal_to" in line.get("headrace", {})
    }
    assert set(map(frozenset, equal.items())) <= {frozenset(("r0", "r1")), frozenset(("r5", "r6"))}
    assert len(equal) == 2
    for name, asked in equal.items():
        assert found[name]["response"]["body"] == found[asked]["response"]["body"]
        assert (found[name]["attempts"], found[asked]["attempts"]) == (0, 1)
    commit = folder.commit()
    assert (commit["batchedRecords"], commit["reused"]["equal"]) == (5, 2)
    asked = [line for name, line in found.items() if name not in equal]
    assert commit["usage"]["completionTokens"] == sum(
        line["response"]["body"]["usage"]["completion_tokens"] for line in asked
    )


def test_sampled_answers_are_shared_when_that_is_wanted(tmp_path: Path, zygote: Zygote) -> None:
    dedup = {"scope": "input", "sampled": "Share"}
    lines = [chat_line(number, "same", temperature=1) for number in range(50)]
    folder = a_folder(tmp_path / "one", lines, dedup=dedup)
    assert len(run(folder, zygote)) == 50
    assert folder.commit()["reused"]["equal"] == 49


def test_a_cache_answers_what_another_batch_has_asked(tmp_path: Path, zygote: Zygote) -> None:
    dedup = {"scope": "cache", "cacheUri": file_uri(str(tmp_path / "cache"))}
    first = a_folder(tmp_path / "first", [chat_line(number, f"q{number % 4}") for number in range(12)], dedup=dedup)
    before = run(first, zygote)
    assert first.commit()["reused"] == {"resumed": 0, "equal": 8, "cached": 0}
    second = a_folder(tmp_path / "second", [chat_line(number, f"q{number % 6}") for number in range(12)], dedup=dedup)
    after = run(second, zygote)
    assert second.commit()["reused"] == {"resumed": 0, "equal": 2, "cached": 8}
    assert text_of(after[0]) == text_of(before[0])
    assert after[0]["headrace"]["cached"]
    worker = zygote.run(second, Role.RUN)
    assert isinstance(worker.report, ShardReport)
    assert worker.report.reused.cached == 8


def test_a_cache_entry_that_is_damaged_is_asked_for_again(tmp_path: Path, zygote: Zygote) -> None:
    dedup = {"scope": "cache", "cacheUri": file_uri(str(tmp_path / "cache"))}
    first = a_folder(tmp_path / "first", [chat_line(1, "q")], dedup=dedup)
    run(first, zygote)
    (kept,) = (tmp_path / "cache").glob("*/*.json")
    kept.write_bytes(b"{")
    second = a_folder(tmp_path / "second", [chat_line(1, "q")], dedup=dedup)
    run(second, zygote)
    assert second.commit()["reused"]["cached"] == 0
    assert orjson.loads(kept.read_bytes())["choices"]


# who waits for whom


def a_work(position: int, text: str = "same") -> Work:
    body = {"messages": [{"role": "user", "content": text}], "temperature": 0}
    return Work(position, Request(f"r{position}", body), 1)


def sharing(tmp_path: Path, most_bytes: int = 1000) -> Sharing:
    config = a_folder(tmp_path / "one", [], dedup={"scope": "input"}).config()
    assert config.model.task == Task.CHAT
    return Sharing(config, None, most_bytes)


def test_when_the_first_of_equal_records_fails_the_next_is_asked(tmp_path: Path) -> None:
    shared, works = sharing(tmp_path), [a_work(position) for position in range(3)]
    assert shared.sift(works) == ([works[0]], [])
    assert len(shared) == 2
    error = RecordError(ErrorCode.ENGINE_ERROR, "it broke")
    assert shared.settle(Outcome(works[0], error=error)) == ([works[1]], [])
    ask, have = shared.settle(Outcome(works[1], body={"x": 1}))
    assert (ask, [one.work for one in have], have[0].about, len(shared)) == ([], [works[2]], {"equal_to": "r1"}, 0)


def test_an_answer_is_forgotten_when_there_is_no_room_for_it(tmp_path: Path) -> None:
    shared = sharing(tmp_path, most_bytes=100)
    for position, text in enumerate("ab"):
        shared.sift([a_work(position, text)])
        shared.settle(Outcome(a_work(position, text), body={"x": "y" * 60}))
    late = [a_work(2, "a"), a_work(3, "b")]
    ask, have = shared.sift(late)
    assert (ask, [one.work for one in have]) == ([late[0]], [late[1]])
