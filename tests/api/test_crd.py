"""The generated CRDs: structural, bounded, described, and the same as what is committed."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pytest
import yaml

from headrace.api import labels
from headrace.api.base import ApiModel, Rule, Time
from headrace.api.crd import custom_resource_definition, render_crds, schema_digest
from headrace.api.inferencebatch import InferenceBatch
from headrace.api.kinds import KINDS, Kind
from headrace.api.schema import structural_schema
from spec_cases import GOOD, Good

CRDS = Path(__file__).parents[2] / "crds"
VALUE_WORDS = {"description", "type", "format", "nullable", "default", "enum", "pattern"}
BOUND_WORDS = {"minimum", "maximum", "minLength", "maxLength", "minItems", "maxItems", "minProperties", "maxProperties"}
SHAPE_WORDS = {"properties", "required", "additionalProperties", "items"}
FREE = {"x-kubernetes-preserve-unknown-fields": True}
JsonObject = dict[str, Any]


@dataclass(frozen=True)
class Node:
    """A schema inside a CRD, and where."""

    path: str
    schema: JsonObject

    @property
    def is_free(self) -> bool:
        return "x-kubernetes-preserve-unknown-fields" in self.schema


def root(kind: Kind) -> JsonObject:
    schema: JsonObject = custom_resource_definition(kind)["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    return schema


def nodes(schema: JsonObject, path: str = "") -> Iterator[Node]:
    """The schema and all below it."""
    yield Node(path, schema)
    for name, field in schema.get("properties", {}).items():
        yield from nodes(field, f"{path}.{name}")
    for word, mark in (("items", "[]"), ("additionalProperties", ".*")):
        if word in schema:
            yield from nodes(schema[word], f"{path}{mark}")


def all_nodes(*, below: tuple[str, ...] = ("spec", "status")) -> list[Node]:
    """Every node of every kind's spec and status."""
    parts = ((kind, part) for kind in KINDS for part in below)
    return [node for kind, part in parts for node in nodes(root(kind)["properties"][part], f"{kind.name}.{part}")]


def models(model: type[ApiModel]) -> set[type[ApiModel]]:
    """The model and all models of its fields."""
    found = {model}
    todo = [field.annotation for field in model.model_fields.values()]
    while todo:
        annotation = todo.pop()
        if isinstance(annotation, type) and issubclass(annotation, ApiModel):
            found |= models(annotation)
        todo.extend(getattr(annotation, "__args__", ()))
    return found


def test_schemas_have_only_words_that_a_structural_schema_may_have() -> None:
    for node in all_nodes():
        words = {word for word in node.schema if not word.startswith("x-kubernetes-")}
        if "x-kubernetes-int-or-string" in node.schema:
            assert node.schema["anyOf"] == [{"type": "integer"}, {"type": "string"}], node.path
            words.remove("anyOf")
        else:
            assert "type" in words or node.is_free, node.path
        assert words <= VALUE_WORDS | BOUND_WORDS | SHAPE_WORDS, node.path


def test_schemas_mix_no_properties_and_additional_properties() -> None:
    assert [node.path for node in all_nodes() if {"properties", "additionalProperties"} <= set(node.schema)] == []
    assert [node.path for node in all_nodes() if isinstance(node.schema.get("additionalProperties"), bool)] == []


def test_every_field_has_a_description_on_one_line() -> None:
    """`kubectl explain` shows it. The values of a free object are nobody's to describe."""
    texts = {node.path: node.schema.get("description", "") for node in all_nodes() if not node.path.endswith(".*")}
    assert [path for path, text in texts.items() if not text or "\n" in text] == []


def test_schemas_know_no_floats() -> None:
    assert [node.path for node in all_nodes() if node.schema.get("type") == "number"] == []
    assert [node.path for node in all_nodes() if any(isinstance(value, float) for value in node.schema.values())] == []


def test_a_spec_is_bounded() -> None:
    """An API server reckons what a rule in CEL may cost from the largest object that the schema lets through."""
    assert [node.path for node in all_nodes(below=("spec",)) if not bounds_needed(node) <= set(node.schema)] == []


