"""Which output a batch resumes: that of a URI, or of the batch of a name, found before anything is read."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from builders import BatchBuilder, a_batch, look
from headrace.api.batchstatus import OutputStatus
from headrace.api.inferencebatch import InferenceBatch
from headrace.api.reasons import ConditionType, Reason
from headrace.api.worker import WorkerConfig
from headrace.core.plan import Plan
from headrace.core.reconcile import reconcile


def resuming(**earlier: str) -> BatchBuilder:
    return a_batch("second").with_spec(resumeFrom=earlier)


def planned(batch: BatchBuilder, earlier: InferenceBatch | None = None) -> Plan[Any]:
    return reconcile(replace(look(batch), earlier=earlier))


@pytest.mark.parametrize(
    ("batch", "earlier", "uri"),
    [
        pytest.param(resuming(uri="s3://out/a/"), None, "s3://out/a/", id="a URI is what it is"),
        pytest.param(resuming(name="first"), a_batch("first"), "file:///out/default/first/", id="a batch has a default output"),
        pytest.param(
            resuming(name="first"),
            a_batch("first").with_spec(output={"uri": "s3://mine/"}),
            "s3://mine/",
            id="a batch may have an output of its own",
        ),
        pytest.param(
            resuming(name="first"),
            a_batch("first").with_status(output=OutputStatus(uri="file:///once/first/")),
            "file:///once/first/",
            id="a batch that has been planned says where",
        ),
    ],
)  # fmt: skip
def test_reconcile_finds_what_is_resumed_and_then_plans(
    batch: BatchBuilder, earlier: BatchBuilder | None, uri: str
) -> None:
    found = planned(batch, earlier.build() if earlier is not None else None)
    assert found.status.resumed_from == uri
    assert (found.children, found.look_again_after) == ((), found.look_again_after)
    assert found.look_again_after is not None
    assert not found.look_again_after
    plan = planned(batch.with_status(resumed_from=uri))
    assert plan.children is not None
    (job,) = plan.children
    (config,) = (
        env["value"]
        for env in job["spec"]["template"]["spec"]["containers"][0]["env"]
        if env["name"] == "HEADRACE_CONFIG"
    )
    assert WorkerConfig.model_validate_json(config).resume_from == uri


@pytest.mark.parametrize(
    ("batch", "message"),
    [
        pytest.param(resuming(name="gone"), "there is no InferenceBatch default/gone", id="there is none of that name"),
        pytest.param(resuming(name="second"), "another batch", id="its own name"),
    ],
)
def test_reconcile_refuses_what_cannot_be_resumed(batch: BatchBuilder, message: str) -> None:
    status = planned(batch).status
    failed = status.condition(ConditionType.FAILED)
    assert failed is not None
    assert failed.reason == Reason.INVALID_SPEC
    assert message in failed.message
