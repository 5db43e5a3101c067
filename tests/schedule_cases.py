"""Specs of a ScheduledGeneration, good and bad: a table that Python and a real API server must agree on."""

from __future__ import annotations

from typing import Any

import pytest

JsonObject = dict[str, Any]
BATCH: JsonObject = {"model": {"name": "m"}, "input": {"uri": "s3://in/reviews.jsonl"}}
FAN_OUT: JsonObject = {"input": {"uri": "s3://in/reviews.jsonl"}, "branches": [{"name": "one", "model": {"name": "m"}}]}
MINIMAL: JsonObject = {"schedule": "0 * * * *", "template": {"inferenceBatch": BATCH}}
DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
UPSTREAM: JsonObject = {"kind": "ScheduledGeneration", "name": "source"}
NIGHT: JsonObject = {"start": "22:00", "end": "06:00"}


def _batch(**fields: Any) -> JsonObject:
    return {"template": {"inferenceBatch": {**BATCH, **fields}}}


def _branch(name: str) -> JsonObject:
    return {"template": {"fanOutJob": {**FAN_OUT, "branches": [{"name": name, "model": {"name": "m"}}]}}}


NEW_OBJECTS: JsonObject = {"newObjects": {"atLeast": 100, "maxWaitSeconds": 600}}


def _triggered(trigger: JsonObject = NEW_OBJECTS, **fields: Any) -> JsonObject:
    reads = {"uri": "s3://in/*.txt", "format": "text", "objects": "ModifiedInWindow"}
    return {"schedule": None, "trigger": trigger, **_batch(input=reads), **fields}


