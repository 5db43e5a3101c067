"""From a manifest to what is sent to an API server, and from its refusal to the fields that are wrong."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from headrace.api.base import ApiModel, FieldError, JsonObject
from headrace.shells.kube.errors import ApiError
from headrace.shells.localising import work_specs

_SAID_BEFORE = re.compile(
    r'^(Invalid|Unsupported) value: (("[^"]*"|-?[0-9.]+|true|false|null): )?|^(Required value|Forbidden): '
)
"""How an API server begins what is then said better; the value stands in the manifest."""


def as_said(model: ApiModel) -> JsonObject:
    """The object with the fields that its manifest has and no others: what it is silent about is left to others, or to defaults."""
    return model.model_dump(mode="json", by_alias=True, exclude_unset=True)


def in_a_cluster(data: JsonObject, _: Path) -> list[FieldError]:
    """Names what a pod cannot see because it is a path on the machine of whoever submits it."""
    return [error for at, spec in work_specs(data) for error in _paths(spec, at)]


def _paths(spec: Any, at: str) -> Iterator[FieldError]:
    for field in ("input", "output"):
        part = spec.get(field) if isinstance(spec, dict) else None
        uri = part.get("uri") if isinstance(part, dict) else None
        if isinstance(uri, str) and uri and "://" not in uri:
            message = f'"{uri}" is a path on this machine, which no pod can see: must be claim://NAME/PATH or s3://'
            more = ", or the records inline or in a ConfigMap" if field == "input" else ""
            yield FieldError(f"{at}.{field}.uri", message + more)


def field_errors(refusal: ApiError) -> list[FieldError]:
    """What an API server has found wrong with an object, field by field."""
    causes: list[Mapping[str, Any]] = (refusal.said.get("details") or {}).get("causes") or []
    if not causes:
        return [FieldError("", str(refusal.said.get("message") or refusal.message))]
    found = [(str(cause.get("field", "")), _SAID_BEFORE.sub("", str(cause.get("message", "")))) for cause in causes]
    return [FieldError("" if field == "<nil>" else field, message) for field, message in dict.fromkeys(found)]
