"""Counts, and what follows from them: scores, distributions, regions of vectors, and what texts say."""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.api.evaluation import Evaluation
from headrace.api.input import Prompt
from headrace_worker.evaluation.distributions import by_kind, by_rank, difference
from headrace_worker.evaluation.embeddings import DIRECTIONS, Projections
from headrace_worker.evaluation.observing import Sample
from headrace_worker.evaluation.scores import Scorer
from headrace_worker.evaluation.texts import (
    answer_text,
    is_refusal,
    language_detector,
    length_bin,
    prompt_text,
    without_template,
)

COUNTS = st.dictionaries(st.sampled_from("abcdefgh"), st.integers(0, 1000), max_size=8)


def test_psi_is_what_the_formula_says() -> None:
    found = difference([(500, 300), (500, 700)])
    assert found is not None
    assert found.psi == pytest.approx(0.2 * math.log(500 / 300) + 0.2 * math.log(700 / 500), abs=0.001)


@given(COUNTS, COUNTS)
def test_psi_is_never_negative_and_none_where_a_run_has_nothing(before: dict[str, int], now: dict[str, int]) -> None:
    found = difference(by_kind(before, now))
    assert (found is None) == (not sum(before.values()) or not sum(now.values()))
    assert found is None or found.psi >= 0


@given(COUNTS.filter(lambda counts: sum(counts.values()) > 0))
def test_psi_of_a_run_and_itself_is_nothing(counts: dict[str, int]) -> None:
    found = difference(by_kind(counts, counts))
    assert found is not None
    assert found.psi == pytest.approx(0)


@pytest.mark.parametrize("size", [60, 300, 5000])
def test_chance_is_seldom_exceeded_by_runs_that_are_alike(size: int) -> None:
    """Once in a thousand pairs; of 200 pairs hardly any, whatever their size."""
    draw = random.Random(size)
    kinds, weights = "abcdef", [40, 25, 15, 10, 6, 4]

    def run() -> Counter[str]:
        return Counter(draw.choices(kinds, weights, k=size))

    pairs = [difference(by_kind(run(), run())) for _ in range(200)]
    assert sum(found is not None and found.psi > found.chance for found in pairs) <= 3


def test_chance_does_not_hide_a_real_change() -> None:
    found = difference(by_kind({"en": 90, "de": 10}, {"en": 40, "de": 60}))
    assert found is not None
    assert found.psi > max(0.2, found.chance)


@given(
    st.dictionaries(st.integers(0, 200).map(str), st.integers(1, 50), min_size=1),
    st.dictionaries(st.integers(0, 200).map(str), st.integers(1, 50)),
)
def test_bins_of_lengths_have_every_record_once_and_a_tenth_of_the_reference_each(
    before: dict[str, int], now: dict[str, int]
) -> None:
    bins = by_rank(before, now)
    assert sum(p for p, _ in bins) == sum(before.values())
    assert sum(q for _, q in bins) == sum(now.values())
    assert len(bins) <= 11
    assert all(p >= sum(before.values()) / 10 for p, _ in bins[:-1])


def test_rare_kinds_are_one_bin() -> None:
    before = {"en": 990, **{f"rare-{number}": 1 for number in range(10)}}
    assert sorted(by_kind(before, {"en": 1000})) == [(10, 0), (990, 1000)]


def test_scores_with_labels_are_means_over_the_labels() -> None:
    scorer = Scorer(Evaluation.parse({"match": "Label", "labels": ["a", "b", "unused"]}))
    for expected, answer in [("a", "a"), ("a", "a"), ("a", "b"), ("b", "b"), ("b", None), ("b", "who knows")]:
        scorer.count(expected, answer)
    scores = scorer.scores
    assert scores is not None
    assert (scores.expected, scores.correct, scores.accuracy) == (6, 3, "0.5000")
    assert scores.precision == f"{(2 / 2 + 1 / 2) / 2:.4f}"
    assert scores.recall == f"{(2 / 3 + 1 / 3) / 2:.4f}"
    assert scores.f1 == f"{(0.8 + 0.4) / 2:.4f}"


