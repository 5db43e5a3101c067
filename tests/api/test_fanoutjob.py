"""The model of a FanOutJob: what it refuses, and which field it blames."""

from __future__ import annotations

from typing import Any

import pytest

from headrace.api.base import InvalidSpec
from headrace.api.fanoutjob import FanOutJob
from headrace.api.kinds import forbidden_changes
from spec_cases import BAD_FAN_OUTS, GOOD_FAN_OUTS, BadFanOut, fan_out_manifest


@pytest.mark.parametrize("case", BAD_FAN_OUTS, ids=lambda case: case.what)
def test_parse_blames_the_field_that_is_wrong(case: BadFanOut) -> None:
    with pytest.raises(InvalidSpec) as refused:
        FanOutJob.parse(case.manifest)
    assert [error.field for error in refused.value.errors] == [case.at]


@pytest.mark.parametrize("spec", GOOD_FAN_OUTS)
def test_parse_takes_what_can_be_done(spec: dict[str, Any]) -> None:
    parsed = FanOutJob.parse(fan_out_manifest(spec))
    assert FanOutJob.parse(parsed.to_object()) == parsed


def test_forbidden_changes_name_the_split() -> None:
    old, new = (FanOutJob.parse(fan_out_manifest({"split": {"by": "lines", "size": size}})) for size in (1, 2))
    assert forbidden_changes(old, new) == ["split"]
