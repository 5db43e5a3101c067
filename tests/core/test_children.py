"""The children: golden manifests of every example, and what must hold for all of them."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from builders import NOON, PLACE, BatchBuilder, a_batch, a_job, look
from fanout_builders import FanOutBuilder, ended, look_at
from headrace.api.aggregation import OwnImage
from headrace.api.cascade import StageStatus
from headrace.api.fanoutjob import FanOutJob
from headrace.api.inferencebatch import InferenceBatch
from headrace.api.scheduledgeneration import ScheduledGeneration
from headrace.api.worker import Role, WorkerConfig
from headrace.core.children import WORKER_GROUP, finalize_job, plan_job, run_job
from headrace.core.fanout.reconcile import reconcile as reconcile_fan_out
from headrace.core.program import with_program
from headrace.core.reconcile import reconcile
from headrace.core.schedule.children import run_by_hand
from headrace.core.volumes import Volumes
from headrace.shells.localising import work_specs

ROOT = Path(__file__).parents[2]
EXAMPLES = sorted((ROOT / "manifests/examples").glob("*.yaml"))
GOLDEN = Path(__file__).parent / "golden"


def load_example(path: Path) -> InferenceBatch | FanOutJob:
    """The example as the API server would hand it out."""
    manifest = yaml.safe_load(path.read_text())
    manifest["metadata"] |= {
        "namespace": "default",
        "uid": "0000-1111",
        "generation": 1,
        "creationTimestamp": NOON.isoformat(),
    }
    for _, spec in work_specs(manifest):
        for field, key in (("input", "uri"), ("evaluation", "reference")):
            uri = spec.get(field, {}).get(key)
            if uri is not None and "://" not in uri:
                spec[field][key] = f"s3://examples/{uri}"
    if manifest["kind"] == "ScheduledGeneration":
        return run_by_hand(ScheduledGeneration.parse(manifest), NOON)
    return FanOutJob.parse(manifest) if manifest["kind"] == "FanOutJob" else InferenceBatch.parse(manifest)


def life_of_fan_out(fan_out: FanOutJob) -> dict[str, Any]:
    """What is asked for while its input is read, while its branches work, stage by stage, and while they are joined."""
    read = FanOutBuilder(fan_out.spec.to_object(), fan_out.metadata.name).validated(32)
    validated = fan_out.model_copy(update={"status": read.status})
    life: dict[str, Any] = {
        "planning": reconcile_fan_out(look_at(fan_out)).children,
        "branches": reconcile_fan_out(look_at(validated)).children,
    }
    done = [ended(branch.name) for branch in fan_out.spec.branches if branch.stage == 0]
    for stage in sorted({branch.stage for branch in fan_out.spec.branches} - {0}):
        life[f"selecting for stage {stage}"] = (reconcile_fan_out(look_at(validated, *done)).children or ())[-1:]
        given = (*validated.status.stages, StageStatus(stage=stage, records=8, spared=24))
        validated = validated.model_copy(update={"status": validated.status.model_copy(update={"stages": given})})
        life[f"stage {stage}"] = (reconcile_fan_out(look_at(validated, *done)).children or ())[-1:]
        done += [ended(branch.name) for branch in fan_out.spec.branches if branch.stage == stage]
    return life | {"joining": (reconcile_fan_out(look_at(validated, *done)).children or ())[-1:]}


def life_of(batch: InferenceBatch) -> dict[str, Any]:
    """What is asked for on the way of a batch that goes well: while it is planned, and while it runs."""
    asked: dict[str, Any] = {}
    first = reconcile(look(batch))
    asked["planning"] = first.children
    status = first.status
    if not status.is_true("InputValidated"):  # type: ignore[arg-type]
        builder = BatchBuilder(batch.metadata.name, batch.spec.to_object()).validated(32)
        status = builder.status
    running = batch.model_copy(update={"status": status})
    admitted = running.model_copy(update={"status": reconcile(look(running)).status})
    asked["running"] = reconcile(look(admitted)).children
    return asked


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda p: p.stem)
def test_children_of_an_example_are_as_they_were(example: Path) -> None:
    loaded = load_example(example)
    life = life_of_fan_out(loaded) if isinstance(loaded, FanOutJob) else life_of(loaded)
    found = json.dumps(life, indent=1, sort_keys=True) + "\n"
    golden = GOLDEN / f"{example.stem}.json"
    if os.environ.get("HEADRACE_UPDATE_GOLDEN"):
        golden.parent.mkdir(exist_ok=True)
        golden.write_text(found)
    assert found == golden.read_text(), (
        "if the change is meant: HEADRACE_UPDATE_GOLDEN=1 pytest tests/core, and read the diff"
    )


def jobs() -> list[dict[str, Any]]:
    batch = a_batch().sharded(4).validated(100).admitted().build()
    return [plan_job(batch, PLACE), run_job(batch, PLACE, suspend=False), finalize_job(batch, PLACE, None)]


@pytest.mark.parametrize("job", jobs(), ids=lambda j: j["metadata"]["name"])
def test_job_pods_pass_the_restricted_standard(job: dict[str, Any]) -> None:
    pod = job["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert pod["securityContext"] == {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}}
    assert container["securityContext"]["allowPrivilegeEscalation"] is False
    assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
    assert container["securityContext"]["readOnlyRootFilesystem"] is True
    assert pod["automountServiceAccountToken"] is False


@pytest.mark.parametrize("job", jobs(), ids=lambda j: j["metadata"]["name"])
def test_job_is_found_and_deleted_with_its_batch(job: dict[str, Any]) -> None:
    (owner,) = job["metadata"]["ownerReferences"]
    assert (owner["kind"], owner["uid"], owner["controller"]) == ("InferenceBatch", "uid-reviews", True)
    assert job["metadata"]["labels"]["headrace.dev/inference-batch"] == "reviews"
    assert all(len(v) <= 63 for v in job["metadata"]["labels"].values())


def actions(job: dict[str, Any]) -> dict[str, str]:
    rules = job["spec"]["podFailurePolicy"]["rules"]
    return {str(r.get("onExitCodes", {}).get("values", ["disruption"])[0]): r["action"] for r in rules}


def test_job_exit_codes_mean_what_the_contract_says() -> None:
    plan, run, _ = jobs()
    assert actions(run) == {"disruption": "Ignore", "42": "Ignore", "43": "FailIndex", "44": "FailJob"}
    assert actions(plan)["43"] == "FailJob", "only an indexed Job may fail an index"


def container_of(job: dict[str, Any]) -> dict[str, Any]:
    (container,) = job["spec"]["template"]["spec"]["containers"]
    return dict(container)


def test_run_job_asks_for_gpus_and_the_others_do_not() -> None:
    batch = a_batch().with_spec(resources={"gpus": 2, "gpuResourceName": "amd.com/gpu"}).validated().build()
    assert container_of(run_job(batch, PLACE, suspend=False))["resources"]["limits"]["amd.com/gpu"] == "2"
    assert "amd.com/gpu" not in str(plan_job(batch, PLACE))


def test_run_pod_of_vllm_alone_has_room_where_processes_share_memory() -> None:
    """64 MiB is what a runtime gives: several GPUs cannot talk to each other in that."""
    asked = {"engine": {"name": "vllm"}, "resources": {"gpus": 2}}
    batch = a_batch().with_spec(**asked).validated().build()
    run = run_job(batch, PLACE, suspend=False)
    (name,) = (mount["name"] for mount in container_of(run)["volumeMounts"] if mount["mountPath"] == "/dev/shm")
    assert {"name": name, "emptyDir": {"medium": "Memory"}} in run["spec"]["template"]["spec"]["volumes"]
    for other in (plan_job(batch, PLACE), run_job(a_batch().validated().build(), PLACE, suspend=False)):
        assert "/dev/shm" not in str(other)


@pytest.mark.parametrize(
    ("asked", "requests", "limits"),
    [
        pytest.param({}, {"cpu": "1", "memory": "4Gi"}, {"memory": "16Gi"}, id="nothing said"),
        pytest.param(
            {"requests": {"cpu": "2", "memory": "8Gi"}},
            {"cpu": "2", "memory": "8Gi"},
            {"memory": "8Gi"},
            id="requests alone",
        ),
        pytest.param(
            {"limits": {"cpu": "500m", "memory": "2Gi"}},
            {"cpu": "500m", "memory": "2Gi"},
            {"cpu": "500m", "memory": "2Gi"},
            id="limits alone",
        ),
        pytest.param(
            {"requests": {"memory": "1Gi"}, "limits": {"memory": "3Gi"}},
            {"cpu": "1", "memory": "1Gi"},
            {"memory": "3Gi"},
            id="both",
        ),
    ],
)
def test_run_pods_have_requests_and_limits_that_fit_each_other(
    asked: dict[str, Any], requests: dict[str, str], limits: dict[str, str]
) -> None:
    batch = a_batch().with_spec(resources={"gpus": 0, **asked}).validated().build()
    found = container_of(run_job(batch, PLACE, suspend=False))["resources"]
    assert found == {"requests": requests, "limits": limits}


def test_a_claim_is_opened_for_the_workers_group() -> None:
    claims = {"input": {"uri": "claim://data/in.jsonl"}, "output": {"uri": "claim://data/out"}}
    pod = plan_job(a_batch().with_spec(**claims).build(), PLACE)["spec"]["template"]["spec"]
    assert pod["securityContext"]["fsGroup"] == WORKER_GROUP
    elsewhere = {"input": {"uri": "s3://data/in.jsonl"}, "output": {"uri": "s3://data/out"}}
    pod = plan_job(a_batch().with_spec(**elsewhere).build(), PLACE)["spec"]["template"]["spec"]
    assert "fsGroup" not in pod["securityContext"], "some clusters forbid it, and there is no need"


def test_worker_is_told_all_and_never_inline_records() -> None:
    batch = (
        a_batch()
        .inline({"custom_id": "a", "text": "x"})
        .with_spec(parameters={"max_tokens": 9})
        .validated(1)
        .admitted()
        .build()
    )
    env = {
        e["name"]: e.get("value")
        for e in run_job(batch, PLACE, suspend=False)["spec"]["template"]["spec"]["containers"][0]["env"]
    }
    config = WorkerConfig.model_validate_json(env["HEADRACE_CONFIG"] or "", by_alias=True, by_name=False)
    assert config.input.inline is None
    assert config.input.uri == "file:///var/run/headrace/reviews-input/records.jsonl"
    assert config.plan_uri == "file:///var/run/headrace/reviews-input/plan.jsonl"
    assert config.parameters == {"max_tokens": 9}


def test_hub_token_goes_by_reference() -> None:
    source = {"huggingFace": {"id": "org/model", "tokenSecretRef": {"name": "hub", "key": "token"}}}
    batch = a_batch().with_spec(model={"name": "m", "source": source}).build()
    env = plan_job(batch, PLACE)["spec"]["template"]["spec"]["containers"][0]["env"]
    assert {"name": "HF_TOKEN", "valueFrom": {"secretKeyRef": {"name": "hub", "key": "token"}}} in env


def each_job(batch: InferenceBatch) -> list[dict[str, Any]]:
    return [plan_job(batch, PLACE), run_job(batch, PLACE, suspend=False), finalize_job(batch, PLACE, None)]


def test_storage_secret_goes_by_reference_to_every_pod() -> None:
    batch = a_batch().with_spec(storage={"secretRef": {"name": "minio"}}).validated().build()
    for job in each_job(batch):
        assert container_of(job)["envFrom"] == [{"secretRef": {"name": "minio"}}]
    assert all("envFrom" not in container_of(job) for job in each_job(a_batch().validated().build()))


def test_service_account_is_that_of_every_pod_and_its_token_is_not_mounted() -> None:
    batch = a_batch().with_spec(serviceAccountName="reader").validated().build()
    for job in each_job(batch):
        pod = job["spec"]["template"]["spec"]
        assert (pod["serviceAccountName"], pod["automountServiceAccountToken"]) == ("reader", False)
    assert all("serviceAccountName" not in job["spec"]["template"]["spec"] for job in jobs())


def test_volumes_of_objects_are_none() -> None:
    spec = {
        "input": {"uri": "s3://in/*.jsonl"},
        "output": {"uri": "s3://out/reviews"},
        "model": {"name": "m", "source": {"uri": "s3://models/smol"}},
    }
    volumes = Volumes.of(a_batch().with_spec(**spec).build(), PLACE)
    assert volumes.volumes == ()
    assert (volumes.input.uri, volumes.output_uri) == ("s3://in/*.jsonl", "s3://out/reviews")
    assert volumes.plan_uri == "s3://out/reviews/_headrace/plan.jsonl"
    assert volumes.model.source is not None
    assert volumes.model.source.uri == "s3://models/smol"


def test_volumes_mount_a_claim_once_and_writable_only_for_output() -> None:
    spec = {"input": {"uri": "claim://data/in/a.jsonl"}, "output": {"uri": "claim://data/out"}}
    volumes = Volumes.of(a_batch().with_spec(**spec).build(), PLACE)
    assert [m["readOnly"] for m in volumes.mounts] == [False]
    assert volumes.input.uri == "file:///var/run/headrace/data/in/a.jsonl"
    assert volumes.output_uri == "file:///var/run/headrace/data/out"
    apart = Volumes.of(
        a_batch().with_spec(input={"uri": "claim://data/a"}, output={"uri": "claim://out/b"}).build(), PLACE
    )
    assert {m["mountPath"]: m["readOnly"] for m in apart.mounts} == {
        "/var/run/headrace/out": False,
        "/var/run/headrace/data": True,
    }


@pytest.mark.parametrize(
    ("source", "path"),
    [
        pytest.param({"claim": {"name": "models", "path": "smol"}}, "/var/run/headrace/models/smol", id="on a claim"),
        pytest.param({"ociImage": {"reference": "models/smol:1"}}, "/var/run/headrace/model", id="in an image"),
    ],
)
def test_volumes_make_weights_a_path(source: dict[str, Any], path: str) -> None:
    volumes = Volumes.of(a_batch().with_spec(model={"name": "m", "source": source}).build(), PLACE)
    assert volumes.model.source is not None
    assert volumes.model.source.path == path


def test_config_map_input_is_mounted() -> None:
    batch = a_batch().with_spec(input={"configMapRef": {"name": "docs"}, "format": "text"}).build()
    volumes = Volumes.of(batch, PLACE)
    assert volumes.volumes[0]["configMap"] == {"name": "docs"}
    assert volumes.input.uri == "file:///var/run/headrace/docs/"
    assert reconcile(look(batch, jobs=[a_job(Role.PLAN)])).children is not None


def test_workers_and_programs_are_told_the_window_in_their_environment() -> None:
    window = {"startTime": "2026-01-15T11:30:00Z", "endTime": "2026-01-15T12:00:00Z"}
    told = {"HEADRACE_WINDOW_START": "2026-01-15T11:30:00Z", "HEADRACE_WINDOW_END": "2026-01-15T12:00:00Z"}
    batch = a_batch().with_spec(input={"uri": "s3://in/x", "window": window}).build()
    (container,) = plan_job(batch, PLACE)["spec"]["template"]["spec"]["containers"]
    assert told.items() <= {it["name"]: it.get("value") for it in container["env"]}.items()
    pod = {"containers": [dict(container)], "volumes": []}
    _, program = with_program(pod, OwnImage(reference="registry.example/a:1"), batch.spec.input.window)[
        "initContainers"
    ]
    assert {it["name"]: it["value"] for it in program["env"]} == told


KEYED: dict[str, Any] = {
    "name": "openai",
    "openai": {
        "endpoints": [
            {"name": "a", "url": "https://a", "apiKeySecretRef": {"name": "keys", "key": "A"}},
            {"name": "b", "url": "https://b", "apiKeySecretRef": {"name": "keys", "key": "B"}},
            {"name": "c", "url": "https://c", "apiKeySecretRef": {"name": "others", "key": "A"}},
            {"name": "d", "url": "https://d"},
        ]
    },
}


def test_run_job_mounts_each_secret_of_its_endpoints_once_and_no_other_key_of_it() -> None:
    batch = a_batch().with_spec(engine=KEYED).validated(8).build()
    pod = run_job(batch, PLACE, suspend=False)["spec"]["template"]["spec"]
    assert [volume for volume in pod["volumes"] if "secret" in volume] == [
        {
            "name": "endpoints-0",
            "secret": {"secretName": "keys", "items": [{"key": it, "path": it} for it in ("A", "B")]},
        },
        {"name": "endpoints-1", "secret": {"secretName": "others", "items": [{"key": "A", "path": "A"}]}},
    ]
    (container,) = pod["containers"]
    assert {"name": "HEADRACE_SECRETS", "value": "/var/run/headrace-secrets"} in container["env"]
    assert [it["mountPath"] for it in container["volumeMounts"]][-3:-1] == [
        "/var/run/headrace-secrets/keys",
        "/var/run/headrace-secrets/others",
    ]


def test_run_job_mounts_the_weights_of_endpoints_if_they_are_there() -> None:
    engine = {"name": "openai", "openai": {**KEYED["openai"], "weightsConfigMapRef": {"name": "shares"}}}
    pod = run_job(a_batch().with_spec(engine=engine).validated(8).build(), PLACE, suspend=False)["spec"]["template"][
        "spec"
    ]
    assert {"name": "endpoints-2", "configMap": {"name": "shares", "optional": True}} in pod["volumes"]
    (container,) = pod["containers"]
    assert {"name": "HEADRACE_CONFIG_MAPS", "value": "/var/run/headrace/weights"} in container["env"]
    mount = {"name": "endpoints-2", "mountPath": "/var/run/headrace/weights/shares", "readOnly": True}
    assert mount in container["volumeMounts"]


def test_jobs_that_ask_no_endpoint_get_no_key_of_it() -> None:
    batch = a_batch().with_spec(engine=KEYED).validated(8).build()
    for job in (plan_job(batch, PLACE), finalize_job(batch, PLACE, None)):
        assert not any("secret" in volume for volume in job["spec"]["template"]["spec"]["volumes"])


def test_run_job_where_there_are_no_secrets_mounts_none() -> None:
    batch = a_batch().with_spec(engine=KEYED).validated(8).build()
    pod = run_job(batch, replace(PLACE, secrets_root=None), suspend=False)["spec"]["template"]["spec"]
    assert not any("secret" in volume for volume in pod["volumes"])
    assert "HEADRACE_SECRETS" not in {it["name"] for it in pod["containers"][0]["env"]}
