"""The role `join`: one line a record, by `custom_id`, whatever the branches have lost, and the same bytes every time."""

from __future__ import annotations

import random
import signal
import string
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.api.aggregation import Aggregation
from headrace.api.records import ErrorCode
from headrace.api.worker import ExitCode, Role
from headrace_worker.errors import Drained, JobFailed
from headrace_worker.joining.aggregators import aggregator
from headrace_worker.joining.answers import Answer
from worker_fanout import FanOut, a_fan_out, chat_body
from worker_rig import Zygote, worker_environment

LOST = ErrorCode.ENGINE_ERROR


def everything_below(folder: FanOut) -> dict[str, bytes]:
    mine = (file for file in folder.output.rglob("*") if file.is_file() and "branches" not in file.parts)
    return {str(file): file.read_bytes() for file in mine}


def test_join_leaves_a_hole_where_a_branch_has_lost_a_record_never_an_offset(tmp_path: Path) -> None:
    fan_out = a_fan_out(tmp_path, "abcd", type="concat", concat={"separator": "+"})
    fan_out.answer("one", {"a": "a1", "b": LOST, "c": "c1", "d": "d1"})
    fan_out.answer("two", {"b": "b2", "d": "d2"})
    fan_out.answer("three", {"a": "a3", "b": "b3", "c": LOST, "d": "d3"}, shards=3)
    fan_out.join()
    assert {custom_id: fan_out.said(custom_id) for custom_id in "abcd"} == {
        "a": "a1+a3", "b": "b2+b3", "c": "c1", "d": "d1+d2+d3"
    }  # fmt: skip
    assert fan_out.about("b") == {
        "winner": None, "scores": {}, "contributing": ["two", "three"], "missing": {"one": "engine_error"}
    }  # fmt: skip
    assert fan_out.about("a")["missing"] == {"two": "not_routed"}


def test_join_writes_the_lines_in_the_order_of_the_input(tmp_path: Path) -> None:
    order = random.Random(1).sample(string.ascii_lowercase, 26)
    fan_out = a_fan_out(tmp_path, order)
    fan_out.answer("one", dict.fromkeys(order[::2], "1"), shards=4)
    fan_out.answer("two", dict.fromkeys(order[1::2], "2"))
    fan_out.join()
    assert [row["custom_id"] for row in fan_out.lines("results")] == order
    assert [row["id"] for row in fan_out.lines("results")] == [f"batch_req_{n:012}" for n in range(26)]


def test_join_gives_a_record_without_an_answer_an_error_line(tmp_path: Path) -> None:
    fan_out = a_fan_out(tmp_path, "abc")
    fan_out.answer("one", {"a": "yes", "b": LOST})
    fan_out.branches["two"] = {"joined": False, "reason": "WorkerFailed"}
    fan_out.answer("three", {"b": LOST})
    fan_out.join()
    errors = {row["custom_id"]: row["error"] for row in fan_out.lines("errors")}
    assert {custom_id: error["code"] for custom_id, error in errors.items()} == {"b": "no_answer", "c": "no_answer"}
    assert "one: it went wrong" in errors["b"]["message"]
    assert "two: WorkerFailed" in errors["c"]["message"]
    assert fan_out.about("c")["missing"] == {"one": "not_routed", "two": "WorkerFailed", "three": "not_routed"}


def test_join_says_of_a_record_that_no_branch_takes_just_that(tmp_path: Path) -> None:
    fan_out = a_fan_out(tmp_path, "ab")
    fan_out.answer("one", {"a": "yes"})
    fan_out.branches["two"] = {"joined": False, "reason": "not_routed"}
    fan_out.join()
    (row,) = fan_out.lines("errors")
    assert (row["custom_id"], row["error"]["code"]) == ("b", "not_routed")


