"""Which context an object works in. It follows from the object alone, so nothing is remembered anywhere.

Who applies an object may hand a context on by the annotation `headrace.dev/traceparent`; the runs of a schedule and the branches of a
fan-out get theirs that way too. Without one the object begins a trace, whose id is its uid.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

from headrace.api import labels
from headrace.api.base import JsonObject
from headrace.api.kinds import OurObject
from headrace.api.meta import Named
from headrace.api.tracing import TRACEPARENT, TraceContext, span_id_of, trace_id_of
from headrace.core.tracing.settings import Tracing


def given_context(metadata_annotations: Mapping[str, str]) -> TraceContext | None:
    """The context that was handed to an object; None when none was."""
    return TraceContext.parse(metadata_annotations.get(labels.TRACEPARENT, ""))


def context_of(parent: Named, round_: int, tracing: Tracing) -> TraceContext:
    """The span of one round of an object: what is done for it in that round belongs below."""
    metadata = parent.metadata
    given = given_context(metadata.annotations)
    trace_id = given.trace_id if given is not None else trace_id_of(metadata.uid)
    return TraceContext(trace_id, span_id_of(metadata.uid, round_), tracing.sampler.samples(trace_id, given))


def parent_id(parent: Named, round_: int) -> str | None:
    """The span above that of a round: of a retry, the object's first; of that, what was handed to the object."""
    if round_:
        return span_id_of(parent.metadata.uid, 0)
    given = given_context(parent.metadata.annotations)
    return given.span_id if given is not None else None


def tick_context(schedule: Named, tick: datetime, tracing: Tracing) -> TraceContext:
    """The span of a tick, which begins a trace of its own."""
    essence = (schedule.metadata.uid, tick.isoformat())
    trace_id = trace_id_of("/".join(essence))
    return TraceContext(trace_id, span_id_of(*essence), tracing.sampler.samples(trace_id, None))


def handed_on(context: TraceContext | None) -> dict[str, str]:
    """The annotation of an object that works in a context."""
    return {} if context is None else {labels.TRACEPARENT: str(context)}


def worker_variables(parent: Named, round_: int, tracing: Tracing | None) -> list[JsonObject]:
    """What the workers of an object are told about its trace, and where spans go."""
    if tracing is None:
        return []
    values = {TRACEPARENT: str(context_of(parent, round_, tracing)), **tracing.variables}
    return [
        *({"name": name, "value": value} for name, value in values.items()),
        *({"name": name, "valueFrom": source} for name, source in tracing.references.items()),
    ]


def submitted_in(batch: OurObject, known: OurObject | None, traceparent: str) -> OurObject:
    """The object as it is submitted by a process that works in a context. One that is known stays in the trace that it is in."""
    annotations = batch.metadata.annotations
    said = known.metadata.annotations.get(labels.TRACEPARENT, "") if known is not None else traceparent
    if labels.TRACEPARENT in annotations or TraceContext.parse(said) is None:
        return batch
    metadata = batch.metadata.model_copy(update={"annotations": {**annotations, labels.TRACEPARENT: said}})
    return batch.model_copy(update={"metadata": metadata})