BAD = (
    pytest.param({"schedule": ""}, "spec.schedule", id="an empty schedule"),
    pytest.param({"schedule": None}, "spec", id="neither a schedule nor a moment"),
    pytest.param({"runAt": "2026-01-15T12:00:00Z"}, "spec", id="a schedule and a moment"),
    pytest.param({"schedule": None, "runAt": "2026-01-15T12:00:00"}, "spec.runAt", id="a moment without a zone"),
    pytest.param({"schedule": None, "runAt": "tomorrow"}, "spec.runAt", id="a moment in words"),
    pytest.param({"schedule": None, "runAt": "1970-01-01T00:00:00Z"}, "spec.runAt", id="a moment before there was anything to run"),
    pytest.param({"schedule": None, "runAt": "2100-01-01T00:00:00Z"}, "spec.runAt", id="a moment in another century"),
    pytest.param({"schedule": "0 * * *"}, "spec.schedule", id="four fields of cron"),
    pytest.param({"schedule": "0 0 * * * *"}, "spec.schedule", id="six fields of cron"),
    pytest.param({"schedule": "CRON_TZ=UTC 0 * * * *"}, "spec.schedule", id="a time zone in the schedule"),
    pytest.param({"timeZone": "UTC; rm -rf"}, "spec.timeZone", id="no name of a zone"),
    pytest.param({"jitterSeconds": -1}, "spec.jitterSeconds", id="negative jitter"),
    pytest.param({"jitterSeconds": 86_401}, "spec.jitterSeconds", id="jitter of more than a day"),
    pytest.param({"concurrencyPolicy": "Queue"}, "spec.concurrencyPolicy", id="an unknown policy"),
    pytest.param({"startingDeadlineSeconds": 5}, "spec.startingDeadlineSeconds", id="a deadline that the CronJob controller may miss"),
    pytest.param({"failureBackoff": {"baseSeconds": 60, "capSeconds": 30}}, "spec.failureBackoff", id="a delay above its cap"),
    pytest.param({"failureBackoff": {"factor": 0}}, "spec.failureBackoff.factor", id="delays that vanish"),
    pytest.param({"failureBackoff": {"limit": 0}}, "spec.failureBackoff.limit", id="a backoff without a try"),
    pytest.param({"suspendAfterFailures": 0}, "spec.suspendAfterFailures", id="suspended before anything has failed"),
    pytest.param({"carryFailedRecords": True}, "spec.carryFailedRecords", id="taking up what runs beside each other have left"),
    pytest.param({"carryFailedRecords": True, "concurrencyPolicy": "Forbid", **_batch(input={"inline": [{"custom_id": "a", "text": "b"}],
                 "format": "jsonl"})}, "spec.carryFailedRecords", id="taking up records that each run has in itself"),
    pytest.param({"carryFailedRecords": True, "concurrencyPolicy": "Forbid", "template": {"fanOutJob": {**FAN_OUT, "input": {
                 "uri": "s3://in/x", "format": "jsonl"}, "split": {"by": "chunks", "size": 10}}}}, "spec.carryFailedRecords",
                 id="taking up parts"),
    pytest.param(_batch(input={"uri": "s3://in/x", "carriedFrom": "s3://out/earlier/"}), "spec.template",
                 id="the same leavings for each run"),
    pytest.param({"onDrift": "Pause"}, "spec.onDrift", id="paused for a drift that nobody looks for"),
    pytest.param({"onDrift": "Pause", **_batch(evaluation={})}, "spec.onDrift", id="paused for a drift from nothing"),
    pytest.param({"onDrift": "Stop"}, "spec.onDrift", id="an unknown answer to drift"),
    pytest.param({"maxDriftSeconds": 0}, "spec.maxDriftSeconds", id="no drift at all"),
    pytest.param({"failedJobsHistoryLimit": 101}, "spec.failedJobsHistoryLimit", id="too much history"),
    pytest.param({"window": {"lengthSeconds": 0}}, "spec.window.lengthSeconds", id="a window of no time"),
    pytest.param({"catchUp": {"policy": "Some"}}, "spec.catchUp.policy", id="an unknown way to catch up"),
    pytest.param({"catchUp": {"max": 101}}, "spec.catchUp.max", id="too much to catch up with"),
    pytest.param({"catchUp": {"policy": "All"}, "concurrencyPolicy": "Forbid"}, "spec.catchUp.policy",
                 id="catching up with what was passed over"),
    pytest.param({"allowedWindows": [{"start": "22:00"}]}, "spec.allowedWindows[0].end", id="a window without an end"),
    pytest.param({"allowedWindows": [{"start": "24:00", "end": "06:00"}]}, "spec.allowedWindows[0].start", id="no time of day"),
    pytest.param({"allowedWindows": [{**NIGHT, "days": ["Mon"]}]}, "spec.allowedWindows[0].days[0]", id="a day by half its name"),
    pytest.param({"allowedWindows": [{**NIGHT, "days": []}]}, "spec.allowedWindows[0].days", id="a window on no day"),
    pytest.param({"allowedWindows": [NIGHT] * 17}, "spec.allowedWindows", id="too many windows"),
    pytest.param({"allowedWindows": [NIGHT], "onWindowEnd": "Kill"}, "spec.onWindowEnd", id="an unknown end of a window"),
    pytest.param({"onWindowEnd": "Suspend"}, "spec.onWindowEnd", id="the end of a window that there is not"),
    pytest.param({"dependsOn": [{"kind": "Bulkhead", "name": "x"}]}, "spec.dependsOn[0].kind", id="a kind that is never complete"),
    pytest.param({"dependsOn": [{"kind": "FanOutJob"}]}, "spec.dependsOn[0].name", id="a dependency without a name"),
    pytest.param({"dependsOn": [{**UPSTREAM, "maxAgeSeconds": 0}]}, "spec.dependsOn[0].maxAgeSeconds", id="an age of nothing"),
    pytest.param({"dependsOn": [UPSTREAM] * 17}, "spec.dependsOn", id="too many dependencies"),
    pytest.param({"dependsOn": [{"kind": "InferenceBatch", "name": "x", "sameWindow": True}]}, "spec.dependsOn[0].sameWindow",
                 id="the window of a batch"),
    pytest.param({"dependsOn": [{"kind": "ScheduledGeneration", "name": "reports"}]}, "spec.dependsOn", id="a dependency on itself"),
    pytest.param({"dependsOn": [UPSTREAM], "onUnmet": "Run"}, "spec.onUnmet", id="an unknown way to do without"),
    pytest.param({"onUnmet": "Skip"}, "spec.onUnmet", id="passing over for nothing"),
    pytest.param({"trigger": NEW_OBJECTS}, "spec", id="a schedule and a trigger"),
    pytest.param(_triggered(runAt="2026-01-15T12:00:00Z"), "spec", id="a moment and a trigger"),
    pytest.param(_triggered({}), "spec.trigger.newObjects", id="a trigger by nothing"),
    pytest.param(_triggered({"newObjects": {"atLeast": 0}}), "spec.trigger.newObjects.atLeast", id="a run on no objects"),
    pytest.param(_triggered({"newObjects": {"maxWaitSeconds": 0}}), "spec.trigger.newObjects.maxWaitSeconds", id="a wait of no time"),
    pytest.param(_triggered({"newObjects": {"pollSeconds": 9}}), "spec.trigger.newObjects.pollSeconds", id="a storm of looks"),
    pytest.param(_triggered({"newObjects": {"settleSeconds": 0}}), "spec.trigger.newObjects.settleSeconds", id="objects in motion"),
    pytest.param(_triggered({"newObjects": {"uri": "package://a/b"}}), "spec.trigger.newObjects.uri", id="new objects in a package"),
    pytest.param(_triggered({"newObjects": {"since": "yesterday"}}), "spec.trigger.newObjects.since", id="since a moment in words"),
    pytest.param(_triggered(jitterSeconds=60), "spec.trigger", id="jitter without ticks"),
    pytest.param(_triggered(startingDeadlineSeconds=60), "spec.trigger", id="a deadline without ticks"),
    pytest.param(_triggered(window={"lengthSeconds": 60}), "spec.trigger", id="windows that would leave objects out"),
    pytest.param(_triggered(catchUp={"policy": "None"}), "spec.trigger", id="catching up without ticks"),
    pytest.param(_triggered(concurrencyPolicy="Replace"), "spec.trigger", id="objects whose run is replaced"),
    pytest.param(_triggered(dependsOn=[UPSTREAM], onUnmet="Skip"), "spec.trigger", id="objects that are passed over"),
    pytest.param(_triggered(**_batch(input={"uri": "s3://in/*.txt", "format": "text"})), "spec.trigger", id="all objects in each run"),
    pytest.param(_triggered(template={"fanOutJob": FAN_OUT}), "spec.trigger", id="all objects in each run of a fan-out"),
    pytest.param({"retention": 60}, "spec.retention", id="a field that is not there"),
    pytest.param(
        _batch(input={"uri": "s3://in/x", "window": {"startTime": "2026-01-01T00:00:00Z", "endTime": "2026-01-02T00:00:00Z"}}),
        "spec.template", id="the same window for each run"),
    pytest.param({"template": {}}, "spec.template", id="nothing to run"),
    pytest.param({"template": {"inferenceBatch": BATCH, "fanOutJob": FAN_OUT}}, "spec.template", id="two things to run"),
    pytest.param(_batch(shards=0), "spec.template.inferenceBatch.shards", id="an error in the template"),
    pytest.param(_batch(cancel=True), "spec.template", id="runs that cancel themselves"),
    pytest.param(_branch("b" * 40), "spec.template", id="a branch after which no pod can be named"),
)  # fmt: skip
"""Fields that differ from the minimal spec (None: it is not there), and the field that is wrong."""