def test_scores_without_labels_count_what_was_not_answered_in_the_recall_alone() -> None:
    scorer = Scorer(Evaluation())
    for expected, answer in [("Yes.", "yes"), ("no", "No!"), ("no", "yes"), ("no", None)]:
        scorer.count(expected, answer)
    scores = scorer.scores
    assert scores is not None
    assert (scores.accuracy, scores.precision, scores.recall) == ("0.5000", "0.6667", "0.5000")


def test_scores_of_nothing_are_none() -> None:
    assert Scorer(Evaluation()).scores is None


@given(st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from(["a", "b", "c", "?", None]))))
def test_scores_do_not_depend_on_the_order(pairs: list[tuple[str, str | None]]) -> None:
    spec = Evaluation.parse({"match": "Label", "labels": ["a", "b", "c"]})
    one, other = Scorer(spec), Scorer(spec)
    for pair in pairs:
        one.count(*pair)
    for pair in reversed(pairs):
        other.count(*pair)
    assert one.scores == other.scores


@pytest.mark.parametrize(
    ("body", "text"),
    [
        pytest.param({"prompt": "Once upon"}, "Once upon", id="a completion"),
        pytest.param({"input": ["one", "two"]}, "one\ntwo", id="texts to embed"),
        pytest.param(
            {"messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hello"}]},
            "Hello",
            id="what the user says",
        ),
        pytest.param({"messages": [{"role": "system", "content": "Begin."}]}, "Begin.", id="a system message alone"),
        pytest.param(
            {"messages": [{"role": "user", "content": [{"type": "image_url"}, {"type": "text", "text": "A cat?"}]}]},
            "A cat?",
            id="the text beside an image",
        ),
        pytest.param({"input": [{"type": "image_url", "image_url": {"url": "x"}}]}, "", id="an image alone"),
        pytest.param({"prompt": [17, 4]}, "", id="tokens"),
    ],
)
def test_prompt_text_is_what_is_asked_about(body: dict[str, Any], text: str) -> None:
    assert prompt_text(body) == text


@pytest.mark.parametrize(
    ("template", "text", "own"),
    [
        pytest.param("{{ text }}", "Wo ist es?", "Wo ist es?", id="nothing but the record"),
        pytest.param(
            "Sort this: {{ text }} Sort:\n", "Sort this: Wo ist es? Sort:", "Wo ist es?", id="an instruction around it"
        ),
        pytest.param("{% if a %}A{% endif %} {{ b }}!", "A b!", "A b", id="a condition at the beginning"),
        pytest.param("Always the same", "Always the same", "Always the same", id="no record in it"),
        pytest.param("Say: {{ text }}", "another text", "another text", id="a text that the template has not made"),
        pytest.param(None, "Wo ist es?", "Wo ist es?", id="no template"),
    ],
)
def test_without_template_leaves_what_the_record_has_put_in(template: str | None, text: str, own: str) -> None:
    assert without_template(Prompt(template=template) if template is not None else None)(text) == own


def chat(text: str | None, **fields: Any) -> dict[str, Any]:
    return {"choices": [{"message": {"role": "assistant", "content": text}, **fields}]}


@pytest.mark.parametrize(
    ("body", "text"),
    [
        pytest.param(chat("Yes."), "Yes.", id="a chat"),
        pytest.param({"choices": [{"text": "and so on"}]}, "and so on", id="a completion"),
        pytest.param({"data": [{"labels": [{"label": "cat", "score": 0.9}, {"label": "dog"}]}]}, "cat", id="a class"),
        pytest.param({"data": [{"embedding": [0.1, 0.2]}]}, None, id="a vector"),
        pytest.param(chat(None, finish_reason="tool_calls"), None, id="a call of a tool"),
    ],
)
def test_answer_text_is_the_text_or_the_best_label(body: dict[str, Any], text: str | None) -> None:
    assert answer_text(body) == text


