"""A program of the user's as aggregator: what it is given, what it must write, and what becomes of anything else."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
import pytest

from headrace.api.records import ErrorCode
from headrace.api.worker import ExitCode, JoinReport, Role
from headrace_worker.errors import JobFailed
from headrace_worker.joining.program import collect
from worker_fanout import FanOut, a_fan_out
from worker_rig import Zygote

LOST = ErrorCode.ENGINE_ERROR
Line = dict[str, Any]
Program = Callable[[Line], Line]


@dataclass
class Exchange(FanOut):
    """A FanOutJob that a program of the user's joins, and the folder that it shares with the worker."""

    def config_json(self) -> bytes:
        """What `HEADRACE_CONFIG` says."""
        told = orjson.loads(super().config_json())
        self.folder.mkdir(exist_ok=True)
        told["fanOut"]["exchange"] = str(self.folder)
        return orjson.dumps(told)

    @property
    def folder(self) -> Path:
        return self.path / "exchange"

    def collect(self) -> list[Line]:
        """Write the answers down; the lines."""
        collect(self.config())
        return [orjson.loads(line) for line in (self.folder / "answers.jsonl").read_bytes().splitlines()]

    def write(self, *lines: Line | bytes) -> None:
        """Be the program."""
        rows = (line if isinstance(line, bytes) else orjson.dumps(line) for line in lines)
        (self.folder / "joined.jsonl").write_bytes(b"".join(row + b"\n" for row in rows))


@pytest.fixture
def fan_out(tmp_path: Path) -> Exchange:
    """Three records: one with two answers, one with one, one with none."""
    made = Exchange(tmp_path, aggregation={"type": "image", "image": {"reference": "registry.example/join"}})
    made.plan("abc")
    made.answer("one", {"a": "yes", "b": LOST, "c": LOST})
    made.answer("two", {"a": "no", "b": "two"}, weight=2)
    return made


def test_collect_writes_the_records_with_their_answers(fan_out: Exchange) -> None:
    first, second = fan_out.collect()
    assert first["record"] == {"custom_id": "a", "text": "Say a."}
    assert [(it["branch"], it["weight"]) for it in first["answers"]] == [("one", 1), ("two", 2)]
    assert first["answers"][0]["body"]["choices"][0]["message"]["content"] == "yes"
    assert (second["custom_id"], second["missing"]) == ("b", {"one": "engine_error"})


@pytest.mark.parametrize("as_file", [False, True], ids=["a line", "a file"])
def test_collect_writes_parts_as_records_of_their_own(tmp_path: Path, as_file: bool) -> None:
    made = Exchange(tmp_path, aggregation={"type": "image", "image": {"reference": "registry.example/join"}})
    name = "a.txt" if as_file else "input.jsonl"
    (tmp_path / name).write_text("1\n2\n" if as_file else '{"custom_id": "a.txt", "text": "1\\n2\\n"}')
    split = {"by": "lines", "size": 1}
    made.fields["input"] = {
        "uri": (tmp_path / name).as_uri(), "format": "text" if as_file else "jsonl", "split": split
    }  # fmt: skip
    made.plan_as_it_is()
    made.answer("one", {"a.txt#0000": LOST, "a.txt#0001": "two"})
    (line,) = made.collect()
    part = {"parent": "a.txt", "position": 1}
    assert line["record"] == {"custom_id": "a.txt#0001", "text": "2\n", "part": part}


def test_join_takes_what_the_program_has_written(fan_out: Exchange) -> None:
    fan_out.collect()
    fan_out.write(
        {"custom_id": "a", "winner": "one", "scores": {"one": 9}},
        {"custom_id": "b", "text": "two, they say"},
    )
    fan_out.join()
    assert (fan_out.said("a"), fan_out.said("b")) == ("yes", "two, they say")
    assert fan_out.about("a") == {
        "winner": "one", "scores": {"one": 9}, "contributing": ["one", "two"], "missing": {}
    }  # fmt: skip
    assert fan_out.about("b") | {"missing": {}} == {
        "winner": None, "scores": {}, "contributing": ["two"], "missing": {}
    }  # fmt: skip
    assert fan_out.rows()["c"]["error"]["code"] == "no_answer"


