"""Prompts: a template and a record make a request, or a sentence about what does not fit."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.api.base import InvalidSpec
from headrace.api.input import Prompt
from headrace.api.model import Task
from headrace.api.prompts import PromptError, requester


def render(template: str, **fields: Any) -> Any:
    return requester(Prompt(template=template), Task.COMPLETION)(fields)["prompt"]


@pytest.mark.parametrize(
    ("task", "system", "body"),
    [
        pytest.param(Task.COMPLETION, None, {"prompt": "Hi!"}, id="a completion has a prompt"),
        pytest.param(Task.EMBEDDING, None, {"input": "Hi!"}, id="an embedding has an input"),
        pytest.param(Task.CHAT, None, {"messages": [{"role": "user", "content": "Hi!"}]}, id="a chat has a message"),
        pytest.param(
            Task.CHAT,
            "Be brief.",
            {"messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi!"}]},
            id="a chat has the system message first",
        ),
    ],
)
def test_requester_makes_the_body_of_the_task(task: Task, system: str | None, body: dict[str, Any]) -> None:
    prompt = Prompt(template="{{ greeting }}!", system=system)
    assert requester(prompt, task)({"greeting": "Hi"}) == body


def test_requester_without_a_prompt_takes_the_text() -> None:
    assert requester(None, Task.COMPLETION)({"text": "all of it\n"}) == {"prompt": "all of it\n"}


def test_a_prompt_is_text_and_not_html() -> None:
    assert render("{{ text }}\n", text="a < b & \"c\"") == 'a < b & "c"\n'  # fmt: skip


@pytest.mark.parametrize(
    ("template", "message"),
    [
        pytest.param("{{ title }}", "'title' is undefined", id="a variable that is missing"),
        pytest.param("{{ text.title_ }}", "'str object' has no attribute 'title_'", id="a field that is missing"),
        pytest.param("{{ 1 / number }}", "division by zero", id="a division by zero"),
        pytest.param("{{ '{0}{1}'.format(text) }}", "index out of range", id="a format with too few values"),
        pytest.param("{{ text.encode('x') }}", "unknown encoding: x", id="an encoding that is none"),
        pytest.param("{{ text | truncate(1) }}", "expected length >= 3", id="a filter that asserts"),
        pytest.param("{{ text | map('nope') | list }}", "No filter named 'nope'", id="a filter that is named at run time"),
        pytest.param("{% macro a() %}{{ a() }}{% endmacro %}{{ a() }}", "recursion", id="a macro without end"),
        pytest.param("{% include 'other' %}", "no loader", id="another file"),
        pytest.param("{{ text.__class__ }}", "unsafe", id="the way out of the sandbox"),
        pytest.param("{{ [1].append(2) }}", "unsafe", id="a change of a value"),
        pytest.param("{{ range(10 ** 9) }}", "Range too big", id="a range without bounds"),
    ],
)  # fmt: skip
def test_a_record_that_does_not_fit_is_an_error_of_the_record(template: str, message: str) -> None:
    with pytest.raises(PromptError, match=message):
        render(template, text="x", number=0)


@pytest.mark.parametrize(
    ("template", "message"),
    [
        pytest.param("{{ text", "line 1: unexpected end of template", id="an open expression"),
        pytest.param("a\n{% if text %}", "line 2: Unexpected end of template", id="an open condition"),
        pytest.param("{{ text | shout }}", "line 1: No filter named 'shout'", id="an unknown filter"),
        pytest.param("{{ " + "(" * 3000 + ")" * 3000 + " }}", "must not be nested so deeply", id="many parentheses"),
        pytest.param("{% if 1 %}" * 200 + "{% endif %}" * 200, "must not be nested so deeply", id="many conditions"),
    ],
)
def test_requester_refuses_what_is_no_template(template: str, message: str) -> None:
    """At once, and not when the first record comes."""
    with pytest.raises(InvalidSpec) as caught:
        requester(Prompt(template=template), Task.CHAT)
    (error,) = caught.value.errors
    assert error.field == "spec.input.prompt.template"
    assert error.message.startswith(message)


FRAGMENTS = st.sampled_from(
    ["{{", "}}", "{%", "%}", " ", "text", "x", "|", "join", ".", "[", "]", "(", ")", "0", "'a'", "+", "/", "%", "*", "-",
     "for", "in", "endfor", "if", "endif", "set", "=", "~", "and", "not", "\n", "tojson", "int", "format", "é"]
)  # fmt: skip


@settings(max_examples=1000, deadline=None)
@given(parts=st.lists(FRAGMENTS, min_size=1, max_size=20), text=st.text(max_size=5), x=st.none() | st.integers(0, 3))
def test_any_template_and_any_record_make_a_prompt_or_a_sentence(parts: list[str], text: str, x: int | None) -> None:
    """No other exception may come out, whatever Jinja and Python make of it."""
    try:
        request = requester(Prompt(template="".join(parts)), Task.COMPLETION)
    except InvalidSpec:
        return
    try:
        prompt = request({"text": text, "x": x})["prompt"]
    except PromptError as error:
        prompt = str(error)
    assert isinstance(prompt, str)
