"""How the client is set up to reach the API server."""

from __future__ import annotations

import pytest
from kubernetes.aio import client

from headrace.shells.kube.kubeconfig import read_environment_once

NAMES = ("http_proxy", "https_proxy", "all_proxy", "no_proxy")


@pytest.fixture(autouse=True)
def _no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in NAMES:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.mark.parametrize(
    ("environment", "known", "expected"),
    [
        pytest.param({}, None, None, id="no proxy"),
        pytest.param({"HTTPS_PROXY": "http://proxy:3128"}, None, "http://proxy:3128", id="one for https"),
        pytest.param({"HTTP_PROXY": "http://proxy:3128"}, None, None, id="one for http only"),
        pytest.param(
            {"HTTPS_PROXY": "http://proxy:3128", "NO_PROXY": ".example.com"},
            None,
            None,
            id="one that is not for this host",
        ),
        pytest.param(
            {"HTTPS_PROXY": "http://proxy:3128"},
            "http://mine:1",
            "http://mine:1",
            id="that of the kubeconfig goes first",
        ),
    ],
)
def test_read_environment_once_finds_the_proxy(
    environment: dict[str, str], known: str | None, expected: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    configuration = client.Configuration(host="https://api.example.com:6443")
    configuration.proxy = known
    read_environment_once(configuration)
    assert configuration.proxy == expected
    assert configuration.client_session_kwargs == {"trust_env": False}
