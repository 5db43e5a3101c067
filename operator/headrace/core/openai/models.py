"""What is wrong with a list of served models, as far as that can be told without looking at any place."""

from __future__ import annotations

from headrace.api.base import FieldError, JsonObject
from headrace.api.gateway import ServedModels


def model_faults(models: ServedModels) -> list[FieldError]:
    """Models that no request could mean, or of which a request could mean two."""
    faults, seen = [], set()
    for index, served in enumerate(models.models):
        at, known_as = f"models[{index}].model", (served.model.name, served.model.task)
        if served.endpoint is None and not any(models.answering(route) == served for route in models.routes):
            message = f"OpenAI has no endpoint for {served.model.task}: it must be chat, completion or embedding, or have a route"
            faults.append(FieldError(f"{at}.task", message))
        if known_as in seen:
            message = f"there is another model {served.model.name} with the task {served.model.task} before"
            faults.append(FieldError(f"{at}.name", message))
        seen.add(known_as)
    return faults


def model_objects(models: ServedModels) -> list[JsonObject]:
    """The Model objects, each name once. Nobody keeps when a model came to be served."""
    names = sorted({served.model.name for served in models.models})
    return [{"id": name, "object": "model", "created": 0, "owned_by": "headrace"} for name in names]