@pytest.mark.parametrize(
    ("min_answers", "failed"),
    [
        pytest.param(1, {"c": "no_answer"}, id="one is enough"),
        pytest.param(2, {"b": "not_enough_answers", "c": "no_answer"}, id="two, or all that take it"),
        pytest.param(3, {"b": "not_enough_answers", "c": "no_answer", "d": "not_enough_answers"}, id="all three"),
    ],
)
def test_join_wants_enough_answers_to_each_record(min_answers: int, failed: dict[str, str], tmp_path: Path) -> None:
    fan_out = a_fan_out(tmp_path, "abcde")
    fan_out.min_answers = min_answers
    fan_out.answer("one", {"a": "yes", "b": "yes", "c": LOST, "d": "yes", "e": "only I take it"})
    fan_out.answer("two", {"a": "yes", "b": LOST, "c": LOST, "d": "yes"})
    fan_out.answer("three", {"a": "yes", "b": LOST, "d": LOST})
    fan_out.join()
    assert {row["custom_id"]: row["error"]["code"] for row in fan_out.lines("errors")} == failed
    if "b" in failed and min_answers > 1:
        error = fan_out.rows()["b"]["error"]
        assert error["message"].startswith(f"1 of the {min_answers} answers that must be there: two: it went wrong")
        assert fan_out.about("b")["missing"]["one"] == "not_enough_answers", "it has answered, for nothing"


def test_join_wants_the_answer_of_a_required_branch_to_each_record_that_it_takes(tmp_path: Path) -> None:
    fan_out = a_fan_out(tmp_path, "abc")
    fan_out.answer("one", {"a": "yes", "b": LOST}, required=True)
    fan_out.answer("two", {"a": "no", "b": "no", "c": "no"})
    fan_out.join()
    (row,) = fan_out.lines("errors")
    assert (row["custom_id"], row["error"]["code"]) == ("b", "required_branch_missing")
    assert row["error"]["message"] == "no answer from one, which must be there: one: it went wrong"
    assert [row["custom_id"] for row in fan_out.lines("results")] == ["a", "c"], "c is none of its records"


@pytest.mark.parametrize(
    "branches",
    [
        pytest.param({"one": {}, "two": {}}, id="each has left an empty output"),
        pytest.param({"one": None, "two": None}, id="none has taken a record"),
        pytest.param({"one": {}, "two": None}, id="some of both"),
    ],
)
@pytest.mark.parametrize("aggregation", ["first", "concat", "vote", "merge", "collect"])
def test_join_with_every_branch_empty_gives_every_record_an_error_line(
    tmp_path: Path, branches: dict[str, dict[str, str] | None], aggregation: str
) -> None:
    fan_out = a_fan_out(tmp_path, "abc", type=aggregation)
    for name, answers in branches.items():
        if answers is None:
            fan_out.branches[name] = {"joined": False, "reason": "not_routed"}
        else:
            fan_out.answer(name, dict(answers))
    fan_out.join()
    assert fan_out.lines("results") == []
    errors = {row["custom_id"]: row["error"]["code"] for row in fan_out.lines("errors")}
    assert errors == dict.fromkeys("abc", "not_routed")


@pytest.mark.parametrize(
    ("answers", "said"),
    [
        pytest.param({"a": "1", "b": "1", "z": "1"}, "the branch one has a line of the record z", id="one too many"),
        pytest.param({"z": "1"}, "the branch one has a line of the record z", id="only an id that it was not given"),
        pytest.param({"b": "1", "a": "1"}, "the branch one has a line of the record a", id="another order"),
        pytest.param({"a": "1", "a ": "1"}, "the branch one has a line of the record a ", id="an id that was changed a little"),
    ],
)  # fmt: skip
def test_join_refuses_a_branch_that_returns_other_ids_than_it_was_given(
    tmp_path: Path, answers: dict[str, str], said: str
) -> None:
    fan_out = a_fan_out(tmp_path, "ab")
    fan_out.answer("one", answers)
    with pytest.raises(JobFailed, match=f"InputChanged: {said}"):
        fan_out.join()
    assert not (fan_out.output / "manifest.json").exists()


