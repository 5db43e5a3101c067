"""What an InferenceBatch may say, and how an error names what it may not. tests/cluster asks an API server the same."""

from __future__ import annotations

import datetime
from typing import Any

import pytest

from headrace.api.base import FieldError, InvalidSpec
from headrace.api.common import Backoff, FailurePolicy
from headrace.api.inferencebatch import IMMUTABLE, InferenceBatch, InferenceBatchSpec
from headrace.api.kinds import forbidden_changes
from headrace.api.model import Task
from spec_cases import BAD, CHANGES, GOOD, MINIMAL, OPENAI, UNSET, Bad, Change, Good, manifest


def errors(document: dict[str, Any]) -> tuple[FieldError, ...]:
    with pytest.raises(InvalidSpec) as caught:
        InferenceBatch.parse(document)
    return caught.value.errors


@pytest.mark.parametrize("case", BAD, ids=lambda case: case.what)
def test_parse_names_the_field_of_a_bad_spec(case: Bad) -> None:
    """One thing is wrong, and one error says so."""
    assert [error.field for error in errors(case.manifest)] == [case.at]


def test_parse_refuses_an_unknown_field_that_is_null() -> None:
    assert errors(manifest({**MINIMAL, "shard": None})) == (FieldError("spec.shard", "unknown field"),)


@pytest.mark.parametrize("case", GOOD, ids=lambda case: case.what)
def test_parse_takes_a_good_spec_and_keeps_all_of_it(case: Good) -> None:
    taken = InferenceBatch.parse(case.manifest).to_object()["spec"]
    for name, said in case.manifest["spec"].items():
        assert _contains(taken[name], said), f"{name}: {said} became {taken[name]}"


def _contains(whole: Any, part: Any) -> bool:
    """Whether an object has at least the fields of another, at every depth; other values are to be equal."""
    if isinstance(whole, dict) and isinstance(part, dict):
        return all(key in whole and _contains(whole[key], value) for key, value in part.items())
    if isinstance(whole, list) and isinstance(part, list):
        return len(whole) == len(part) and all(map(_contains, whole, part))
    return type(whole) is type(part) and bool(whole == part)


@pytest.mark.parametrize("case", UNSET, ids=lambda case: case.what)
def test_parse_takes_null_for_not_set(case: Good) -> None:
    """A key with nothing behind it is easily left over in YAML."""
    assert InferenceBatch.parse(case.manifest) == InferenceBatch.parse(without_nulls(case.manifest))


def without_nulls(value: Any) -> Any:
    if isinstance(value, list):
        return [without_nulls(item) for item in value]
    if isinstance(value, dict):
        return {name: without_nulls(item) for name, item in value.items() if item is not None}
    return value


@pytest.mark.parametrize("case", GOOD, ids=lambda case: case.what)
def test_parse_of_what_to_object_writes_is_the_same_object(case: Good) -> None:
    batch = InferenceBatch.parse(case.manifest)
    assert InferenceBatch.parse(batch.to_object()) == batch


@pytest.mark.parametrize("case", CHANGES, ids=lambda case: case.what)
def test_forbidden_changes_names_what_may_not_change(case: Change) -> None:
    old, new = (InferenceBatch.parse(document) for document in (case.old, case.new))
    assert forbidden_changes(old, new) == ([case.forbidden] if case.forbidden else [])


def test_every_field_may_either_change_or_not() -> None:
    """Nobody adds a field to the spec without deciding this."""
    may_change = {"parallelism", "min_parallelism", "limits", "budget", "priority"}
    may_change |= {"completion_deadline_seconds", "suspend", "cancel"}
    assert set(InferenceBatchSpec.model_fields) == {*IMMUTABLE, *may_change}


@pytest.mark.parametrize(
    ("change", "field", "message"),
    [
        pytest.param({"shards": "3"}, "spec.shards", 'must be an integer, not "3"', id="a wrong type"),
        pytest.param({"shards": -1}, "spec.shards", "must be greater than or equal to 1, not -1", id="out of range"),
        pytest.param({"shard": 1}, "spec.shard", "unknown field", id="an unknown field"),
        pytest.param({"": 1}, 'spec[""]', "unknown field", id="a field without a name"),
        pytest.param({"shards.max": 1}, 'spec["shards.max"]', "unknown field", id="a field with a dot in its name"),
        pytest.param({"model": {}}, "spec.model.name", "required", id="a missing field"),
        pytest.param({"batching": []}, "spec.batching", "must be an object, not []", id="no object"),
        pytest.param({"parameters": 1}, "spec.parameters", "must be an object, not 1", id="no free object"),
        pytest.param({"input": {"inline": 1}}, "spec.input.inline", "must be an array, not 1", id="no array"),
        pytest.param({"suspend": "no"}, "spec.suspend", 'must be a boolean, not "no"', id="no boolean"),
        pytest.param(
            {"input": {"inline": []}}, "spec.input.inline", "must have 1 items or more, not []", id="an empty array"
        ),
        pytest.param(
            {"input": {}}, "spec.input", "exactly one of uri, inline, configMapRef must be set", id="a broken rule"
        ),
        pytest.param(
            {"batching": {"orderBy": "size"}},
            "spec.batching.orderBy",
            "must be 'none', 'length' or 'prefix', not \"size\"",
            id="not one of the choices",
        ),
        pytest.param(
            {"resources": {"limits": {"cpu": "two"}}},
            "spec.resources.limits.cpu",
            'must be an amount such as 2, 500m or 8Gi, not "two"',
            id="not an amount",
        ),
        pytest.param(
            {"model": {"name": "m" * 300}}, "spec.model.name", "must have at most 253 characters", id="a long value is not shown"
        ),
    ],
)  # fmt: skip
def test_parse_says_what_must_change(change: dict[str, Any], field: str, message: str) -> None:
    assert errors(manifest({**MINIMAL, **change})) == (FieldError(field, message),)


