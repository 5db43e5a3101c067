"""How good a text is: whole numbers, the greater the better, so that the same answers always have the same winner."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from functools import partial
from itertools import count
from typing import Any

import orjson
from jsonschema import Draft202012Validator

from headrace.api.scorers import JsonSchemaScorer, LengthScorer, RegexScorer, Scorer, schema_validator
from headrace_worker.joining.answers import Answer
from headrace_worker.joining.texts import unfenced

Score = Callable[[Answer], int]
"""Of an answer that has a text, and whose text the models of the join could read."""


def scorers(specs: Iterable[Scorer]) -> tuple[Score, ...]:
    """The scorers of a spec as functions; those that need a model look at what it has found before."""
    models = count()
    return tuple(_of_text(_scorer(spec)) if spec.use is None else rated(next(models)) for spec in specs)


def rated(place: int) -> Score:
    """What the model at that place of the spec has found."""

    def score(answer: Answer) -> int:
        found = answer.ratings[place]
        assert isinstance(found, int), "an answer that a model could not read is no candidate"
        return found

    return score


def _of_text(score: Callable[[str], int]) -> Score:
    return lambda answer: score(answer.text or "")


def _scorer(spec: Scorer) -> Callable[[str], int]:
    if spec.regex is not None:
        return _regex(spec.regex)
    if spec.json_schema is not None:
        return _json_schema(spec.json_schema)
    assert spec.length is not None
    return _length(spec.length)


def _regex(spec: RegexScorer) -> Callable[[str], int]:
    search = re.compile(spec.pattern).search
    return lambda text: int(search(text) is not None)


def _json_schema(spec: JsonSchemaScorer) -> Callable[[str], int]:
    return partial(_fits, schema_validator(spec.schema_))


def _fits(validator: Draft202012Validator, text: str) -> int:
    try:
        data: Any = orjson.loads(unfenced(text))
    except orjson.JSONDecodeError:
        return 0
    return int(validator.is_valid(data))


def _length(spec: LengthScorer) -> Callable[[str], int]:
    if spec.target_characters is None:
        return len
    target = spec.target_characters
    return lambda text: -abs(len(text) - target)
