"""What the documentation says is so: its YAML fits the models, its links lead somewhere, its settings and reasons are there."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from documents import PAGES, ROOT, Snippet, resolved, snippets
from generate.values import Values
from headrace.api.asking import Webhooks
from headrace.api.gateway import ServedModels
from headrace.api.inferencebatch import InferenceBatch
from headrace.api.kinds import kind_named
from headrace.api.reasons import Reason
from headrace.api.records import ErrorCode
from headrace.core.asking.requests import route_faults
from headrace.core.openai.models import model_faults

LINK = re.compile(r"\]\(([^)#:]+)(?:#[^)]*)?\)")
SETTING = re.compile(r"--set(?:-string|-json)?[ =](?:\"|')?([a-zA-Z.]+)=")
VALUE = re.compile(
    r"`((?:image|worker|metrics|tracing|networkPolicy|crds|rbac|defaultBulkhead|namespaces)\.?[a-zA-Z.]*)(?:=[^`]*)?`"
)


@pytest.mark.parametrize("snippet", [pytest.param(it, id=it.where) for it in snippets()])
def test_object_in_the_documentation_fits_the_models(snippet: Snippet) -> None:
    kind = kind_named(snippet.document.get("kind", ""))
    if kind is not None:
        kind.model.parse(resolved(snippet.document))
    elif "networkPolicy" in snippet.document:
        Values.parse(snippet.document)
    elif "models" in snippet.document:
        models = ServedModels.parse(snippet.document)
        assert [*model_faults(models), *route_faults(models)] == []
    elif "webhooks" in snippet.document:
        Webhooks.parse(snippet.document["webhooks"])


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_of_a_page_lead_somewhere(page: Path) -> None:
    targets = [target for target in LINK.findall(page.read_text()) if not target.startswith("http")]
    assert [target for target in targets if not (page.parent / target).exists()] == []


def test_settings_of_the_chart_that_the_documentation_names_are_there() -> None:
    schema = json.loads((ROOT / "charts/headrace/values.schema.json").read_text())
    text = "\n".join(page.read_text() for page in PAGES)
    named = {*SETTING.findall(text), *VALUE.findall(text)}
    assert len(named) > 10
    assert [name for name in named if not known(schema, name.split("."))] == []


def known(schema: dict[str, Any], path: list[str]) -> bool:
    """Whether there is a value at that path."""
    here = schema
    for part in path:
        reference = str(here.get("$ref", "")).rpartition("/")[2]
        inside = schema["$defs"][reference] if reference else here
        properties = inside.get("properties", {})
        if part not in properties:
            return False
        here = properties[part]
    return True


def test_troubleshooting_explains_every_reason() -> None:
    text = (ROOT / "docs/troubleshooting.md").read_text()
    assert [str(reason) for reason in Reason if f"`{reason}`" not in text] == []


def test_reference_has_every_field_of_a_batch() -> None:
    text = (ROOT / "docs/reference.md").read_text()
    for field in InferenceBatch.model_fields["spec"].annotation.model_fields.values():  # type: ignore[union-attr]
        assert f"`{field.alias}`" in text


def test_each_error_code_of_a_record_is_documented() -> None:
    page = (ROOT / "docs" / "inferencebatch.md").read_text()
    assert [code for code in ErrorCode if f"`{code}`" not in page] == []
