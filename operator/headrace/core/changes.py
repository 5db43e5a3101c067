"""What may be changed of a child that exists. All else of it is as it was made: whoever wants it otherwise makes another."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from headrace.api import labels
from headrace.api.base import JsonObject

JOB_FIELDS = ("suspend", "parallelism")
_BATCH_FIELDS = ("suspend", "cancel", "completionDeadlineSeconds")
_BATCH_MARKS = {"labels": (labels.ROUND,), "annotations": (labels.RETRY, labels.ALLOWED_WINDOW)}
CRON_FIELDS = (
    "schedule",
    "timeZone",
    "concurrencyPolicy",
    "startingDeadlineSeconds",
    "suspend",
    "successfulJobsHistoryLimit",
    "failedJobsHistoryLimit",
)


def child_patch(known: Mapping[str, Any], desired: Mapping[str, Any]) -> JsonObject | None:
    """The merge patch that makes a child as desired; None when it is so already, or has nothing that may change."""
    if desired["kind"] == "Job":
        spec = {
            name: desired["spec"][name]
            for name in JOB_FIELDS
            if name in desired["spec"] and desired["spec"][name] != known["spec"].get(name)
        }
        return {"spec": spec} if spec else None
    if desired["kind"] == "CronJob":
        spec = _different(known, desired, CRON_FIELDS)
        return {"spec": spec} if spec else None
    return _work_patch(known, desired) if desired["kind"] in ("InferenceBatch", "FanOutJob") else None


def _different(known: Mapping[str, Any], desired: Mapping[str, Any], fields: tuple[str, ...]) -> JsonObject:
    """Those of these spec fields that are not as desired; null for one that is to go."""
    return {name: desired["spec"].get(name) for name in fields if desired["spec"].get(name) != known["spec"].get(name)}


def _work_patch(known: Mapping[str, Any], desired: Mapping[str, Any]) -> JsonObject | None:
    """Of a branch or a run: whether it works, until when, how often it was asked to try again, and whether its window is open."""
    spec = _different(known, desired, _BATCH_FIELDS)
    marks = {part: _marks(known, desired, part, names) for part, names in _BATCH_MARKS.items()}
    metadata = {part: found for part, found in marks.items() if found}
    patch = {part: change for part, change in (("metadata", metadata), ("spec", spec)) if change}
    return patch or None


def _marks(known: Mapping[str, Any], desired: Mapping[str, Any], part: str, names: tuple[str, ...]) -> JsonObject:
    """Those of these labels or annotations that are desired and are not so yet."""
    wanted, there = desired["metadata"].get(part, {}), known["metadata"].get(part, {})
    return {name: wanted[name] for name in names if name in wanted and wanted[name] != there.get(name)}
