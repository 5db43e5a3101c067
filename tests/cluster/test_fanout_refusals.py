"""What an API server refuses of FanOutJobs, in the same words as the models. No operator is needed for that."""

from __future__ import annotations

import json

import pytest

from fanout_builders import a_fan_out
from headrace.api.base import JsonObject
from headrace.api.fanoutjob import FanOutJob
from headrace.shells.kube.resources import FAN_OUTS

from .kubectl import KubectlError
from .operator_rig import RECORDS, Rig, fan_out_manifest, plane, rig

__all__ = ["plane", "rig"]
pytestmark = [pytest.mark.cluster, pytest.mark.xdist_group("operator")]

INLINE = a_fan_out("one", "two", "three").with_spec(input={"inline": RECORDS, "format": "jsonl"})


def scored_by(**scorer: JsonObject) -> JsonObject:
    """A spec with one scorer."""
    return {"aggregation": {"type": "bestOf", "bestOf": {"scorers": [scorer]}}}


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        pytest.param({"branches": []}, "spec.branches", id="no branch"),
        pytest.param({"branches": [{"name": "a", "model": {"name": "m"}}] * 2}, "spec.branches", id="two of one name"),
        pytest.param(
            {"completionPolicy": {"mode": "Quorum", "minSucceeded": 4}}, "minSucceeded", id="a quorum larger than all"
        ),
        pytest.param({"completionPolicy": {"mode": "Quorum"}}, "minSucceeded", id="a quorum of no number"),
        pytest.param({"aggregation": {"type": "bestOf"}}, "bestOf must be set", id="no scorer"),
        pytest.param(
            {"aggregation": {"type": "vote", "concat": {}}}, "concat may be set only", id="settings of another type"
        ),
        pytest.param({"aggregation": {"type": "judge"}}, "judge must be set", id="no judge"),
        pytest.param(
            {"aggregation": {"type": "vote", "vote": {"comparison": "Cluster"}}},
            "cluster must be set when comparison is Cluster",
            id="clusters without a model",
        ),
        pytest.param({"aggregation": {"type": "image"}}, "image must be set", id="an image that is not named"),
        pytest.param({"cascade": {"minAgreementPercent": 50}}, "cascade must be set", id="a cascade without stages"),
        pytest.param(
            {
                "branches": [
                    {"name": "a", "model": {"name": "m"}},
                    {"name": "b", "model": {"name": "m"}, "stage": 2},
                ],
                "cascade": {"minAgreementPercent": 50},
                "aggregation": {"type": "vote"},
            },
            "without a gap",
            id="a stage that none precedes",
        ),
        pytest.param(
            {
                "branches": [
                    {"name": "a", "model": {"name": "m"}},
                    {"name": "b", "model": {"name": "m"}, "stage": 1},
                ],
                "cascade": {"minScore": 1},
            },
            "aggregation.type must be bestOf",
            id="a threshold of scores without a scorer",
        ),
        pytest.param(scored_by(logLikelihood={}), "model", id="a scorer without its model"),
        pytest.param(
            scored_by(agreement={"model": {"name": "m"}}), "must be embedding", id="agreement without embeddings"
        ),
        pytest.param(
            scored_by(logLikelihood={"model": {"name": "m", "task": "embedding"}}),
            "must be chat or completion",
            id="a likelihood of embeddings",
        ),
        pytest.param({"aggregation": {"type": "reduce"}}, "spec.aggregation.type", id="a type that is not there"),
        pytest.param(
            {"input": {"inline": RECORDS, "when": "true"}},
            "say it as when of the branches",
            id="when of the whole input",
        ),
    ],
)
def test_the_api_server_and_the_models_refuse_what_cannot_be(rig: Rig, spec: JsonObject, said: str) -> None:
    document = fan_out_manifest(INLINE.with_spec(**spec))
    with pytest.raises(KubectlError) as caught:
        rig.kubectl(
            "create", "--dry-run=server", "--namespace", rig.namespace, "--filename=-", stdin=json.dumps(document)
        )
    assert said in caught.value.stderr
    with pytest.raises(Exception, match="spec"):
        FanOutJob.parse(document)


@pytest.mark.parametrize(
    ("change", "field"),
    [
        pytest.param({"branches": [{"name": "one", "model": {"name": "other"}}]}, "branches", id="its branches"),
        pytest.param({"aggregation": {"type": "vote"}}, "aggregation", id="how they are joined"),
        pytest.param({"maxParallelBranches": 1}, "", id="how many work at once"),
    ],
)
def test_a_change_is_refused_or_taken(rig: Rig, change: JsonObject, field: str) -> None:
    rig.create(FAN_OUTS, fan_out_manifest(INLINE.with_spec(suspend=True)))
    words = (
        "patch",
        "fo",
        "answers",
        "--namespace",
        rig.namespace,
        "--type=merge",
        f"--patch={json.dumps({'spec': change})}",
    )
    if not field:
        rig.kubectl(*words)
        return
    with pytest.raises(KubectlError) as caught:
        rig.kubectl(*words)
    assert f"{field} cannot be changed once the fan-out exists" in caught.value.stderr
