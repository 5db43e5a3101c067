"""The pod of a join that runs models: it finds their weights, and has what they need."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from builders import PLACE
from fanout_builders import FanOutBuilder, a_fan_out, ended, look_at
from headrace.api.reasons import ConditionType
from headrace.api.worker import Role, WorkerConfig
from headrace.core.fanout.reconcile import reconcile

VALID = a_fan_out("one").validated()


def scored_by(*scorers: dict[str, Any], **more: Any) -> FanOutBuilder:
    return VALID.with_spec(aggregation={"type": "bestOf", "bestOf": {"scorers": list(scorers)}, **more})


def likelihood(**source: Any) -> dict[str, Any]:
    return {"logLikelihood": {"model": {"name": "m", "source": source}}}


def agreement(**source: Any) -> dict[str, Any]:
    return {"agreement": {"model": {"name": "e", "task": "embedding", "source": source}}}


def join_pod(fan_out: FanOutBuilder) -> dict[str, Any]:
    """The pod of the join once its branch has ended."""
    *_, job = reconcile(look_at(fan_out, ended("one"))).children or ()
    assert job["metadata"]["labels"]["headrace.dev/role"] == Role.JOIN
    pod: dict[str, Any] = job["spec"]["template"]["spec"]
    return pod


def container(fan_out: FanOutBuilder) -> dict[str, Any]:
    (found,) = join_pod(fan_out)["containers"]
    return dict(found)


def told(fan_out: FanOutBuilder) -> WorkerConfig:
    return WorkerConfig.model_validate_json(container(fan_out)["env"][0]["value"])


def refusal(fan_out: FanOutBuilder) -> str:
    """Why it is refused."""
    failed = reconcile(look_at(fan_out)).status.condition(ConditionType.FAILED)
    assert failed is not None
    return f"{failed.reason}: {failed.message}"


GPU = {"gpus": 1, "requests": {"cpu": "4"}}


@pytest.mark.parametrize(
    ("fan_out", "resources"),
    [
        pytest.param(
            VALID, {"requests": {"cpu": "250m", "memory": "256Mi"}, "limits": {"memory": "2Gi"}}, id="little without a model",
        ),
        pytest.param(
            scored_by(likelihood(path="/m")), {"requests": {"cpu": "1", "memory": "4Gi"}, "limits": {"memory": "16Gi"}},
            id="with a model as much as a pod of a batch, but no GPU",
        ),
        pytest.param(
            scored_by(likelihood(path="/m"), resources=GPU),
            {"requests": {"cpu": "4", "memory": "4Gi"}, "limits": {"memory": "16Gi", "nvidia.com/gpu": "1"}}, id="a GPU if asked",
        ),
        pytest.param(
            VALID.with_spec(aggregation={"resources": {"requests": {"memory": "3Gi"}}}),
            {"requests": {"cpu": "1", "memory": "3Gi"}, "limits": {"memory": "3Gi"}}, id="what is asked for, also without a model",
        ),
    ],
)  # fmt: skip
def test_a_join_gets(fan_out: FanOutBuilder, resources: dict[str, Any]) -> None:
    assert container(fan_out)["resources"] == resources


def test_a_plan_of_a_fan_out_needs_no_gpu() -> None:
    (job,) = reconcile(look_at(a_fan_out("one").with_spec(aggregation={"resources": GPU}))).children or ()
    (found,) = job["spec"]["template"]["spec"]["containers"]
    assert "nvidia.com/gpu" not in found["resources"]["limits"]


def test_a_join_is_told_how_many_gpus_it_has() -> None:
    assert told(scored_by(likelihood(path="/m"), resources=GPU)).gpus == 1
    assert told(scored_by(likelihood(path="/m"))).gpus == 0


def test_a_join_mounts_the_weights_of_each_model_once() -> None:
    image = {"reference": "registry.example/models/a@sha256:1", "path": "weights"}
    other = {"reference": "registry.example/models/b@sha256:2"}
    claim = {"name": "weights", "path": "minilm"}
    fan_out = scored_by(
        likelihood(ociImage=image), likelihood(ociImage=other), likelihood(ociImage=image), agreement(claim=claim)
    )
    config = told(fan_out)
    assert config.fan_out is not None
    root = PLACE.files_root
    assert [use.model.source.path for use in config.fan_out.aggregation.uses if use.model.source] == [
        f"{root}/model/weights", f"{root}/model-2", f"{root}/model/weights", f"{root}/weights/minilm"
    ]  # fmt: skip
    images = [volume["image"]["reference"] for volume in join_pod(fan_out)["volumes"] if "image" in volume]
    assert images == [image["reference"], other["reference"]]
    paths = [mount["mountPath"] for mount in container(fan_out)["volumeMounts"]]
    assert len(paths) == len(set(paths))


def test_a_join_gets_the_token_of_its_models_by_reference() -> None:
    hub = {"id": "a/b", "tokenSecretRef": {"name": "hub", "key": "token"}}
    (token,) = (e for e in container(scored_by(likelihood(huggingFace=hub)))["env"] if e["name"] == "HF_TOKEN")
    assert token["valueFrom"] == {"secretKeyRef": {"name": "hub", "key": "token"}}


@pytest.mark.parametrize(
    ("fan_out", "said"),
    [
        pytest.param(
            scored_by(
                likelihood(huggingFace={"id": "a/b", "tokenSecretRef": {"name": "one", "key": "k"}}),
                likelihood(huggingFace={"id": "a/c", "tokenSecretRef": {"name": "two", "key": "k"}}),
            ),
            "spec.aggregation: its models run in one pod: they must have the same tokenSecretRef", id="two tokens for one pod",
        ),
        pytest.param(
            scored_by({"judge": {"model": {"name": "m"}, "prompt": {"template": "{{"}}}),
            "spec.aggregation.bestOf.scorers[0].judge.prompt.template: line 1", id="a template that is none",
        ),
        pytest.param(
            scored_by(likelihood(path="/m")).with_branch("one", model={"name": "mock", "task": "embedding"}),
            "spec.branches[0].model.task: must be chat or completion", id="answers that are no texts",
        ),
    ],
)  # fmt: skip
def test_reconcile_refuses_models_that_cannot_be_run(fan_out: FanOutBuilder, said: str) -> None:
    assert refusal(fan_out).startswith(f"InvalidSpec: {said}")


def test_reconcile_refuses_weights_and_engines_that_the_place_has_not(monkeypatch: pytest.MonkeyPatch) -> None:
    place = replace(
        PLACE,
        unsupported_schemes={"claim": "is there only in a cluster"},
        unsupported_engines={"vllm": "is not here"},
    )
    monkeypatch.setattr("fanout_builders.PLACE", place)
    there = likelihood(claim={"name": "weights"})
    there["logLikelihood"]["engine"] = {"name": "vllm"}
    assert refusal(scored_by({"length": {}}, there)) == (
        "InvalidSpec: spec.aggregation.bestOf.scorers[1].logLikelihood.engine.name: is not here; "
        "spec.aggregation.bestOf.scorers[1].logLikelihood.model.source: is there only in a cluster"
    )


PROGRAM = VALID.with_spec(
    aggregation={"type": "image", "image": {"reference": "registry.example/join", "args": ["--all"]}, "resources": GPU}
)


def test_a_program_of_the_users_runs_between_a_worker_that_collects_and_one_that_joins() -> None:
    pod = join_pod(PROGRAM)
    collect, program = pod["initContainers"]
    (join,) = pod["containers"]
    assert [(it["name"], it.get("args")) for it in (collect, program, join)] == [
        ("collect", ["collect"]), ("program", ["--all"]), ("worker", ["join"])
    ]  # fmt: skip
    assert (program["image"], "command" in program) == ("registry.example/join", False)
    assert program["resources"]["limits"]["nvidia.com/gpu"] == "1"
    assert "nvidia.com/gpu" not in {**collect["resources"]["limits"], **join["resources"]["limits"]}
    for one in (collect, program, join):
        assert {"name": "exchange", "mountPath": "/headrace"} in one["volumeMounts"]
        assert one["securityContext"]["readOnlyRootFilesystem"]
    assert not program.get("env"), "it gets none of the worker's secrets"
    assert {"name": "exchange", "emptyDir": {}} in pod["volumes"]
    config = told(PROGRAM).fan_out
    assert config is not None
    assert config.exchange == "/headrace"


def test_a_worker_that_cannot_collect_gives_up_the_join() -> None:
    *_, job = reconcile(look_at(PROGRAM, ended("one"))).children or ()
    rules = job["spec"]["podFailurePolicy"]["rules"]
    by_container = [(rule["onExitCodes"]["containerName"], rule["action"]) for rule in rules if "onExitCodes" in rule]
    assert by_container[:2] == [("collect", "Ignore"), ("collect", "FailJob")]


def test_reconcile_refuses_an_image_where_no_container_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fanout_builders.PLACE", replace(PLACE, no_containers="no container is started here"))
    assert refusal(PROGRAM) == "InvalidSpec: spec.aggregation.image: no container is started here"
