"""How good a text is: whole numbers, the greater the better, so that the same answers always have the same winner."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial
from typing import Any

import orjson
from jsonschema import Draft202012Validator

from headrace.api.aggregation import JsonSchemaScorer, LengthScorer, RegexScorer, Scorer, schema_validator
from headrace_worker.joining.texts import unfenced

Score = Callable[[str], int]


def scorer(spec: Scorer) -> Score:
    """The scorer of a spec as a function from a text."""
    if spec.regex is not None:
        return _regex(spec.regex)
    if spec.json_schema is not None:
        return _json_schema(spec.json_schema)
    assert spec.length is not None
    return _length(spec.length)


def _regex(spec: RegexScorer) -> Score:
    search = re.compile(spec.pattern).search
    return lambda text: int(search(text) is not None)


def _json_schema(spec: JsonSchemaScorer) -> Score:
    return partial(_fits, schema_validator(spec.schema_))


def _fits(validator: Draft202012Validator, text: str) -> int:
    try:
        data: Any = orjson.loads(unfenced(text))
    except orjson.JSONDecodeError:
        return 0
    return int(validator.is_valid(data))


def _length(spec: LengthScorer) -> Score:
    if spec.target_characters is None:
        return len
    target = spec.target_characters
    return lambda text: -abs(len(text) - target)
