"""Which cluster a command line means: one context of a kubeconfig, as kubectl understands it."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import yaml
from kubernetes.aio import client, config

_POD_NAMESPACE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")


class BadKubeconfig(Exception):
    """There is no such cluster to be had from the kubeconfig; the message says what there is."""


@dataclass(frozen=True)
class Context:
    """One cluster, as one user."""

    name: str
    namespace: str
    """That the context names, or `default`."""
    configuration: client.Configuration
    loader: Any = None
    """The client library's, which knows how to get new credentials; None where they renew themselves."""

    @property
    def server(self) -> str:
        """URL of the API server."""
        return str(self.configuration.host)

    async def renew_credentials(self) -> None:
        """Get new ones before they run out, where a program gives them, until cancelled."""
        if self.loader is not None and self.loader._user:
            await config.refresh_token(self.loader, self.configuration)


async def load_context(kubeconfig: Path | None, name: str | None) -> Context:
    """The context of that name, or the current one; of that file, or of what KUBECONFIG says. Raises `BadKubeconfig`."""
    files = _files(kubeconfig)
    shown = ", ".join(map(str, files))
    present = [file for file in files if file.is_file()]
    if not present:
        raise BadKubeconfig(f"there is no kubeconfig {shown}: name one with --kubeconfig, or set KUBECONFIG")
    known, current = _contexts(present)
    wanted = name or current
    if wanted not in known:
        raise BadKubeconfig(_no_context(wanted, known, shown))
    configuration = client.Configuration()
    try:
        loader = await config.load_kube_config(
            config_file=os.pathsep.join(map(str, present)),
            context=wanted,
            client_configuration=configuration,
            persist_config=False,  # nothing is written into a file of the user
        )
    except (config.ConfigException, KeyError, TypeError, ValueError, OSError) as error:
        raise BadKubeconfig(
            f"the context {wanted} of {shown} cannot be used: {error or type(error).__name__}"
        ) from error
    read_environment_once(configuration)
    namespace = loader.current_context["context"].get("namespace") or "default"
    return Context(str(wanted), str(namespace), configuration, loader)


def pod_context() -> Context:
    """The cluster that this pod runs in, as its service account. Raises `BadKubeconfig`."""
    configuration = client.Configuration()
    try:
        config.load_incluster_config(client_configuration=configuration)
        namespace = _POD_NAMESPACE.read_text().strip()
    except (config.ConfigException, OSError) as error:
        raise BadKubeconfig(f"this pod has no service account to speak with the cluster: {error}") from error
    read_environment_once(configuration)
    return Context("of this pod", namespace, configuration)


def read_environment_once(configuration: client.Configuration) -> None:
    """Find the proxy now, if the environment names one for the API server.

    Left alone, the client asks the environment and `~/.netrc` before each request, in a thread each: that was a good part of what a
    request cost, and a login out of a file that is there for something else is nothing that an API server should see.
    """
    server = urlsplit(configuration.host)
    if configuration.proxy is None and server.hostname and not proxy_bypass(server.netloc):
        configuration.proxy = getproxies().get(server.scheme)
    configuration.client_session_kwargs = {"trust_env": False}


def _files(kubeconfig: Path | None) -> list[Path]:
    if kubeconfig is not None:
        return [kubeconfig]
    named = [Path(part).expanduser() for part in os.environ.get("KUBECONFIG", "").split(os.pathsep) if part]
    return named or [Path.home() / ".kube" / "config"]


def _contexts(files: Sequence[Path]) -> tuple[list[str], str | None]:
    """The names of all contexts, and of the current one: the last that a file names, as the client library has it."""
    known: list[str] = []
    current: str | None = None
    for file in files:
        data = _read(file)
        contexts = data.get("contexts") or []
        known += [str(it["name"]) for it in contexts if isinstance(it, dict) and "name" in it]
        current = data.get("current-context") or current
    return known, current


def _read(file: Path) -> dict[str, Any]:
    try:
        data = yaml.safe_load(file.read_bytes())
    except OSError as error:
        raise BadKubeconfig(f"{file} cannot be read: {error.strerror}") from error
    except yaml.YAMLError as error:
        raise BadKubeconfig(f"{file} is not a kubeconfig: {' '.join(str(error).split())}") from error
    if not isinstance(data, dict) or data.get("kind", "Config") != "Config":
        raise BadKubeconfig(f"{file} is not a kubeconfig")
    return data


def _no_context(wanted: str | None, known: Sequence[str], shown: str) -> str:
    there = f"it has {', '.join(known)}" if known else "it has none"
    if wanted is None:
        return f"{shown} names no current context: choose one with --context; {there}"
    return f'there is no context "{wanted}" in {shown}; {there}'
