"""A canary in a Secret: whatever the operator and the command line say or write, it is in none of it."""

from __future__ import annotations

import base64
import json
import os
import secrets
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from builders import a_batch
from fanout_builders import a_fan_out
from headrace.api import labels
from headrace.api.worker import Env, ExitCode, Failure, Role
from headrace.shells.kube.resources import FAN_OUTS

from .operator_rig import RECORDS, Rig, fan_out_manifest, plane, rig
from .operator_workers import Fate, Pod

__all__ = ["plane", "rig"]
pytestmark = [pytest.mark.cluster, pytest.mark.xdist_group("operator")]

ROOT = Path(__file__).parents[2]
STORAGE = {"secretRef": {"name": "canary"}}
MODEL = {
    "name": "m",
    "source": {"huggingFace": {"id": "org/model", "tokenSecretRef": {"name": "canary", "key": "TOKEN"}}},
}
ENDPOINT = {"name": "a", "url": "https://a.example", "apiKeySecretRef": {"name": "canary", "key": "TOKEN"}}
ENGINE: dict[str, Any] = {"name": "openai", "openai": {"endpoints": [ENDPOINT], "loadBalancing": "Locality"}}
EVERYTHING = (
    "inferencebatches,fanoutjobs,jobs,pods,configmaps,events,events.events.k8s.io,leases,serviceaccounts,"
    "replicasets,deployments,roles,rolebindings"
)


class Canary:
    """A word that nobody would say by chance, in all the forms in which it might be said."""

    def __init__(self) -> None:
        self.word = f"canary{secrets.token_hex(16)}"
        encoded = base64.b64encode(self.word.encode()).decode().rstrip("=")
        self.forms = (self.word, encoded[:-2], self.word.encode().hex())

    def in_(self, text: str) -> bool:
        """Whether a text betrays it."""
        return any(form in text for form in self.forms)


def plant(rig: Rig, canary: Canary) -> None:
    """Make the Secret; the search below would find it there."""
    data = {"AWS_ACCESS_KEY_ID": canary.word, "AWS_SECRET_ACCESS_KEY": canary.word, "TOKEN": canary.word}
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "canary"}, "stringData": data}
    rig.kubectl.apply(secret, namespace=rig.namespace)
    assert canary.in_(rig.kubectl("get", "secret", "canary", "--output=yaml", "--namespace", rig.namespace))


def fate(pod: Pod) -> Fate:
    """The pods of `failing` fail, with a word about it."""
    failing = pod.config.batch.name == "failing" and pod.role == Role.RUN
    failure = Failure(reason="ModelNotFound", message="there is no such model")
    return Fate(exit_code=ExitCode.JOB_FAILED, failure=failure) if failing else Fate()


def live(rig: Rig) -> None:
    """A batch that completes, one that fails, one that is suspended and cancelled, and a fan-out: all with the Secret."""
    batch = a_batch().inline(*RECORDS).with_spec(storage=STORAGE, output={"uri": "s3://out/x/"})
    for name in ("complete", "failing", "cancelled"):
        rig.submit(type(batch)(name, {**batch.spec, "output": {"uri": f"s3://out/{name}/"}}))
    rig.until_state("Complete", "complete")
    rig.until_state("WorkerFailed", "failing")
    rig.edit("cancelled", cancel=True)
    hugging = a_batch("hugging").inline(*RECORDS).with_spec(model=MODEL, engine={"name": "transformers"})
    rig.submit(hugging)
    rig.until_state("Complete", "hugging")
    rig.submit(a_batch("asking").inline(*RECORDS).with_spec(engine=ENGINE))
    rig.until_state("Complete", "asking")
    branch = {"name": "one", "model": {"name": "m"}, "engine": {"name": "mock"}}
    spec = {"input": {"inline": RECORDS, "format": "jsonl"}, "branches": [branch], "storage": STORAGE}
    rig.create(FAN_OUTS, fan_out_manifest(a_fan_out().with_spec(**spec)))
    rig.eventually(lambda: rig.state(FAN_OUTS, "answers") == "Complete", "the fan-out complete")


