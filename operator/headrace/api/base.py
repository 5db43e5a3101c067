"""What every model of the API shares: frozen, strict, camelCase outside, and refusing what it does not know.

`parse` is the only door for outside data. It goes through JSON on purpose: pydantic's strict mode then takes a JSON array for
a tuple and a JSON string for a date, and still refuses `"3"` for an integer, exactly as an API server does.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, Any, ClassVar, Self, TypeAlias, get_args

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, PlainSerializer, ValidationError, model_validator
from pydantic.alias_generators import to_camel
from pydantic_core import ErrorDetails, PydanticCustomError

JsonObject: TypeAlias = dict[str, Any]
"""A JSON object as `json.loads` gives it."""


@dataclass(frozen=True, slots=True)
class FieldError:
    """One thing wrong with an object: where (`spec.input.uri`) and what must change."""

    field: str
    message: str

    def __str__(self) -> str:
        return f"{self.field}: {self.message}" if self.field else self.message


class InvalidSpec(ValueError):
    """An object that can never be acted on as it stands; it becomes a condition and is never retried."""

    def __init__(self, errors: Sequence[FieldError]) -> None:
        self.errors = tuple(errors)
        super().__init__("; ".join(map(str, self.errors)))


@dataclass(frozen=True, slots=True)
class Rule:
    """A rule over several fields, said twice: in CEL for the API server, in Python for where there is none.

    `check` gets the model and says whether the rule holds; one table of cases drives both in the tests.
    """

    cel: str
    message: str
    check: Callable[[Any], bool]
    field: str = ""
    """The one field that is to blame, as in `metadata.name` below the model; empty when it takes several to break the rule."""


class ApiModel(BaseModel):
    """Base of all API models. Attributes are snake_case here and camelCase in manifests."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        strict=True,
        alias_generator=to_camel,
        validate_by_name=True,
        validate_by_alias=True,
        use_attribute_docstrings=True,
        allow_inf_nan=False,
        defer_build=True,  # no program uses all models: each is built with its first object, and programs start sooner
    )

    rules: ClassVar[tuple[Rule, ...]] = ()
    """Cross-field rules of this model, enforced here and rendered into the CRD."""

    @model_validator(mode="after")
    def _rules_hold(self) -> Self:
        for rule in self.rules:
            if not rule.check(self):
                raise PydanticCustomError("rule", "{message}", {"message": rule.message, "field": rule.field})
        return self

    @classmethod
    def parse(cls, data: Mapping[str, Any]) -> Self:
        """Validate outside data (a JSON object). A field that is null counts as not set, as it does to an API server.

        Raises `InvalidSpec` naming every wrong field by its manifest name.
        """
        try:
            text = json.dumps(data, allow_nan=False)
            if "null" in text:  # rarely, and to look for them takes far longer than all the rest
                text = json.dumps(_without_nulls(data, cls), allow_nan=False)
            return cls.model_validate_json(text, by_alias=True, by_name=False)
        except ValidationError as error:
            raise InvalidSpec([_field_error(e) for e in error.errors(include_url=False) if _is_real(e)]) from error
        except (TypeError, ValueError, RecursionError) as error:  # from a YAML date, .nan, an alias of itself
            raise InvalidSpec([FieldError("", f"must be what JSON can say: {error}")]) from error

    def to_object(self) -> JsonObject:
        """The JSON object of a manifest: camelCase, without the fields that are not set."""
        return self.model_dump(mode="json", by_alias=True, exclude_none=True)


def _without_nulls(data: Any, model: type[ApiModel] | None) -> Any:
    """The data without those fields of the model, at any depth, that are null; what is in a free object stays."""
    if isinstance(data, list) and model is not None:
        return [_without_nulls(item, model) for item in data]
    if not isinstance(data, Mapping) or model is None:
        return data
    inside = {field.alias: _model_of(field.annotation) for field in model.model_fields.values()}
    said = ((name, value) for name, value in data.items() if value is not None or name not in inside)
    return {name: _without_nulls(value, inside.get(name)) for name, value in said}


def _model_of(annotation: Any) -> type[ApiModel] | None:
    """The model in `Model`, `Model | None` or `tuple[Model, ...]`; None when there is none in it."""
    if isinstance(annotation, type) and issubclass(annotation, ApiModel):
        return annotation
    return next(filter(None, map(_model_of, get_args(annotation))), None)


def _is_real(error: ErrorDetails) -> bool:
    """Not the complaint that an array is too short for the sole reason that its items were refused."""
    return error["type"] != "too_short" or len(error["input"]) < error["ctx"]["min_length"]


def _field_error(error: ErrorDetails) -> FieldError:
    context = error.get("ctx", {})
    blamed = context.get("field", "").split(".")
    field = "".join(map(_step, [*error["loc"], *filter(None, blamed)])).removeprefix(".")
    message = _MESSAGES[error["type"]].format_map(context) if error["type"] in _MESSAGES else _must(error["msg"])
    shown = json.dumps(error["input"], default=str)
    if len(shown) > 60 or error["type"] in _SAY_ENOUGH:
        return FieldError(field, message)
    return FieldError(field, f"{message}, not {shown}")


def _step(part: int | str) -> str:
    """One step of a path; a name that would be taken for several steps, or for none, stands in brackets like an index."""
    is_plain = isinstance(part, str) and part.replace("-", "_").isidentifier()
    return f".{part}" if is_plain else f"[{json.dumps(part)}]"


def _must(message: str) -> str:
    return message.replace("Input should", "must").replace("String should", "must")


_MESSAGES = {
    "missing": "required",
    "extra_forbidden": "unknown field",
    "int_type": "must be an integer",
    "bool_type": "must be a boolean",
    "string_type": "must be a string",
    "tuple_type": "must be an array",
    "dict_type": "must be an object",
    "too_short": "must have {min_length} items or more",
    "too_long": "must have {max_length} items or fewer",
}
"""Where pydantic speaks of Python and a manifest is JSON."""
_SAY_ENOUGH = ("missing", "extra_forbidden", "rule")
"""Errors that are not about a value."""


def _rfc3339(moment: datetime) -> str:
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


Time = Annotated[datetime, PlainSerializer(_rfc3339, when_used="json")]
"""A moment as Kubernetes writes it: UTC, whole seconds."""

ZonedTime = Annotated[AwareDatetime, PlainSerializer(_rfc3339, when_used="json")]
"""The same where a user writes it: without its zone nobody could know which moment is meant."""

Name = Annotated[str, Field(min_length=1, max_length=253, pattern=r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$")]
"""The name of another Kubernetes object (a DNS subdomain)."""

ShortText = Annotated[str, Field(max_length=256)]
LongText = Annotated[str, Field(max_length=32768)]

FreeObject: TypeAlias = dict[str, Any]
"""A JSON object whose fields are somebody else's names (OpenAI's parameters, a user's record)."""

Count = Annotated[int, Field(ge=0, le=2**53)]
"""How many of something; no more than every JSON reader can hold."""
