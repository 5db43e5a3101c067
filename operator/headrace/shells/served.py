"""The file that says which models a gateway serves."""

from __future__ import annotations

import copy
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

from headrace.api.asking import QueuedRequest, RequestRoute, Webhooks
from headrace.api.base import FieldError, InvalidSpec
from headrace.api.gateway import BatchRequest, ServedModels
from headrace.api.kinds import OurObject
from headrace.core.asking.batches import window_fan_out
from headrace.core.asking.requests import request_id, route_faults
from headrace.core.openai.models import model_faults
from headrace.core.openai.request import Destination, new_batch
from headrace.shells.documents import Document, one_document
from headrace.shells.localising import localise_model, localise_works

Judge = Callable[[OurObject], list[FieldError]]
"""What keeps a batch from running at a place."""


def load_models(file: Path, judge: Judge) -> ServedModels:
    """The models in a file, each of which can be run. Raises `ManifestError` with the lines of all that is wrong."""
    document = one_document(file, "models")
    try:
        models = ServedModels.parse(_localised(document))
        faults = [*model_faults(models), *route_faults(models), *key_faults(models.webhooks)] or _unusable(
            models, judge
        )
    except InvalidSpec as error:
        faults = list(error.errors)
    document.refuse(faults)
    return models


def _localised(document: Document) -> dict[str, Any]:
    """Its data, in which paths of weights are no longer relative to the file."""
    data: dict[str, Any] = copy.deepcopy(document.data)
    webhooks = data.get("webhooks")
    if isinstance(webhooks, dict) and isinstance(webhooks.get("keysFile"), str):
        webhooks["keysFile"] = str(document.folder / webhooks["keysFile"])
    models = data.get("models")
    for served in models if isinstance(models, list) else ():
        localise_model(served, document.folder)
    routes = data.get("routes")
    for route in routes if isinstance(routes, list) else ():
        target = route.get("target") if isinstance(route, dict) else None
        localise_works(target.get("fanOutJob") if isinstance(target, dict) else None, document.folder)
    return data


def key_faults(webhooks: Webhooks | None) -> list[FieldError]:
    """What is wrong with the keys that calls are signed with; they are looked at here so that the first call is not the one to fail."""
    if webhooks is None:
        return []
    try:
        import_module("headrace.core.asking.hooks").keys_in(Path(webhooks.keys_file).read_text())
    except ModuleNotFoundError:  # its library is in the extra of the gateway, which says so by itself
        return []
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        return [FieldError("webhooks.keysFile", f"{webhooks.keys_file}: {reason}")]
    return []


def _unusable(models: ServedModels, judge: Judge) -> list[FieldError]:
    """What is wrong with the batches that requests would make."""
    probe = BatchRequest(input_file_id="file-0", endpoint="/v1", completion_window="24h")
    faults = []
    for index, served in enumerate(models.models):
        batch = new_batch(probe, served, Destination("default", "probe", "file:///probe.jsonl"))
        faults += [FieldError(e.field.replace("spec", f"models[{index}]", 1), e.message) for e in judge(batch)]
    for index, route in enumerate(models.routes):
        at = f"routes[{index}].target.fanOutJob"
        faults += [FieldError(e.field.replace("spec", at, 1), e.message) for e in _fan_out_faults(route, judge)]
    return faults


def _fan_out_faults(route: RequestRoute, judge: Judge) -> list[FieldError]:
    """What is wrong with the fan-outs that the windows of a route would make."""
    if route.target.fan_out_job is None:
        return []
    request = QueuedRequest(id=request_id(route.name, "0" * 24), accepted=0, tokens=0, body={})
    try:
        return judge(window_fan_out(f"{route.name}-{'0' * 10}", "default", [request], route))
    except InvalidSpec as error:
        return list(error.errors)
