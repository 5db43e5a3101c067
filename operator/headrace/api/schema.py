"""From a pydantic model to a structural schema, the part of OpenAPI that a CustomResourceDefinition may use.

pydantic writes JSON Schema: references, unions, null, titles. An API server wants every object spelled out in place, no union
but int-or-string, absence in place of null, and its own `x-kubernetes-` words for lists, rules and free objects. Most of that is
said while pydantic generates (`_StructuralGenerator`); what is left is to put the definitions where they are referred to.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, TypeAlias

from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue, NoDefault
from pydantic_core import core_schema

from headrace.api.base import ApiModel, JsonObject, Rule

Mode: TypeAlias = Literal["spec", "status"]
"""What users write gets its defaults from the schema; what the operator has observed gets nothing that it did not write."""


def structural_schema(model: type[ApiModel], mode: Mode) -> JsonObject:
    """The structural schema of `model`, with descriptions from docstrings and validations from `rules`.

    Raises `TypeError` naming what Kubernetes cannot say: a union, a float, a model within itself.
    """
    generator = _StructuralGenerator if mode == "spec" else _StatusGenerator
    schema = model.model_json_schema(schema_generator=generator)
    return _in_place(schema, schema.pop("$defs", {}))


def validation(rule: Rule) -> JsonObject:
    """The rule as an entry of `x-kubernetes-validations`."""
    entry = {"message": rule.message, "rule": rule.cel}
    # a path must lead through the schema, and what is in metadata is not part of it
    has_path = rule.field and not rule.field.startswith("metadata.")
    return entry | {"fieldPath": f".{rule.field}"} if has_path else entry


class _StructuralGenerator(GenerateJsonSchema):
    """pydantic's generator, in the words of Kubernetes."""

    def field_title_should_be_set(self, schema: Any) -> bool:  # noqa: ARG002 - titles say nothing that names do not
        return False

    def model_schema(self, schema: core_schema.ModelSchema) -> JsonSchemaValue:
        model = schema["cls"]
        json_schema = super().model_schema(schema)
        json_schema.pop("additionalProperties", None)  # a structural object takes no other fields anyway
        if issubclass(model, ApiModel) and model.rules:
            json_schema["x-kubernetes-validations"] = [validation(rule) for rule in model.rules]
        return json_schema

    def nullable_schema(self, schema: core_schema.NullableSchema) -> JsonSchemaValue:
        return self.generate_inner(schema["schema"])  # not required is enough: null means absent

    def literal_schema(self, schema: core_schema.LiteralSchema) -> JsonSchemaValue:
        json_schema = super().literal_schema(schema)
        if "const" in json_schema:
            json_schema["enum"] = [json_schema.pop("const")]
        return json_schema

    def tuple_schema(self, schema: core_schema.TupleSchema) -> JsonSchemaValue:
        return {**super().tuple_schema(schema), "x-kubernetes-list-type": "atomic"}

    def any_schema(self, schema: core_schema.AnySchema) -> JsonSchemaValue:  # noqa: ARG002
        return {"nullable": True, "x-kubernetes-preserve-unknown-fields": True}

    def get_default_value(self, schema: core_schema.WithDefaultSchema) -> Any:
        default = schema["default_factory"]() if "default_factory" in schema else schema.get("default")  # type: ignore[call-arg]
        return NoDefault if default is None else default

    def encode_default(self, dft: Any) -> Any:
        # whole, and not `{}` for its fields to fill: an API server holds the default itself against the rules
        return dft.to_object() if isinstance(dft, ApiModel) else super().encode_default(dft)

    def union_schema(self, schema: core_schema.UnionSchema) -> JsonSchemaValue:
        raise TypeError(f"{schema['choices']} is a union: make it an object of optional fields, or use IntOrString")

    def float_schema(self, schema: core_schema.FloatSchema) -> JsonSchemaValue:
        raise TypeError(f"{schema} is a float: use an integer of a smaller unit, or a text")


class _StatusGenerator(_StructuralGenerator):
    def get_default_value(self, schema: core_schema.WithDefaultSchema) -> Any:  # noqa: ARG002
        return NoDefault


def _in_place(
    schema: Mapping[str, Any], definitions: Mapping[str, JsonObject], inside: tuple[str, ...] = ()
) -> JsonObject:
    """The schema without references and titles, each description on one line."""
    if reference := schema.get("$ref"):
        name = reference.rpartition("/")[2]
        if name in inside:
            raise TypeError(f"{name} is inside itself: a structural schema cannot recur")
        siblings = {key: value for key, value in schema.items() if key != "$ref"}
        return _in_place({**definitions[name], **siblings}, definitions, (*inside, name))

    def nested(key: str, value: Any) -> Any:
        match key:
            case "properties":
                return {name: _in_place(field, definitions, inside) for name, field in value.items()}
            case "items" | "additionalProperties":
                return _in_place(value, definitions, inside)
            case "description":
                return " ".join(value.split())
        return value

    return {key: nested(key, schema[key]) for key in sorted(schema) if key != "title"}