def test_join_refuses_branches_that_have_read_another_input(tmp_path: Path) -> None:
    fan_out = a_fan_out(tmp_path, "abc")
    fan_out.answer("one", {"a": "1", "c": "1", "b": "1"})
    with pytest.raises(JobFailed, match="InputChanged: the branch one has a line of the record b"):
        fan_out.join()
    assert not (fan_out.output / "manifest.json").exists()


def test_join_refuses_an_output_that_is_not_what_was_committed(tmp_path: Path) -> None:
    fan_out = a_fan_out(tmp_path, "ab")
    fan_out.answer("one", {"a": "1", "b": "1"})
    results = fan_out.output / "branches/one/results/00000.a1.jsonl"
    results.write_bytes(results.read_bytes().replace(b'"1"', b'"2"'))
    with pytest.raises(JobFailed, match="its hash differs"):
        fan_out.join()


def test_join_refuses_an_input_that_has_changed(tmp_path: Path) -> None:
    fan_out = a_fan_out(tmp_path, "ab")
    fan_out.answer("one", {"a": "1", "b": "1"})
    fan_out.write_input(b'{"custom_id": "a", "body": {}}\n{"custom_id": "z", "body": {}}\n')
    with pytest.raises(JobFailed, match="InputChanged"):
        fan_out.join()


def test_join_twice_changes_no_byte(tmp_path: Path) -> None:
    fan_out = a_fan_out(tmp_path, "abc")
    fan_out.answer("one", {"a": "1", "b": "1"})
    fan_out.join()
    before = everything_below(fan_out)
    fan_out.join()
    assert everything_below(fan_out) == before


def test_join_of_a_later_round_takes_the_place_of_the_earlier_one(tmp_path: Path) -> None:
    fan_out = a_fan_out(tmp_path, "ab")
    fan_out.answer("one", {"a": "1", "b": LOST})
    fan_out.join()
    fan_out.round = 1
    fan_out.answer("two", {"a": "2", "b": "2"})
    fan_out.join()
    assert (fan_out.said("a"), fan_out.said("b")) == ("1", "2")
    assert sorted(file.name for file in (fan_out.output / "results").iterdir()) == ["00000.a2.jsonl"]
    fan_out.round = 0
    with pytest.raises(Drained):
        fan_out.join()


def test_join_is_the_same_however_often_it_is_killed(tmp_path: Path, zygote: Zygote) -> None:
    """Killed thirty times, at moments spread over all that it does."""
    ids = [f"r{number}" for number in range(4000)]
    rng = random.Random(20260115)
    fan_out = a_fan_out(tmp_path, ids, type="vote")
    for branch, share in {"one": 0.9, "two": 0.5, "three": 0.99}.items():
        answers = {i: rng.choice(["yes", "no", LOST]) for i in ids if rng.random() < share}
        fan_out.answer(branch, answers, shards=3, weight=rng.randrange(3))
    assert zygote.run(fan_out, Role.JOIN).wait() == ExitCode.DONE
    expected, kills = everything_below(fan_out), 0
    while kills < 30:
        for name in ("manifest.json", "_headrace/shards/00000/commit.json"):
            (fan_out.output / name).unlink(missing_ok=True)
        worker = zygote.start(fan_out, Role.JOIN)
        time.sleep(rng.random() * 0.25)  # no synchronisation: a random moment is the point
        worker.kill()
        kills += worker.wait() == -signal.SIGKILL
    assert zygote.run(fan_out, Role.JOIN).wait() == ExitCode.DONE
    left = everything_below(fan_out)
    assert {name: data for name, data in left.items() if not name.endswith(".tmp")} == expected


