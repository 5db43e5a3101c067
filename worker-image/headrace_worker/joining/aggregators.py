"""The aggregators: from the answers to one record, in the order of the branches, to the one answer.

Each is a pure function. Whatever they leave open goes to the greater weight, then to the branch that is named first.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial

import orjson

from headrace.api.aggregation import Aggregation, AggregationType, Comparison, Concat, Vote
from headrace.api.base import JsonObject
from headrace.api.records import ErrorCode, RecordError
from headrace_worker.joining.answers import (
    NO_TEXT,
    Answer,
    Joined,
    names,
    put_together,
    ranked,
    summed_usage,
    usage_field,
)
from headrace_worker.joining.scorers import Score, rated, scorers
from headrace_worker.joining.texts import normalized, unfenced

Aggregator = Callable[[Sequence[Answer]], Joined]
"""Takes at least one answer. Raises `RecordError` when none of them can be used."""

NOT_JSON = "not_a_json_object"


def aggregator(spec: Aggregation) -> Aggregator:
    """The aggregator of a spec."""
    match spec.type:
        case AggregationType.FIRST:
            return first
        case AggregationType.CONCAT:
            return partial(concat, spec.concat or Concat())
        case AggregationType.VOTE:
            return partial(vote, spec.vote or Vote())
        case AggregationType.MERGE:
            return merge
        case AggregationType.BEST_OF:
            assert spec.best_of is not None
            return partial(best_of, scorers(spec.best_of.scorers))
        case AggregationType.COLLECT:
            return collect
        case AggregationType.JUDGE:
            return partial(best_of, (rated(0),))
        case AggregationType.IMAGE:
            return _by_a_program
        case AggregationType.REDUCE:
            return first_text


def _by_a_program(_: Sequence[Answer]) -> Joined:
    raise AssertionError("what a program of the user's has written is read, not made here")


def first(answers: Sequence[Answer]) -> Joined:
    """The answer of the greatest weight."""
    winner = ranked(answers)[0]
    return Joined(winner.body, (winner.branch,), winner.branch)


def collect(answers: Sequence[Answer]) -> Joined:
    """All answers, each under the name of its branch: what a text, a photo and a sound say cannot be laid over each other."""
    bodies = {answer.branch: answer.body for answer in answers}
    body = {"object": "answers", "answers": bodies, **usage_field(summed_usage(answers))}
    return Joined(body, names(answers))


def first_text(answers: Sequence[Answer]) -> Joined:
    """The text of the greatest weight."""
    texts, missing = _with_text(answers)
    winner = ranked(answer for answer, _ in texts)[0]
    return Joined(winner.body, (winner.branch,), winner.branch, missing=missing)


def concat(spec: Concat, answers: Sequence[Answer]) -> Joined:
    """All texts, one after the other."""
    texts, missing = _with_text(answers)
    used = [answer for answer, _ in texts]
    body = put_together(spec.separator.join(text for _, text in texts), ranked(used)[0], used)
    return Joined(body, names(used), missing=missing)


def vote(spec: Vote, answers: Sequence[Answer]) -> Joined:
    """The text that most weight stands behind, as its first voter has put it."""
    texts, missing = _with_text(answers)
    choices = {answer.branch: _choice(spec, answer, text) for answer, text in texts}
    votes: dict[str, int] = {}
    for answer, _ in texts:
        votes[choices[answer.branch]] = votes.get(choices[answer.branch], 0) + answer.weight
    scores = {branch: votes[choice] for branch, choice in choices.items()}
    return _elect([answer for answer, _ in texts], scores.__getitem__, scores, missing)


def _choice(spec: Vote, answer: Answer, text: str) -> str:
    """What a text counts as."""
    match spec.comparison:
        case Comparison.EXACT:
            return text
        case Comparison.NORMALIZED:
            return normalized(text)
        case Comparison.CLUSTER:
            return str(answer.ratings[0])


def best_of(scorers: Sequence[Score], answers: Sequence[Answer]) -> Joined:
    """The text that the first scorer likes best; the next ones break its ties."""
    texts, missing = _with_text(answers)
    scores = {answer.branch: [score(answer) for score in scorers] for answer, _ in texts}
    return _elect([answer for answer, _ in texts], scores.__getitem__, scores, missing)


def merge(answers: Sequence[Answer]) -> Joined:
    """The JSON objects laid over each other; where they disagree, the greater weight is right."""
    texts, missing = _with_text(answers)
    objects = {answer.branch: found for answer, text in texts if (found := _json_object(text)) is not None}
    used = [answer for answer, _ in texts if answer.branch in objects]
    missing |= {answer.branch: NOT_JSON for answer, _ in texts if answer.branch not in objects}
    if not used:
        raise RecordError(ErrorCode.NOT_JOINABLE, f"no answer is a JSON object: {_listed(missing)}")
    whole: JsonObject = {}
    for answer in ranked(used):
        _fill_in(whole, objects[answer.branch])
    return Joined(put_together(orjson.dumps(whole).decode(), ranked(used)[0], used), names(used), missing=missing)


def _with_text(answers: Iterable[Answer]) -> tuple[list[tuple[Answer, str]], dict[str, str]]:
    """The answers that have a text which can be used, and the branches whose have none."""
    texts, missing = [], {}
    for answer in answers:
        text = answer.text
        unreadable = next((rating for rating in answer.ratings if isinstance(rating, str)), None)
        if text is None or unreadable is not None:
            missing[answer.branch] = unreadable or NO_TEXT
        else:
            texts.append((answer, text))
    if not texts:
        raise RecordError(ErrorCode.NOT_JOINABLE, f"no answer has a text that can be used: {_listed(missing)}")
    return texts, missing


def _elect(
    used: Sequence[Answer], score: Callable[[str], int | list[int]], scores: JsonObject, missing: dict[str, str]
) -> Joined:
    best = max(score(answer.branch) for answer in used)
    winner = next(answer for answer in ranked(used) if score(answer.branch) == best)
    return Joined(winner.body, names(used), winner.branch, scores, missing)


def _json_object(text: str) -> JsonObject | None:
    try:
        found = orjson.loads(unfenced(text))
    except orjson.JSONDecodeError:
        return None
    return found if isinstance(found, dict) else None


def _fill_in(whole: JsonObject, more: JsonObject) -> None:
    """Add what is not there yet; objects inside are filled in likewise."""
    todo = [(whole, more)]
    while todo:
        known, new = todo.pop()
        for name, value in new.items():
            if name not in known:
                known[name] = value
            elif isinstance(known[name], dict) and isinstance(value, dict):
                todo.append((known[name], value))


def _listed(missing: dict[str, str]) -> str:
    return ", ".join(f"{branch}: {why}" for branch, why in missing.items())
