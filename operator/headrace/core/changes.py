"""What may be changed of a child that exists. All else of it is as it was made: whoever wants it otherwise makes another."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from headrace.api import labels
from headrace.api.base import JsonObject

_JOB_FIELDS = ("suspend", "parallelism")
_BATCH_FIELDS = ("suspend", "cancel", "completionDeadlineSeconds")


def child_patch(known: Mapping[str, Any], desired: Mapping[str, Any]) -> JsonObject | None:
    """The merge patch that makes a child as desired; None when it is so already, or has nothing that may change."""
    if desired["kind"] == "Job":
        spec = {
            name: desired["spec"][name]
            for name in _JOB_FIELDS
            if name in desired["spec"] and desired["spec"][name] != known["spec"].get(name)
        }
        return {"spec": spec} if spec else None
    return _batch_patch(known, desired) if desired["kind"] == "InferenceBatch" else None


def _batch_patch(known: Mapping[str, Any], desired: Mapping[str, Any]) -> JsonObject | None:
    """Of a branch: whether it works, until when, and how often it was asked to try again."""
    spec = {n: desired["spec"].get(n) for n in _BATCH_FIELDS if desired["spec"].get(n) != known["spec"].get(n)}
    kept = {"labels": labels.ROUND, "annotations": labels.RETRY}
    metadata = {
        part: {name: desired["metadata"][part][name]}
        for part, name in kept.items()
        if name in desired["metadata"].get(part, {})
        and desired["metadata"][part][name] != known["metadata"].get(part, {}).get(name)
    }
    patch = {part: change for part, change in (("metadata", metadata), ("spec", spec)) if change}
    return patch or None