@pytest.mark.slow
def test_join_of_many_records_needs_little_memory(tmp_path: Path, zygote: Zygote) -> None:
    """What one answer weighs is all that is held: a fifth of a million records, three times 40 MB, go through little room."""
    ids = [f"r{number:07}" for number in range(200_000)]
    fan_out = a_fan_out(tmp_path, ids)
    for branch in ("one", "two", "three"):
        fan_out.answer(branch, dict.fromkeys(ids, "x" * 200), shards=4)
    ended = subprocess.run(
        [sys.executable, "-c", _JOIN_AND_WEIGH],
        env=worker_environment(fan_out),
        capture_output=True,
        text=True,
        check=True,
    )
    records, peak_kib = ended.stdout.split()
    assert int(records) == len(ids)
    assert int(peak_kib) < 120 * 1024


_JOIN_AND_WEIGH = """
import os
from headrace_worker.config import load_config
from headrace_worker.joining.join import join
print(join(load_config(os.environ), lambda _: None).records.succeeded)
print(next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")))
"""


# aggregators


def joined(answers: Mapping[str, tuple[int, str | None]], **spec: object) -> tuple[str | None, str, object]:
    """The winner, the text and the scores."""
    given_ = [Answer(branch, weight, chat_body(text)) for branch, (weight, text) in answers.items()]
    found = aggregator(Aggregation.parse(spec))(given_)
    text: str = found.body["choices"][0]["message"]["content"]
    return found.winner, text, found.scores


@pytest.mark.parametrize(
    ("answers", "winner"),
    [
        pytest.param({"a": (1, "x"), "b": (2, "y")}, "b", id="the greater weight"),
        pytest.param({"a": (1, "x"), "b": (1, "y")}, "a", id="of equal weights the branch that is named first"),
    ],
)
def test_first_takes_the_answer_of_the_greatest_weight(answers: dict[str, tuple[int, str]], winner: str) -> None:
    assert joined(answers, type="first")[0] == winner


@pytest.mark.parametrize(
    ("answers", "comparison", "winner", "scores"),
    [
        pytest.param(
            {"a": (1, "Yes."), "b": (1, "no"), "c": (1, " yes ")}, "Normalized", "a", {"a": 2, "b": 1, "c": 2},
            id="two that say the same but for case and punctuation",
        ),
        pytest.param(
            {"a": (1, "Yes."), "b": (1, "no"), "c": (1, " yes ")}, "Exact", "a", {"a": 1, "b": 1, "c": 1},
            id="three that say the same only roughly",
        ),
        pytest.param({"a": (1, "x"), "b": (1, "x"), "c": (3, "y")}, "Exact", "c", {"a": 2, "b": 2, "c": 3},
                     id="one whose weight is that of three"),
        pytest.param({"a": (1, "x"), "b": (2, "y"), "c": (1, "x")}, "Exact", "b", {"a": 2, "b": 2, "c": 2},
                     id="a tie, which the greatest weight breaks"),
        pytest.param({"a": (1, "!"), "b": (1, "?"), "c": (1, "?")}, "Normalized", "b", {"a": 1, "b": 2, "c": 2},
                     id="texts of nothing but punctuation"),
    ],
)  # fmt: skip
def test_vote_takes_the_text_that_most_weight_stands_behind(
    answers: dict[str, tuple[int, str]], comparison: str, winner: str, scores: dict[str, int]
) -> None:
    found = joined(answers, type="vote", vote={"comparison": comparison})
    assert (found[0], found[2]) == (winner, scores)


SCHEMA = {"type": "object", "required": ["n"], "properties": {"n": {"type": "integer"}}}