def bounds_needed(node: Node) -> set[str]:
    if "x-kubernetes-int-or-string" in node.schema:
        return {"minimum", "maximum", "maxLength"}
    if "enum" in node.schema:
        return set()
    match node.schema.get("type"):
        case "string":  # the server knows how long a time can be
            return set() if node.schema.get("format") == "date-time" else {"maxLength"}
        case "integer":
            return {"minimum", "maximum"}
        case "array":
            return {"maxItems"}
        case "object" if "x-kubernetes-preserve-unknown-fields" not in node.schema.get("additionalProperties", FREE):
            return {"maxProperties"}
    return set()


def test_patterns_mean_the_same_to_re2_and_to_rust() -> None:
    """A class such as a word character is ASCII to one and Unicode to the other, and neither knows look-around."""
    patterns = {node.path: node.schema["pattern"] for node in all_nodes() if "pattern" in node.schema}
    assert len(patterns) > 5
    assert [path for path, text in patterns.items() if re.search(r"\\[wWdDsSbBpP1-9]|\(\?|\[\[:", text)] == []
    assert [path for path, text in patterns.items() if not text.startswith("^")] == []


def test_lists_say_how_they_are_merged() -> None:
    lists = [node for node in all_nodes() if node.schema.get("type") == "array"]
    assert len(lists) >= 4
    for node in lists:
        assert node.schema["x-kubernetes-list-type"] in ("atomic", "map"), node.path
        assert set(node.schema.get("x-kubernetes-list-map-keys", ())) <= set(node.schema["items"].get("required", ()))


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_conditions_are_merged_by_their_type(kind: Kind) -> None:
    conditions = root(kind)["properties"]["status"]["properties"]["conditions"]
    assert (conditions["x-kubernetes-list-type"], conditions["x-kubernetes-list-map-keys"]) == ("map", ["type"])


@pytest.mark.parametrize("case", GOOD, ids=lambda case: case.what)
def test_the_defaults_of_the_schema_are_those_of_the_models(case: Good) -> None:
    """An API server fills in what is missing of an object that is there; only a default brings the object itself."""
    filled = with_defaults(root(KINDS[0])["properties"]["spec"], case.manifest["spec"])
    assert filled == InferenceBatch.parse(case.manifest).to_object()["spec"]


def with_defaults(schema: JsonObject, value: Any) -> Any:
    """What an API server makes of a value."""
    if isinstance(value, list):
        return [with_defaults(schema["items"], item) for item in value]
    if not isinstance(value, dict) or "properties" not in schema:
        return value
    fields = schema["properties"]
    missing = {name: field["default"] for name, field in fields.items() if name not in value and "default" in field}
    return {name: with_defaults(fields.get(name, {}), item) for name, item in {**value, **missing}.items()}


def test_a_status_has_no_defaults() -> None:
    """It is what was observed, and an API server must not add to it."""
    assert [node.path for node in all_nodes(below=("status",)) if "default" in node.schema] == []


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_metadata_is_left_to_the_api_server(kind: Kind) -> None:
    assert root(kind)["properties"]["metadata"] == {"type": "object"}


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_every_rule_is_in_the_crd(kind: Kind) -> None:
    rules: list[Rule] = list(itertools.chain(kind.transition_rules, *(model.rules for model in models(kind.model))))
    written = [
        (entry["rule"], entry["message"])
        for node in nodes(root(kind))
        for entry in node.schema.get("x-kubernetes-validations", ())
    ]
    assert {(rule.cel, rule.message) for rule in rules} == set(written)
    assert len(rules) >= (20 if kind is KINDS[0] else 4)


