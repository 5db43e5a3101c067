"""What a record says that its answer should be, and when an answer is that."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.api.evaluation import Evaluation
from headrace.api.expected import clashing_labels, expected_answer, normalized, reading
from headrace.api.model import Task
from headrace.api.records import ErrorCode, RecordError

LABELS = Evaluation.parse({"match": "Label", "labels": ["Positive", "very positive", "negative", "C++"]})


@pytest.mark.parametrize(
    ("expected", "evaluation", "task", "sentence"),
    [
        pytest.param(3, Evaluation(), Task.CHAT, "must be a string, not a number", id="a number"),
        pytest.param(True, Evaluation(), Task.CHAT, "must be a string, not a boolean", id="a boolean"),
        pytest.param(["a"], Evaluation(), Task.CHAT, "must be a string, not a list", id="a list"),
        pytest.param({"a": 1}, Evaluation(), Task.CHAT, "must be a string, not an object", id="an object"),
        pytest.param(" \n", Evaluation(), Task.CHAT, "must have 1 to 16384 characters", id="nothing but spaces"),
        pytest.param("x" * 16_385, Evaluation(), Task.CHAT, "must have 1 to 16384 characters", id="a book"),
        pytest.param("neutral", LABELS, Task.CHAT, "must be one of evaluation.labels, not neutral", id="no label"),
        pytest.param("a", Evaluation(), Task.EMBEDDING, "which are vectors", id="a text where vectors are made"),
    ],
)
def test_expected_answer_that_can_be_none_is_refused_with_its_field(
    expected: Any, evaluation: Evaluation, task: Task, sentence: str
) -> None:
    with pytest.raises(RecordError, match=sentence) as error:
        expected_answer({"expected": expected}, evaluation, task)
    assert (error.value.code, error.value.param) == (ErrorCode.INVALID_EXPECTED, "expected")


@pytest.mark.parametrize(
    ("record", "evaluation", "task", "expected"),
    [
        pytest.param({"expected": "yes"}, Evaluation(), Task.CHAT, "yes", id="a text"),
        pytest.param({"expected": "POSITIVE."}, LABELS, Task.CHAT, "POSITIVE.", id="a label in another case"),
        pytest.param({}, LABELS, Task.CHAT, None, id="nothing"),
        pytest.param({"expected": None}, Evaluation(), Task.EMBEDDING, None, id="null, which is nothing"),
    ],
)
def test_expected_answer_is_what_the_record_says(
    record: dict[str, Any], evaluation: Evaluation, task: Task, expected: str | None
) -> None:
    assert expected_answer(record, evaluation, task) == expected


@pytest.mark.parametrize(
    ("text", "words"),
    [
        pytest.param("  The Eiffel-Tower!\n", "the eiffel tower", id="case, punctuation, spaces"),
        pytest.param("STRASSE", "strasse", id="capitals"),
        pytest.param("Straße", "strasse", id="a letter whose capital is two"),
        pytest.param("\ufb01ve \uff15", "five 5", id="ligatures and wide digits"),
        pytest.param("+", "+", id="no words at all"),
        pytest.param("東京。", "東京", id="a full stop of another script"),
    ],
)
def test_normalized_leaves_the_words(text: str, words: str) -> None:
    assert normalized(text) == words


@given(st.text())
def test_normalized_changes_nothing_the_second_time(text: str) -> None:
    once = normalized(text)
    assert normalized(once) == once


@pytest.mark.parametrize(
    ("answer", "label"),
    [
        pytest.param("positive", "Positive", id="the label itself"),
        pytest.param("I would say: NEGATIVE!", "negative", id="the label in a sentence"),
        pytest.param("It is very positive.", "very positive", id="a label that has another in it"),
        pytest.param("positive or negative", "", id="two labels"),
        pytest.param("negative, clearly negative", "negative", id="one label twice"),
        pytest.param("positively", "", id="a word that begins like a label"),
        pytest.param("no idea", "", id="no label"),
    ],
)
def test_reading_of_labels_finds_the_only_one_that_is_named(answer: str, label: str) -> None:
    assert reading(LABELS)(answer) == label


def test_reading_of_exact_answers_keeps_case_and_punctuation() -> None:
    read = reading(Evaluation.parse({"match": "Exact"}))
    assert read(" Yes.\n") == "Yes."
    assert read("yes.") != read("Yes.")


def test_clashing_labels_are_those_that_differ_in_punctuation_alone() -> None:
    assert clashing_labels(["yes", "no", "Yes!"]) == ("yes", "Yes!")
    assert clashing_labels(["+", "-", "yes"]) is None
