"""Index ranges as Kubernetes writes them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.api.ranges import format_ranges, parse_ranges


@pytest.mark.parametrize(
    ("indexes", "text"),
    [
        pytest.param([], "", id="none"),
        pytest.param([3], "3", id="one"),
        pytest.param([7, 0, 1, 2, 3, 1], "0-3,7", id="runs, in any order, with repeats"),
        pytest.param([0, 2, 4], "0,2,4", id="no runs"),
    ],
)
def test_format_ranges(indexes: list[int], text: str) -> None:
    assert format_ranges(indexes) == text


@given(st.frozensets(st.integers(0, 10_000)))
def test_parse_ranges_takes_back_what_format_ranges_wrote(indexes: frozenset[int]) -> None:
    assert parse_ranges(format_ranges(indexes)) == indexes
