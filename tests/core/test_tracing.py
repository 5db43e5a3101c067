"""Which context each object works in, and which spans the changes of its status are worth."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from builders import NOON, PLACE, a_batch, a_job, committed, look, planned
from fanout_builders import a_fan_out
from headrace.api import labels
from headrace.api.base import JsonObject
from headrace.api.inferencebatch import InferenceBatch
from headrace.api.meta import ConditionStatus
from headrace.api.reasons import ConditionType, Reason
from headrace.api.tracing import Span, TraceContext
from headrace.api.worker import Role
from headrace.core.children import plan_job
from headrace.core.fanout.observed import FanOutObserved
from headrace.core.fanout.reconcile import reconcile as reconcile_fan_out
from headrace.core.observed import Observed, Verdict, WorkerReport
from headrace.core.reconcile import reconcile
from headrace.core.tracing.context import context_of, parent_id, submitted_in, tick_context
from headrace.core.tracing.settings import Sampler, Tracing, tracing_of
from headrace.core.tracing.spans import spans

GIVEN = TraceContext("4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7")
ON = Tracing()
FAILURES_ONLY = Tracing(Sampler(ratio=0.0))
COLLECTOR = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4318"}


def in_context(context: TraceContext, **more: str) -> JsonObject:
    return {labels.TRACEPARENT: str(context), **more}


# settings


def test_tracing_of_an_environment_without_an_endpoint_is_none() -> None:
    assert tracing_of({"OTEL_TRACES_SAMPLER": "nonsense"}) is None


def test_tracing_of_tells_workers_what_they_need_and_no_credential() -> None:
    found = tracing_of(
        {
            **COLLECTOR,
            "OTEL_EXPORTER_OTLP_HEADERS": "authorization=canary",
            "OTEL_EXPORTER_OTLP_CERTIFICATE": "/etc/ca.pem",
            "OTEL_RESOURCE_ATTRIBUTES": "deployment.environment=test",
            "HEADRACE_TRACE_RECORD_RATIO": "0.5",
            "HEADRACE_TRACE_HEADERS_SECRET": "collector/headers",
            "PATH": "/bin",
        }
    )
    assert found is not None
    assert found.variables == {
        **COLLECTOR,
        "OTEL_RESOURCE_ATTRIBUTES": "deployment.environment=test",
        "HEADRACE_TRACE_RECORD_RATIO": "0.5",
    }
    reference = {"secretKeyRef": {"name": "collector", "key": "headers", "optional": True}}
    assert found.references == {"OTEL_EXPORTER_OTLP_HEADERS": reference}


@pytest.mark.parametrize(
    ("env", "said"),
    [
        pytest.param({"OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}, "OTEL_EXPORTER_OTLP_PROTOCOL must be", id="gRPC"),
        pytest.param({"OTEL_EXPORTER_OTLP_ENDPOINT": "collector:4318"}, "must be an http://", id="no URL"),
        pytest.param({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://u:p@c"}, "no user and no password", id="a password in it"),
        pytest.param({"OTEL_TRACES_SAMPLER": "sometimes"}, "OTEL_TRACES_SAMPLER must be", id="no such sampler"),
        pytest.param(
            {"OTEL_TRACES_SAMPLER": "traceidratio", "OTEL_TRACES_SAMPLER_ARG": "2"},
            "OTEL_TRACES_SAMPLER_ARG must be a number from 0 to 1",
            id="a share of two",
        ),
        pytest.param({"HEADRACE_TRACE_RECORD_RATIO": "1%"}, "HEADRACE_TRACE_RECORD_RATIO must", id="a percentage"),
        pytest.param({"HEADRACE_TRACE_HEADERS_SECRET": "name"}, "must be SECRET/KEY", id="a Secret without a key"),
    ],
)
def test_tracing_of_refuses_and_names_the_variable(env: dict[str, str], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        tracing_of({**COLLECTOR, **env})


@pytest.mark.parametrize(
    ("name", "argument", "own", "of_parent"),
    [
        pytest.param("always_on", "", True, True, id="always_on"),
        pytest.param("always_off", "", False, False, id="always_off"),
        pytest.param("traceidratio", "0", False, False, id="a share of nothing"),
        pytest.param("parentbased_always_off", "", False, True, id="who hands on has the say"),
        pytest.param("parentbased_traceidratio", "1", True, True, id="all"),
    ],
)
def test_sampler_says_of_a_trace_of_ours_and_of_one_that_is_handed_on_sampled(
    name: str, argument: str, *, own: bool, of_parent: bool
) -> None:
    sampler = Sampler.parse(name, argument)
    assert sampler.samples(GIVEN.trace_id, None) == own
    assert sampler.samples(GIVEN.trace_id, GIVEN) == of_parent


def test_sampler_obeys_who_hands_on_that_a_trace_is_not_sampled() -> None:
    assert not Sampler().samples(GIVEN.trace_id, GIVEN._replace(sampled=False))


# contexts


def test_context_of_an_object_begins_a_trace_with_its_uid() -> None:
    uid = "337ca0e9-3ac8-4f34-81aa-af03b4b2c3cd"
    batch = a_batch().with_meta(uid=uid).build()
    assert context_of(batch, 0, ON).trace_id == uid.replace("-", "")
    assert parent_id(batch, 0) is None


def test_context_of_an_object_that_was_handed_one_stays_in_that_trace() -> None:
    batch = a_batch().with_meta(annotations=in_context(GIVEN)).build()
    assert context_of(batch, 0, ON).trace_id == GIVEN.trace_id
    assert parent_id(batch, 0) == GIVEN.span_id
    assert parent_id(batch, 2) == context_of(batch, 0, ON).span_id, "a retry is below the first round"


def test_context_of_an_annotation_that_is_none_is_its_own() -> None:
    batch = a_batch().with_meta(annotations={labels.TRACEPARENT: "00-nonsense"}).build()
    assert parent_id(batch, 0) is None


def variables(job: JsonObject) -> dict[str, JsonObject]:
    return {it["name"]: it for it in job["spec"]["template"]["spec"]["containers"][0]["env"]}


def test_workers_are_told_their_context_and_where_spans_go() -> None:
    batch = a_batch().build()
    tracing = tracing_of({**COLLECTOR, "HEADRACE_TRACE_HEADERS_SECRET": "collector/headers"})
    found = variables(plan_job(batch, replace(PLACE, tracing=tracing)))
    assert found["TRACEPARENT"]["value"] == str(context_of(batch, 0, ON))
    assert found["OTEL_EXPORTER_OTLP_ENDPOINT"]["value"] == "http://collector:4318"
    assert "value" not in found["OTEL_EXPORTER_OTLP_HEADERS"]
    assert "TRACEPARENT" not in variables(plan_job(batch, PLACE)), "without traces nothing is said of them"


def test_branches_are_handed_the_context_of_their_fan_out_and_keep_it() -> None:
    fan_out = a_fan_out().validated().build()
    observed = FanOutObserved(fan_out, NOON, installation=replace(PLACE, tracing=ON))
    branches = [it for it in reconcile_fan_out(observed).children or () if it["kind"] == "InferenceBatch"]
    assert branches
    handed = {it["metadata"]["annotations"][labels.TRACEPARENT] for it in branches}
    assert handed == {str(context_of(fan_out, 0, ON))}


def test_each_tick_begins_a_trace_of_its_own() -> None:
    schedule = a_batch("nightly").build()
    contexts = [tick_context(schedule, NOON + timedelta(hours=hour), ON) for hour in range(3)]
    assert len({it.trace_id for it in contexts}) == len({it.span_id for it in contexts}) == 3


@pytest.mark.parametrize(
    ("annotations", "known", "expected"),
    [
        pytest.param({}, None, str(GIVEN), id="a new one works in the context of who submits it"),
        pytest.param({labels.TRACEPARENT: "mine"}, None, "mine", id="what the manifest says holds"),
        pytest.param({}, {}, None, id="one that is known without a context gets none"),
        pytest.param(
            {}, in_context(GIVEN._replace(span_id="1" * 16)), str(GIVEN._replace(span_id="1" * 16)), id="nor another"
        ),
    ],
)
def test_submitted_in_a_context(annotations: JsonObject, known: JsonObject | None, expected: str | None) -> None:
    batch = a_batch().with_meta(annotations=annotations).build()
    there = a_batch().with_meta(annotations=known).build() if known is not None else None
    assert submitted_in(batch, there, str(GIVEN)).metadata.annotations.get(labels.TRACEPARENT) == expected


def test_submitted_in_no_context_is_as_it_was() -> None:
    batch = a_batch().build()
    assert submitted_in(batch, None, "") is batch


# spans


def live(*looks: Observed, tracing: Tracing = ON) -> list[Span]:
    """The spans of a batch that is looked at like this, one look after the other."""
    found: list[Span] = []
    batch = looks[0].batch
    for one in looks:
        seen = replace(one, batch=batch)
        status = reconcile(seen).status
        found += spans(batch, status, seen.now, tracing)
        batch = batch.model_copy(update={"status": status})
    return found


def a_life(*reports: WorkerReport) -> list[Observed]:
    """Planned after 5 s, let in after 20, and done after 60."""
    batch, waits = a_batch(), Verdict(admitted=False, reason=Reason.QUOTA_EXCEEDED, position=1)
    run = a_job(Role.RUN, complete=True, succeeded_indexes=frozenset({0}))
    return [
        look(batch, after=1),
        look(batch, reports=[planned(100)], after=5, verdict=waits),
        look(batch, after=20),
        look(batch, jobs=[run], reports=reports, after=60),
        look(batch, jobs=[run], reports=reports, after=70),
    ]


def shown(found: list[Span]) -> list[tuple[str, int, int, str]]:
    return [
        (it.name, round((it.start - NOON).total_seconds()), round((it.end - NOON).total_seconds()), it.error)
        for it in found
    ]


def test_spans_of_a_batch_are_its_steps_and_its_life() -> None:
    found = live(*a_life(committed(0, 100)))
    assert shown(found) == [
        ("planning", 0, 5, ""),
        ("waiting", 5, 20, ""),
        ("running", 20, 60, ""),
        ("InferenceBatch reviews", 0, 60, ""),
    ]
    *steps, life = found
    assert {step.parent_id for step in steps} == {life.context.span_id}
    assert life.context == context_of(a_batch().build(), 0, ON)
    assert life.attributes["headrace.records.succeeded"] == 100
    assert life.attributes["gen_ai.usage.output_tokens"] == 500


def test_spans_of_a_trace_that_is_not_sampled_are_none_when_all_goes_well() -> None:
    assert live(*a_life(committed(0, 100)), tracing=FAILURES_ONLY) == []


def test_spans_of_a_trace_that_is_not_sampled_are_there_for_the_failed_records_below() -> None:
    (life,) = live(*a_life(committed(0, 99, failed=1)), tracing=FAILURES_ONLY)
    assert (life.name, life.context.sampled) == ("InferenceBatch reviews", True)


def test_spans_of_what_has_failed_say_why_in_a_word() -> None:
    (life,) = live(look(a_batch().with_spec(cancel=True), after=3), tracing=FAILURES_ONLY)
    assert life.error == Reason.CANCELLED


def test_spans_without_traces_are_none() -> None:
    batch = a_batch().build()
    assert spans(batch, batch.status, NOON, None) == ()


def ended(batch: InferenceBatch, seconds: float, tracing: Tracing = ON) -> tuple[Span, ...]:
    """The spans of an end after so many seconds."""
    now = NOON + timedelta(seconds=seconds)
    done = a_batch().with_condition(ConditionType.COMPLETE, ConditionStatus.TRUE, Reason.RECORDS_PROCESSED).build()
    status = batch.status.model_copy(update={"conditions": done.status.conditions, "completion_time": now})
    return spans(batch, status, now, tracing)


def test_spans_of_a_retry_are_below_the_first_round() -> None:
    at_work = a_batch().validated().with_status(retries=1, retry_time=NOON + timedelta(seconds=100)).build()
    life = ended(at_work, 130)[-1]
    assert shown([life]) == [("InferenceBatch reviews retry 1", 100, 130, "")]
    assert life.parent_id == context_of(at_work, 0, ON).span_id


def test_spans_of_a_run_tell_of_its_tick() -> None:
    tick = tick_context(a_batch("nightly").build(), NOON, ON)
    moments = {labels.TICK: "2026-01-15T12:00:00Z", labels.DUE: "2026-01-15T12:00:07Z"}
    run = a_batch("nightly-1").with_meta(
        labels={labels.SCHEDULED_GENERATION: "nightly"}, annotations=in_context(tick, **moments)
    )
    *_, life, told = ended(run.build(), 30)
    assert shown([told]) == [("tick of nightly", 0, 30, "")]
    assert told.context == tick
    assert life.parent_id == told.context.span_id
    assert told.attributes["headrace.due"] == moments[labels.DUE]


@pytest.mark.parametrize("tick", ["", "yesterday", "2026-01-15T12:00:00"])
def test_spans_of_a_run_whose_tick_is_no_moment_tell_of_none(tick: str) -> None:
    run = a_batch().with_meta(
        labels={labels.SCHEDULED_GENERATION: "nightly"}, annotations=in_context(GIVEN, **{labels.TICK: tick})
    )
    assert [it.name for it in ended(run.build(), 30)] == ["planning", "InferenceBatch reviews"]


def test_every_span_of_a_life_is_in_one_tree() -> None:
    for reports in ([committed(0, 100)], [committed(0, 60, failed=40)]):
        found = live(*a_life(*reports))
        known = {it.context.span_id for it in found}
        assert len(known) == len(found)
        assert len({it.context.trace_id for it in found}) == 1
        assert [it.name for it in found if it.parent_id not in known] == ["InferenceBatch reviews"]
        assert all(it.start <= it.end for it in found)
