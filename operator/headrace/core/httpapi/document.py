"""The OpenAPI document of the gateway: what each operation says of itself, and the schemas of the models."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaMode, models_json_schema

from headrace.api.answers import Refused
from headrace.api.base import JsonObject
from headrace.core.httpapi.operation import JSON, Answer, Operation, Parameter

_REFERENCE = "#/components/schemas/{model}"
_REFUSALS: Mapping[int, tuple[str, str]] = {
    400: ("BadRequest", "What is asked for must change; `param` names the field."),
    401: ("Unknown", "There is no key, or one that is not known here."),
    403: (
        "Forbidden",
        "It may not be asked for from there, such as a page of another site, or not by this user.",
    ),
    404: ("NotFound", "There is no such object."),
    408: ("BodyStopped", "Nothing more of the body has come for a minute."),
    409: ("Conflict", "It does not go with how things are."),
    410: ("Gone", "It was there, and is not any more."),
    413: ("TooLarge", "The body is too large."),
    415: ("WrongMediaType", "The body is of another kind than this takes."),
    429: ("TooMany", "There is no room now. `Retry-After` says when to come again."),
    500: ("Failure", "Something is wrong with the gateway, or with what it keeps."),
    503: ("Unavailable", "What keeps the requests cannot be reached now. `Retry-After` says when to come again."),
    507: ("NoRoom", "The disk is full."),
}
"""Name and meaning of each refusal, by its status."""
_ANYWHERE = (403, 500)
_OF_TENANTS = (401, 429, 503)
"""Of what is not answered to anybody."""
_WITH_RETRY_AFTER = (429, 503)


def document(operations: Sequence[Operation], version: str) -> JsonObject:
    """The document of these operations."""
    schemas, definitions = _schemas(operations)
    refusals = sorted({*(status for one in operations for status in _refusals(one))})
    paths: dict[str, JsonObject] = {}
    for one in operations:
        if not one.is_socket:
            paths.setdefault(one.path, {})[one.method.lower()] = _operation(one, schemas)
    for one in operations:
        if one.is_socket:
            _tell_of_socket(paths.setdefault(one.path, {}), one, schemas)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Headrace gateway",
            "version": version,
            "summary": "Whole batches, as OpenAI's clients know them, and single requests that are answered later.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/"}],
        "tags": [{"name": tag} for tag in dict.fromkeys(one.tag.value for one in operations)],
        "paths": paths,
        "components": {
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
            "schemas": definitions,
            "responses": {_REFUSALS[status][0]: _refusal(status, schemas[Refused]) for status in refusals},
        },
    }


def _operation(one: Operation, schemas: Mapping[type[BaseModel], JsonObject]) -> JsonObject:
    said: JsonObject = {"operationId": one.name, "tags": [one.tag.value], "summary": one.about}
    if not one.is_open:
        said["security"] = [{"key": []}, {}]  # a gateway without tenants asks for none
    if one.parameters:
        said["parameters"] = [_parameter(parameter) for parameter in one.parameters]
    if one.body is not None:
        said["requestBody"] = {"required": True, "content": {one.body.media_type: {"schema": schemas[one.body.model]}}}
    said["responses"] = {
        **{str(answer.status): _answer(answer, schemas) for answer in one.answers},
        **{
            str(status): {"$ref": f"#/components/responses/{_REFUSALS[status][0]}"} for status in sorted(_refusals(one))
        },
    }
    return said


def _refusals(one: Operation) -> set[int]:
    return {*one.refusals, *_ANYWHERE, *(() if one.is_open else _OF_TENANTS)}


def _tell_of_socket(path: JsonObject, one: Operation, schemas: Mapping[type[BaseModel], JsonObject]) -> None:
    """OpenAPI has no WebSockets: that of an address is told of beside what GET is answered with there."""
    said = path.setdefault("get", {})
    said["description"] = one.about
    said["x-websocket"] = {
        "operationId": one.name,
        "parameters": [_parameter(parameter) for parameter in one.parameters],
        "heard": [schemas[model] for model in one.heard],
        "told": [schemas[model] for model in one.told],
    }


def _parameter(one: Parameter) -> JsonObject:
    return {
        "name": one.name,
        "in": one.where,
        "required": one.required,
        "description": one.about,
        "schema": one.schema,
    }


def _answer(answer: Answer, schemas: Mapping[type[BaseModel], JsonObject]) -> JsonObject:
    said: JsonObject = {"description": answer.about}
    if answer.headers:
        said["headers"] = {name: {"required": True, "schema": {"type": "string"}} for name in answer.headers}
    if answer.media_type is not None:
        any_body: JsonObject = {"type": "object" if answer.media_type == JSON else "string"}
        said["content"] = {answer.media_type: {"schema": schemas[answer.model] if answer.model else any_body}}
    return said


def _refusal(status: int, schema: JsonObject) -> JsonObject:
    said: JsonObject = {
        "description": _REFUSALS[status][1],
        "headers": {"x-should-retry": {"required": True, "schema": {"type": "string", "enum": ["true", "false"]}}},
        "content": {JSON: {"schema": schema}},
    }
    if status in _WITH_RETRY_AFTER:
        said["headers"]["Retry-After"] = {"required": True, "schema": {"type": "integer", "minimum": 1}}
    return said


def _schemas(operations: Iterable[Operation]) -> tuple[dict[type[BaseModel], JsonObject], dict[str, JsonObject]]:
    """What refers to each model, and all that is referred to."""
    asked: dict[type[BaseModel], JsonSchemaMode] = {Refused: "serialization"}
    for one in operations:
        asked |= {answer.model: "serialization" for answer in one.answers if answer.model is not None}
        asked |= {one.body.model: "validation"} if one.body is not None else {}
        asked |= dict.fromkeys(one.heard, "validation")
        asked |= dict.fromkeys(one.told, "serialization")
    found, whole = models_json_schema([*asked.items()], ref_template=_REFERENCE, schema_generator=_Schemas)
    return {model: found[model, mode] for model, mode in asked.items()}, whole["$defs"]


class _Schemas(GenerateJsonSchema):
    """pydantic's generator, with each sentence on one line and without titles, which say nothing that names do not."""

    def field_title_should_be_set(self, schema: Any) -> bool:  # noqa: ARG002
        return False

    def model_schema(self, schema: Any) -> JsonObject:
        said = super().model_schema(schema)
        said.pop("title", None)
        return _on_one_line(said)


def _on_one_line(schema: JsonObject) -> JsonObject:
    if "description" in schema:
        schema["description"] = " ".join(schema["description"].split())
    for field in schema.get("properties", {}).values():
        _on_one_line(field)
    return schema
