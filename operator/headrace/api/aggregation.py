"""How the answers of several branches to one record become one answer."""

from __future__ import annotations

import re
from collections.abc import Iterator
from enum import StrEnum
from typing import Annotated, Any, ClassVar

import jsonschema
from pydantic import Field
from referencing import Registry

from headrace.api.base import ApiModel, FieldError, FreeObject, Rule
from headrace.api.common import exactly_one


class AggregationType(StrEnum):
    """Which answer a record gets, of those that its branches have given."""

    FIRST = "first"
    """The answer of the branch with the greatest weight that has one."""
    CONCAT = "concat"
    """The texts of all answers, in the order of the branches."""
    VOTE = "vote"
    """The text that most weight stands behind."""
    MERGE = "merge"
    """All answers are JSON objects, laid over each other."""
    BEST_OF = "bestOf"
    """The answer that the scorers like best."""
    COLLECT = "collect"
    """All answers, of whatever kind, each under the name of its branch."""

    @property
    def needs_text(self) -> bool:
        """Whether it looks at what an answer says: then it is for generated text alone."""
        return self not in (AggregationType.FIRST, AggregationType.COLLECT)


class Concat(ApiModel):
    """How texts are put together."""

    separator: Annotated[str, Field(max_length=1024)] = "\n\n"
    """What stands between two texts."""


class Comparison(StrEnum):
    """When two texts are the same vote."""

    EXACT = "Exact"
    NORMALIZED = "Normalized"


class Vote(ApiModel):
    """How votes are counted."""

    comparison: Comparison = Comparison.NORMALIZED
    """Exact: the same characters. Normalized: upper and lower case, space, and the punctuation around the text do not matter."""


class RegexScorer(ApiModel):
    """1 for a text in which the pattern is found, 0 for any other."""

    pattern: Annotated[str, Field(min_length=1, max_length=1024)]
    """A regular expression of Python's `re`; `^` and `$` mean the whole text."""


class JsonSchemaScorer(ApiModel):
    """1 for a text that is JSON and fits the schema, 0 for any other."""

    schema_: Annotated[FreeObject, Field(alias="schema")]
    """A JSON Schema; what it refers to must be inside it."""


class LengthScorer(ApiModel):
    """Closeness of the text's length to a target; without a target the longer text is better."""

    target_characters: Annotated[int, Field(ge=0, le=100_000_000)] | None = None
    """The length that a text should have; 0: the shorter, the better."""


class Scorer(ApiModel):
    """How good an answer is: a whole number, the greater the better."""

    rules: ClassVar[tuple[Rule, ...]] = (exactly_one("regex", "json_schema", "length"),)

    regex: RegexScorer | None = None
    """Whether the text has a form."""
    json_schema: JsonSchemaScorer | None = None
    """Whether the text is JSON of a schema."""
    length: LengthScorer | None = None
    """How long the text is."""


class BestOf(ApiModel):
    """The scorers: the first one decides, the next ones break its ties, after them weight and the order of the branches."""

    scorers: Annotated[
        tuple[Scorer, ...], Field(min_length=1, max_length=8, json_schema_extra={"x-kubernetes-list-type": "atomic"})
    ]
    """From the one that matters most."""


def _only_for(field: str, kind: AggregationType) -> Rule:
    name = kind.value
    return Rule(
        cel=f"!has(self.{name}) || self.type == '{name}'",
        message=f"{name} may be set only when type is {name}",
        check=lambda it: getattr(it, field) is None or it.type == kind,
        field=name,
    )


class Aggregation(ApiModel):
    """How the answers to one record become one. Ties go to the greater weight, then to the branch that is named first."""

    rules: ClassVar[tuple[Rule, ...]] = (
        _only_for("concat", AggregationType.CONCAT),
        _only_for("vote", AggregationType.VOTE),
        _only_for("best_of", AggregationType.BEST_OF),
        Rule(
            cel="self.type != 'bestOf' || has(self.bestOf)",
            message="bestOf must be set when type is bestOf: it has the scorers that tell which answer is best",
            check=lambda it: it.type != AggregationType.BEST_OF or it.best_of is not None,
        ),
    )

    type: AggregationType = AggregationType.FIRST
    """Which answer a record gets."""
    concat: Concat | None = None
    """Settings of the type concat."""
    vote: Vote | None = None
    """Settings of the type vote."""
    best_of: BestOf | None = None
    """Settings of the type bestOf."""


def aggregation_problems(aggregation: Aggregation, field: str = "spec.aggregation") -> Iterator[FieldError]:
    """What is wrong with scorers that no schema can know: patterns that are none, JSON Schemas that are none."""
    for index, scorer in enumerate(aggregation.best_of.scorers if aggregation.best_of is not None else ()):
        at = f"{field}.bestOf.scorers[{index}]"
        if scorer.regex is not None:
            yield from _pattern_problems(scorer.regex.pattern, f"{at}.regex.pattern")
        if scorer.json_schema is not None:
            yield from _schema_problems(scorer.json_schema.schema_, f"{at}.jsonSchema.schema")


def _pattern_problems(pattern: str, at: str) -> Iterator[FieldError]:
    try:
        re.compile(pattern)
    except re.error as error:
        yield FieldError(at, f"is not a regular expression: {error}")
    except (RecursionError, OverflowError):
        yield FieldError(at, "is not a regular expression: it is nested too deeply")


def _schema_problems(schema: FreeObject, at: str) -> Iterator[FieldError]:
    try:
        jsonschema.Draft202012Validator.check_schema(schema)
    except jsonschema.SchemaError as error:
        yield FieldError(at, f"is not a JSON Schema: {error.json_path}: {error.message}"[:500])
    except RecursionError:
        yield FieldError(at, "is not a JSON Schema: it is nested too deeply")
    else:
        outside = sorted({target for target in _references(schema) if not target.startswith("#")})
        if outside:
            yield FieldError(at, f"refers to {outside[0]}: what it refers to must be inside it, as in #/$defs/NAME")


def _references(schema: Any) -> Iterator[str]:
    todo = [schema]
    while todo:
        part = todo.pop()
        if isinstance(part, dict):
            yield from (part[word] for word in ("$ref", "$dynamicRef") if isinstance(part.get(word), str))
            todo.extend(part.values())
        elif isinstance(part, list):
            todo.extend(part)


def schema_validator(schema: FreeObject) -> jsonschema.Draft202012Validator:
    """The validator of a schema, which fetches nothing from anywhere."""
    return jsonschema.Draft202012Validator(schema, registry=Registry())
