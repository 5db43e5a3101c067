"""What tells how good an answer is: rules on its text, and models that read it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Annotated, Any, ClassVar

import jsonschema
from pydantic import Field
from referencing import Registry

from headrace.api.base import ApiModel, FieldError, FreeObject, InvalidSpec, Rule
from headrace.api.common import exactly_one
from headrace.api.engines import Engine
from headrace.api.freeobjects import Parameters
from headrace.api.input import Prompt
from headrace.api.model import Model, Task
from headrace.api.prompts import check_template

TEXT_TASKS = (Task.CHAT, Task.COMPLETION)

_GENERATES = Rule(
    cel="self.model.task == 'chat' || self.model.task == 'completion'",
    message="model.task must be chat or completion",
    check=lambda it: it.model.task in TEXT_TASKS,
    field="model.task",
)
_EMBEDS = Rule(
    cel="self.model.task == 'embedding'",
    message="model.task must be embedding",
    check=lambda it: it.model.task == Task.EMBEDDING,
    field="model.task",
)


class ModelUse(ApiModel):
    """A model that the join runs in its own pod."""

    model: Model
    engine: Engine = Field(default_factory=Engine)


class Embedder(ModelUse):
    """A model that turns texts into vectors, which are close when the texts mean the same."""

    rules: ClassVar[tuple[Rule, ...]] = (_EMBEDS,)


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


class LogLikelihoodScorer(ModelUse):
    """How likely a language model finds the text after the question: the mean log-probability of a token, in thousandths of a nat."""

    rules: ClassVar[tuple[Rule, ...]] = (_GENERATES,)


class AgreementScorer(Embedder):
    """How close in meaning the text is to the other answers: the mean cosine of its embedding and theirs, in thousandths."""


class Judge(ModelUse):
    """A model that reads the question and all answers, and names the number of the best: 1 for that one, 0 for the others."""

    rules: ClassVar[tuple[Rule, ...]] = (_GENERATES,)

    prompt: Prompt | None = None
    """What it is asked. Variables of the template: `question`, and `answers`, each with `number` and `text`. By default it is shown both
    and asked for the number of the best answer alone."""
    parameters: Parameters = Field(default_factory=dict)
    """Its requests' parameters in OpenAI's names; by default temperature 0 and few tokens."""


class Scorer(ApiModel):
    """How good an answer is: a whole number, the greater the better."""

    rules: ClassVar[tuple[Rule, ...]] = (
        exactly_one("regex", "json_schema", "length", "log_likelihood", "agreement", "judge"),
    )

    regex: RegexScorer | None = None
    """Whether the text has a form."""
    json_schema: JsonSchemaScorer | None = None
    """Whether the text is JSON of a schema."""
    length: LengthScorer | None = None
    """How long the text is."""
    log_likelihood: LogLikelihoodScorer | None = None
    """How likely a language model finds it."""
    agreement: AgreementScorer | None = None
    """How close in meaning it is to the other answers."""
    judge: Judge | None = None
    """Whether a judge model finds it the best."""

    @property
    def use(self) -> ModelUse | None:
        """The model that it needs, if it needs one."""
        return self.log_likelihood or self.agreement or self.judge


def scorer_problems(scorer: Scorer, at: str) -> Iterator[FieldError]:
    """What is wrong with a scorer that no schema can know: a pattern that is none, a JSON Schema that is none, a template that is none."""
    if scorer.regex is not None:
        yield from _pattern_problems(scorer.regex.pattern, f"{at}.regex.pattern")
    if scorer.json_schema is not None:
        yield from _schema_problems(scorer.json_schema.schema_, f"{at}.jsonSchema.schema")
    if scorer.judge is not None:
        yield from template_problems(scorer.judge.prompt, f"{at}.judge.prompt")


def template_problems(prompt: Prompt | None, at: str) -> Iterator[FieldError]:
    """That the template of a prompt is none."""
    try:
        if prompt is not None:
            check_template(prompt)
    except InvalidSpec as error:
        yield from (FieldError(f"{at}.template", wrong.message) for wrong in error.errors)


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
