"""A program of the user's in the pod of a join: between a worker that writes the answers down and one that reads what they come to."""

from __future__ import annotations

from headrace.api.aggregation import OwnImage
from headrace.api.base import JsonObject
from headrace.api.window import DataWindow
from headrace.api.worker import Env, Role
from headrace.core import scratch

EXCHANGE = "/headrace"
"""Where the program finds the answers, and puts what they come to."""
COLLECT_CONTAINER = "collect"
"""The worker that writes the answers down."""
SMALL: JsonObject = {"requests": {"cpu": "250m", "memory": "256Mi"}, "limits": {"memory": "2Gi"}}
"""What a worker without a model gets."""


def window_variables(window: DataWindow | None) -> list[JsonObject]:
    """The environment of whoever is to know which time the data are of."""
    if window is None:
        return []
    told = window.to_object()
    return [
        {"name": Env.WINDOW_START.value, "value": told["startTime"]},
        {"name": Env.WINDOW_END.value, "value": told["endTime"]},
    ]


def with_program(pod: JsonObject, image: OwnImage, window: DataWindow | None = None) -> JsonObject:
    """The pod of a join with the program in it. The program gets the resources, and neither secrets nor settings of the worker."""
    (worker,) = pod["containers"]
    exchange = {"name": "exchange", "mountPath": EXCHANGE}
    worker["volumeMounts"] = [*worker["volumeMounts"], exchange]
    resources = worker["resources"]
    worker["resources"] = SMALL
    collect = {**worker, "name": COLLECT_CONTAINER, "args": [str(Role.COLLECT)], "ports": []}
    program = {
        "name": "program",
        "image": image.reference,
        **({"command": list(image.command)} if image.command else {}),
        **({"args": list(image.args)} if image.args else {}),
        **({"env": variables} if (variables := window_variables(window)) else {}),
        "resources": resources,
        "securityContext": worker["securityContext"],
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "volumeMounts": [exchange, scratch.MOUNT],
    }
    return {
        **pod,
        "initContainers": [collect, program],
        "volumes": [*pod["volumes"], {"name": "exchange", "emptyDir": {}}],
    }
