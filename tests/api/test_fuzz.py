"""Whatever stands in a spec, it is taken or refused with the name of a field; there is no third way."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.api.base import FieldError, InvalidSpec
from headrace.api.inferencebatch import InferenceBatch
from headrace.api.kinds import KINDS
from spec_cases import GOOD
from spec_mutations import fuzz

NUMBERS = st.integers() | st.integers(-2, 2) | st.floats(allow_nan=False, allow_infinity=False)
TEXTS = st.text(max_size=12) | st.sampled_from(["auto", "chat", "jsonl", "s3://b/k", "1%", "500m", "a\n", "x" * 5000])
NAMES = st.text(max_size=8) | st.sampled_from(["name", "uri", "inline", "mock", "limit", "path", "max_batch_size"])
JSON = st.recursive(
    st.none() | st.booleans() | NUMBERS | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=3),
    max_leaves=6,
)


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The paths of everything inside a JSON value."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [place for key, item in items for place in ((*path, key), *places(item, (*path, key)))]


MANIFESTS = [case.manifest for case in GOOD if len(str(case.manifest)) < 5000]
TARGETS = [(number, place) for number, document in enumerate(MANIFESTS) for place in places(document)]


def parsed(document: dict[str, Any]) -> InferenceBatch | InvalidSpec:
    try:
        return InferenceBatch.parse(document)
    except InvalidSpec as error:
        return error


@settings(max_examples=2000, deadline=None)
@given(target=st.sampled_from(TARGETS), value=JSON, new_name=st.none() | NAMES)
def test_a_mutated_object_is_taken_or_refused_with_a_field(
    target: tuple[int, tuple[Any, ...]], value: Any, new_name: str | None
) -> None:
    """One value is replaced by a random one, sometimes under another name."""
    number, (*above, last) = target
    document = copy.deepcopy(MANIFESTS[number])
    parent: Any = document
    for key in above:
        parent = parent[key]
    if new_name is not None and isinstance(parent, dict):
        del parent[last]
        last = new_name
    parent[last] = value
    outcome = parsed(document)
    if isinstance(outcome, InvalidSpec):
        assert outcome.errors
        assert [error for error in outcome.errors if not error.field or not error.message] == []
    else:
        assert parsed(outcome.to_object()) == outcome


@pytest.mark.parametrize("seed", range(3))
def test_a_thousand_mutated_objects_of_all_kinds_are_taken_or_refused_and_none_crashes_a_decision(seed: int) -> None:
    counts = fuzz(1000, seed)
    assert {word for word, count in counts.items() if count} == {
        f"{kind.name} {outcome}" for kind in KINDS for outcome in ("accepted", "refused")
    }


def test_a_refusal_without_a_field_would_be_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: object) -> None:
        raise InvalidSpec([FieldError("", "no")])

    monkeypatch.setattr(InferenceBatch, "parse", refuse)
    with pytest.raises(AssertionError, match="of seed 0"):
        fuzz(100, 0)