def test_a_rule_is_on_the_object_that_it_speaks_of() -> None:
    spec = root(KINDS[0])["properties"]["spec"]["properties"]
    source = spec["model"]["properties"]["source"]["x-kubernetes-validations"]
    assert source == [
        {
            "message": "exactly one of huggingFace, claim, ociImage, uri, package, path must be set",
            "rule": "[has(self.huggingFace), has(self.claim), has(self.ociImage), has(self.uri), has(self.__package__), "
            "has(self.path)].filter(x, x).size() == 1",
        }
    ]


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_the_path_of_a_column_leads_through_the_schema(kind: Kind) -> None:
    for column in kind.columns:
        first, *names = column.json_path.removeprefix(".").split(".")
        if first == "metadata":
            assert names == ["creationTimestamp"]
            continue
        schema = root(kind)["properties"][first]
        for name in names:
            schema = schema["properties"][name]
        assert schema["format" if column.type == "date" else "type"] == {"date": "date-time"}.get(
            column.type, column.type
        )


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_a_crd_has_a_status_of_its_own_and_its_names(kind: Kind) -> None:
    crd = custom_resource_definition(kind)
    (version,) = crd["spec"]["versions"]
    assert version["subresources"] == {"status": {}}
    assert (version["served"], version["storage"]) == (True, True)
    assert crd["spec"]["names"]["shortNames"] == [kind.short_name]
    assert crd["spec"]["names"]["categories"] == ["headrace"]
    assert crd["metadata"]["name"] == f"{crd['spec']['names']['plural']}.{crd['spec']['group']}"


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_the_digest_is_of_the_schema(kind: Kind) -> None:
    crd = custom_resource_definition(kind)
    schema = crd["spec"]["versions"][0]["schema"]
    assert crd["metadata"]["annotations"][labels.SCHEMA_DIGEST] == schema_digest(schema)
    schema["openAPIV3Schema"]["properties"]["spec"]["description"] += "!"
    assert crd["metadata"]["annotations"][labels.SCHEMA_DIGEST] != schema_digest(schema)


def test_crds_are_what_render_crds_makes() -> None:
    """`make generate` writes them anew."""
    assert {path.name: path.read_text() for path in CRDS.iterdir()} == render_crds()


def test_render_crds_writes_plain_yaml_of_the_crds() -> None:
    rendered = render_crds()
    assert [yaml.safe_load(text) for text in rendered.values()] == [custom_resource_definition(kind) for kind in KINDS]
    for text in rendered.values():
        assert text.startswith("# Generated by `headrace crds`. Do not edit.\n")
        assert not re.search(r"[&*]id\d+", text)


class Inner(ApiModel):
    """The inside."""

    size: int = 3
    """How large."""


class Outer(ApiModel):
    """The outside."""

    inner: Inner = Inner(size=4)
    maybe: Inner | None = None
    """Perhaps
    an inside."""
    at: Time | None = None
    """When."""
    mode: Literal["fast"] = "fast"
    """How."""


def test_structural_schema_puts_definitions_in_place_with_defaults_of_their_own() -> None:
    size = {"default": 3, "description": "How large.", "type": "integer"}
    inner = {"description": "The inside.", "properties": {"size": size}, "type": "object"}
    assert structural_schema(Outer, "spec") == {
        "description": "The outside.",
        "properties": {
            "inner": {**inner, "default": {"size": 4}},
            "maybe": {**inner, "description": "Perhaps an inside."},
            "at": {"description": "When.", "format": "date-time", "type": "string"},
            "mode": {"default": "fast", "description": "How.", "enum": ["fast"], "type": "string"},
        },
        "type": "object",
    }


def test_structural_schema_of_a_status_has_no_defaults() -> None:
    size = {"description": "How large.", "type": "integer"}
    assert structural_schema(Inner, "status")["properties"] == {"size": size}


class WithUnion(ApiModel):
    """No CRD can say this."""

    value: int | bool = 0


class WithFloat(ApiModel):
    """Kubernetes has no floats in its APIs."""

    value: float = 0


class WithItself(ApiModel):
    """A tree."""

    children: tuple[WithItself, ...] = ()


@pytest.mark.parametrize(
    ("model", "complaint"),
    [
        pytest.param(WithUnion, "is a union", id="a union"),
        pytest.param(WithFloat, "is a float", id="a float"),
        pytest.param(WithItself, "WithItself is inside itself", id="a model within itself"),
    ],
)
def test_structural_schema_refuses_what_kubernetes_cannot_say(model: type[ApiModel], complaint: str) -> None:
    with pytest.raises(TypeError, match=complaint):
        structural_schema(model, "spec")
