"""The page on security: what it says of rights is what is granted, and what it says holds a statement is there."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from headrace.shells.kube import rbac

from .test_chart import rights

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/security.md").read_text()
HELD_BY = sorted(set(re.findall(r"`(tests/[\w/]+\.py)(?:::(\w+))?`", PAGE)))


def listed() -> Iterator[tuple[str, str, str, str]]:
    """Each right of the page's table."""
    table = PAGE.partition("| group | resources | verbs | for |")[2].partition("\n\n")[0]
    for row in table.splitlines()[2:]:
        group, resources, verbs, _ = (cell.strip() for cell in row.strip().strip("|").split("|"))
        for resource in re.findall(r"`([^`]+)`", resources):
            for verb in verbs.split(", "):
                yield group.strip("`").strip('"'), resource, "", verb


def test_the_page_lists_the_rights_that_the_operator_has() -> None:
    assert set(listed()) == rights(rbac.namespaced_rules())
    ((lease,),) = ({it["resourceNames"][0] for it in rbac.lease_rules() if "resourceNames" in it},)
    assert f"`{lease}`" in PAGE
    beyond = {(resource, verb) for _, resource, _, verb in rights(rbac.cluster_rules())}
    assert beyond == {
        ("namespaces", "list"),
        ("namespaces", "watch"),
        ("bulkheads", "list"),
        ("bulkheads", "watch"),
        ("bulkheads/status", "patch"),
        ("customresourcedefinitions", "get"),
    }, "say so on the page too"


@pytest.mark.parametrize(("file", "name"), HELD_BY)
def test_what_the_page_says_holds_a_statement_is_there(file: str, name: str) -> None:
    text = (ROOT / file).read_text()
    assert not name or f"def {name}(" in text
