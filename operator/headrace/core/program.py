"""A program of the user's in the pod of a join: between a worker that writes the answers down and one that reads what they come to."""

from __future__ import annotations

from headrace.api.aggregation import OwnImage
from headrace.api.base import JsonObject
from headrace.api.worker import Role

EXCHANGE = "/headrace"
"""Where the program finds the answers, and puts what they come to."""
COLLECT_CONTAINER = "collect"
"""The worker that writes the answers down."""
SMALL: JsonObject = {"requests": {"cpu": "250m", "memory": "256Mi"}, "limits": {"memory": "2Gi"}}
"""What a worker without a model gets."""


def with_program(pod: JsonObject, image: OwnImage) -> JsonObject:
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
        "resources": resources,
        "securityContext": worker["securityContext"],
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "volumeMounts": [exchange, {"name": "tmp", "mountPath": "/tmp"}],  # noqa: S108
    }
    return {
        **pod,
        "initContainers": [collect, program],
        "volumes": [*pod["volumes"], {"name": "exchange", "emptyDir": {}}],
    }
