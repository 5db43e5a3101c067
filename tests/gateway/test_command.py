"""`headrace gateway` that cannot begin says why, and what must change."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from headrace.cli import main

GOOD = "models:\n- model: {name: a}\n  engine: {name: mock}\n"


@pytest.fixture(autouse=True)
def _desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    Path("models.yaml").write_text(GOOD)


CLUSTER = """\
apiVersion: v1
kind: Config
current-context: here
contexts: [{name: here, context: {cluster: here, user: me}}]
clusters: [{name: here, cluster: {server: "http://127.0.0.1:9"}}]
users: [{name: me, user: {}}]
"""
THERE = ("--kubeconfig", "kubeconfig")
FILES = ("--files", "claim://data/uploads")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((), "say either --local, or"),
        (("--local", *THERE), "say either --local, or"),
        (("--local", *FILES), "--files and --mount are for a cluster"),
        (("--kubeconfig", "nowhere", *FILES), "there is no kubeconfig nowhere"),
        ((*THERE, "--context", "there", *FILES), 'there is no context "there"'),
        (THERE, "name it with --files"),
        ((*THERE, *FILES), "claim://data/uploads must be s3://"),
        ((*THERE, "--files", "s3://bucket/a//b"), "--files s3://bucket/a//b/default must be"),
        ((*THERE, *FILES, "--mount", "data"), "--mount must be CLAIM=FOLDER"),
        ((*THERE, *FILES, "--mount", "data=nowhere"), "--mount must be CLAIM=FOLDER"),
        ((*THERE, *FILES, "-n", "../x"), "is not a namespace"),
    ],
)
def test_gateway_to_no_cluster_says_which_word_is_missing(
    words: tuple[str, ...], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("kubeconfig").write_text(CLUSTER)
    assert main(["gateway", "--models", "models.yaml", "--port", "0", *words]) == 2
    assert said in capsys.readouterr().err


def test_gateway_to_a_cluster_has_a_queue_where_models_have_routes(capsys: pytest.CaptureFixture[str]) -> None:
    Path("kubeconfig").write_text(CLUSTER)
    Path("models.yaml").write_text(GOOD + "routes:\n- name: chat\n  model: a\n")
    asked = ["gateway", "--models", "models.yaml", "--port", "0", *THERE, "--files", "s3://bucket/uploads"]
    assert main(asked) == 2
    assert "name it with --nats" in capsys.readouterr().err
    assert main([*asked, "--nats", "nats://127.0.0.1:9", "--nats-credentials", "nowhere"]) == 1
    assert "there is no folder nowhere" in capsys.readouterr().err
    Path("models.yaml").write_text(GOOD + "routes:\n- name: chat\n  model: a\n  target: {warmPool: {max: 1}}\n")
    assert main([*asked, "--nats", "nats://127.0.0.1:9"]) == 2
    assert "a route has a warmPool" in capsys.readouterr().err


def test_gateway_of_bad_models_names_the_line(capsys: pytest.CaptureFixture[str]) -> None:
    Path("models.yaml").write_text(GOOD + "- model: {name: b}\n  engine: {name: nothing}\n")
    assert main(["gateway", "--local", "--models", "models.yaml"]) == 2
    assert "models.yaml:5: models[1].engine.name" in capsys.readouterr().err


def test_gateway_of_a_route_to_nowhere_names_the_line(capsys: pytest.CaptureFixture[str]) -> None:
    Path("models.yaml").write_text(GOOD + "routes:\n- name: chat\n  model: b\n")
    assert main(["gateway", "--local", "--models", "models.yaml"]) == 2
    assert "models.yaml:6: routes[0].model: there is no model b with the task chat" in capsys.readouterr().err


@pytest.mark.parametrize("keys", [None, "rubbish"], ids=["no file", "no key"])
def test_gateway_whose_webhooks_have_no_key_names_the_line(
    keys: str | None, capsys: pytest.CaptureFixture[str]
) -> None:
    if keys is not None:
        Path("keys").write_text(keys)
    Path("models.yaml").write_text(GOOD + "webhooks:\n  allowedHosts: [example.org]\n  keysFile: keys\n")
    assert main(["gateway", "--local", "--models", "models.yaml"]) == 2
    assert "models.yaml:6: webhooks.keysFile: " in capsys.readouterr().err


def test_gateway_at_an_address_that_is_taken(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        assert main(["gateway", "--local", "--models", "models.yaml", "--port", port]) == 2
    assert f"cannot listen at 127.0.0.1:{port}: Address already in use; choose" in capsys.readouterr().err


def test_gateway_in_a_namespace_that_is_none(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["gateway", "--local", "--models", "models.yaml", "-n", "../x"]) == 2
    assert "is not a namespace" in capsys.readouterr().err
