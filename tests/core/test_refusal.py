"""What an object that only an older or newer CRD lets pass is told."""

from __future__ import annotations

from typing import Any

import pytest

from builders import NOON, a_batch
from fanout_builders import a_fan_out
from headrace.api.kinds import Kind, kind_named
from headrace.api.reasons import ConditionType
from headrace.core.refusal import refusal

BATCH = a_batch().build().to_object()
FAN_OUT = a_fan_out("one", "two").build().to_object()


def kind(name: str) -> Kind:
    found = kind_named(name)
    assert found is not None
    return found


def damaged(obj: dict[str, Any], **parts: Any) -> dict[str, Any]:
    return {**obj, **parts}


@pytest.mark.parametrize(
    ("name", "obj", "why"),
    [
        pytest.param(
            "InferenceBatch",
            damaged(BATCH, spec={**BATCH["spec"], "engine": {"name": "abacus"}}),
            "spec.engine.name: must be",
            id="a batch with an engine of tomorrow",
        ),
        pytest.param(
            "InferenceBatch",
            damaged(BATCH, status={"records": "many"}),
            "its metadata or status is not of this version",
            id="a batch with a status of yesterday",
        ),
        pytest.param(
            "FanOutJob",
            damaged(FAN_OUT, spec={}),
            "spec.input: required; spec.branches: required",
            id="a fan-out of which nothing is understood",
        ),
    ],
)
def test_refusal_says_in_the_status_what_is_wrong(name: str, obj: dict[str, Any], why: str) -> None:
    refused, plan = refusal(obj, kind(name), NOON)
    assert (refused.kind, refused.metadata.name) == (name, obj["metadata"]["name"])
    condition = plan.status.condition(ConditionType.FAILED)
    assert condition is not None
    assert why in condition.message
    assert plan.status.summary.state == "InvalidSpec"
    assert plan.children is None, "nothing is made of it, and nothing that is there is touched"
    assert [event.reason for event in plan.events] == ["InvalidSpec"]
