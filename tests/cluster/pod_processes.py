"""Containers as processes of this machine: what their pods mount is in folders here, and paths in what they are told are those folders'.

It makes up for a node where there is none. What a container is told is what its pod says, to the letter but for those paths: the
ConfigMaps, the Secrets and the claims that are named there, and no others.
"""

from __future__ import annotations

import asyncio
import base64
import json
import os
import re
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from headrace.api.worker import Env
from headrace.shells.kube.api import Api
from headrace.shells.kube.resources import CONFIG_MAPS, Resource

REPOSITORY = Path(__file__).parents[2]
SECRETS = Resource("", "v1", "secrets", "Secret")
_OF_THE_IMAGE = frozenset({"HOME"})
"""Variables that make up for a read-only image."""
JsonObject = dict[str, Any]


@dataclass(frozen=True)
class Told:
    """What a container is told."""

    words: list[str]
    environment: dict[str, str]


@dataclass
class Machine:
    """Where the containers of one namespace run."""

    api: Api
    namespace: str
    folder: Path
    claims: Mapping[str, Path]
    """The folder behind each claim."""
    logs: list[Path] = field(default_factory=list)
    _forks: subprocess.Popen[str] | None = None

    def start(self) -> Machine:
        """Have workers ready to be forked; returns itself."""
        command = [sys.executable, str(Path(__file__).with_name("worker_forks.py")), str(self._socket)]
        with (self.folder / "forks.log").open("w") as log:
            self._forks = subprocess.Popen(
                command, env=_environment(), stdout=subprocess.PIPE, stderr=log, text=True, cwd=self.folder
            )
        return self

    def wait_ready(self) -> None:
        """Wait until workers can be had."""
        assert self._forks is not None
        assert self._forks.stdout is not None
        assert self._forks.stdout.readline() == "listening\n", (self.folder / "forks.log").read_text()

    def close(self) -> None:
        """End it; workers that are still there hear of it."""
        assert self._forks is not None
        self._forks.kill()
        self._forks.communicate()

    async def work(self, pod: JsonObject, stopped: asyncio.Event) -> tuple[int, str]:
        """Live the life of a worker's pod; its exit code, and its last words."""
        folder = self.folder / pod["metadata"]["name"]
        told = await self.told(pod["metadata"], pod["spec"], folder)
        last_words = folder / "termination"
        more = {Env.TERMINATION_LOG.value: str(last_words), Env.METRICS_PORT.value: "0", Env.THREADS.value: "1"}
        self.logs.append(folder / "log")
        order = {"words": told.words[1:], "env": told.environment | more, "log": str(self.logs[-1])}
        code = await self._forked(order, stopped)
        return code, last_words.read_text() if last_words.exists() else ""

    async def told(self, metadata: JsonObject, spec: JsonObject, folder: Path) -> Told:
        """What the one container of a pod is told; what it mounts is in that folder then."""
        (container,) = spec["containers"]
        folder.mkdir()
        volumes = {volume["name"]: volume for volume in spec.get("volumes", ())}
        mounts = [(it["mountPath"], volumes[it["name"]]) for it in container.get("volumeMounts", ())]
        places = {path: str(self._place(volume, folder)) for path, volume in mounts if "emptyDir" not in volume}

        def here(text: str) -> str:
            if not places:
                return text
            longest_first = sorted(places, key=len, reverse=True)
            return re.sub("|".join(map(re.escape, longest_first)), lambda found: places[found[0]], text)

        for _, volume in mounts:
            for name, text in (await self._files(volume)).items():
                file = self._place(volume, folder) / name
                file.parent.mkdir(exist_ok=True)
                file.write_text(here(text))  # the plan of inline records says where they are
        variables = await self._env_from(container)
        for one in container.get("env", ()):
            variables[one["name"]] = one["value"] if "value" in one else await self._value_from(one, metadata)
        kept = {name: here(value) for name, value in variables.items() if name not in _OF_THE_IMAGE}
        return Told([here(word) for word in (*container.get("command", ()), *container.get("args", ()))], kept)

    @property
    def _socket(self) -> Path:
        return self.folder / "forks"

    async def _forked(self, order: JsonObject, stopped: asyncio.Event) -> int:
        reader, writer = await asyncio.open_unix_connection(str(self._socket))
        try:
            writer.write(json.dumps(order).encode() + b"\n")
            await writer.drain()
            end, stop = asyncio.ensure_future(reader.readline()), asyncio.ensure_future(stopped.wait())
            await asyncio.wait((end, stop), return_when=asyncio.FIRST_COMPLETED)
            stop.cancel()
            if not end.done():
                writer.write(b"stop\n")
            return int(await end)
        finally:
            writer.close()

    def _place(self, volume: JsonObject, folder: Path) -> Path:
        """The folder that a volume is here."""
        claim = volume.get("persistentVolumeClaim")
        return folder / volume["name"] if claim is None else self.claims[claim["claimName"]]

    async def _files(self, volume: JsonObject) -> dict[str, str]:
        """What is in a volume from the beginning."""
        if (named := volume.get("configMap")) is not None:
            return await self._get(CONFIG_MAPS, named["name"])
        return await self._secret(volume["secret"]["secretName"]) if "secret" in volume else {}

    async def _env_from(self, container: JsonObject) -> dict[str, str]:
        names = [one["secretRef"]["name"] for one in container.get("envFrom", ())]
        return {name: text for secret in names for name, text in (await self._secret(secret)).items()}

    async def _value_from(self, variable: JsonObject, metadata: JsonObject) -> str:
        source = variable["valueFrom"]
        if (secret := source.get("secretKeyRef")) is not None:
            return (await self._secret(secret["name"]))[secret["key"]]
        path: str = source["fieldRef"]["fieldPath"]
        if path == "metadata.namespace":
            return self.namespace
        kind, key = re.fullmatch(r"metadata\.(annotations|labels)\['(.+)'\]", path).groups()  # type: ignore[union-attr]
        return str(metadata[kind][key])

    async def _secret(self, name: str) -> dict[str, str]:
        found = await self._get(SECRETS, name)
        return {key: base64.b64decode(text).decode() for key, text in found.items()}

    async def _get(self, resource: Resource, name: str) -> dict[str, str]:
        found: dict[str, str] = (await self.api.get(resource, self.namespace, name)).get("data", {})
        return found


def headrace(told: Told, log: Path, *more: str) -> subprocess.Popen[str]:
    """The program of the operator's image, as its container is told and with more words; it writes to that file."""
    with log.open("a") as out:
        return subprocess.Popen(
            [sys.executable, "-m", "headrace", *told.words, *more],
            cwd=log.parent,
            env=_environment() | told.environment,
            stdout=subprocess.PIPE,
            stderr=out,
            text=True,
        )


def _environment() -> dict[str, str]:
    roots = [str(REPOSITORY / "operator"), str(REPOSITORY / "worker-image")]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(roots), "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
