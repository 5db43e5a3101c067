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
    Path("models.yaml").write_text(GOOD)


def test_gateway_of_a_cluster_is_not_there_yet(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["gateway", "--models", "models.yaml"]) == 2
    assert "say --local" in capsys.readouterr().err


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
    assert f"cannot listen at 127.0.0.1:{port}" in capsys.readouterr().err


def test_gateway_in_a_namespace_that_is_none(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["gateway", "--local", "--models", "models.yaml", "-n", "../x"]) == 2
    assert "is not a namespace" in capsys.readouterr().err
