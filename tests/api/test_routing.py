"""Conditions on records: what is refused when an object is applied, and what is an error of a record."""

from __future__ import annotations

import pytest

from headrace.api.base import InvalidSpec
from headrace.api.routing import RoutingError, check_when, taker

LONG = {"custom_id": "r1", "text": "x" * 100, "body": {"messages": [{"role": "user"}, {"role": "tool"}]}}


@pytest.mark.parametrize(
    ("when", "why"),
    [
        pytest.param("record.", "column 8: Syntax error", id="an unfinished expression"),
        pytest.param("size(record.text) >", "Syntax error", id="a comparison with nothing"),
        pytest.param("(" * 1000, "is not an expression", id="a thousand parentheses"),
        pytest.param("text.size() > 3", "knows no text: the record is called record", id="a field without the record"),
        pytest.param(
            "len(record.text) > 3", "knows no function len: there are bool", id="a function of another language"
        ),
    ],
)
def test_check_when_refuses_what_can_never_be_evaluated(when: str, why: str) -> None:
    with pytest.raises(InvalidSpec) as caught:
        check_when(when, "spec.branches[0].when")
    (error,) = caught.value.errors
    assert error.field == "spec.branches[0].when"
    assert why in error.message
    assert "\n" not in error.message


@pytest.mark.parametrize(
    ("when", "taken"),
    [
        pytest.param("size(record.text) > 99", True, id="a size"),
        pytest.param("has(record.language) && record.language == 'de'", False, id="a field that may be missing"),
        pytest.param("record.body.messages.all(m, m.role != 'system')", True, id="all of a list"),
        pytest.param("record.custom_id.matches('^r[0-9]$')", True, id="a pattern"),
        pytest.param("true", True, id="always"),
    ],
)
def test_taker_says_whether_a_record_is_taken(when: str, taken: bool) -> None:
    check_when(when, "when")
    assert taker(when)(LONG) is taken


@pytest.mark.parametrize(
    ("when", "why"),
    [
        pytest.param("record.language == 'de'", "has(record.NAME)", id="a field that is not there"),
        pytest.param("record.text > 3", "No such overload", id="a text compared with a number"),
        pytest.param("size(record.text)", "must say true or false, not 100", id="a number for an answer"),
    ],
)
def test_taker_says_why_an_expression_does_not_fit_a_record(when: str, why: str) -> None:
    check_when(when, "when")
    with pytest.raises(RoutingError, match=why.replace("(", r"\(").replace(")", r"\)")):
        taker(when)(LONG)
