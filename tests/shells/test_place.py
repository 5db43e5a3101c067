"""What this machine cannot do for a batch is said before anything is done, with what helps."""

from __future__ import annotations

from typing import Any

import pytest

from headrace.shells.local.place import problems
from headrace.shells.local.state import StateDir
from headrace.shells.manifests import ConfigMap
from laptop import local_batch

RECORDS = ConfigMap.parse({"metadata": {"name": "records"}, "data": {"a.jsonl": ""}})
TOKEN = {"name": "hub", "key": "token"}


def found(state: StateDir, *config_maps: ConfigMap, **spec: Any) -> list[str]:
    """The problems of a batch with these spec fields."""
    return [str(error) for error in problems(local_batch().with_spec(**spec).build(), state, config_maps)]


@pytest.mark.parametrize(
    ("spec", "start"),
    [
        pytest.param({"input": {"uri": "claim://data/x.jsonl"}}, "spec.input.uri: a claim is there only in a cluster", id="a claim"),
        pytest.param({"output": {"uri": "s3://out/x"}, "storage": {"secretRef": {"name": "minio"}}},
            "spec.storage.secretRef: there are no Secrets on this machine: put what opens s3:// into the environment",
            id="a Secret of an object store"),
        pytest.param({"model": {"name": "m", "source": {"ociImage": {"reference": "r"}}}},
            "spec.model.source: an image volume is there only in a cluster", id="an image volume"),
        pytest.param({"engine": {"name": "vllm"}}, "spec.engine.name: this version has no such engine", id="an engine"),
        pytest.param({"model": {"name": "m", "source": {"huggingFace": {"id": "a/b", "tokenSecretRef": TOKEN}}}},
            "spec.model.source.huggingFace.tokenSecretRef: there are no Secrets on this machine", id="a Secret"),
        pytest.param({"input": {"configMapRef": {"name": "records"}}},
            "spec.input.configMapRef.name: there is no ConfigMap records in the namespace default", id="no ConfigMap"),
    ],
)  # fmt: skip
def test_problems(state: StateDir, monkeypatch: pytest.MonkeyPatch, spec: dict[str, Any], start: str) -> None:
    for name in ("HF_TOKEN", "AWS_ACCESS_KEY_ID", "AWS_WEB_IDENTITY_TOKEN_FILE", "AWS_SKIP_SIGNATURE"):
        monkeypatch.delenv(name, raising=False)
    (problem,) = found(state, **spec)
    assert problem.startswith(start)


def test_problems_of_a_batch_that_can_be_run(state: StateDir) -> None:
    assert found(state) == []


def test_problems_a_token_in_the_environment_stands_for_the_secret(
    state: StateDir, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "secret")
    assert found(state, model={"name": "m", "source": {"huggingFace": {"id": "a/b", "tokenSecretRef": TOKEN}}}) == []


def test_problems_keys_in_the_environment_stand_for_the_secret(
    state: StateDir, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    assert found(state, input={"uri": "s3://in/x"}, storage={"secretRef": {"name": "minio"}}) == []


KEYED = {"name": "a", "url": "https://a", "apiKeySecretRef": {"name": "keys", "key": "east-key"}}


def test_problems_an_api_key_comes_from_the_environment(state: StateDir, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = {"name": "openai", "openai": {"endpoints": [{"name": "b", "url": "https://b"}, KEYED]}}
    monkeypatch.delenv("EAST_KEY", raising=False)
    assert found(state, engine=engine) == [
        "spec.engine.openai.endpoints[1].apiKeySecretRef: there are no Secrets on this machine: "
        "put the key into the environment variable EAST_KEY"
    ]
    monkeypatch.setenv("EAST_KEY", "secret")
    assert found(state, engine=engine) == []


def test_problems_a_config_map_may_come_along_or_be_kept(state: StateDir) -> None:
    wanted = {"configMapRef": {"name": "records", "key": "a.jsonl"}}
    assert found(state, RECORDS, input=wanted) == []
    state.write_config_map(RECORDS)
    assert found(state, input=wanted) == []


def test_problems_name_the_keys_that_a_config_map_has(state: StateDir) -> None:
    assert found(state, RECORDS, input={"configMapRef": {"name": "records", "key": "b"}}) == [
        "spec.input.configMapRef.key: the ConfigMap records has no key b: it has a.jsonl"
    ]


@pytest.mark.parametrize("module", ["torch", "transformers"])
def test_problems_without_what_the_engine_needs(state: StateDir, monkeypatch: pytest.MonkeyPatch, module: str) -> None:
    monkeypatch.setattr("headrace.shells.local.place.find_spec", lambda name: None if name == module else True)
    (problem,) = found(state, engine={"name": "transformers"})
    assert problem == (
        f'spec.engine.name: needs the Python package {module}, which is not installed here: pip install "headrace[worker]"'
    )
