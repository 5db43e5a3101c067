"""What a container of a Job means on this machine: which program, which environment, which files."""

from __future__ import annotations

import base64
import os
import subprocess
import sys
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from headrace.api.base import JsonObject
from headrace.api.worker import Env
from headrace.shells.local.files import write_atomically

Programs = Mapping[str, Sequence[str]]
"""The programs of the worker image, and the command line that each is here."""

WORKER: Programs = {"headrace_worker": (sys.executable, "-P", "-m", "headrace_worker")}
"""`-P`: a file in the working directory must not shadow a module of the worker."""

ASIDE: Programs = {name: ("nice", "-n", "10", *words) for name, words in WORKER.items()}
"""The same, beside somebody who has to answer at once, and whom the workers let pass."""

FindConfigMap = Callable[[str], JsonObject | None]
"""The ConfigMap of that name in the namespace of the batch."""

_NOTHING: JsonObject = {"data": {}}
"""What a ConfigMap that need not be there has in it when it is not."""

_OF_THE_IMAGE = frozenset({"HOME"})
"""Variables that make up for a read-only image; this machine has its own, with the user's model caches."""


def container_of(job: Mapping[str, Any]) -> JsonObject:
    """The one container of a Job's pods."""
    (container,) = job["spec"]["template"]["spec"]["containers"]
    return dict(container)


def command_line(container: Mapping[str, Any], programs: Programs) -> list[str]:
    """The command to start: `headrace_worker run` becomes the worker of this Python."""
    words = [*container["command"], *container.get("args", ())]
    return [*programs.get(words[0], words[:1]), *words[1:]]


def environment(job: Mapping[str, Any], index: int, folder: Path, companions: int = 1) -> dict[str, str]:
    """The environment of a pod that has this folder: that of this process, of the container, and of the kubelet, in that order.

    A value that comes from a Secret in a cluster is inherited: the variable of the same name in the user's shell.
    """
    inline = {e["name"]: e["value"] for e in container_of(job).get("env", ()) if "value" in e}
    indexed = job["spec"].get("completionMode") == "Indexed"
    return {
        **os.environ,
        **{name: value for name, value in inline.items() if name not in _OF_THE_IMAGE},
        **({Env.SHARD.value: str(index)} if indexed else {}),
        Env.TERMINATION_LOG.value: str(folder / "termination"),
        Env.METRICS_PORT.value: "0",
        Env.METRICS_PORT_FILE.value: str(folder / "port"),
        Env.DRAIN_ON_EOF.value: "1",
        Env.THREADS.value: str(_threads(job, companions)),
    }


def start(
    command: Sequence[str], variables: Mapping[str, str], log: IO[bytes], inherited: Collection[int] = ()
) -> subprocess.Popen[bytes]:
    """A pod's container as a process, which drains when its standard input is closed. It has these descriptors too. Raises `OSError`."""
    return subprocess.Popen(  # noqa: S603 - the command line is the Job's, which we rendered
        command,
        env=variables,
        stdin=subprocess.PIPE,
        stdout=log,
        stderr=subprocess.STDOUT,
        pass_fds=tuple(inherited),
        start_new_session=True,  # Ctrl-C is for the shell, which then tells its pods
    )


def secret_variables(job: Mapping[str, Any]) -> list[str]:
    """Names of the variables that come from a Secret in a cluster."""
    return [e["name"] for e in container_of(job).get("env", ()) if "secretKeyRef" in e.get("valueFrom", {})]


def grace_seconds(job: Mapping[str, Any]) -> int:
    """How long a pod may take to end when it is told to."""
    return int(job["spec"]["template"]["spec"].get("terminationGracePeriodSeconds", 30))


def mount_config_maps(job: Mapping[str, Any], find: FindConfigMap) -> str | None:
    """Write the ConfigMaps that a Job mounts to where its pods look for them; names one that is missing."""
    volumes = {volume["name"]: volume for volume in job["spec"]["template"]["spec"].get("volumes", ())}
    for mount in container_of(job).get("volumeMounts", ()):
        wanted = volumes[mount["name"]].get("configMap")
        if wanted is None:
            continue
        found = find(wanted["name"]) or (_NOTHING if wanted.get("optional") else None)
        if found is None:
            return str(wanted["name"])
        _write_files(Path(mount["mountPath"]), found)
    return None


def _write_files(folder: Path, config_map: Mapping[str, Any]) -> None:
    files = {name: text.encode() for name, text in config_map.get("data", {}).items()}
    files |= {name: base64.b64decode(data) for name, data in config_map.get("binaryData", {}).items()}
    folder.mkdir(parents=True, exist_ok=True)
    for path in folder.iterdir():
        if path.name not in files:
            path.unlink()
    for name, data in files.items():
        path = folder / name
        if not path.exists() or path.read_bytes() != data:
            write_atomically(path, data)


def _threads(job: Mapping[str, Any], companions: int) -> int:
    """The cores of this machine, shared between the pods that run at once, of the companions too."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    pods: int = min(job["spec"].get("parallelism", 1), job["spec"].get("completions", 1))
    return max(1, cores // max(1, pods * companions))
