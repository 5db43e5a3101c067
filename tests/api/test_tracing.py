"""Trace contexts as the W3C has them, ids that follow from what they tell of, and which records are in the sample."""

from __future__ import annotations

import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.api.tracing import (
    TraceContext,
    is_wanted,
    parse_ratio,
    record_sampled,
    span_id_of,
    trace_id_of,
    within,
)

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
HEX = st.text("0123456789abcdef", min_size=1)


def ids(length: int) -> st.SearchStrategy[str]:
    return st.text("0123456789abcdef", min_size=length, max_size=length).filter(lambda digits: int(digits, 16) > 0)


@given(trace_id=ids(32), span_id=ids(16), sampled=st.booleans())
def test_parse_reads_what_was_written(trace_id: str, span_id: str, *, sampled: bool) -> None:
    context = TraceContext(trace_id, span_id, sampled)
    assert TraceContext.parse(str(context)) == context


@pytest.mark.parametrize(
    ("text", "sampled"),
    [
        pytest.param(f"00-{TRACE}-{SPAN}-01", True, id="sampled"),
        pytest.param(f"00-{TRACE}-{SPAN}-00", False, id="not sampled"),
        pytest.param(f"00-{TRACE}-{SPAN}-03", True, id="with a flag that is newer than us"),
        pytest.param(f"01-{TRACE}-{SPAN}-01-more", True, id="of a later version, which may be longer"),
    ],
)
def test_parse_takes_a_context(text: str, *, sampled: bool) -> None:
    assert TraceContext.parse(text) == TraceContext(TRACE, SPAN, sampled)


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("", id="nothing"),
        pytest.param(f"ff-{TRACE}-{SPAN}-01", id="a version that cannot be"),
        pytest.param(f"00-{TRACE}-{SPAN}-01-more", id="more than this version has"),
        pytest.param(f"00-{'0' * 32}-{SPAN}-01", id="no trace id"),
        pytest.param(f"00-{TRACE}-{'0' * 16}-01", id="no span id"),
        pytest.param(f"00-{TRACE.upper()}-{SPAN}-01", id="capitals"),
        pytest.param(f"00-{TRACE}-{SPAN}", id="no flags"),
        pytest.param(f"00-{TRACE}-{SPAN}-01\n", id="a line end"),
    ],
)
def test_parse_begins_anew_with_what_is_no_context(text: str) -> None:
    assert TraceContext.parse(text) is None


@given(st.uuids())
def test_trace_id_of_an_object_is_its_uid(uid: uuid.UUID) -> None:
    assert trace_id_of(str(uid)) == uid.hex or uid.int == 0


@given(st.text())
def test_trace_id_of_anything_is_a_trace_id(uid: str) -> None:
    assert TraceContext.parse(str(TraceContext(trace_id_of(uid), SPAN))) is not None


def test_span_id_of_parts_tells_parts_apart() -> None:
    assert span_id_of("a", 1) == span_id_of("a", "1")
    assert len({span_id_of("a", "b"), span_id_of("ab"), span_id_of("b", "a"), span_id_of("a", "b", "")}) == 4


@pytest.mark.parametrize("ratio", [0.0, 0.01, 0.25, 1.0])
def test_within_takes_its_share_of_uuids_and_of_records(ratio: float) -> None:
    """A UUID has digits that are not random; the share must be right all the same."""
    uuids = (uuid.UUID(int=span, version=4) for span in _spread(20_000))
    assert sum(within(one.hex, ratio) for one in uuids) / 20_000 == pytest.approx(ratio, abs=0.01)
    context = TraceContext(TRACE, SPAN)
    records = sum(record_sampled(context, f"record-{number:06}", ratio) for number in range(20_000))
    assert records / 20_000 == pytest.approx(ratio, abs=0.01)


def _spread(count: int) -> list[int]:
    return [int(trace_id_of(f"{number}"), 16) for number in range(count)]


@given(record=st.text(), ratio=st.floats(0, 1))
def test_record_sampled_never_in_a_trace_that_is_not(record: str, ratio: float) -> None:
    assert not record_sampled(TraceContext(TRACE, SPAN, sampled=False), record, ratio)


@given(record=st.text(), less=st.floats(0, 1), more=st.floats(0, 1))
def test_record_sampled_is_the_same_for_all_branches_and_grows_with_the_ratio(
    record: str, less: float, more: float
) -> None:
    branch, other = TraceContext(TRACE, SPAN), TraceContext(TRACE, "a" * 16)
    less, more = min(less, more), max(less, more)
    assert record_sampled(branch, record, less) == record_sampled(other, record, less)
    assert record_sampled(branch, record, more) or not record_sampled(branch, record, less)


@pytest.mark.parametrize("text", ["", "1.1", "-0.1", "nan", "half"])
def test_parse_ratio_refuses_what_is_no_share(text: str) -> None:
    with pytest.raises(ValueError, match="from 0 to 1"):
        parse_ratio(text)


@pytest.mark.parametrize(
    ("env", "wanted"),
    [
        pytest.param({}, False, id="nothing is said"),
        pytest.param({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4318"}, True, id="an endpoint"),
        pytest.param({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://c/v1/traces"}, True, id="one for traces alone"),
        pytest.param({"OTEL_EXPORTER_OTLP_ENDPOINT": ""}, False, id="an empty one"),
        pytest.param({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c", "OTEL_SDK_DISABLED": "TRUE"}, False, id="disabled"),
        pytest.param(
            {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c", "OTEL_TRACES_EXPORTER": "none"}, False, id="no traces"
        ),
    ],
)
def test_is_wanted_where_somebody_has_said_where_to(env: dict[str, str], *, wanted: bool) -> None:
    assert is_wanted(env) == wanted