def said_by_the_command_line(rig: Rig) -> str:
    """What `headrace get` shows of everything."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "operator")}
    flags = ["--kubeconfig", str(rig.plane.cluster.kubeconfig), "-n", rig.namespace, "-o", "yaml"]
    commands = [[sys.executable, "-m", "headrace", "get", kind, *flags] for kind in ("ib", "fo")]
    done = [subprocess.run(it, env=environment, capture_output=True, text=True, check=True) for it in commands]
    return "".join(one.stdout + one.stderr for one in done)


def test_a_secret_is_in_nothing_that_the_operator_writes_or_says(rig: Rig) -> None:
    canary = Canary()
    plant(rig, canary)
    rig.script.fate = fate
    operator = rig.operator().start().wait_ready()
    live(rig)
    for name, reason in (("asking", "RecordsProcessed"), ("failing", "WorkerFailed"), ("answers", "RecordsJoined")):
        rig.until_event(reason, about=name)
    objects = rig.kubectl("get", EVERYTHING, "--output=json", "--namespace", rig.namespace)
    bulkheads = rig.kubectl("get", "bulkheads", "--output=json")
    assert len(json.loads(objects)["items"]) > 20
    calls = " ".join(str(call) for call in rig.proxy.calls)
    pages = "".join(operator.get(path)[1] for path in ("/metrics", "/readyz", "/healthz"))
    places = {
        "an object": objects,
        "a Bulkhead": bulkheads,
        "the log of the operator": operator.log,
        "a page of the operator": pages,
        "a request of the operator": calls,
        "the command line": said_by_the_command_line(rig),
    }
    assert all(places.values()), "there is something to search in everywhere"
    assert [place for place, text in places.items() if canary.in_(text)] == []
    assert "secrets" not in {call.resource for call in rig.proxy.calls}, "the operator asks for no Secret at all"


def test_workers_get_secrets_by_reference_and_no_token_of_the_api_server(rig: Rig) -> None:
    plant(rig, Canary())
    rig.operator().start().wait_ready()
    rig.submit(a_batch("hugging").inline(*RECORDS).with_spec(model=MODEL, storage=STORAGE))
    rig.until_state("Complete", "hugging")
    for job in rig.jobs().values():
        pod = job["spec"]["template"]["spec"]
        assert pod["automountServiceAccountToken"] is False
        for container in pod["containers"]:
            assert {"secretRef": {"name": "canary"}} in container["envFrom"]
            (token,) = (it for it in container["env"] if it["name"] == "HF_TOKEN")
            assert token["valueFrom"]["secretKeyRef"] == {"name": "canary", "key": "TOKEN"}
            assert "value" not in token


def test_workers_get_api_keys_as_files_by_reference(rig: Rig) -> None:
    plant(rig, Canary())
    rig.operator().start().wait_ready()
    rig.submit(a_batch("asking").inline(*RECORDS).with_spec(engine=ENGINE))
    rig.until_state("Complete", "asking")
    (job,) = (it for it in rig.jobs().values() if it["metadata"]["labels"][labels.ROLE] == Role.RUN)
    pod = job["spec"]["template"]["spec"]
    (volume,) = (it for it in pod["volumes"] if "secret" in it)
    assert volume["secret"]["secretName"] == "canary"
    assert volume["secret"]["items"] == [{"key": "TOKEN", "path": "TOKEN"}]
    (container,) = pod["containers"]
    (mount,) = (it for it in container["volumeMounts"] if it["name"] == volume["name"])
    variables = {it["name"]: it for it in container["env"]}
    assert mount["mountPath"] == f"{variables[Env.SECRETS]['value']}/canary"
    assert variables[Env.ZONE]["valueFrom"]["fieldRef"]["fieldPath"] == "metadata.labels['topology.kubernetes.io/zone']"
    engine = json.loads(variables[Env.CONFIG]["value"])["engine"]
    assert (engine["name"], engine["openai"]["loadBalancing"]) == ("openai", "Locality")
    assert engine["openai"]["endpoints"] == [ENDPOINT | {"weight": 1, "tier": 0}]