def test_parse_reports_all_errors_at_once() -> None:
    found = errors(manifest({"model": {}, "input": {}, "shards": 0}))
    assert [error.field for error in found] == ["spec.model.name", "spec.shards", "spec.input"]


@pytest.mark.parametrize(
    "value",
    [
        pytest.param(datetime.date(2026, 1, 1), id="a date, as YAML reads 2026-01-01"),
        pytest.param(float("nan"), id="a number that is none, as YAML reads .nan"),
        pytest.param({1, 2}, id="a set, as YAML reads !!set"),
    ],
)
def test_parse_refuses_what_json_cannot_say(value: Any) -> None:
    (error,) = errors(manifest({**MINIMAL, "parameters": {"seed": value}}))
    assert error.message.startswith("must be what JSON can say: ")


def test_parse_refuses_an_object_that_holds_itself() -> None:
    """YAML can write that, with an anchor and an alias."""
    document = manifest(MINIMAL)
    document["spec"]["parameters"] = document["spec"]
    (error,) = errors(document)
    assert error.message.startswith("must be what JSON can say: ")


def test_parse_refuses_an_object_of_another_version() -> None:
    (error,) = errors({**manifest(MINIMAL), "apiVersion": "headrace.dev/v1"})
    assert error == FieldError("apiVersion", "must be 'headrace.dev/v1alpha1', not \"headrace.dev/v1\"")


def test_parse_takes_metadata_of_other_writers() -> None:
    document = manifest(MINIMAL)
    document["metadata"] |= {"managedFields": [{"manager": "kubectl"}], "finalizers": ["a.example/b"]}
    assert InferenceBatch.parse(document).metadata.name == "reviews"


def test_parse_takes_a_moment_with_its_zone_and_writes_it_in_utc() -> None:
    document = manifest(MINIMAL) | {"status": {"startTime": "2026-01-01T02:00:00+01:00"}}
    assert InferenceBatch.parse(document).to_object()["status"]["startTime"] == "2026-01-01T01:00:00Z"


def test_an_object_is_frozen() -> None:
    batch = InferenceBatch.parse(manifest(MINIMAL))
    with pytest.raises(ValueError, match="frozen"):
        batch.spec = batch.spec  # type: ignore[misc]


@pytest.mark.parametrize(
    ("engine", "resources", "gpus"),
    [
        pytest.param({}, {}, 1, id="transformers asks for one"),
        pytest.param({"name": "vllm"}, {}, 1, id="vllm asks for one"),
        pytest.param({"name": "mock"}, {}, 0, id="the mock asks for none"),
        pytest.param(OPENAI, {}, 0, id="openai asks for none"),
        pytest.param({}, {"gpus": 0}, 0, id="none when the user says so"),
        pytest.param({"name": "mock"}, {"gpus": 2}, 2, id="two when the user says so"),
    ],
)
def test_gpus_follow_the_engine_unless_said_otherwise(
    engine: dict[str, Any], resources: dict[str, Any], gpus: int
) -> None:
    spec = InferenceBatchSpec.parse({**MINIMAL, "engine": engine, "resources": resources})
    assert spec.gpus == gpus


@pytest.mark.parametrize(
    ("tolerance", "total", "tolerated"),
    [
        pytest.param(None, 1000, None, id="any number by default"),
        pytest.param(0, 1000, 0, id="none"),
        pytest.param(7, 3, 7, id="a number, whatever the total"),
        pytest.param("1%", 1000, 10, id="a share"),
        pytest.param("1%", 99, 0, id="a share is rounded down"),
        pytest.param("100%", 3, 3, id="all"),
    ],
)
def test_tolerated_records(tolerance: int | str | None, total: int, tolerated: int | None) -> None:
    assert FailurePolicy(max_failed_records=tolerance).tolerated(total) == tolerated


def test_a_rule_holds_for_models_made_in_python_too() -> None:
    with pytest.raises(ValueError, match="baseSeconds must not be greater than capSeconds"):
        Backoff(base_seconds=2, cap_seconds=1)


def test_tasks_with_an_endpoint_have_that_of_openai() -> None:
    assert {task: task.endpoint for task in Task if task.endpoint} == {
        Task.CHAT: "/v1/chat/completions",
        Task.COMPLETION: "/v1/completions",
        Task.EMBEDDING: "/v1/embeddings",
    }
