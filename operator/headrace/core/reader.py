"""A pod beside the output of a batch, so that somebody outside the cluster can read it: its manifest, and how it is getting on.

It holds still; whoever made it runs `headrace_worker results` in it. It sees what the preflight's pod sees of secrets and environment,
and of volumes only the output's, to be read.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from headrace.api import labels
from headrace.api.base import JsonObject
from headrace.api.fanoutjob import FanOutJob
from headrace.api.input import Output
from headrace.api.kinds import OurObject
from headrace.api.results import Wanted
from headrace.core import scratch
from headrace.core.children import owned, plan_job
from headrace.core.fanout.observed import as_batch
from headrace.core.observed import Installation
from headrace.core.volumes import Volumes

COMPONENT = "results"
SECONDS = 7200
"""How long a reader may live: far longer than a read takes, for whoever made it may die before deleting it."""
RESOURCES = {"requests": {"cpu": "100m", "memory": "128Mi"}, "limits": {"cpu": "1", "memory": "512Mi"}}
_HOPELESS = frozenset(
    {
        "ImagePullBackOff",
        "InvalidImageName",
        "ErrImageNeverPull",
        "CreateContainerConfigError",
        "CreateContainerError",
        "RunContainerError",
        "CrashLoopBackOff",
    }
)
"""Reasons of a waiting container that waiting longer does not mend. `ErrImagePull` alone may: the second try has another reason."""


@dataclass(frozen=True, slots=True)
class Reader:
    """The pod that reads an output, and where it finds it."""

    pod: JsonObject
    output_uri: str
    """As the pod sees it."""

    def command(self, wanted: Wanted, limit: int | None) -> list[str]:
        """What to run in it."""
        return ["headrace_worker", *reading(self.output_uri, wanted, limit)]


def reading(output_uri: str, wanted: Wanted, limit: int | None) -> list[str]:
    """The words after `headrace_worker` that read an output."""
    which = {Wanted.SUCCEEDED: [], Wanted.FAILED: ["--errors"], Wanted.ALL: ["--all"]}[wanted]
    most = [] if limit is None else ["--limit", str(limit)]
    return ["results", "--output", output_uri, *which, *most]


def reader(owner: OurObject, image: str, suffix: str, like: Mapping[str, Any] | None = None) -> Reader:
    """The reader of an object whose output is known, named after it and `suffix` (five characters at most).

    `like` is the pod template of one of its Jobs, if there is one left: where its image is pulled from, and with which secrets.
    """
    assert owner.status.output is not None
    place = Installation(worker_image=image)
    batch = as_batch(owner, place) if isinstance(owner, FanOutJob) else owner
    settled = batch.spec.model_copy(update={"output": Output(uri=owner.status.output.uri)})
    batch = batch.model_copy(update={"spec": settled})
    volumes = Volumes.of(batch, place)
    mounts = [{**m, "readOnly": True} for m in volumes.mounts if _holds(m, volumes.output_uri)]
    kept = {mount["name"] for mount in mounts} | {scratch.NAME}
    pod: JsonObject = plan_job(batch, place)["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    tmp = [mount for mount in container["volumeMounts"] if mount["name"] == scratch.NAME]
    changed = {
        "command": ["headrace_worker"],
        "args": ["hold"],
        "resources": RESOURCES,
        "volumeMounts": [*mounts, *tmp],
    }
    pod |= {
        "containers": [{**container, **changed}],
        "volumes": [volume for volume in pod["volumes"] if volume["name"] in kept],
        "activeDeadlineSeconds": SECONDS,
        "terminationGracePeriodSeconds": 1,
        **_pulling(like or {}),
    }
    return Reader(
        {"apiVersion": "v1", "kind": "Pod", "metadata": _metadata(owner, suffix), "spec": pod}, volumes.output_uri
    )


def _metadata(parent: OurObject, suffix: str) -> JsonObject:
    """Goes with its parent, but is no child that the operator looks after: its label is left out, and nobody controls it."""
    metadata = owned(parent, f"{parent.metadata.name}-read-{suffix}", COMPONENT)
    for label in labels.OF_KIND.values():
        metadata["labels"].pop(label, None)
    (owner,) = metadata["ownerReferences"]
    metadata["ownerReferences"] = [{**owner, "controller": False, "blockOwnerDeletion": False}]
    metadata["labels"]["app.kubernetes.io/managed-by"] = "headrace-cli"
    return metadata


def _holds(mount: Mapping[str, Any], uri: str) -> bool:
    return f"{uri}/".startswith(f"file://{mount['mountPath']}/")


def _pulling(like: Mapping[str, Any]) -> JsonObject:
    """What the pod of a Job has that decides whether its image can be had."""
    spec = like.get("spec", {})
    return {name: spec[name] for name in ("imagePullSecrets", "serviceAccountName") if name in spec}


@dataclass(frozen=True, slots=True)
class Start:
    """How far the start of a pod is."""

    running: bool
    hopeless: bool
    """Waiting longer will not help."""
    why: str
    """What it waits for, or has failed of; empty when nobody has said."""


def start_of(pod: Mapping[str, Any]) -> Start:
    """How far the start of a pod is, from its status."""
    status: Mapping[str, Any] = pod.get("status", {})
    for container in status.get("containerStatuses", ()):
        state = container.get("state", {})
        if "running" in state:
            return Start(running=True, hopeless=False, why="")
        if waiting := state.get("waiting"):
            said = ": ".join(filter(None, (waiting.get("reason"), waiting.get("message"))))
            return Start(running=False, hopeless=waiting.get("reason") in _HOPELESS, why=said)
    if status.get("phase") in ("Failed", "Succeeded"):
        return Start(running=False, hopeless=True, why=_end(status))
    unmet = (c for c in status.get("conditions", ()) if c["type"] == "PodScheduled" and c["status"] != "True")
    scheduling = next(unmet, None)
    why = ": ".join(filter(None, (scheduling.get("reason"), scheduling.get("message")))) if scheduling else ""
    return Start(running=False, hopeless=False, why=why)


def _end(status: Mapping[str, Any]) -> str:
    ended = [
        c["state"]["terminated"] for c in status.get("containerStatuses", ()) if "terminated" in c.get("state", {})
    ]
    exits = [f"it ended with exit code {it['exitCode']}: {it.get('message') or it.get('reason', '')}" for it in ended]
    return ": ".join(filter(None, (status.get("reason"), status.get("message")))) or "; ".join(exits) or "it has ended"


def last_warning(events: Sequence[Mapping[str, Any]]) -> str:
    """What the newest warning among the events about a pod says; empty when there is none."""
    warnings = [event for event in events if event.get("type") == "Warning"]
    newest = max(warnings, key=lambda event: event.get("lastTimestamp") or event.get("eventTime") or "", default=None)
    return ": ".join(filter(None, (newest.get("reason"), newest.get("message")))) if newest is not None else ""