BAD_NAMES = (
    pytest.param("x" * 41, id="41 characters"),
    pytest.param("hourly.reports", id="a dot"),
)

GOOD = (
    pytest.param({}, id="nothing but a schedule and a batch"),
    pytest.param({"schedule": "@hourly"}, id="a macro"),
    pytest.param(
        {"schedule": None, "runAt": "2026-01-15T12:00:00Z", "startingDeadlineSeconds": 600}, id="once, at a moment"
    ),
    pytest.param(
        _batch(input={"uri": "s3://in/{{ window.start }}/*.txt", "format": "text", "objects": "ModifiedInWindow"}),
        id="what was modified in the window of each run",
    ),
    pytest.param(
        {"carryFailedRecords": True, "concurrencyPolicy": "Replace"}, id="taking up what the run before has left"
    ),
    pytest.param(
        {"onDrift": "Pause", **_batch(evaluation={"reference": "s3://out/january/"})}, id="paused when a batch drifts"
    ),
    pytest.param(
        {
            "onDrift": "Pause",
            "template": {
                "fanOutJob": {
                    **FAN_OUT,
                    "branches": [
                        {
                            "name": "one",
                            "model": {"name": "m"},
                            "evaluation": {"reference": "s3://out/january/branches/one/"},
                        }
                    ],
                }
            },
        },
        id="paused when a branch drifts",
    ),
    pytest.param({"allowedWindows": [{**NIGHT, "days": list(DAYS)}]}, id="at night"),
    pytest.param(
        _triggered({"newObjects": {"atLeast": 1, "pollSeconds": 60, "settleSeconds": 60}}),
        id="whenever there is something new",
    ),
    pytest.param(
        _triggered(
            {
                "newObjects": {
                    "uri": "claim://data/in/**",
                    "atLeast": 1000,
                    "maxWaitSeconds": 600,
                    "pollSeconds": 30,
                    "settleSeconds": 900,
                    "since": "2026-01-15T12:00:00Z",
                }
            },
            concurrencyPolicy="Forbid",
            carryFailedRecords=True,
            allowedWindows=[{**NIGHT, "days": list(DAYS)}],
            dependsOn=[{**UPSTREAM, "sameWindow": True}],
            suspendAfterFailures=3,
        ),
        id="all that can be said of a trigger",
    ),
    pytest.param({"schedule": "H(0-29)/10 2-4,22 * JAN-MAR mon"}, id="all that cron can say"),
    pytest.param(
        {
            "timeZone": "America/Argentina/Buenos_Aires",
            "jitterSeconds": 600,
            "concurrencyPolicy": "Replace",
            "startingDeadlineSeconds": 60,
            "suspend": True,
            "window": {"lengthSeconds": 1800, "delaySeconds": 60},
            "allowedWindows": [{**NIGHT, "days": ["Monday", "Friday"], "timeZone": "Europe/Berlin"}],
            "onWindowEnd": "Suspend",
            "dependsOn": [
                {**UPSTREAM, "sameWindow": True, "maxAgeSeconds": 3600},
                {"kind": "InferenceBatch", "name": "reports", "sameWindow": False},
            ],
            "onUnmet": "Skip",
            "catchUp": {"policy": "None", "max": 100},
            "maxDriftSeconds": 300,
            "failureBackoff": {"limit": 5, "baseSeconds": 10, "factor": 3, "capSeconds": 600},
            "suspendAfterFailures": 3,
            "successfulJobsHistoryLimit": 0,
            "failedJobsHistoryLimit": 100,
            "template": {"fanOutJob": FAN_OUT},
        },
        id="all that can be said",
    ),
)
"""Fields that differ from the minimal spec."""


def manifest(spec: JsonObject, name: str = "reports") -> JsonObject:
    """A ScheduledGeneration of that spec, where it differs from the minimal one."""
    head = {"apiVersion": "headrace.dev/v1alpha1", "kind": "ScheduledGeneration", "metadata": {"name": name}}
    return {**head, "spec": {name: value for name, value in {**MINIMAL, **spec}.items() if value is not None}}