@pytest.mark.parametrize(
    "text",
    [
        "I'm sorry, but I can't help with that.",
        "I\u2019m sorry, but I can\u2019t assist with this request.",
        "I cannot provide medical advice.",
        "Unfortunately, I am unable to answer this.",
        "As an AI language model, I have no opinion.",
        "Es tut mir leid, aber das kann ich leider nicht beantworten.",
        "Je suis désolé, mais je ne peux pas répondre.",
        "Lo siento, pero no puedo ayudar con eso.",
        "抱歉\uff0c我无法回答这个问题。",
        "申し訳ありませんが、お答えできません。",
    ],
)
def test_refusal_is_told_by_how_an_answer_begins(text: str) -> None:
    assert is_refusal(chat(text), text)


@pytest.mark.parametrize(
    "text",
    [
        "Paris.",
        "I cannot recommend it enough!",
        "Sorry seems to be the hardest word.",
        "He said: I can't help you.",
        "",
    ],
)
def test_answer_that_answers_is_no_refusal(text: str) -> None:
    assert not is_refusal(chat(text), text)


def test_refusal_is_what_the_endpoint_calls_one() -> None:
    assert is_refusal(chat("", finish_reason="content_filter"), "")
    assert is_refusal({"choices": [{"message": {"content": None, "refusal": "No."}}]}, "")


def test_length_bins_keep_the_order_and_are_a_tenth_wide() -> None:
    bins = [int(length_bin(characters)) for characters in range(1, 5000)]
    assert bins == sorted(bins)
    assert length_bin(1000) != length_bin(1100)


def test_language_is_told_from_the_end_of_a_text() -> None:
    pytest.importorskip("py3langid")
    detect = language_detector()
    assert detect is not None
    german = "Der Drucker druckt seit gestern nur noch leere Seiten, obwohl die Patrone neu ist. " * 5
    assert detect(f"Translate this into English: {german}") == "de"
    assert detect("Where is the parcel that I ordered two weeks ago?") == "en"
    assert detect("12345 !!") == "und"


def vectors(middle: Sequence[float], number: int, seed: int) -> Projections:
    """So many vectors around a point."""
    draw, found = random.Random(seed), Projections()
    for _ in range(number):
        found.add([x + draw.gauss(0, 1) for x in middle])
    return found


def test_regions_of_vectors_tell_two_subjects_apart_and_one_not() -> None:
    north, south = [3.0] + [0.0] * 63, [-3.0] + [0.0] * 63
    reference, same, other = vectors(north, 800, 1), vectors(north, 800, 2), vectors(south, 800, 3)
    was = reference.buckets(reference.medians)
    alike, changed = (difference(by_kind(was, run.buckets(reference.medians))) for run in (same, other))
    assert alike is not None
    assert changed is not None
    assert alike.psi < alike.chance < changed.psi


def test_regions_depend_on_where_a_vector_points_alone() -> None:
    one, other = Projections(), Projections()
    one.add([1.0, 2.0, 3.0])
    other.add([2.0, 4.0, 6.0])
    other.add([0.0, 0.0, 0.0])
    other.add([1.0])
    assert other.values == [pytest.approx(one.values[0])]
    assert len(one.medians) == DIRECTIONS


@pytest.mark.parametrize(("records", "least", "most"), [(10, 10, 10), (3999, 3999, 3999), (40_000, 1500, 2500)])
def test_sample_is_as_large_as_is_wanted_and_always_the_same(records: int, least: int, most: int) -> None:
    ids = [f"record-{number}" for number in range(records)]
    taken = [name for name in ids if Sample.of(records, 2_000).has(name)]
    assert least <= len(taken) <= most
    assert taken == [name for name in ids if Sample.of(records, 2_000).has(name)]