@pytest.mark.parametrize(
    ("scorers", "answers", "winner"),
    [
        pytest.param([{"regex": {"pattern": "^[0-9]+$"}}], {"a": (9, "about 3"), "b": (1, "3")}, "b", id="a form"),
        pytest.param([{"jsonSchema": {"schema": SCHEMA}}], {"a": (9, '{"n": "1"}'), "b": (1, '```json\n{"n": 1}\n```')}, "b",
                     id="JSON of a schema, in a block of code"),
        pytest.param([{"length": {}}], {"a": (9, "short"), "b": (1, "longer")}, "b", id="the longest"),
        pytest.param([{"length": {"targetCharacters": 0}}], {"a": (1, "short"), "b": (9, "longer")}, "a", id="the shortest"),
        pytest.param([{"length": {"targetCharacters": 7}}], {"a": (1, "12345"), "b": (1, "12345678")}, "b", id="the closest"),
        pytest.param([{"regex": {"pattern": "x"}}, {"length": {}}], {"a": (1, "xa"), "b": (1, "xab"), "c": (1, "long")}, "b",
                     id="the second scorer where the first sees no difference"),
    ],
)  # fmt: skip
def test_best_of_takes_what_the_scorers_like(
    scorers: list[object], answers: dict[str, tuple[int, str]], winner: str
) -> None:
    assert joined(answers, type="bestOf", bestOf={"scorers": scorers})[0] == winner


def test_merge_lays_objects_over_each_other_by_weight() -> None:
    answers = {
        "a": (1, '{"name": "Ann", "address": {"city": "Bonn", "zip": "1"}}'),
        "b": (2, '{"name": "Anna", "address": {"city": "Köln"}}'),
        "c": (3, "I do not know"),
    }
    winner, text, _ = joined(answers, type="merge")
    assert winner is None
    assert orjson.loads(text) == {"name": "Anna", "address": {"city": "Köln", "zip": "1"}}


def test_join_gives_an_error_line_where_nothing_can_be_merged(tmp_path: Path) -> None:
    fan_out = a_fan_out(tmp_path, "a", type="merge")
    fan_out.answer("one", {"a": "no JSON"})
    fan_out.join()
    (row,) = fan_out.lines("errors")
    assert row["error"]["code"] == "not_joinable"
    assert row["headrace"]["missing"] == {"one": "not_joinable"}


@pytest.mark.parametrize("kind", ["concat", "vote", "merge"])
def test_an_answer_without_text_counts_as_missing(kind: str, tmp_path: Path) -> None:
    fan_out = a_fan_out(tmp_path, "a", type=kind)
    fan_out.answer("call", {"a": None}, weight=5)
    fan_out.answer("text", {"a": "{}"})
    fan_out.join()
    assert fan_out.said("a") == "{}"
    assert fan_out.about("a")["missing"] == {"call": "no_text"}


@given(st.lists(st.tuples(st.integers(0, 3), st.sampled_from(["x", "X.", "y", '{"a": 1}', '{"a": 2}'])), min_size=1, max_size=6),
       st.sampled_from(["first", "vote", "concat"]))  # fmt: skip
def test_an_aggregator_gives_the_same_twice_and_names_who_contributed(
    answers: list[tuple[int, str]], kind: str
) -> None:
    named = {f"b{index}": answer for index, answer in enumerate(answers)}
    assert joined(named, type=kind) == joined(named, type=kind)
    found = aggregator(Aggregation.parse({"type": kind}))([Answer(b, w, chat_body(t)) for b, (w, t) in named.items()])
    assert set(found.contributing) <= set(named)
    assert found.winner is None or found.winner in found.contributing


def test_collect_keeps_each_answer_under_the_name_of_its_branch() -> None:
    photo = {"object": "list", "data": [{"index": 0, "labels": [{"label": "cat", "score": 0.9}]}]}
    answers = [Answer("text", 1, chat_body("A cat.")), Answer("photo", 5, photo), Answer("sound", 1, chat_body(None))]
    joined = aggregator(Aggregation.parse({"type": "collect"}))(answers)
    assert joined.body["answers"] == {"text": chat_body("A cat."), "photo": photo, "sound": chat_body(None)}
    assert list(joined.body["answers"]) == ["text", "photo", "sound"]
    assert joined.body["usage"] == {"prompt_tokens": 4, "completion_tokens": 6, "total_tokens": 10}
    assert (joined.contributing, joined.winner) == (("text", "photo", "sound"), None)
    alone = aggregator(Aggregation.parse({"type": "collect"}))([Answer("photo", 5, photo)])
    assert alone.body == {"object": "answers", "answers": {"photo": photo}}