def test_join_takes_whole_bodies_and_errors(fan_out: Exchange) -> None:
    fan_out.collect()
    fan_out.write({"custom_id": "a", "body": {"verdict": 7}}, {"custom_id": "b", "error": "one answer is not enough"})
    fan_out.join()
    assert fan_out.rows()["a"]["response"]["body"] == {"verdict": 7}
    error = fan_out.rows()["b"]["error"]
    assert (error["code"], error["message"]) == ("not_joinable", "one answer is not enough")


A = {"custom_id": "a", "winner": "one"}
B = {"custom_id": "b", "winner": "two"}


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        pytest.param([A], "joined.jsonl ends after 1 lines, before the record b", id="a line too few"),
        pytest.param([A, B, B], "joined.jsonl has more lines than answers.jsonl, which has 2", id="a line too many"),
        pytest.param([B, A], "line 1 of joined.jsonl: must be an object with the custom_id a", id="another order"),
        pytest.param([b"{", B], "line 1 of joined.jsonl: must be JSON", id="no JSON"),
        pytest.param([b"[]", B], "line 1 of joined.jsonl: must be an object", id="no object"),
        pytest.param([{**A, "text": "x"}, B], "line 1 of joined.jsonl: must have exactly one of winner, text", id="two answers"),
        pytest.param([A, {"custom_id": "b"}], "line 2 of joined.jsonl: must have exactly one of", id="no answer"),
        pytest.param([A, {**B, "winner": "one"}], "line 2 of joined.jsonl: winner must be one of two", id="not a branch"),
        pytest.param([{**A, "winner": []}, B], "line 1 of joined.jsonl: winner must be one of", id="a winner that is no name"),
        pytest.param([{"custom_id": "a", "text": 7}, B], "line 1 of joined.jsonl: text must be a text", id="a text that is none"),
        pytest.param([{"custom_id": "a", "body": "x"}, B], "line 1 of joined.jsonl: body must be an object", id="a body that is none"),
        pytest.param([{**A, "scores": [1]}, B], "line 1 of joined.jsonl: scores must be an object", id="scores without branches"),
    ],
)  # fmt: skip
def test_join_refuses_what_breaks_the_contract(fan_out: Exchange, lines: list[Any], said: str) -> None:
    fan_out.collect()
    fan_out.write(*lines)
    with pytest.raises(JobFailed) as refused:
        fan_out.join()
    assert str(refused.value).startswith("AggregatorFailed")
    assert said in str(refused.value)
    assert not (fan_out.output / "manifest.json").exists()


def test_join_says_what_the_program_has_said(fan_out: Exchange) -> None:
    fan_out.collect()
    (fan_out.folder / "error.txt").write_text("the licence has run out\n")
    with pytest.raises(JobFailed, match=r"AggregatorFailed: .*: the licence has run out$"):
        fan_out.join()
    fan_out.collect()
    with pytest.raises(JobFailed, match=r"written neither joined.jsonl nor error.txt"):
        fan_out.join()


def test_the_roles_are_played_one_after_the_other(fan_out: Exchange, zygote: Zygote) -> None:
    worker = zygote.run(fan_out, Role.COLLECT)
    assert worker.wait() == ExitCode.DONE
    assert isinstance(worker.report, JoinReport)
    fan_out.write(A, B)
    assert zygote.run(fan_out, Role.JOIN).wait() == ExitCode.DONE
    assert (fan_out.said("a"), fan_out.said("b")) == ("yes", "two")


def test_join_without_a_folder_to_share_is_refused(tmp_path: Path) -> None:
    alone = a_fan_out(tmp_path, "a", type="image", image={"reference": "registry.example/join"})
    alone.answer("one", {"a": "yes"})
    with pytest.raises(JobFailed, match=r"BadConfig: fanOut\.exchange must be set"):
        alone.join()
