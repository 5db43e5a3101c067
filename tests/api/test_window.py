"""The window of a run's data: in URIs, in prompts, and as a rule about moments."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest

from headrace.api.input import Prompt
from headrace.api.model import Task
from headrace.api.prompts import PromptError, requester
from headrace.api.window import BadUriTemplate, DataWindow, fill_uri

NOON = datetime(2026, 1, 15, 12, 0, tzinfo=UTC)
WINDOW = DataWindow(start_time=NOON, end_time=NOON + timedelta(minutes=30))


@pytest.mark.parametrize(
    ("uri", "expected"),
    [
        pytest.param("s3://in/docs/*.txt", "s3://in/docs/*.txt", id="nothing to fill in"),
        pytest.param(
            "s3://in/{{ window.start.strftime('%Y/%m/%d/%H') }}/*.jsonl", "s3://in/2026/01/15/12/*.jsonl", id="a folder an hour"
        ),
        pytest.param("s3://in/{{ window.end }}.jsonl", "s3://in/2026-01-15T12:30:00Z.jsonl", id="the end as a whole"),
        pytest.param("s3://in/{{ '%02d' % window.start.day }}/", "s3://in/15/", id="a part of it"),
    ],
)  # fmt: skip
def test_fill_uri(uri: str, expected: str) -> None:
    assert fill_uri(uri, WINDOW) == expected


@pytest.mark.parametrize(
    "uri",
    [
        pytest.param("s3://in/{{ window.begin }}", id="no such field"),
        pytest.param("s3://in/{{ windw.start }}", id="no such variable"),
        pytest.param("s3://in/{{ window.start", id="not closed"),
        pytest.param("s3://in/{{ window.start.strftime() }}", id="a call that cannot be"),
        pytest.param("s3://in/{{ 1 // 0 }}", id="no number"),
        pytest.param("s3://in/{{ window.start.__class__ }}", id="what is inside of Python"),
    ],
)
def test_fill_uri_refuses(uri: str) -> None:
    with pytest.raises(BadUriTemplate, match="cannot be made of a window: "):
        fill_uri(uri, WINDOW)


def test_covers_its_first_moment_and_not_the_one_after_its_last() -> None:
    in_berlin = NOON.astimezone(timezone(timedelta(hours=1)))
    assert WINDOW.covers(in_berlin)
    assert WINDOW.covers(NOON + timedelta(minutes=29, seconds=59))
    assert not WINDOW.covers(NOON + timedelta(minutes=30))
    assert not WINDOW.covers(NOON - timedelta(seconds=1))


def test_requester_knows_the_window() -> None:
    prompt = Prompt(template="What is new in {{ text }} since {{ window.start }}, {{ window.start.strftime('%A') }}?")
    written = requester(prompt, Task.COMPLETION, WINDOW)({"text": "x"})
    assert written == {"prompt": "What is new in x since 2026-01-15T12:00:00Z, Thursday?"}


def test_requester_lets_a_field_of_the_record_win() -> None:
    assert requester(Prompt(template="{{ window }}"), Task.COMPLETION, WINDOW)({"window": "w"}) == {"prompt": "w"}


def test_requester_without_a_window_has_none_to_fill_in() -> None:
    with pytest.raises(PromptError, match="'window' is undefined"):
        requester(Prompt(template="{{ window.start }}"), Task.COMPLETION)({"text": "x"})
