"""How a record that is not yet a request becomes one: a Jinja template and the shape that the task's endpoint wants."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any

from jinja2 import StrictUndefined, Template, TemplateSyntaxError, nodes
from jinja2.nodes import Getattr, Name, Node, Output, TemplateData
from jinja2.sandbox import ImmutableSandboxedEnvironment

from headrace.api.base import FieldError, InvalidSpec, JsonObject
from headrace.api.input import Prompt
from headrace.api.model import Task
from headrace.api.window import DataWindow

_ENVIRONMENT = ImmutableSandboxedEnvironment(undefined=StrictUndefined, autoescape=False, keep_trailing_newline=True)


_FIELD = "spec.input.prompt.template"


class PromptError(ValueError):
    """The template cannot be filled from this record; the message names the variable."""


def compile_template(prompt: Prompt) -> Template:
    """The prompt's template. Raises `InvalidSpec` when it is no template."""
    try:
        return _compiled(prompt.template)
    except TemplateSyntaxError as error:
        raise InvalidSpec([FieldError(_FIELD, f"line {error.lineno}: {error.message}")]) from error
    except (RecursionError, SyntaxError) as error:  # Python's own limits on what Jinja compiles to
        raise InvalidSpec([FieldError(_FIELD, "must not be nested so deeply")]) from error


@lru_cache(maxsize=128)
def _compiled(template: str) -> Template:
    """Compiled once: an operator looks at the same batch again and again."""
    return _ENVIRONMENT.from_string(template)


def check_template(prompt: Prompt) -> None:
    """Raise `InvalidSpec` when the template is none. It is only parsed: compiling would already run its constant parts."""
    _parse(prompt)


def substitutes_only(prompt: Prompt) -> bool:
    """Whether the template does nothing but put fields in their places.

    Any other template is a small program of the user's, and no sandbox bounds its time and memory: it belongs into a pod.
    """
    return all(isinstance(node, _SUBSTITUTION) for node in _parse(prompt).find_all(Node))


_SUBSTITUTION = (Output, TemplateData, Name, Getattr)


def _parse(prompt: Prompt) -> nodes.Template:
    try:
        return _ENVIRONMENT.parse(prompt.template)
    except TemplateSyntaxError as error:
        raise InvalidSpec([FieldError(_FIELD, f"line {error.lineno}: {error.message}")]) from error
    except RecursionError as error:
        raise InvalidSpec([FieldError(_FIELD, "must not be nested so deeply")]) from error


def requester(
    prompt: Prompt | None, task: Task, window: DataWindow | None = None
) -> Callable[[Mapping[str, Any]], JsonObject]:
    """A function from a record's fields to the body of its request for `task`; a window is known to the template too.

    Raises `InvalidSpec` at once when the template is wrong; the function raises `PromptError` for a record that does not fit it.
    """
    prompt = prompt or Prompt()
    template, given = compile_template(prompt), window.variables if window is not None else {}

    def request(fields: Mapping[str, Any]) -> JsonObject:
        try:
            text = template.render({**given, **fields} if given else fields)
        except Exception as error:  # a template is a small program of the user's: whatever it raises is its own fault
            raise PromptError(str(error) or type(error).__name__) from error
        return _body(text, prompt.system, task)

    return request


def _body(text: str, system: str | None, task: Task) -> JsonObject:
    if task == Task.EMBEDDING:
        return {"input": text}
    if task == Task.COMPLETION:
        return {"prompt": text}
    messages = [{"role": "system", "content": system}] if system else []
    return {"messages": [*messages, {"role": "user", "content": text}]}
