"""ScheduledGenerations as users write them: what is taken, and what is refused with the name of a field."""

from __future__ import annotations

from typing import Any

import pytest

from headrace.api.base import InvalidSpec
from headrace.api.scheduledgeneration import ScheduledGeneration
from schedule_cases import BAD, BAD_NAMES, GOOD, manifest


def blamed(document: dict[str, Any]) -> list[str]:
    with pytest.raises(InvalidSpec) as caught:
        ScheduledGeneration.parse(document)
    return [error.field for error in caught.value.errors]


@pytest.mark.parametrize(("spec", "field"), BAD)
def test_parse_names_the_field_that_is_wrong(spec: dict[str, Any], field: str) -> None:
    assert field in blamed(manifest(spec))


@pytest.mark.parametrize("name", BAD_NAMES)
def test_parse_refuses_a_name_after_which_no_run_can_be_called(name: str) -> None:
    assert blamed(manifest({}, name)) == ["metadata.name"]


@pytest.mark.parametrize("spec", GOOD)
def test_parse_keeps_all_that_is_said(spec: dict[str, Any]) -> None:
    kept = ScheduledGeneration.parse(manifest(spec)).to_object()["spec"]
    assert {name: kept.get(name) for name in spec if name != "template"} == {
        n: v for n, v in spec.items() if n != "template"
    }
