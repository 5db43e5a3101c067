"""The one union that Kubernetes knows: a number or a text, as in `2` and `500m`, or `10` and `1%`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic_core import CoreSchema, core_schema

from headrace.api.base import JsonObject

_MAX_LENGTH = 32


@dataclass(frozen=True, slots=True)
class IntOrString:
    """Makes an `int | str` a number from 0 to `maximum` or a short text of one pattern.

    A plain union would answer a wrong value with the complaints of both its halves, and no CRD may hold one.
    """

    pattern: str
    maximum: int
    meaning: str
    """What the value must be, for people."""

    def __get_pydantic_core_schema__(self, _source: Any, _handler: GetCoreSchemaHandler) -> CoreSchema:
        number = core_schema.int_schema(ge=0, le=self.maximum, strict=True)
        text = core_schema.str_schema(pattern=self.pattern, max_length=_MAX_LENGTH, strict=True)
        return core_schema.custom_error_schema(
            core_schema.union_schema([number, text]), "int_or_string", custom_error_message=f"must be {self.meaning}"
        )

    def __get_pydantic_json_schema__(self, _schema: CoreSchema, _handler: GetJsonSchemaHandler) -> JsonObject:
        return {
            "anyOf": [{"type": "integer"}, {"type": "string"}],
            "maxLength": _MAX_LENGTH,
            "maximum": self.maximum,
            "minimum": 0,
            "pattern": self.pattern,
            "x-kubernetes-int-or-string": True,
        }
